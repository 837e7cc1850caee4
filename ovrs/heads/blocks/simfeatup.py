"""SimFeatUp: learned joint bilateral upsampling of features, guided by the image's pixels.

FeatUp (ICLR 2024, section 3.1) enlarges a feature map by 2 with a kernel per target pixel, made of how alike the
guiding pixels are (range) and how near (spatial). SegEarth-OV (CVPR 2025, section 3.2) applies one such block four
times (``jbu_one``); FeatUp itself has four (``jbu_stack``). Parameter names are those of the released files.

Both originals need a compiled operator. Here a stage is a matrix product: bicubic enlargement, reflected border and
kernel are all linear in the source, so the pixels of a target tile are one small dense matrix times the patch of
source cells below the tile.
"""

from __future__ import annotations

import logging

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovrs.heads.blocks.work import LAST_CONVOLUTION, as_published
from ovrs.zoo import resolve
from ovrs.zoo.state_dict import load_strictly, read_state_dict

logger = logging.getLogger(__name__)

STAGES = 4
TILE = 8  # side of a target tile; 8 needs 12 x 12 source cells, about as many as the kernel has taps
_GUIDE_WIDTH = 32
_CORRECTION = 0.1
_RELEASED = "upsampler."  # before the names in the released files
# Elements of gathered source patches at once: 64 MiB in fp32.
_GATHERED = 2**24


class JointBilateralUpsampler(nn.Module):
    """One enlargement by 2.

    Args:
        radius: of the kernel; 5 gives 11 x 11 taps.
    """

    def __init__(self, radius: int) -> None:
        super().__init__()
        self.radius, self.side = radius, 2 * radius + 1
        taps = self.side**2
        self.range_temp = nn.Parameter(torch.tensor(0.0))
        self.sigma_spatial = nn.Parameter(torch.tensor(1.0))
        # The third entry is a dropout of the originals' training.
        self.range_proj = nn.Sequential(
            nn.Conv2d(3, _GUIDE_WIDTH, 1), nn.GELU(), nn.Identity(), nn.Conv2d(_GUIDE_WIDTH, _GUIDE_WIDTH, 1)
        )
        self.fixup_proj = nn.Sequential(
            nn.Conv2d(taps + 3, taps, 1), nn.GELU(), nn.Identity(), nn.Conv2d(taps, taps, 1)
        )

    extra_work = as_published

    def kernels(self, guidance: Tensor) -> Tensor:
        """Return [B, taps, H, W] kernels, taps row by row, for a guiding image [B, 3, H, W]."""
        similar = self._range(guidance) * self._spatial()[:, None, None]
        similar = similar / similar.sum(dim=1, keepdim=True).clamp(min=1e-7)
        return similar + _CORRECTION * self.fixup_proj(torch.cat([similar, guidance], dim=1))

    def forward(self, source: Tensor, guidance: Tensor) -> Tensor:
        """Enlarge [B, C, h, w] to the size [B, 3, 2h, 2w] of the guiding image."""
        return apply_kernels(source, self.kernels(guidance))

    def _range(self, guidance: Tensor) -> Tensor:
        height, width = guidance.shape[-2:]
        projected = self.range_proj(guidance)
        padded = F.pad(projected, [self.radius] * 4, mode="reflect")
        padded = F.pad(padded, (0, -width % TILE, 0, -height % TILE))
        reach = TILE + self.side - 1
        around = padded.unfold(2, reach, TILE).unfold(3, reach, TILE)  # [B, 32, tiles, tiles, reach, reach]
        own = around[..., self.radius : self.radius + TILE, self.radius : self.radius + TILE]
        every = torch.einsum("bctuyx,bctupq->btuyxpq", own, around).contiguous()
        # Of the products of a tile's pixels with all around it, the taps of pixel (y, x) start at (y, x).
        *batch, at_y, at_x, at_p, at_q = every.stride()
        size = (*every.shape[:3], TILE, TILE, self.side, self.side)
        taps = every.as_strided(size, (*batch, at_y + at_p, at_x + at_q, at_p, at_q))
        b, down, across = size[:3]
        logits = taps.permute(0, 5, 6, 1, 3, 2, 4).reshape(b, -1, down * TILE, across * TILE)[..., :height, :width]
        return (self.range_temp.exp().clamp(1e-4, 1e4) * logits).softmax(dim=1)

    def _spatial(self) -> Tensor:
        line = torch.linspace(-1, 1, self.side, device=self.sigma_spatial.device)
        squared = line[:, None].square() + line[None].square()
        return torch.exp(-squared / (2 * self.sigma_spatial**2)).flatten()


