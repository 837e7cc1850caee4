"""Upsampling of class maps with guidance: CAT-Seg's decoder, GSNet's RIPD, a level of HG-RSOVSSeg's HGU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovrs.heads.blocks.chunks import over_classes
from ovrs.heads.blocks.constant import constant
from ovrs.heads.blocks.precision import full_precision
from ovrs.heads.blocks.work import GUIDANCE, UPSAMPLING
from ovrs.structures import TowerFeatures

GROUP_WIDTH = 16  # channels per group of the decoders' GroupNorm


@constant
def _taps(device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return where a fine row under a 3x3 kernel finds its values on the coarse grid.

    Fine row 2y + r under tap d reads one half of cell y - 1 + r or y + r, the two rows that a 2x2 kernel sees: 1 at
    [row of the pair r, kernel row, half of the cell, tap d].
    """
    taps = torch.zeros(2, 2, 2, 3)
    for row in range(2):
        for tap in range(3):
            cell, half = divmod(row + tap - 1, 2)
            taps[row, cell + 1 - row, half, tap] = 1
    return taps.to(device, dtype)


class GuidedUpsampling(nn.Module):
    """Doubles the resolution, then mixes the result with guidance maps by two 3x3 convolutions.

    The first convolution runs over ``[upsampled ; guidance ...]``. Guidance that belongs to the image gives a
    share that is computed once per image and added to the share of every class.

    Both the transposed convolution and the share of ``upsampled`` in the first convolution are linear. Merged, they
    are one 2x2 convolution on the coarse grid for each of the four positions in a cell: the same function with
    ``16 in out`` instead of ``4 in up + 36 up out`` multiplications per cell.

    Args:
        in_dim: channels of the input.
        up_dim: channels after the transposed convolution.
        guidance_dims: channels of each guidance map, in the order of the weights.
        out_dim: channels of the output; a multiple of 16.
        merge: whether to compute with the merged convolution.
    """

    def __init__(
        self, in_dim: int, up_dim: int, guidance_dims: Sequence[int], out_dim: int, merge: bool = False
    ) -> None:
        super().__init__()
        if out_dim % GROUP_WIDTH:
            raise ValueError(f"the width of a decoder level must be a multiple of {GROUP_WIDTH}, got {out_dim}.")
        self.up_dim, self.merge = up_dim, merge
        self.exact_weights = merge  # merged before they are rounded, see ovrs.inference.copies
        groups = out_dim // GROUP_WIDTH
        self.up = nn.ConvTranspose2d(in_dim, up_dim, kernel_size=2, stride=2)
        self.conv1 = nn.Conv2d(up_dim + sum(guidance_dims), out_dim, 3, padding=1, bias=False)
        self.norm1 = nn.GroupNorm(groups, out_dim)
        self.conv2 = nn.Conv2d(out_dim, out_dim, 3, padding=1, bias=False)
        self.norm2 = nn.GroupNorm(groups, out_dim)

    def guide(self, guidance: Sequence[Tensor]) -> Tensor | None:
        """Return the guidance's share of the first convolution; ``None`` without guidance.

        [B, g, 2h, 2w] maps of images give [B, out, 2h, 2w]; [B, T, g, 2h, 2w] maps of classes [B, T, out, 2h, 2w].
        """
        if not guidance:
            return None
        maps = torch.cat(list(guidance), dim=-3)
        share = F.conv2d(maps.flatten(0, -4), self.conv1.weight[:, self.up_dim :], padding=1)
        return share.unflatten(0, maps.shape[:-3])

    def forward(self, x: Tensor, share: Tensor | None) -> Tensor:
        """Upsample ``x`` [B, T, in, h, w] with the ``share`` from ``guide`` -> [B, T, out, 2h, 2w]."""
        shape = x.shape[:2]
        x = x.flatten(0, 1)
        x = self._merged(x) if self.merge else F.conv2d(self.up(x), self.conv1.weight[:, : self.up_dim], padding=1)
        if share is not None:
            x = (x.unflatten(0, shape) + (share if share.dim() == 5 else share[:, None])).flatten(0, 1)
        x = F.relu(self.norm1(x), inplace=True)
        x = F.relu(self.norm2(self.conv2(x)), inplace=True)
        return x.unflatten(0, shape)

    def extra_work(self, x: Tensor, share: Tensor | None) -> dict[str, int]:
        """Guidance repeated for all classes but one, where they share it; upsampling apart, where ours is merged."""
        images, classes, channels, height, breadth = x.shape
        out, both, *kernel = self.conv1.weight.shape
        extra = {GUIDANCE: 0, UPSAMPLING: 0}
        if share is not None and share.dim() == 4:
            per_cell = (both - self.up_dim) * out * kernel[0] * kernel[1]
            extra[GUIDANCE] = (classes - 1) * images * 4 * height * breadth * per_cell
        if self.merge:
            up, cells = self.up_dim, height * breadth
            apart = 4 * cells * up * (channels + 9 * out)
            merged = 16 * (height + 1) * (breadth + 1) * channels * out
            # Made once per pass: all pairs of weights, their sums along both axes, and the bias with its map.
            weights = channels * out * (36 * up + 144 + 96) + 9 * out * (up + 4 * cells)
            extra[UPSAMPLING] = images * classes * (apart - merged) - weights
        return extra

    def _merged(self, x: Tensor) -> Tensor:
        """Upsampling and its share of the first convolution in one, [N, in, h, w] -> [N, out, 2h, 2w]."""
        height, width = x.shape[-2:]
        own = self.conv1.weight[:, : self.up_dim]
        with full_precision(x):  # weights, not activations: rounded once, when used
            taps = _taps(own.device, own.dtype)
            pairs = torch.einsum("ouyx,iuab->oiyaxb", own, self.up.weight)
            kernels = torch.einsum("sdbx,rcoixb->rsoicd", taps, torch.einsum("rcay,oiyaxb->rcoixb", taps, pairs))
            of_bias = torch.einsum("ouyx,u->oyx", own, self.up.bias)[:, None]

        # Padded by one, the 2x2 kernel of row r and column s starts at the cell (r, s).
        y = F.conv2d(x, kernels.flatten(0, 2), padding=1).unflatten(1, (4, -1))
        places = [(row, column) for row in range(2) for column in range(2)]
        parts = [y[:, i, :, r : r + height, s : s + width] for i, (r, s) in enumerate(places)]
        fine = F.pixel_shuffle(torch.stack(parts, dim=2).flatten(1, 2), 2)
        # The bias does not reach into the zero padding of the first convolution: less of it at the edges.
        return fine + F.conv2d(x.new_ones(1, 1, 2 * height, 2 * width), of_bias, padding=1)


