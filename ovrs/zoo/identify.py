"""What an unknown weights file is, told from the names and shapes of its tensors."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ovrs.errors import shortened
from ovrs.zoo.catalogue import catalogue
from ovrs.zoo.layouts import layout_of
from ovrs.zoo.state_dict import read_checkpoint, read_state_dict, sha256_of_file

OWN_LAYOUT = "this project"
FROZEN = "frozen"  # a slim checkpoint's entry about towers whose frozen tensors it leaves to their own weights
Shapes = Mapping[str, tuple[int, ...]]

# Per kind of tower: a tensor name that only it has, and what its layout is called.
_TOWERS = {
    "visual.conv1.weight": "open_clip",
    "vision_model.embeddings.patch_embedding.weight": "transformers CLIP (not read by this project: take open_clip's)",
    "storage_tokens": "DINOv3, Meta's names",
    "reg_token": "DINOv3, timm's names",
    "patch_embed.proj.weight": "DINO, timm's names",
}
_ITERATION = ("iteration", "iter", "step", "epoch")  # what training scripts of the field call it, best first


@dataclass(frozen=True)
class Identity:
    """What :func:`identify` finds out.

    Attributes:
        kind: a whole segmenter, one tower, or neither.
        layout: whose names the tensors have, in words.
        known_as: the catalogue's name of exactly this file (by SHA-256); "".
        archs: for a tower, the open_clip or timm models of its shape.
        progress: how far it was trained, such as "iteration 80000"; "" if the file does not say.
        holds: entries of the file beside its tensors.
        metadata: of a safetensors file.
        frozen: {tower: its weights} of which a slim checkpoint holds only what was trained.
        tensors: shapes by name; in this project's names if the layout is a known segmenter's.
        left_out: tensors of the layout that nothing reads.
        numbers: of all tensors together.
        sha256: of the file.
    """

    kind: Literal["segmenter", "tower", "unknown"]
    layout: str
    known_as: str
    archs: tuple[str, ...]
    progress: str
    holds: tuple[str, ...]
    metadata: Mapping[str, str]
    frozen: Mapping[str, str]
    tensors: Shapes
    left_out: tuple[str, ...]
    numbers: int
    sha256: str


@dataclass(frozen=True)
class Fit:
    """How a file's tensors compare with a model's.

    Attributes:
        missing: tensors of the model that the file lacks.
        surplus: tensors of the file that the model has no place for.
        reshaped: tensors whose shapes differ, "name: file's shape, model's shape".
    """

    missing: tuple[str, ...]
    surplus: tuple[str, ...]
    reshaped: tuple[str, ...]

    @property
    def exact(self) -> bool:
        """Whether the file fills the model without a tensor too many or too few."""
        return not (self.missing or self.surplus or self.reshaped)

    @property
    def distance(self) -> int:
        """How many tensors do not fit."""
        return len(self.missing) + len(self.surplus) + len(self.reshaped)

    def __str__(self) -> str:
        """Return the differences in words."""
        parts = {"missing": self.missing, "surplus": self.surplus, "of another shape": self.reshaped}
        found = [f"{len(names)} {what} ({shortened(names, 3)})" for what, names in parts.items() if names]
        return "; ".join(found) or "fits exactly"


def identify(path: str | Path) -> Identity:
    """Say what a weights file is. Nothing in it is run.

    Raises:
        WeightsError: the file cannot be read, or holds no tensors.
    """
    path = Path(path)
    sha256 = sha256_of_file(path) if path.is_file() else ""
    state = {name: tensor.to("meta") for name, tensor in read_state_dict(path).items()}
    layout = layout_of(state)
    renamed = layout.to_ours(state) if layout else state
    kind, words = _kind_of(renamed) if layout is None else ("segmenter", layout.name)
    content = {} if path.suffix == ".safetensors" else read_checkpoint(path)
    return Identity(
        kind=kind,
        layout=words,
        known_as=next((name for name, entry in catalogue().items() if entry.sha256 and entry.sha256 == sha256), ""),
        archs=tower_archs(shapes_of(state)) if kind == "tower" else (),
        progress=_progress(content),
        holds=tuple(str(key) for key, value in content.items() if not isinstance(value, Tensor)),
        metadata=read_metadata(path),
        frozen={tower: entry["config"]["WEIGHTS"] for tower, entry in content.get(FROZEN, {}).items()},
        tensors=shapes_of(renamed),
        left_out=tuple(name for name in state if layout and layout.drops(name)),
        numbers=sum(tensor.numel() for tensor in state.values()),
        sha256=sha256,
    )


def compare(found: Shapes, expected: Shapes, frozen: Iterable[str] = ()) -> Fit:
    """Compare the tensors of a file with those of a model, by name and shape.

    Args:
        found: of the file.
        expected: of the model.
        frozen: towers whose tensors need not be in the file.
    """
    elsewhere = tuple(f"{tower}." for tower in frozen)
    return Fit(
        missing=tuple(name for name in expected if name not in found and not name.startswith(elsewhere)),
        surplus=tuple(name for name in found if name not in expected),
        reshaped=tuple(
            f"{name}: {list(found[name])} in the file, {list(shape)} in the model"
            for name, shape in expected.items()
            if name in found and found[name] != shape
        ),
    )


def shapes_of(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of tensors by name."""
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def read_metadata(path: Path) -> dict[str, str]:
    """Return the metadata of a safetensors file; empty for other files."""
    if path.suffix != ".safetensors":
        return {}
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return dict(file.metadata() or {})


