"""Running a model on one image and recording what its head can show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from detectron2.config import CfgNode

from ovrs.errors import ConfigError, choose
from ovrs.explain.views import View, widest_view
from ovrs.files import replacing
from ovrs.heads import Quantity, all_quantities, recording
from ovrs.predictor import AnyImage, Predictor
from ovrs.structures import Sample
from ovrs.vocabulary import Vocabulary


@dataclass(frozen=True)
class Explanation:
    """What a head showed of one image.

    Attributes:
        picture: uint8 [H, W, 3], the view as the model saw it, without padding.
        view: which one it is.
        quantities: what was recorded, by name.
        values: {name: float32 array of the shape that the quantity's kind has}.
        vocabulary: the classes.
        pointed: whether somebody asked for a pixel; otherwise the view's point is the middle of the image.
    """

    picture: np.ndarray
    view: View
    quantities: dict[str, Quantity]
    values: dict[str, np.ndarray]
    vocabulary: Vocabulary
    pointed: bool

    def rows(self, count: int) -> tuple[str, ...]:
        """Return the names of so many rows: of the classes, or of the words where a quantity has one row for each."""
        names = self.vocabulary.names
        return names if count == len(names) else tuple(word for words in self.vocabulary.synonyms for word in words)

    def save_arrays(self, path: str | Path) -> Path:
        """Write all values, and the ``names`` of the classes, as one compressed ``.npz``, in full or not at all."""
        with replacing(path) as temporary, open(temporary, "wb") as stream:
            np.savez_compressed(stream, **self.values, names=np.array(self.vocabulary.names))
        return Path(path)


class Explainer:
    """A model whose head is looked into.

    Recording needs the head's own modules, so compilation and CUDA graphs are switched off; the digits are those of
    the model without them.

    Args:
        cfg: see :class:`ovrs.Predictor`.
    """

    def __init__(self, cfg: CfgNode) -> None:
        cfg = cfg.clone()
        cfg.defrost()
        cfg.TEST.COMPILE, cfg.TEST.CUDA_GRAPHS = "none", False
        self.predictor = Predictor(cfg)
        self.model = self.predictor.model

    @property
    def quantities(self) -> dict[str, Quantity]:
        """What can be shown, by name."""
        return all_quantities(self.model.head)

    def __call__(
        self,
        image: AnyImage,
        classes: Sequence[str],
        wanted: Sequence[str] = (),
        point: tuple[float, float] | None = None,
    ) -> Explanation:
        """Record one view of an image.

        Args:
            image: see :meth:`ovrs.Predictor.set_image`.
            classes: class strings, two at least.
            wanted: names of quantities; empty for all.
            point: (x, y), a pixel of the image, counted from its top left corner from 0.

        Raises:
            ConfigError: no quantity of such a name, or the point lies outside the image.
            DataError, VocabularyError: an image or a class list that cannot be used.
        """
        every = self.quantities
        quantities = {choose("--show", name, tuple(every)): every[name] for name in wanted or every}
        model, sample = self.model, self.predictor.sample(image)
        vocabulary = model.vocabulary(classes)
        place = None if point is None else _scaled(point, sample)
        with torch.inference_mode():
            view = widest_view(model.plan, model.normalise(sample["image"]), place)
            features = model.embed(view.pixels[None])
            with recording(model.head, quantities) as found:
                model.classify(features, vocabulary)
        values = {name: value[0].numpy() for name, value in found[0].items()}
        return Explanation(self._picture(view), view, quantities, values, vocabulary, point is not None)

    def _picture(self, view: View) -> np.ndarray:
        """Return what a view shows of the image."""
        top, bottom, left, right = view.inside
        pixels = (view.pixels * self.model.pixel_std + self.model.pixel_mean)[:, top:bottom, left:right]
        return pixels.round().clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy()


def _scaled(point: tuple[float, float], sample: Sample) -> tuple[float, float]:
    """Return where a pixel of an image is in the image as the model sees it, whose size may be another."""
    width, height = sample["width"], sample["height"]
    if not (0 <= point[0] < width and 0 <= point[1] < height):
        raise ConfigError(
            f"--pixel: {point[0]:g},{point[1]:g} lies outside the image of {width} x {height} pixels (width x height)."
        )
    seen_height, seen_width = sample["image"].shape[-2:]
    return (point[0] + 0.5) * seen_width / width - 0.5, (point[1] + 0.5) * seen_height / height - 0.5