def resampler(in_dim: int, out_dim: int, scale: Fraction) -> nn.Module:
    """Return a learned resampling by ``scale``: transposed, 1x1 or strided convolution, no overlap.

    Raises:
        ValueError: neither the scale nor its inverse is a whole number.
    """
    if scale == 1:
        return nn.Conv2d(in_dim, out_dim, kernel_size=1)
    if scale.denominator == 1:
        return nn.ConvTranspose2d(in_dim, out_dim, kernel_size=int(scale), stride=int(scale))
    if scale.numerator == 1:
        return nn.Conv2d(in_dim, out_dim, kernel_size=scale.denominator, stride=scale.denominator)
    raise ValueError(f"cannot resample by {scale}: towers' grids must be whole multiples of each other.")


@dataclass(frozen=True)
class Guide:
    """A tower that guides a decoder.

    Attributes:
        width: of the tower.
        blocks: whose outputs guide, one per level.
        cells: cells of the tower along the side of one cell of the cost maps.
    """

    width: int
    blocks: tuple[int, ...]
    cells: Fraction


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

    Guidance of the vision-language model takes the place of as many upsampled channels (CAT-Seg); that of other
    towers is added to them.

    Args:
        in_dim: channels of the cost maps.
        dims: channels after each level.
        guides: the guiding towers by name, in the order of the weights.
        tap_dims, tap_proj_dims: channels of the guidance after resampling and after projection, per level.
        initial_bias: of the predictor; ``None`` for PyTorch's own.
    """

    def __init__(
        self,
        in_dim: int,
        dims: Sequence[int],
        guides: Mapping[str, Guide],
        tap_dims: Sequence[int],
        tap_proj_dims: Sequence[int],
        initial_bias: float | None = None,
    ) -> None:
        super().__init__()
        self.blocks = {name: guide.blocks for name, guide in guides.items()}
        self.taps = nn.ModuleDict(
            {
                name: nn.ModuleList(
                    Tap(guide.width, hidden, out, 2 ** (level + 1) / guide.cells)
                    for level, (hidden, out) in enumerate(zip(tap_dims, tap_proj_dims, strict=True))
                )
                for name, guide in guides.items()
            }
        )
        self.stages = nn.ModuleList()
        width = in_dim
        for out, guidance in zip(dims, tap_proj_dims, strict=True):
            up = width - (guidance if "vlm" in guides else 0)
            self.stages.append(GuidedUpsampling(width, up, [guidance] * len(guides), out))
            width = out
        self.predictor = nn.Conv2d(width, 1, 3, padding=1)
        if initial_bias is not None:
            nn.init.constant_(self.predictor.bias, initial_bias)

    def guide(self, features: Mapping[str, TowerFeatures]) -> list[Tensor | None]:
        """Return the guidance of images for every level; once per image, not per class."""
        return [
            stage.guide([taps[i](features[name].blocks[self.blocks[name][i]]) for name, taps in self.taps.items()])
            for i, stage in enumerate(self.stages)
        ]

    def forward(self, x: Tensor, guidance: Sequence[Tensor | None], chunk: int) -> Tensor:
        """[B, T, C, h, w] cost maps -> [B, T, H, W] logits, ``chunk`` classes at a time; they do not see each other."""
        return over_classes(lambda part: self._decode(part, guidance), chunk, x)

    def _decode(self, x: Tensor, guidance: Sequence[Tensor | None]) -> Tensor:
        for stage, share in zip(self.stages, guidance, strict=True):
            x = stage(x, share)
        return self.predictor(x.flatten(0, 1)).squeeze(1).unflatten(0, x.shape[:2])
