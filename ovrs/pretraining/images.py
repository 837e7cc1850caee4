"""The images of a pre-training: which there are, and the crops that student and teacher see of each."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from detectron2.data import DatasetCatalog
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import InterpolationMode, v2

from ovrs.data import TrainingBatches, TrainingOrder, read_image, resolve_datasets
from ovrs.data.loader import limit_threads
from ovrs.data.order import SAMPLE_STREAM, numbered_generator
from ovrs.data.work import usable_cores
from ovrs.errors import DataError
from ovrs.pretraining.recipe import Recipe

ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".jp2", ".bmp", ".webp")
PIXEL_MEAN, PIXEL_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, as DINO has it
LARGE = 2  # crops that the teacher sees too

_BLUR_SIDE = 13  # pixels of the kernel: three deviations to each side of the strongest blur
_BLUR = (0.1, 2.0)  # least and greatest deviation, pixels

logger = logging.getLogger(__name__)

Batch = tuple[Tensor, Tensor, list[str]]


def find_images(source: str | Path) -> list[Path]:
    """Return the images of a folder, or of a data set, in a fixed order.

    Args:
        source: a folder, which is searched with all folders in it for files that end like images (:data:`ENDINGS`);
            or what :func:`ovrs.data.resolve_datasets` takes: the name of a data set, or a data card and a split.

    Raises:
        DataError: neither, or there is no image.
    """
    folder = Path(source)
    if not folder.is_dir():
        (name,) = resolve_datasets([str(source)])
        return [Path(record["file_name"]) for record in DatasetCatalog.get(name)]
    found = [path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS and not path.name.startswith(".")]
    if not found:
        raise DataError(f"{folder} holds no image: no file there ends with {', '.join(ENDINGS)}, in any case.")
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def fingerprint(files: Sequence[Path]) -> str:
    """Return the SHA-256 of the names of images, from the folder on that all are in: moving the folder keeps it."""
    root = os.path.commonpath([path.absolute().parent for path in files])
    names = "".join(f"{os.path.relpath(path, root)}\n" for path in files)
    return hashlib.sha256(names.encode()).hexdigest()


class Crops:
    """DINO's multi-crop augmentation (Caron et al., 2021, section 3.1; probabilities of its appendix, after BYOL)."""

    def __init__(self, recipe: Recipe) -> None:
        self._large = [
            _crop(recipe.global_size, recipe.global_scale, blur=1.0),
            _crop(recipe.global_size, recipe.global_scale, blur=0.1, solarise=0.2),
        ]
        self._small = _crop(recipe.local_size, recipe.local_scale, blur=0.5)
        self._count = recipe.local_crops

    def __call__(self, image: np.ndarray, seed: int) -> tuple[Tensor, Tensor]:
        """Return large [2, 3, S, S] and small [N, 3, s, s] crops, normalised, of a uint8 [H, W, 3] image."""
        pixels = torch.from_numpy(image).permute(2, 0, 1)
        with torch.random.fork_rng(devices=[]):  # torchvision draws from the global generator
            torch.manual_seed(seed)
            large = torch.stack([crop(pixels) for crop in self._large])
            small = [self._small(pixels) for _ in range(self._count)]
        return large, torch.stack(small) if small else large.new_empty(0, *large.shape[1:])


def _crop(size: int, scale: tuple[float, ...], blur: float, solarise: float = 0.0) -> v2.Transform:
    return v2.Compose(
        [
            v2.RandomResizedCrop(size, scale, interpolation=InterpolationMode.BICUBIC),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1)], p=0.8),
            v2.RandomGrayscale(p=0.2),
            v2.RandomApply([v2.GaussianBlur(_BLUR_SIDE, _BLUR)], p=blur),
            v2.RandomSolarize(threshold=128, p=solarise),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(PIXEL_MEAN, PIXEL_STD),
        ]
    )


class Images(Dataset):
    """The crops of an image at its place in the endless order: a function of seed and place."""

    def __init__(self, files: Sequence[Path], recipe: Recipe) -> None:
        # One array instead of many objects, so that workers that fork share it.
        self._files = np.array([str(path) for path in files])
        self._recipe, self._crops = recipe, Crops(recipe)
        self._bad: set[str] = set()

    def __getitem__(self, place: tuple[int, int]) -> tuple[Tensor, Tensor, str]:
        position, index = place
        image, file = self._read(index)
        seed = int(numbered_generator(self._recipe.seed, SAMPLE_STREAM, position).integers(2**63))
        return *self._crops(image, seed), file

    def _read(self, index: int) -> tuple[np.ndarray, str]:
        """Read an image; where it cannot be and that is allowed, the next one in the list that can be."""
        recipe = self._recipe
        for offset in range(len(self._files)):
            file = str(self._files[(index + offset) % len(self._files)])
            try:
                return read_image(file, bands=recipe.bands, value_range=recipe.value_range), file
            except DataError as error:
                if recipe.bad_images == "stop":
                    remedy = "Or leave all such files out: BAD_IMAGES skip."
                    if not recipe.value_range and "8 bits" in str(error):
                        remedy = f"Or give the range, where it is a TIFF or JPEG 2000 file: VALUE_RANGE. {remedy}"
                    raise DataError(f"{error} {remedy}") from None
                if file not in self._bad:
                    logger.warning("Left out, the next image takes its place: %s", error)
                    self._bad.add(file)
        raise DataError(f"none of the {len(self._files)} images can be read.")


def build_loader(
    files: Sequence[Path], recipe: Recipe, start: int, rank: int, world_size: int, pin_memory: bool
) -> DataLoader:
    """Build the endless loader of one process's share of every batch.

    Args:
        files: of the images.
        recipe: reads ``batch_size`` (a multiple of ``world_size``), ``seed``, ``workers`` and what crops need.
        start: number of the first batch.
        rank: of this process.
        world_size: number of processes.
        pin_memory: whether a GPU takes the batches.
    """
    order = TrainingOrder([len(files)], recipe.seed)
    batches = TrainingBatches(order, recipe.batch_size // world_size, start, rank, world_size)
    workers = min(recipe.workers, usable_cores())
    return DataLoader(
        Images(files, recipe),
        batch_sampler=batches,
        num_workers=workers,
        persistent_workers=workers > 0,
        collate_fn=_by_view,
        worker_init_fn=limit_threads,
        pin_memory=pin_memory,
        generator=torch.Generator(),  # otherwise the loader draws from the global one
    )


def _by_view(samples: list[tuple[Tensor, Tensor, str]]) -> Batch:
    """Return large [2 * B, 3, S, S] and small [N * B, 3, s, s] crops, the first crop of all images first; and files."""
    large, small, files = zip(*samples, strict=True)
    return torch.stack(large, 1).flatten(0, 1), torch.stack(small, 1).flatten(0, 1), list(files)
