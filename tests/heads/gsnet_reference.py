"""GSNet's head written down naively: every map repeated for every class, every padding token and window explicit.

It takes its weights from the head under test, so gradients can be compared too. Maps are [B, T, C, H, W].
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovrs.heads import GSNetHead
from ovrs.heads.blocks.aggregator import AggregatorLayer, CostAggregator
from ovrs.heads.blocks.class_attention import ClassAttention
from ovrs.heads.blocks.decoder import GuidedDecoder, GuidedUpsampling
from ovrs.heads.blocks.swin import GuidedSwinBlock, GuidedWindowAttention
from ovrs.structures import TextFeatures, TowerFeatures


def naive_head(head: GSNetHead, features: dict[str, TowerFeatures], text: TextFeatures) -> Tensor:
    """Return the [B, T, h, w] logits of a head with any fusion and any taps."""
    mean = F.normalize(text.embeddings.mean(dim=1), dim=-1)
    streams = [features["vlm"].dense] if head.use_vlm_cost else []
    if head.use_prior_cost:
        streams.append(head.align(features["prior"].dense))
    x = naive_fusion(head.fusion, streams, mean[:, None] if head.mean_prompts else text.embeddings)
    x = naive_aggregation(head.aggregator, naive_layer, x, streams[0], mean)
    return naive_decoding(head.decoder, x, features)


def naive_cost(image: Tensor, text: Tensor) -> Tensor:
    """Cosine similarities [B * T, P, h, w], by one loop over the classes."""
    unit = image / image.norm(dim=1, keepdim=True)
    maps = [(unit[:, None] * prompts[None, :, :, None, None]).sum(dim=2) for prompts in text]
    return torch.stack(maps, dim=1).flatten(0, 1)


def naive_fusion(fusion: nn.Module, streams: list[Tensor], text: Tensor) -> Tensor:
    """QGFF (Eq. 2-3) and its ablations."""
    name = type(fusion).__name__
    if name == "SingleCost":
        maps = fusion.embed(naive_cost(streams[0], text))
    elif name == "QueryGuidedFusion":
        z_vlm = torch.sigmoid(fusion.costs.embed(naive_cost(streams[0], text)))
        z_prior = torch.sigmoid(fusion.costs.embed_second(naive_cost(streams[1], text)))
        maps = torch.sigmoid(fusion.costs.fuse(torch.cat([z_vlm, z_prior], dim=1))) + z_vlm
    elif name == "FusedQuery":
        maps = fusion.cost.embed(naive_cost(fusion.merge(torch.cat(streams, dim=1)), text))
    else:  # ConcatenationFusion
        unit = [stream / stream.norm(dim=1, keepdim=True) for stream in streams]
        spread = [query.mean(dim=0)[None, :, None, None].expand_as(unit[0]) for query in text]
        maps = torch.stack([fusion.embed(torch.cat([*unit, query], dim=1)) for query in spread], dim=1).flatten(0, 1)
    return maps.unflatten(0, (-1, len(text)))


def naive_aggregation(
    aggregator: CostAggregator, layer_of: Callable[..., Tensor], x: Tensor, image: Tensor, text: Tensor
) -> Tensor:
    """The layers one after the other, each computed by ``layer_of``; ``image`` [B, C, h, w], ``text`` [T, C]."""
    appearance = F.relu(aggregator.appearance(image))
    guidance = F.relu(aggregator.text_guidance(text))
    pooling = aggregator.pooling_train if aggregator.training else aggregator.pooling_test
    for layer in aggregator.layers:
        x = layer_of(layer, x, appearance, guidance, pooling)
    return x


def naive_decoding(decoder: GuidedDecoder, x: Tensor, features: dict[str, TowerFeatures]) -> Tensor:
    """CAT-Seg's decoder, with the guidance of any towers repeated for every class."""
    classes = x.shape[1]
    x = x.flatten(0, 1)
    for level, stage in enumerate(decoder.stages):
        taps = []
        for name in ("vlm", "companion", "prior"):
            if name in decoder.taps:
                tap = decoder.taps[name][level]
                taps.append(F.relu(tap.project(tap.resample(features[name].blocks[decoder.blocks[name][level]]))))
        x = naive_decoder_stage(stage, x, [tap.repeat_interleave(classes, dim=0) for tap in taps])
    return decoder.predictor(x).unflatten(0, (-1, classes))[:, :, 0]


