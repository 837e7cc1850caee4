"""Pictures of predictions, for people."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from torch import nn
from tqdm import tqdm

from ovrs.data import SegmentationMapper, read_image, resolve_datasets
from ovrs.visualization import comparison_sheet, save_image

logger = logging.getLogger(__name__)


def draw_predictions(cfg: CfgNode, model: nn.Module, dataset: str, folder: str | Path, limit: int = 0) -> list[Path]:
    """Draw image, truth and prediction side by side, with a legend, for a data set.

    Args:
        cfg: reads INPUT and DATASETS.ROOT.
        model: the segmenter.
        dataset: what :func:`ovrs.data.resolve_datasets` takes.
        folder: pictures go to ``FOLDER/DATASET/STEM.png``.
        limit: number of images, from the first; 0 for all.

    Returns:
        The paths of the pictures.
    """
    (name,) = resolve_datasets([dataset], cfg.DATASETS.ROOT)
    metadata = MetadataCatalog.get(name)
    mapper = SegmentationMapper(cfg, False, dataset_names=[name])
    records = DatasetCatalog.get(name)[: limit or None]
    paths = []
    model.eval()
    for record in tqdm(records, desc=f"drawing {name}", unit="image"):
        sample = mapper(record)
        with torch.inference_mode():
            prediction = model([sample])[0]["labels"].cpu().numpy()
        truth = sample["sem_seg"].numpy() if "sem_seg" in sample else None
        sheet = comparison_sheet(
            read_image(record["file_name"]),
            truth,
            prediction,
            list(metadata.stuff_classes),
            metadata.stuff_colors,
            title=f"{name}: {record['stem']}",
        )
        paths.append(save_image(Path(folder, name, f"{record['stem']}.png"), sheet))
    logger.info("%d pictures in %s", len(paths), Path(folder, name))
    return paths
