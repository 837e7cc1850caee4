"""The decoder of CAT-Seg and its descendants: upsampling guided by block outputs of one or more towers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from fractions import Fraction

import torch.nn.functional as F
from detectron2.config import CfgNode
from torch import Tensor, nn

from ovrs.heads.blocks.chunks import over_classes
from ovrs.heads.blocks.decoder import GuidedUpsampling, resampler
from ovrs.structures import ImageFeatures, PriorFeatures, TowerSpec

# Names of the towers that can guide the decoder, in the order of the weights.
TOWERS = ("vlm", "companion", "prior")
_TOWER_KEY = {"prior": "MODEL.PRIOR", "companion": "MODEL.COMPANION"}
_NAMED_BY = {"prior": "MODEL.PRIOR.NAME", "companion": "MODEL.COMPANION.ARCH"}


@dataclass(frozen=True)
class DecoderOptions:
    """The decoder's shape and guidance; configuration keys have the same names in capitals.

    Attributes:
        decoder_dims: channels after each doubling of the resolution.
        tap_dims, tap_proj_dims: channels of the guidance after resampling and after projection, per level.
        use_vlm_taps, use_companion_taps, use_prior_taps: which towers guide the decoder.
        vlm_blocks, companion_blocks, prior_blocks: tapped blocks, one per level; empty for 1/3, 2/3, ... of the depth.
        initial_probability: of every class before training, as the predictor's bias; 0 for PyTorch's default.
    """

    decoder_dims: Sequence[int] = (64, 32)
    tap_dims: Sequence[int] = (256, 128)
    tap_proj_dims: Sequence[int] = (32, 16)
    use_vlm_taps: bool = True
    use_companion_taps: bool = False
    use_prior_taps: bool = False
    vlm_blocks: Sequence[int] = ()
    companion_blocks: Sequence[int] = ()
    prior_blocks: Sequence[int] = ()
    initial_probability: float = 0.0

    @classmethod
    def from_config(cls, cfg: CfgNode, node: CfgNode) -> DecoderOptions:
        """Read a head's group of configuration keys, and the common ones; a key that a head lacks keeps its default."""
        own = {option.name: node[option.name.upper()] for option in fields(cls) if option.name.upper() in node}
        return cls(**own, initial_probability=cfg.MODEL.SEM_SEG_HEAD.INITIAL_PROBABILITY)

    def taps(self, tower: str) -> bool:
        """Whether ``tower``, one of ``TOWERS``, guides the decoder."""
        return getattr(self, f"use_{tower}_taps")


STANDARD_DECODER = DecoderOptions()