def naive_layer(layer: AggregatorLayer, x: Tensor, appearance: Tensor, guidance: Tensor, pooling: int) -> Tensor:
    """A layer of CAT-Seg's aggregator; ``appearance`` [B, C, H, W], ``guidance`` [T, C]."""
    classes, grid = x.shape[1], x.shape[-2:]
    tokens = x.flatten(0, 1).permute(0, 2, 3, 1)
    repeated = appearance.repeat_interleave(classes, dim=0).permute(0, 2, 3, 1)
    repeated = layer.spatial.guidance_norm(repeated)
    window = [min(layer.spatial.window, side) for side in grid]
    shift = [layer.spatial.window // 2 if layer.spatial.window < side else 0 for side in grid]
    tokens = _swin_block(layer.spatial.block_1, tokens, repeated, window, [0, 0])
    tokens = _swin_block(layer.spatial.block_2, tokens, repeated, window, shift)
    return naive_class_attention(layer.classes, tokens.permute(0, 3, 1, 2).unflatten(0, x.shape[:2]), guidance, pooling)


def _swin_block(block: GuidedSwinBlock, x: Tensor, guidance: Tensor, window: list[int], shift: list[int]) -> Tensor:
    x = x + _window_attention(block.attn, torch.cat([block.norm1(x), guidance], dim=-1), window, shift)
    return x + block.mlp(block.norm2(x))


def _window_attention(attention: GuidedWindowAttention, x: Tensor, window: list[int], shift: list[int]) -> Tensor:
    """Window after window; cells that fill up the last windows are left out instead of masked.

    Args:
        attention: the weights.
        x: [N, H, W, 2 C], the maps and the guidance.
        window: its height and width.
        shift: cyclic shift of rows and columns.
    """
    height, breadth, width = x.shape[1], x.shape[2], x.shape[3] // 2
    rows, columns = (-(-side // step) * step for side, step in zip((height, breadth), window, strict=True))
    out = torch.zeros_like(x[..., :width])
    for top in range(0, rows, window[0]):
        for left in range(0, columns, window[1]):
            cells = []
            for r in range(top, top + window[0]):
                for c in range(left, left + window[1]):
                    row, column = (r + shift[0]) % rows, (c + shift[1]) % columns
                    wrapped = (r + shift[0] >= rows, c + shift[1] >= columns)
                    if row < height and column < breadth:
                        cells.append((row, column, wrapped))
            if not cells:
                continue
            index = [cell[0] for cell in cells], [cell[1] for cell in cells]
            y = x[:, index[0], index[1]]
            apart = torch.tensor([[-100.0 * (a[2] != b[2]) for b in cells] for a in cells])
            q, k, v = attention.q(y), attention.k(y), attention.v(y[..., :width])
            q, k, v = (part.unflatten(-1, (attention.heads, -1)).transpose(1, 2) for part in (q, k, v))
            weights = torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 + apart, dim=-1)
            out[:, index[0], index[1]] = attention.proj((weights @ v).transpose(1, 2).flatten(2))
    return out


def naive_class_attention(attention: ClassAttention, x: Tensor, guidance: Tensor, pooling: int) -> Tensor:
    """CAT-Seg's attention between classes, with ``pad_to - T`` real padding tokens at every position."""
    batch, classes, _, height, breadth = x.shape
    pooled = F.avg_pool2d(x.flatten(0, 1), pooling) if pooling > 1 else x.flatten(0, 1)
    small = pooled.shape[-2:]
    tokens = pooled.unflatten(0, (batch, classes)).permute(0, 3, 4, 1, 2).flatten(0, 2)  # [B h w, T, C]
    missing = max(attention.pad_to - classes, 0)
    tokens = torch.cat([tokens, attention.padding_tokens.expand(len(tokens), missing, -1)], dim=1)
    queries = torch.cat([guidance, attention.padding_guidance.expand(missing, -1)]).expand(len(tokens), -1, -1)

    normed = attention.norm1(tokens)
    both = torch.cat([normed, queries], dim=-1)
    q, k, v = attention.q(both), attention.k(both), attention.v(normed)
    q, k, v = (part.unflatten(-1, (attention.heads, -1)) for part in (q, k, v))  # [N, L, heads, d]
    if attention.kind == "linear":
        q, k = F.elu(q) + 1, F.elu(k) + 1
        sums = torch.einsum("nshd,nshv->nhdv", k, v)
        normaliser = torch.einsum("nlhd,nhd->nlh", q, k.sum(dim=1)) + 1e-6
        attended = torch.einsum("nlhd,nhdv->nlhv", q, sums) / normaliser[..., None]
    else:
        weights = torch.softmax(torch.einsum("nlhd,nshd->nlsh", q, k) * q.shape[-1] ** -0.5, dim=2)
        attended = torch.einsum("nlsh,nshd->nlhd", weights, v)
    tokens = tokens + attended.flatten(2)
    tokens = tokens + attention.mlp(attention.norm2(tokens))

    maps = tokens[:, :classes].unflatten(0, (batch, *small)).permute(0, 3, 4, 1, 2).flatten(0, 1)
    if pooling > 1:
        maps = F.interpolate(maps, size=(height, breadth), mode="bilinear", align_corners=True)
    return x + maps.unflatten(0, (batch, classes))


def naive_decoder_stage(stage: GuidedUpsampling, x: Tensor, guidance: list[Tensor]) -> Tensor:
    """A level of the decoder; ``x`` and every guidance map are [B * T, ...]."""
    x = torch.cat([stage.up(x), *guidance], dim=1)
    x = F.relu(stage.norm1(stage.conv1(x)))
    return F.relu(stage.norm2(stage.conv2(x)))