def tower_archs(shapes: Shapes) -> tuple[str, ...]:
    """Return the open_clip or timm models that tensors of these shapes fill, those of the catalogue first."""
    if "visual.conv1.weight" in shapes:
        found = _clip_archs(shapes)
    elif "patch_embed.proj.weight" in shapes:
        found = _dino_archs(shapes)
    else:
        return ()
    catalogued = {entry.arch for entry in catalogue().values()}
    return tuple(sorted(found, key=lambda arch: (arch not in catalogued, arch)))


def _kind_of(state: Mapping[str, Any]) -> tuple[Literal["segmenter", "tower", "unknown"], str]:
    if any(name.startswith("head.") for name in state) and any(name.startswith("vlm.") for name in state):
        return "segmenter", OWN_LAYOUT
    for marker, layout in _TOWERS.items():
        if marker in state:
            return "tower", layout
    return "unknown", f"no known layout; its tensors are {shortened(state, 4)}"


def _clip_archs(shapes: Shapes) -> list[str]:
    """Find open_clip's models by width, depth, patch and grid of the image tower, and width and depth of the text's."""
    import open_clip

    width, _, patch, _ = shapes["visual.conv1.weight"]
    side = round((shapes["visual.positional_embedding"][0] - 1) ** 0.5)
    text_width = shapes.get("ln_final.weight", (0,))[0]
    fits = []
    for arch in open_clip.list_models():
        config = open_clip.get_model_config(arch) or {}
        image, text = config.get("vision_cfg", {}), config.get("text_cfg", {})
        if (
            arch.removesuffix("-quickgelu") == arch
            and (image.get("width"), image.get("layers"), image.get("patch_size"))
            == (width, _depth(shapes, "visual.transformer.resblocks"), patch)
            and image.get("image_size") == side * patch
            and config.get("embed_dim") == shapes.get("visual.proj", (0, 0))[1]
            and (text.get("width"), text.get("layers")) == (text_width, _depth(shapes, "transformer.resblocks"))
        ):
            fits.append(arch)
    return fits


def _dino_archs(shapes: Shapes) -> list[str]:
    """Find the catalogue's priors by width, depth and patch."""
    import timm

    width, _, patch, _ = shapes["patch_embed.proj.weight"]
    fits = []
    for arch in sorted({entry.arch for entry in catalogue().values() if timm.is_model(entry.arch)}):
        with torch.device("meta"):
            vit = timm.create_model(arch, num_classes=0)
        rotary = "pos_embed" not in shapes
        if (vit.embed_dim, len(vit.blocks), vit.patch_embed.patch_size[0]) == (
            width,
            _depth(shapes, "blocks"),
            patch,
        ) and rotary == (getattr(vit, "pos_embed", None) is None):
            fits.append(arch)
    return fits


def _depth(names: Iterable[str], stem: str) -> int:
    pattern = re.compile(rf"{re.escape(stem)}\.(\d+)\.")
    return 1 + max((int(match[1]) for match in map(pattern.match, names) if match), default=-1)


def _progress(content: Mapping[str, Any]) -> str:
    """Return what a training checkpoint says about its progress; mmengine keeps it under 'meta'."""
    for place in (content, content.get("meta"), content.get("trainer")):
        if isinstance(place, Mapping):
            for key in _ITERATION:
                if isinstance(place.get(key), int):
                    return f"{key.replace('iter', 'iteration') if key == 'iter' else key} {place[key]}"
    return ""
