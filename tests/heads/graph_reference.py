"""Graph rectification (PDGR) written down node by node and edge by edge.

It takes its weights from the module under test, so gradients can be compared too.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ovrs.heads.dr_seg.graph import GraphOptions, GraphRectification

Graph = list[list[int]]  # for every node, the nodes that it hears


def naive_rectification(module: GraphRectification, features: Tensor, prior: Tensor) -> Tensor:
    """Rectify [B, C, h, w] features along the graph of a prior [B, D, h, w]."""
    options, grid = module.options, tuple(features.shape[-2:])
    rectified = []
    for one, of_prior in zip(features.flatten(2), prior.flatten(2), strict=True):
        x, nodes = one.T, of_prior.T
        graph, affine = naive_graph(nodes, grid, options)
        weights = _edge_weights(module, nodes, graph, affine)
        hidden = x
        for index, layer in enumerate(module.layers):
            hidden = _gather(hidden @ layer.weight.T, graph, weights, options.degree)
            hidden = module.norm(hidden) if index == len(module.layers) - 1 else hidden.clamp(min=0)
        rectified.append((hidden + x if options.residual else hidden).T.unflatten(1, grid))
    return torch.stack(rectified)


def naive_graph(nodes: Tensor, grid: tuple[int, int], options: GraphOptions) -> tuple[Graph, list[list[float]]]:
    """For nodes [N, D]: the neighbours of every node, itself last, and Eq. 7."""
    count = len(nodes)
    vectors = [[float(value) for value in node] for node in nodes]
    longest = math.hypot(grid[0] - 1, grid[1] - 1)

    def affinity(i: int, j: int) -> float:
        a, b = vectors[i], vectors[j]
        dot = sum(p * q for p, q in zip(a, b, strict=True))
        cosine = dot / math.sqrt(sum(p * p for p in a)) / math.sqrt(sum(q * q for q in b))
        distance = math.dist(divmod(i, grid[1]), divmod(j, grid[1]))
        if options.dist_mode == "l2_sq":
            distance **= 2
        return options.sigma_f * cosine**2 * math.exp(-options.sigma_s * distance / (longest + 1e-6))

    affine = [[affinity(i, j) for j in range(count)] for i in range(count)]
    wanted = options.topk - options.topk_includes_self
    graph = []
    for i in range(count):
        others = sorted((j for j in range(count) if j != i), key=lambda j: (-affine[i][j], j))
        graph.append([*others[:wanted], i])
    if options.degree == "symmetrised":
        both = [set(listed) for listed in graph]
        graph = [[j for j in range(count) if j in both[i] or i in both[j]] for i in range(count)]
    return graph, affine


def _edge_weights(
    module: GraphRectification, nodes: Tensor, graph: Graph, affine: list[list[float]]
) -> dict[tuple[int, int], Tensor]:
    """Eq. 8 with the concatenation [g_i ; g_j] of receiver and sender, edge by edge."""
    options = module.options
    if options.edge_input == "unit_rms":
        nodes = nodes / nodes.square().mean(dim=1, keepdim=True).sqrt()
    first = torch.cat([module.receiver.weight, module.sender.weight], dim=1)
    weights = {}
    for i, listed in enumerate(graph):
        for j in listed:
            hidden = (first @ torch.cat([nodes[i], nodes[j]]) + module.receiver.bias).clamp(min=0)
            of_mlp = F.softplus(module.edge.weight[0] @ hidden + module.edge.bias[0])
            of_prior = torch.tensor(affine[i][j], dtype=of_mlp.dtype)
            choice = {"mlp": of_mlp, "affinity": of_prior, "mlp_x_affinity": of_mlp * of_prior}
            weights[i, j] = choice[options.edge_weight]
    return weights


def _gather(x: Tensor, graph: Graph, weights: dict[tuple[int, int], Tensor], degree: str) -> Tensor:
    """Eq. 9: every node sums what it hears; [N, C] -> [N, C]."""
    degrees = []
    for i in range(len(graph)):
        counted = [w for (receiver, sender), w in weights.items() if (sender if degree == "col" else receiver) == i]
        degrees.append(torch.stack(counted).sum() + 1e-6)
    return torch.stack(
        [sum(weights[i, j] / (degrees[i] * degrees[j]).sqrt() * x[j] for j in listed) for i, listed in enumerate(graph)]
    )