class SimFeatUp(nn.Module):
    """Enlarges features sixteenfold.

    Args:
        width: channels of the features.
        kind: ``jbu_one`` (one block of radius 5, four times) or ``jbu_stack`` (four blocks of radius 3).
    """

    def __init__(self, width: int, kind: str = "jbu_one") -> None:
        super().__init__()
        if kind == "jbu_one":
            self.up = JointBilateralUpsampler(radius=5)
            self._blocks = ("up",) * STAGES
        else:
            self._blocks = tuple(f"up{stage + 1}" for stage in range(STAGES))
            for name in self._blocks:
                setattr(self, name, JointBilateralUpsampler(radius=3))
        self.fixup_proj = nn.Sequential(nn.Identity(), nn.Conv2d(width, width, 1))

    def forward(self, features: Tensor, image: Tensor) -> Tensor:
        """Return [B, C, 16 h, 16 w] features.

        The last convolution mixes channels and the stages mix places, so it is applied first, where there are 256
        times fewer cells. Its bias comes last: kernels do not sum to 1, so a constant would not survive them.

        Args:
            features: [B, C, h, w].
            image: [B, 3, H, W], normalised as for CLIP.
        """
        mix = self.fixup_proj[1]
        features = features + _CORRECTION * F.conv2d(features, mix.weight)
        for name in self._blocks:
            size = tuple(2 * side for side in features.shape[-2:])
            features = getattr(self, name)(features, F.adaptive_avg_pool2d(image, size))
        return features + _CORRECTION * mix.bias[:, None, None]

    def extra_work(self, features: Tensor, image: Tensor) -> dict[str, int]:
        """Return what the originals' last convolution multiplies at full resolution."""
        return {LAST_CONVOLUTION: (4**STAGES - 1) * features.numel() * features.shape[1]}


def load_simfeatup(upsampler: SimFeatUp, weights: str, key: str) -> None:
    """Fill an upsampler from a released file; what else is in the file (of its training) is left.

    Args:
        upsampler: to be filled.
        weights: path, or name in the catalogue; empty leaves random numbers, with a warning.
        key: the configuration key, for messages.

    Raises:
        WeightsError: no such file, or one of another kind or width.
    """
    if not weights:
        logger.warning("SimFeatUp: random weights (%s is empty)", key)
        return
    path = resolve(weights, key)
    state = read_state_dict(path)
    own = {name.removeprefix(_RELEASED): tensor.float() for name, tensor in state.items() if name.startswith(_RELEASED)}
    remedy = f"Is the file of the kind that {key.removesuffix('_WEIGHTS')} names, and for a CLIP of this width?"
    load_strictly(upsampler, own or state, str(path), remedy=remedy)


def apply_kernels(source: Tensor, kernels: Tensor) -> Tensor:
    """Enlarge bicubically by 2, reflect at the border, and apply a kernel of its own to every target pixel.

    Args:
        source: [B, C, h, w].
        kernels: [B, side * side, 2h, 2w], taps row by row.

    Returns:
        [B, C, 2h, 2w].
    """
    batch, channels, h, w = source.shape
    height, width = kernels.shape[-2:]
    side = round(kernels.shape[1] ** 0.5)
    row_starts, row_bands = _bands(h, side, source)
    column_starts, column_bands = _bands(w, side, source)
    down, across = len(row_starts), len(column_starts)
    kernels = F.pad(kernels, (0, across * TILE - width, 0, down * TILE - height))
    kernels = kernels.reshape(batch, side, side, down, TILE, across, TILE)
    rows = row_starts[:, None] + torch.arange(row_bands.shape[-1], device=source.device)
    columns = column_starts[:, None] + torch.arange(column_bands.shape[-1], device=source.device)

    step = max(_GATHERED // (batch * channels * rows.shape[1] * columns.numel()), 1)  # rows of tiles at once
    strips = []
    for first in range(0, down, step):
        part = slice(first, first + step)
        # Indices: t, u tile; y, x pixel in it; i, j tap; p, q source cell below the tile.
        weights = torch.einsum("bijtyux,tyip->bpjtyux", kernels[:, :, :, part], row_bands[part])
        weights = torch.einsum("bpjtyux,uxjq->btupqyx", weights, column_bands)
        cells = source[:, :, rows[part]][..., columns]  # [B, C, t, p, u, q]
        cells = cells.permute(0, 2, 4, 1, 3, 5).flatten(-2)
        strip = cells @ weights.flatten(-2).flatten(3, 4)  # [B, t, u, C, y * x]
        strip = strip.unflatten(-1, (TILE, TILE)).permute(0, 3, 1, 4, 2, 5)
        strips.append(strip.reshape(batch, channels, -1, across * TILE))
    return torch.cat(strips, dim=2)[..., :height, :width]


def _bands(length: int, side: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return, along one axis, where the source cells of every target tile start, and the weights of the cells.

    Returns:
        [tiles] starts, and [tiles, TILE, side, cells]: weight of a cell for a pixel's tap.
    """
    identity = torch.eye(length, dtype=torch.float32)[:, None, :, None]  # one column of cells per source cell
    enlarged = F.interpolate(identity, size=(2 * length, 1), mode="bicubic", align_corners=False)
    matrix = F.pad(enlarged, (0, 0, side // 2, side // 2), mode="reflect")[
        :, 0, :, 0
    ].T  # [2 length + side - 1, length]
    tiles = -(-2 * length // TILE)
    matrix = F.pad(matrix, (0, 0, 0, tiles * TILE - 2 * length))
    halo = (side // 2 + 1) // 2 + 1  # half the taps, and the reach of the bicubic kernel
    cells = min(TILE // 2 + 2 * halo, length)
    starts = (torch.arange(tiles) * (TILE // 2) - halo).clamp(0, length - cells)
    taps = torch.arange(TILE)[:, None] + torch.arange(side)  # of a tile's first pixel
    picked = starts[:, None] + torch.arange(cells)
    bands = torch.stack([matrix[TILE * tile + taps][..., picked[tile]] for tile in range(tiles)])
    return starts.to(like.device), bands.to(like)
