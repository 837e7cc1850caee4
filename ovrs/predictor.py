"""The public API for people who have an image and a list of words."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from PIL import Image

from ovrs.config import load_config
from ovrs.data import resolve_datasets
from ovrs.data.augmentation import SizeRule
from ovrs.data.rasters import read_orientation, turned_back
from ovrs.data.reading import read_image
from ovrs.engine import CheckpointStore, Ensemble, build_model, load_configured
from ovrs.errors import ConfigError, DataError, WeightsError
from ovrs.inference import resolve_device
from ovrs.inference.results import EncodedImages, Segmentation
from ovrs.raster import LocalExecutor, RasterOptions, map_rasters
from ovrs.raster.joint_windows import JointWindows
from ovrs.raster.model import WindowModel
from ovrs.raster.segmenter_windows import SegmenterWindows, window_side
from ovrs.scores import ScoreRule
from ovrs.structures import Sample
from ovrs.vocabulary import Vocabulary
from ovrs.zoo import config_of, resolve
from ovrs.zoo.release import read_release

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

AnyImage = np.ndarray | Image.Image | str | Path

OTHER = "other"  # the name of pixels that are none of the classes
SINGLE_CLASS_THRESHOLD = 0.5
CONTRAST = "background"  # what a head that only compares classes compares a single class with


@dataclass(frozen=True)
class Prediction:
    """What was found in one image.

    Attributes:
        labels: [H, W], in the grid of the stored file: index into ``names`` at every pixel (uint8, or int32 above 255
            names).
        scores: [H, W] float32 in 0..1, the probability of the pixel's best class.
        names: the first word of every class, in the order they were given; then ``other``, if a threshold or a class
            that stands alone makes such pixels.
        probabilities: [T, H, W] float32 in 0..1 of all classes, if they were asked for.
    """

    labels: np.ndarray
    scores: np.ndarray
    names: tuple[str, ...]
    probabilities: np.ndarray | None = None


class Predictor:
    """Segments images into any classes.

    Args:
        cfg: a configuration with ``MODEL.WEIGHTS``, or of a model that needs no training; see :meth:`from_files` and
            :meth:`from_pretrained` for the short ways. A GPU that it names (training writes down the device it ran on)
            is used where there is one, otherwise the CPU.

    Examples:
        >>> from ovrs import Predictor                                                 # doctest: +SKIP
        >>> predictor = Predictor.from_files("output/config.yaml", "model_final.pth")  # doctest: +SKIP
        >>> found = predictor("town.png", ["building|house|roof", "road", "tree"])     # doctest: +SKIP
        >>> found.names[found.labels[0, 0]]                                            # doctest: +SKIP
        'tree'

        One image, many questions: the towers run once.

        >>> predictor.set_image("town.png")                                            # doctest: +SKIP
        >>> roads = predictor.predict(["road", "railway", "something else"])           # doctest: +SKIP
        >>> roofs = predictor.predict(["roof"], threshold=0.4)                         # doctest: +SKIP
    """

    def __init__(self, cfg: CfgNode) -> None:
        cfg = cfg.clone()
        cfg.defrost()
        cfg.MODEL.DEVICE = resolve_device(cfg.MODEL.DEVICE, fall_back=True)
        self.cfg = cfg
        self.model = build_model(cfg).eval()
        self.weights_sha256 = load_configured(self.model, cfg)
        self._encoded: EncodedImages | None = None
        self._turns: list[int] = []
        self._single = True

    @classmethod
    def from_files(cls, config_file: str | Path, weights: str | Path, overrides: Sequence[str] = ()) -> Predictor:
        """Build from a config file and a checkpoint.

        Args:
            config_file: YAML, for example the ``config.yaml`` that training leaves beside its checkpoints.
            weights: checkpoint of this project or of an original project.
            overrides: alternating keys and values.
        """
        return cls(load_config(config_file, [*overrides, "MODEL.WEIGHTS", str(weights)]))

    @classmethod
    def from_pretrained(cls, name: str | Path, overrides: Sequence[str] = ()) -> Predictor:
        """Build a released model, or one that was trained here; see :func:`pretrained_config`."""
        return cls(pretrained_config(name, overrides))

    # ------------------------------------------------------------------ rasters

    def predict_raster(
        self,
        raster: str | Path | DatasetReader | Sequence[str | Path | DatasetReader],
        classes: Sequence[str],
        out: str | Path,
        *,
        threshold: float | None = None,
        **options: Any,
    ) -> dict[str, Any] | list[dict[str, Any]]:
        """Make maps of rasters of any size; memory does not grow with them.

        Args:
            raster: a path or an opened rasterio dataset (of a file), or a list of such.
            classes: class strings, see :meth:`predict`.
            out: folder of the results, see :func:`ovrs.raster.map_rasters`.
            threshold: see :meth:`predict`.
            options: fields of :class:`ovrs.raster.RasterOptions`.

        Returns:
            What :func:`ovrs.raster.map_rasters` says of the raster, or of each.

        Raises:
            DataError: the raster could not be mapped. In a list, a bad one does not keep the others from being mapped:
                its ``error`` says what is wrong.
        """
        single = not isinstance(raster, (list, tuple))
        sources = [each if isinstance(each, (str, Path)) else each.name for each in ([raster] if single else raster)]
        executor = LocalExecutor(self.window_model(classes, threshold))
        try:
            outcomes = map_rasters(sources, out, executor, RasterOptions(**options))
        finally:
            executor.close()
        if single and outcomes[0]["status"] == "failed":
            raise DataError(outcomes[0]["error"])
        return outcomes[0] if single else outcomes

    def window_model(self, classes: Sequence[str], threshold: float | None = None, batch_size: int = 0) -> WindowModel:
        """Return this model with a vocabulary, as the raster engine wants it.

        Args:
            classes: class strings, see :meth:`predict`.
            threshold: see :meth:`predict`.
            batch_size: windows per pass on a GPU; 0: 8.

        Raises:
            ConfigError: ``TEST.REFINE`` is one that does not work on windows.
        """
        vocabulary, rule, names = self._question(classes, threshold)
        identity = {
            "model": "Ensemble" if isinstance(self.model, Ensemble) else self.cfg.MODEL.SEM_SEG_HEAD.NAME,
            "weights": Path(self.cfg.MODEL.WEIGHTS).name,
            "weights_sha256": self.weights_sha256,
            "words": json.dumps(vocabulary.synonyms, ensure_ascii=False),
            "configuration_sha256": " ".join(map(_digest, (self.cfg, *getattr(self.model, "configurations", ())))),
            "refine": self.cfg.TEST.REFINE,
            "device": self.model.device.type,
        }
        if not isinstance(self.model, Ensemble):
            side = window_side(self.cfg, self.model)
            return SegmenterWindows(self.model, vocabulary, rule, names, side, identity, batch_size)
        members = []
        for member, cfg in zip(self.model.members, self.model.configurations, strict=True):
            own, side = Vocabulary(vocabulary.synonyms, member.templates), window_side(cfg, member)
            members.append(SegmenterWindows(member, own, member.rule(own), names, side, identity, batch_size))
        return JointWindows(members, self.model.shares, rule, names, identity)

    # ------------------------------------------------------------------ one image, many vocabularies

    def set_image(self, image: AnyImage | Sequence[AnyImage]) -> None:
        """Encode an image, or several, for any number of :meth:`predict` calls.

        Args:
            image: uint8 [H, W, 3] RGB, a PIL image, or the path of an image file; or a list of such.

        Raises:
            DataError: a file that is not a readable 8-bit image, or an array of another type or shape.
        """
        self._single = not isinstance(image, (list, tuple))
        samples, self._turns = self._samples([image] if self._single else image)
        with torch.inference_mode():
            self._encoded = self.model.encode(samples, keep=True)

    def predict(
        self, classes: Sequence[str], *, threshold: float | None = None, probabilities: bool = False
    ) -> Prediction | list[Prediction]:
        """Segment what :meth:`set_image` was given; only the head runs.

        Args:
            classes: class strings; ``|`` separates synonyms. A single class is segmented against everything else.
            threshold: pixels whose best class has a lower probability are "other"; ``None`` takes the
                configuration's (none, as a rule), and 0.5 for a single class.
            probabilities: whether results hold the probabilities of all classes, [T, H, W].

        Returns:
            One prediction, or a list of them where :meth:`set_image` was given a list.

        Raises:
            VocabularyError: a class list that cannot be used.
            ConfigError: there is no image yet.
        """
        if self._encoded is None:
            raise ConfigError("no image was given: call set_image(image) before predict(classes).")
        with torch.inference_mode():
            found = self._classify(self._encoded, self._turns, classes, threshold, probabilities)
        return found[0] if self._single else found

    def __call__(
        self,
        image: AnyImage | Sequence[AnyImage],
        classes: Sequence[str],
        *,
        threshold: float | None = None,
        probabilities: bool = False,
    ) -> Prediction | list[Prediction]:
        """Segment one image, or a list of images in one batch; see :meth:`set_image` and :meth:`predict`."""
        single = not isinstance(image, (list, tuple))
        self._question(classes, threshold)  # a class list that cannot be used is refused before the towers run
        samples, turns = self._samples([image] if single else image)
        with torch.inference_mode():
            found = self._classify(self.model.encode(samples), turns, classes, threshold, probabilities)
        return found[0] if single else found

    # ------------------------------------------------------------------ parts

    def _samples(self, images: Sequence[AnyImage]) -> tuple[list[Sample], list[int]]:
        """Return what the model sees of images, and how each was turned for it (EXIF, 1 to 8)."""
        turns = [read_orientation(image) if isinstance(image, (str, Path)) else 1 for image in images]
        return [self.sample(image) for image in images], turns

    def sample(self, image: AnyImage) -> Sample:
        """Return an image as the model is given it, with the size of its result.

        Args:
            image: see :meth:`set_image`.

        Raises:
            DataError: see :meth:`set_image`.
        """
        if isinstance(image, Image.Image):
            image = np.asarray(image.convert("RGB"))
        elif not isinstance(image, np.ndarray):
            image = read_image(image, apply_orientation=True)  # the model sees what viewers show
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise DataError(f"image must be uint8 [H, W, 3], got {image.dtype} {list(image.shape)}.")
        height, width = image.shape[:2]
        pixels = torch.from_numpy(np.ascontiguousarray(SizeRule.of(self.cfg)(image).transpose(2, 0, 1)))
        return Sample(image=pixels, height=height, width=width)

    def _question(
        self, classes: Sequence[str], threshold: float | None
    ) -> tuple[Vocabulary, ScoreRule, tuple[str, ...]]:
        """Return the vocabulary to ask, how its scores are read, and the names of the labels."""
        model = self.model
        vocabulary = Vocabulary.from_strings(classes, model.templates, minimum=1)
        names = vocabulary.names
        if len(names) > 1:
            rule = model.rule(vocabulary, threshold)
            return vocabulary, rule, (*names, OTHER) if rule.threshold and rule.below is None else names
        rule = model.rule(vocabulary, SINGLE_CLASS_THRESHOLD if threshold is None else threshold)
        if rule.activation == "softmax":  # compares classes, so it needs another one: label 1, as "other" has anyway
            vocabulary = Vocabulary.from_strings([*classes, CONTRAST], model.templates)
        return vocabulary, rule.below_is(1), (*names, OTHER)

    def _classify(
        self,
        encoded: EncodedImages,
        turns: Sequence[int],
        classes: Sequence[str],
        threshold: float | None,
        probabilities: bool,
    ) -> list[Prediction]:
        vocabulary, rule, names = self._question(classes, threshold)
        results = self.model.decode(encoded, vocabulary, rule)
        return [_prediction(found, turn, names, probabilities) for found, turn in zip(results, turns, strict=True)]


def pretrained_config(name: str | Path, overrides: Sequence[str] = ()) -> CfgNode:
    """Return the configuration of a trained model, with ``MODEL.WEIGHTS``.

    Args:
        name: of the catalogue (``ovrs models`` lists them; fetched if need be), the folder of a training, or a
            released file (``tools/export_release.py``), which says its configuration itself.
        overrides: alternating keys and values.

    Raises:
        WeightsError: no such model, a folder without ``config.yaml`` or a checkpoint, or a file that is no release.
    """
    folder = Path(name).expanduser()
    if folder.is_file():
        with TemporaryDirectory() as place:
            config, weights = Path(place, "release.yaml"), folder
            config.write_text(read_release(folder).config, encoding="utf-8")
            return load_config(config, [*overrides, "MODEL.WEIGHTS", str(weights)])
    if not folder.is_dir():
        config, weights = config_of(str(name)), resolve(name, "the model")
    else:
        config, weights = folder / "config.yaml", CheckpointStore(folder).last()
        if weights is None or not config.is_file():
            raise WeightsError(f"{folder} is no folder of a training: it needs config.yaml and last_checkpoint.")
    return load_config(config, [*overrides, "MODEL.WEIGHTS", str(weights)])


def trained_ground_size(cfg: CfgNode) -> float:
    """Return the metres per pixel that a model saw in training: ``INPUT.GSD``, else from the card of its data set.

    Raises:
        ConfigError: there is no card, it says none, or several; the message asks for a number.
    """
    if cfg.INPUT.GSD:
        return cfg.INPUT.GSD
    names = resolve_datasets(cfg.DATASETS.TRAIN)
    sizes = {str(getattr(MetadataCatalog.get(name).get("card"), "gsd_m", None)) for name in names}
    try:
        (size,) = sizes
        return float(size)
    except ValueError:
        told = ", ".join(sorted(sizes)) or "nothing"
        raise ConfigError(
            f"the cards of the training data {list(cfg.DATASETS.TRAIN)} say {told} of its ground size, which is no "
            "single number; give metres per pixel."
        ) from None


def load_windows(
    number: int, cfg: CfgNode, classes: Sequence[str], threshold: float | None = None, batch_size: int = 0
) -> WindowModel:
    """Build a model for the raster engine in a process of its own.

    Args:
        number: of the process; with several GPUs each takes another.
        cfg: see :class:`Predictor`.
        classes: class strings.
        threshold: see :meth:`Predictor.predict`.
        batch_size: see :meth:`Predictor.window_model`.
    """
    cfg = cfg.clone()
    cfg.defrost()
    if torch.cuda.device_count() > 1 and cfg.MODEL.DEVICE != "cpu":
        cfg.MODEL.DEVICE = f"cuda:{number % torch.cuda.device_count()}"
    return Predictor(cfg).window_model(classes, threshold, batch_size)


def _digest(cfg: CfgNode) -> str:
    """Return the SHA-256 of what makes a model, but for its weights and the device it runs on."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE = cfg.MODEL.WEIGHTS = ""
    return hashlib.sha256((cfg.MODEL.dump() + cfg.VOCABULARY.dump()).encode()).hexdigest()


def _prediction(result: Segmentation, turn: int, names: tuple[str, ...], probabilities: bool) -> Prediction:
    arrays: dict[str, Any] = {key: turned_back(result[key].cpu().numpy(), turn) for key in ("labels", "scores")}
    if probabilities:
        last = result["sem_seg"].permute(1, 2, 0).cpu().numpy()  # turns are of the first two axes
        arrays["probabilities"] = np.ascontiguousarray(turned_back(last, turn).transpose(2, 0, 1))
    return Prediction(names=names, **arrays)
