"""The public API for people who have an image and a list of words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from detectron2.config import CfgNode

from ovrs.config import ConfigError, load_config
from ovrs.data.augmentation import resize_image, resized_shape
from ovrs.data.reading import read_image
from ovrs.engine import build_model, load_weights
from ovrs.inference import resolve_device


@dataclass(frozen=True)
class Prediction:
    """What was found in one image.

    Attributes:
        labels: [H, W] index into ``names`` at every pixel (uint8, or int32 above 255 classes).
        scores: [H, W] float32 in 0..1, the winner's score.
        names: the first word of every class, in the order they were given.
    """

    labels: np.ndarray
    scores: np.ndarray
    names: tuple[str, ...]


class Predictor:
    """Segments images into any classes.

    Args:
        cfg: a configuration with ``MODEL.WEIGHTS``; see :meth:`from_files` for the short way. A GPU that it names
            (training writes down the device it ran on) is used where there is one, otherwise the CPU.

    Examples:
        >>> from ovrs import Predictor                                                 # doctest: +SKIP
        >>> predictor = Predictor.from_files("output/config.yaml", "model_final.pth")  # doctest: +SKIP
        >>> found = predictor("town.png", ["building|house|roof", "road", "tree"])     # doctest: +SKIP
        >>> found.names[found.labels[0, 0]]                                            # doctest: +SKIP
        'tree'
    """

    def __init__(self, cfg: CfgNode) -> None:
        if not cfg.MODEL.WEIGHTS:
            raise ConfigError("MODEL.WEIGHTS is empty; a predictor needs a trained checkpoint.")
        cfg = cfg.clone()
        cfg.defrost()
        cfg.MODEL.DEVICE = resolve_device(cfg.MODEL.DEVICE, fall_back=True)
        self.cfg = cfg
        self.model = build_model(cfg).eval()
        load_weights(self.model, cfg.MODEL.WEIGHTS)

    @classmethod
    def from_files(cls, config_file: str | Path, weights: str | Path, overrides: Sequence[str] = ()) -> Predictor:
        """Build from a config file and a checkpoint.

        Args:
            config_file: YAML, for example the ``config.yaml`` that training leaves beside its checkpoints.
            weights: checkpoint of this project or of an original project.
            overrides: alternating keys and values.
        """
        return cls(load_config(config_file, [*overrides, "MODEL.WEIGHTS", str(weights)]))

    def __call__(self, image: np.ndarray | str | Path, classes: Sequence[str]) -> Prediction:
        """Segment one image.

        Args:
            image: uint8 [H, W, 3] RGB, or the path of an image file.
            classes: at least two class strings; ``|`` separates synonyms.

        Raises:
            VocabularyError: a class list that cannot be used.
            DataError: a file that is not a readable 8-bit image.
            ValueError: an array of another type or shape.
        """
        names = self.model.vocabulary(classes).names
        if not isinstance(image, np.ndarray):
            image = read_image(image)
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"image must be uint8 [H, W, 3], got {image.dtype} {list(image.shape)}.")
        height, width = image.shape[:2]
        node = self.cfg.INPUT
        resized = resize_image(image, *resized_shape(height, width, node.MIN_SIZE_TEST, node.MAX_SIZE_TEST))
        record = {
            "image": torch.from_numpy(np.ascontiguousarray(resized.transpose(2, 0, 1))),
            "vocabulary": tuple(classes),
            "height": height,
            "width": width,
        }
        with torch.inference_mode():
            result = self.model([record])[0]
        return Prediction(
            labels=result["labels"].cpu().numpy(),
            scores=result["scores"].cpu().numpy(),
            names=names,
        )
