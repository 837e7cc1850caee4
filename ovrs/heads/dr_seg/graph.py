"""Rectifying features along a sparse graph that a prior draws (PDGR of DR-Seg, Eq. 7 to 9)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovrs.config.options import Options, option
from ovrs.heads.blocks.precision import full_precision

_EPSILON = 1e-6


@dataclass(frozen=True)
class GraphOptions(Options):
    """Readings of the paper's equations."""

    enabled: bool = option(True, "off: no refined cost, and FUSION.TYPE must be ori_only")
    topk: int = option(75, "neighbours per node (Table 6)", minimum=1)
    topk_includes_self: bool = option(False, "whether the node itself is one of them; it is heard in any case")
    sigma_f: float = option(2.0, "scale of the affinity, Eq. 7")
    sigma_s: float = option(0.05, "decay of the affinity with distance, Eq. 7")
    dist_mode: Literal["l2_sq", "l2"] = option("l2_sq", "the distance in Eq. 7, in cells: squared or not")
    edge_hidden: int = option(128, "hidden width of the edge MLP, Eq. 8", minimum=1)
    edge_input: Literal["unit_rms", "raw"] = option("unit_rms", "prior features scaled to unit RMS, or raw")
    edge_weight: Literal["mlp", "affinity", "mlp_x_affinity"] = option(
        "mlp", "Eq. 8, the affinity instead, or their product"
    )
    n_layers: int = option(2, "propagation layers; ReLU follows all but the last, a layer norm the last", minimum=1)
    degree: Literal["row", "col", "symmetrised"] = option(
        "row",
        "node degrees: sums of rows (each node's own list) or of columns of the weights, or of the rows after an "
        "edge in one direction became one in both",
    )
    residual: bool = option(False, "whether the input is added to the output")
    init: Literal["xavier", "eye"] = option("xavier", "of the propagation weights")
    ln_gamma_init: float = option(
        1.0, "scale of the rectified channels; 0 takes the mean channel RMS of the ranking file", minimum=0
    )


def affinity(prior: Tensor, grid: tuple[int, int], options: GraphOptions) -> Tensor:
    """Return A [B, N, N] = sigma_f cos^2 exp(-sigma_s dist / d_max) between the cells of a grid (Eq. 7).

    Args:
        prior: [B, N, D] features, N = h * w in row-major order.
        grid: (h, w).
        options: sigma_f, sigma_s and the kind of distance; d_max is the longest plain distance on the grid.
    """
    unit = F.normalize(prior, dim=-1)
    cosine = unit @ unit.transpose(1, 2)
    rows, columns = (torch.arange(side, device=prior.device, dtype=prior.dtype) for side in grid)
    cells = torch.cartesian_prod(rows, columns).view(-1, 2)
    distance = (cells[:, None] - cells[None]).square().sum(-1)
    if options.dist_mode == "l2":
        distance = distance.sqrt()
    longest = math.hypot(grid[0] - 1, grid[1] - 1)
    return options.sigma_f * cosine.square() * (-options.sigma_s * distance / (longest + _EPSILON)).exp()


def neighbours(affinity: Tensor, count: int, includes_self: bool) -> Tensor:
    """Return [B, N, K] indices: the ``count`` highest affinities of every node, then the node itself.

    Of equal affinities the lower index wins, on any device.

    Args:
        affinity: [B, N, N].
        count: neighbours; all nodes where there are fewer.
        includes_self: whether the node itself takes one of the ``count`` places.
    """
    nodes = affinity.shape[-1]
    itself = torch.eye(nodes, dtype=torch.bool, device=affinity.device)
    ranked = affinity.masked_fill(itself, -math.inf).sort(dim=-1, descending=True, stable=True).indices
    others = ranked[..., : min(count - includes_self, nodes - 1)]
    return torch.cat([others, torch.arange(nodes, device=affinity.device)[:, None].expand(len(affinity), -1, 1)], -1)


def _nodes(maps: Tensor) -> Tensor:
    """[B, C, h, w] -> [B, h * w, C]."""
    return maps.flatten(2).transpose(1, 2)


