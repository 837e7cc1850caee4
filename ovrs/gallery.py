"""Pictures of predictions, for people."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from torch import nn
from tqdm import tqdm

from ovrs.data import SegmentationMapper, read_image, resolve_datasets
from ovrs.visualization import Compared, comparison_sheet, save_image

logger = logging.getLogger(__name__)


def segmented(
    cfg: CfgNode, model: nn.Module, dataset: str, limit: int = 0, label: str = "prediction"
) -> Iterator[Compared]:
    """Segment images of a data set, one after the other, as an evaluation does.

    Args:
        cfg: reads INPUT and DATASETS.ROOT.
        model: the segmenter.
        dataset: what :func:`ovrs.data.resolve_datasets` takes.
        limit: number of images, from the first; 0 for all.
        label: what the predictions are called.

    Yields:
        Image, truth where the set has labels, and the prediction; the title is the image's stem.
    """
    (name,) = resolve_datasets([dataset], cfg.DATASETS.ROOT)
    mapper = SegmentationMapper(cfg, False, dataset_names=[name])
    model.eval()
    for record in tqdm(DatasetCatalog.get(name)[: limit or None], desc=f"drawing {name}", unit="image"):
        sample = mapper(record)
        with torch.inference_mode():
            prediction = model([sample])[0]["labels"].cpu().numpy()
        truth = sample["sem_seg"].numpy() if "sem_seg" in sample else None
        yield Compared(record["stem"], read_image(record["file_name"]), truth, {label: prediction})


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
    paths = []
    for found in segmented(cfg, model, name, limit):
        (prediction,) = found.predictions.values()
        names, title = list(metadata.stuff_classes), f"{name}: {found.title}"
        drawn = comparison_sheet(found.image, found.truth, prediction, names, metadata.stuff_colors, title)
        paths.append(save_image(Path(folder, name, f"{found.title}.png"), drawn))
    logger.info("%d pictures in %s", len(paths), Path(folder, name))
    return paths
