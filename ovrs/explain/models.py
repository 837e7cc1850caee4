"""Several models side by side: images below each other, a column for every model, one palette, one legend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from ovrs.data import read_image, resolve_datasets
from ovrs.errors import ConfigError
from ovrs.gallery import segmented
from ovrs.predictor import OTHER, Predictor
from ovrs.visualization import Compared, Picture, class_colours, models_sheet


def compare_models(
    models: Mapping[str, CfgNode],
    images: Sequence[str | Path] = (),
    classes: Sequence[str] = (),
    *,
    dataset: str = "",
    limit: int = 4,
    colours: Mapping[str, str] | None = None,
    width: int = 256,
) -> Picture:
    """Draw what several models make of the same images; one model is in memory at a time.

    Args:
        models: {name on the sheet: configuration with weights}.
        images: files, segmented into ``classes``; or
        dataset: a registered name or CARD.yaml:split, whose images, classes, colours and truth are used.
        classes: class strings for ``images``.
        limit: images of the data set, from the first; 0 for all.
        colours: {class: "#rrggbb"} of some classes of ``images``.
        width: of every picture in pixels.

    Returns:
        [h, w, 3] uint8 RGB.

    Raises:
        ConfigError: neither images nor a data set, or both.
        DataError, VocabularyError: images or classes that cannot be used.
    """
    if bool(images) == bool(dataset):
        raise ConfigError("give images with classes, or a data set, and not both.")
    rows: list[Compared] = []
    names: list[str] = []
    for label, cfg in models.items():
        predictor = Predictor(cfg)
        if dataset:
            found = list(segmented(predictor.cfg, predictor.model, dataset, limit, label))
        else:
            predictions = [predictor(path, classes) for path in images]
            names = max(names, list(predictions[0].names), key=len)  # one more where a threshold makes "other"
            found = [
                Compared(Path(path).stem, read_image(path), None, {label: prediction.labels})
                for path, prediction in zip(images, predictions, strict=True)
            ]
        rows = _merged(rows, found) if rows else found
    if dataset:
        (name,) = resolve_datasets([dataset], next(iter(models.values())).DATASETS.ROOT)
        metadata = MetadataCatalog.get(name)
        names, palette = [*metadata.stuff_classes, OTHER], [*metadata.stuff_colors, (255, 255, 255)]
    else:
        palette = class_colours(names, colours)
    return models_sheet(rows, names, palette, width)


def _merged(rows: Sequence[Compared], found: Sequence[Compared]) -> list[Compared]:
    return [
        replace(row, predictions={**row.predictions, **other.predictions})
        for row, other in zip(rows, found, strict=True)
    ]