class Tap(nn.Module):
    """Guidance for one decoder level: a tower's block output, resampled and projected.

    Args:
        in_dim: width of the tower.
        hidden: channels after resampling.
        out_dim: channels of the guidance.
        scale: decoder grid over tower grid.
    """

    def __init__(self, in_dim: int, hidden: int, out_dim: int, scale: Fraction) -> None:
        super().__init__()
        self.resample = resampler(in_dim, hidden, scale)
        self.project = nn.Conv2d(hidden, out_dim, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, h, w] -> [B, out, scale * h, scale * w], not negative."""
        return F.relu(self.project(self.resample(x)))


class GuidedDecoder(nn.Module):
    """Doubles the resolution per level, guided by taps, then predicts one logit per class and cell.

    Guidance of the VLM takes the place of as many upsampled channels (CAT-Seg); that of other towers is added to
    them.

    Args:
        in_dim: channels of the cost maps, which have the VLM's grid.
        towers: shapes of the towers by name; those that do not guide may be ``None`` or missing.
        options: shape and guidance.
        key: the head's group of configuration keys, for messages.

    Raises:
        ValueError: impossible options; the message names the key.
    """

    def __init__(self, in_dim: int, towers: Mapping[str, TowerSpec | None], options: DecoderOptions, key: str) -> None:
        super().__init__()
        levels = len(options.decoder_dims)
        for name in ("tap_dims", "tap_proj_dims"):
            values = list(getattr(options, name))
            if len(values) != levels:
                raise ValueError(
                    f"{key}.{name.upper()} must have one value per decoder level ({levels}), got {values}."
                )
        self.blocks: dict[str, tuple[int, ...]] = {}
        self.taps = nn.ModuleDict()
        for name in filter(options.taps, TOWERS):
            tower = towers.get(name)
            require_tower(tower, name, f"{key}.USE_{name.upper()}_TAPS")
            configured = getattr(options, f"{name}_blocks")
            self.blocks[name] = tapped_blocks(configured, tower.depth, levels, f"{key}.{name.upper()}_BLOCKS")
            ratio = grid_ratio(towers["vlm"], tower, name)
            scales = [2 ** (level + 1) / ratio for level in range(levels)]
            self.taps[name] = nn.ModuleList(
                map(Tap, [tower.width] * levels, options.tap_dims, options.tap_proj_dims, scales)
            )

        self.stages = nn.ModuleList()
        width = in_dim
        for out, guidance in zip(options.decoder_dims, options.tap_proj_dims, strict=True):
            up = width - (guidance if options.use_vlm_taps else 0)
            if up <= 0:
                raise ValueError(
                    f"{key}.TAP_PROJ_DIMS {list(options.tap_proj_dims)} must stay below the widths that enter the "
                    f"decoder levels: HIDDEN_DIM {in_dim}, then DECODER_DIMS {list(options.decoder_dims)}."
                )
            self.stages.append(GuidedUpsampling(width, up, [guidance] * len(self.taps), out))
            width = out
        self.predictor = nn.Conv2d(width, 1, 3, padding=1)
        probability = options.initial_probability
        if probability:
            nn.init.constant_(self.predictor.bias, math.log(probability / (1 - probability)))

    def guide(self, image: ImageFeatures, prior: PriorFeatures | None) -> list[Tensor | None]:
        """Return the guidance of images for every level; once per image, not per class."""
        features = {"vlm": image.blocks, "companion": image.companion, "prior": prior.blocks if prior else {}}
        return [
            stage.guide([taps[level](features[name][self.blocks[name][level]]) for name, taps in self.taps.items()])
            for level, stage in enumerate(self.stages)
        ]

    def forward(self, x: Tensor, guidance: Sequence[Tensor | None], chunk: int) -> Tensor:
        """[B, T, C, h, w] cost maps -> [B, T, H, W] logits, ``chunk`` classes at a time; they do not see each other."""
        return over_classes(lambda part: self._decode(part, guidance), chunk, x)

    def _decode(self, x: Tensor, guidance: Sequence[Tensor | None]) -> Tensor:
        for stage, share in zip(self.stages, guidance, strict=True):
            x = stage(x, share)
        return self.predictor(x.flatten(0, 1)).squeeze(1).unflatten(0, x.shape[:2])


def tapped_blocks(configured: Sequence[int], depth: int, levels: int, key: str) -> tuple[int, ...]:
    """Return the blocks of a tower that guide a decoder, shallow to deep as configured or evenly spread.

    Evenly spread are 3 and 7 of 12, 7 and 15 of 24, 5, 11 and 17 of 24. The last block is never among them.

    Raises:
        ValueError: ``configured``, the value of ``key``, is not one block below the last per level.
    """
    blocks = tuple(configured) or tuple((level + 1) * depth // (levels + 1) - 1 for level in range(levels))
    if len(blocks) != levels or not all(0 <= block < depth - 1 for block in blocks):
        raise ValueError(
            f"{key} must name {levels} blocks, one per decoder level, between 0 and {depth - 2}; got {list(blocks)}."
        )
    return blocks


def grid_ratio(vlm: TowerSpec, tower: TowerSpec, name: str) -> Fraction:
    """Return how many cells of a tower lie along the side of one VLM cell.

    Args:
        vlm: the tower whose grid the cost maps have.
        tower: the other one; the VLM itself gives 1.
        name: of the other one, among ``TOWERS``.

    Raises:
        ValueError: neither grid is a whole multiple of the other.
    """
    if tower is vlm:
        return Fraction(1)
    key = _TOWER_KEY[name]
    if bool(vlm.input_size) != bool(tower.input_size):
        raise ValueError(f"MODEL.VLM.INPUT_SIZE and {key}.INPUT_SIZE must both be set or both be 0.")
    if vlm.input_size:
        ratio = Fraction(tower.input_size // tower.patch_size, vlm.input_size // vlm.patch_size)
    else:
        ratio = Fraction(vlm.patch_size, tower.patch_size)
    if 1 not in (ratio.numerator, ratio.denominator):
        raise ValueError(
            f"the towers' grids do not match: MODEL.VLM.INPUT_SIZE {vlm.input_size} with patch {vlm.patch_size} and "
            f"{key}.INPUT_SIZE {tower.input_size} with patch {tower.patch_size} give {ratio} cells per VLM cell; one "
            "grid must be a whole multiple of the other."
        )
    return ratio


def require_tower(tower: TowerSpec | None, name: str, wanted_by: str) -> None:
    """Refuse a missing tower.

    Raises:
        ValueError: it is ``None``; the message names the option that wants it and the key that gives it.
    """
    if tower is None:
        raise ValueError(
            f"{wanted_by} is on, but {_NAMED_BY[name]} is empty: name a tower there, or turn the option off."
        )