class GraphRectification(nn.Module):
    """Propagates structural channels between cells that the prior finds alike.

    Args:
        channels: structural channels.
        prior_dim: width D of the prior.
        options: readings of the equations.
        gamma: initial scale of the output's layer norm.
    """

    exact_weights = True  # see ovrs.inference.copies

    def __init__(self, channels: int, prior_dim: int, options: GraphOptions, gamma: float) -> None:
        super().__init__()
        self.options = options
        # Linear(2 D -> m) over [g_i ; g_j], as one layer per end: [B, N, K, 2 D] is never formed.
        self.receiver = nn.Linear(prior_dim, options.edge_hidden)
        self.sender = nn.Linear(prior_dim, options.edge_hidden, bias=False)
        self.edge = nn.Linear(options.edge_hidden, 1)
        bound = 1 / math.sqrt(2 * prior_dim)  # what nn.Linear would draw from for both ends together
        for parameter in (self.receiver.weight, self.receiver.bias, self.sender.weight):
            nn.init.uniform_(parameter, -bound, bound)

        self.layers = nn.ModuleList(nn.Linear(channels, channels, bias=False) for _ in range(options.n_layers))
        for layer in self.layers:
            (nn.init.eye_ if options.init == "eye" else nn.init.xavier_uniform_)(layer.weight)
        self.norm = nn.LayerNorm(channels)
        nn.init.constant_(self.norm.weight, gamma)

    def forward(self, features: Tensor, prior: Tensor) -> Tensor:
        """Rectify [B, C, h, w] features along the graph of a prior [B, D, h, w] on the same grid."""
        # In fp32 throughout: close affinities decide who is a neighbour, and the work is small.
        with full_precision(features):
            dtype = self.norm.weight.dtype
            grid = tuple(features.shape[-2:])
            x = _nodes(features.to(dtype))
            weights = self.propagation(_nodes(prior.to(dtype)), grid)
            rectified = x
            for index, layer in enumerate(self.layers):
                rectified = weights @ layer(rectified)
                rectified = F.relu(rectified) if index < len(self.layers) - 1 else self.norm(rectified)
            if self.options.residual:
                rectified = rectified + x
            return rectified.transpose(1, 2).unflatten(2, grid)

    def graph(self, prior: Tensor) -> Tensor:
        """Return what :meth:`propagation` does, as [B, h, w, h, w], for a prior [B, D, h, w]."""
        return self._between_cells(self.propagation, prior)

    def affinity(self, prior: Tensor) -> Tensor:
        """Return :func:`affinity` as [B, h, w, h, w], for a prior [B, D, h, w]."""
        return self._between_cells(lambda nodes, grid: affinity(nodes, grid, self.options), prior)

    def _between_cells(self, between: Callable[[Tensor, tuple[int, int]], Tensor], prior: Tensor) -> Tensor:
        with full_precision(prior):
            grid = tuple(prior.shape[-2:])
            return between(_nodes(prior.to(self.norm.weight.dtype)), grid).unflatten(2, grid).unflatten(1, grid)

    def propagation(self, prior: Tensor, grid: tuple[int, int]) -> Tensor:
        """Return the normalised weights [B, N, N], row: receiver, column: sender (Eq. 9).

        Args:
            prior: [B, N, D] features.
            grid: (h, w), N = h * w.
        """
        options = self.options
        with torch.no_grad():
            affine = affinity(prior, grid, options)
            index = neighbours(affine, options.topk, options.topk_includes_self)
            present = torch.zeros_like(affine, dtype=torch.bool).scatter_(2, index, True)
            if options.degree == "symmetrised":
                present = present | present.transpose(1, 2)
                # Lists of unequal length, filled up with cells that are no neighbours.
                index = present.to(torch.uint8).sort(dim=2, descending=True, stable=True).indices
                index = index[..., : int(present.sum(2).max())]
        weights = torch.zeros_like(affine).scatter(2, index, self.edge_weights(prior, affine, index))
        weights = weights * present

        degree = weights.sum(1 if options.degree == "col" else 2) + _EPSILON
        scale = degree.rsqrt()
        return scale[:, :, None] * weights * scale[:, None]

    def edge_weights(self, prior: Tensor, affine: Tensor, index: Tensor) -> Tensor:
        """Return the weights [B, N, K] of the edges from ``index`` [B, N, K] to every node (Eq. 8)."""
        listed = affine.gather(2, index)
        if self.options.edge_weight == "affinity":
            return listed
        if self.options.edge_input == "unit_rms":
            prior = F.normalize(prior, dim=-1) * math.sqrt(prior.shape[-1])
        received, sent = self.receiver(prior), self.sender(prior)
        batch = torch.arange(len(prior), device=prior.device)[:, None, None]
        hidden = F.relu(received[:, :, None] + sent[batch, index])
        weights = F.softplus(self.edge(hidden).squeeze(-1))
        return weights * listed if self.options.edge_weight == "mlp_x_affinity" else weights
