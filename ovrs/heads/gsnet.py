"""GSNet: Generalist and Specialist Network (AAAI 2025).

A vision-language model (generalist, subscript G) and a remote-sensing DINO (specialist, S) each give a
cost volume per class; query-guided fusion (QGFF) merges them, CAT-Seg's aggregator refines the
result over space and classes, and a decoder with taps from both towers (RIPD) restores detail. Where paper
and official code differ, the code is followed, since the published numbers come from it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import Tensor, nn

from ovrs.heads.base import Head, classes_per_pass, tapped_blocks
from ovrs.heads.blocks.aggregator import AggregatorLayer
from ovrs.heads.blocks.class_attention import Kind
from ovrs.heads.blocks.decoder import GuidedUpsampling, resampler
from ovrs.heads.blocks.fusion import ConcatenationFusion, FusedQuery, QueryGuidedFusion, SingleCost
from ovrs.structures import FeatureRequest, ImageFeatures, PriorFeatures, TextFeatures, TowerSpec
from ovrs.vocabulary import Vocabulary

_FUSIONS = ("query_guided", "concatenation", "fused_query")
# Cost maps (images x classes) that one pass of the memory-hungry parts takes at inference.
_MAPS_PER_PASS = 40


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


@SEM_SEG_HEADS_REGISTRY.register()
class GSNetHead(Head):
    """Query-guided fusion, aggregator and residual information preservation decoder.

    Args:
        vlm: shape of the vision-language model.
        prior: shape of the prior; may be ``None`` when no option uses it.
        use_vlm_cost, use_prior_cost: which cost volumes are formed.
        fusion: ``query_guided``, or the ablations ``concatenation`` and ``fused_query``; matters with both costs.
        prompts: prompts per class that become channels of the cost volume; 0 for the mean embedding.
        hidden_dim: width of the cost maps (128).
        num_layers, num_heads, window_size, class_attention, pad_classes_to: the aggregator.
        pooling_train, pooling_test: pooling of class attention in training and in evaluation.
        decoder_dims: channels after each doubling of the resolution.
        use_vlm_taps, use_prior_taps: which towers guide the decoder.
        tap_dims, tap_proj_dims: channels of the taps after resampling and after projection, per level.
        vlm_blocks, prior_blocks: tapped blocks per level; empty for 1/3, 2/3, ... of the depth.
        class_chunk: classes per pass of the memory-hungry parts at inference; 0 chooses.
        initial_probability: of every class before training, as the predictor's bias; 0 for PyTorch's default.
    """

    @configurable
    def __init__(
        self,
        *,
        vlm: TowerSpec,
        prior: TowerSpec | None,
        use_vlm_cost: bool = True,
        use_prior_cost: bool = True,
        fusion: str = "query_guided",
        prompts: int = 0,
        hidden_dim: int = 128,
        num_layers: int = 2,
        num_heads: int = 4,
        window_size: int = 12,
        class_attention: Kind = "linear",
        pad_classes_to: int = 256,
        pooling_train: int = 2,
        pooling_test: int = 1,
        decoder_dims: Sequence[int] = (64, 32),
        use_vlm_taps: bool = True,
        use_prior_taps: bool = True,
        tap_dims: Sequence[int] = (256, 128),
        tap_proj_dims: Sequence[int] = (32, 16),
        vlm_blocks: Sequence[int] = (),
        prior_blocks: Sequence[int] = (),
        class_chunk: int = 0,
        initial_probability: float = 0.0,
    ) -> None:
        super().__init__()
        levels = len(decoder_dims)
        uses_prior = use_prior_cost or use_prior_taps
        _require(
            use_vlm_cost or use_prior_cost, "USE_VLM_COST and USE_PRIOR_COST are both off; at least one cost is needed."
        )
        _require(
            prior is not None or not uses_prior,
            "USE_PRIOR_COST or USE_PRIOR_TAPS is on, but MODEL.PRIOR.NAME is empty: name a prior, or turn both off.",
        )
        _require(fusion in _FUSIONS, f"FUSION must be one of {', '.join(_FUSIONS)}, got {fusion!r}.")
        for name, values in (("TAP_DIMS", tap_dims), ("TAP_PROJ_DIMS", tap_proj_dims)):
            _require(
                len(values) == levels, f"{name} must have one value per decoder level ({levels}), got {list(values)}."
            )
        for name, value in (
            ("NUM_HEADS", num_heads),
            ("WINDOW_SIZE", window_size),
            ("POOLING_TRAIN", pooling_train),
            ("POOLING_TEST", pooling_test),
        ):
            _require(value >= 1, f"{name} must be at least 1, got {value}.")
        _require(
            hidden_dim % num_heads == 0, f"HIDDEN_DIM ({hidden_dim}) must be a multiple of NUM_HEADS ({num_heads})."
        )
        self.use_vlm_cost, self.use_prior_cost = use_vlm_cost, use_prior_cost
        self.mean_prompts = not prompts
        self.pooling_train, self.pooling_test, self.class_chunk = pooling_train, pooling_test, class_chunk
        self.vlm_blocks = tapped_blocks(vlm_blocks, vlm.depth, levels, "MODEL.GSNET.VLM_BLOCKS") if use_vlm_taps else ()
        self.prior_blocks = (
            tapped_blocks(prior_blocks, prior.depth, levels, "MODEL.GSNET.PRIOR_BLOCKS") if use_prior_taps else ()
        )
        self._request = FeatureRequest(self.vlm_blocks, self.prior_blocks, uses_prior)

        joint, channels = vlm.joint_dim, prompts or 1
        finer = _grid_ratio(vlm, prior) if uses_prior else Fraction(1)  # prior cells per VLM cell and axis
        if use_prior_cost:
            self.align = resampler(prior.width, joint, 1 / finer)
        if not (use_vlm_cost and use_prior_cost):
            self.fusion = SingleCost(channels, hidden_dim)
        elif fusion == "query_guided":
            self.fusion = QueryGuidedFusion(channels, hidden_dim)
        elif fusion == "concatenation":
            self.fusion = ConcatenationFusion(joint, hidden_dim)
        else:
            self.fusion = FusedQuery(joint, channels, hidden_dim)

        self.appearance = nn.Conv2d(joint, hidden_dim, 3, padding=1)
        self.text_guidance = nn.Linear(joint, hidden_dim)
        self.layers = nn.ModuleList(
            AggregatorLayer(hidden_dim, num_heads, window_size, class_attention, pad_classes_to)
            for _ in range(num_layers)
        )

        def taps(width: int, ratio: Fraction) -> nn.ModuleList:
            scales = [2 ** (level + 1) / ratio for level in range(levels)]
            return nn.ModuleList(map(Tap, [width] * levels, tap_dims, tap_proj_dims, scales))

        self.vlm_taps = taps(vlm.width, Fraction(1)) if use_vlm_taps else None
        self.prior_taps = taps(prior.width, finer) if use_prior_taps else None

        self.decoder = nn.ModuleList()
        width = hidden_dim
        for level, out in enumerate(decoder_dims):
            guidance = [tap_proj_dims[level]] * (use_vlm_taps + use_prior_taps)
            up = width - (tap_proj_dims[level] if use_vlm_taps else 0)
            _require(
                up > 0,
                f"TAP_PROJ_DIMS {list(tap_proj_dims)} must stay below the widths that enter the decoder levels: "
                f"HIDDEN_DIM {hidden_dim}, then DECODER_DIMS {list(decoder_dims)}.",
            )
            self.decoder.append(GuidedUpsampling(width, up, guidance, out))
            width = out
        self.predictor = nn.Conv2d(width, 1, 3, padding=1)
        if initial_probability:
            nn.init.constant_(self.predictor.bias, math.log(initial_probability / (1 - initial_probability)))

    @classmethod
    def from_config(cls, cfg: CfgNode, vlm: TowerSpec, prior: TowerSpec | None) -> dict[str, Any]:
        """Read ``MODEL.GSNET``."""
        node = cfg.MODEL.GSNET
        _require(
            node.PROMPT_FUSION in ("mean", "channels"),
            f"PROMPT_FUSION must be 'mean' or 'channels', got {node.PROMPT_FUSION!r}.",
        )
        templates = len(Vocabulary.templates_of(cfg))
        return {
            "vlm": vlm,
            "prior": prior,
            "use_vlm_cost": node.USE_VLM_COST,
            "use_prior_cost": node.USE_PRIOR_COST,
            "fusion": node.FUSION,
            "prompts": templates if node.PROMPT_FUSION == "channels" else 0,
            "hidden_dim": node.HIDDEN_DIM,
            "num_layers": node.NUM_LAYERS,
            "num_heads": node.NUM_HEADS,
            "window_size": node.WINDOW_SIZE,
            "class_attention": node.CLASS_ATTENTION,
            "pad_classes_to": node.PAD_CLASSES_TO,
            "pooling_train": node.POOLING_TRAIN,
            "pooling_test": node.POOLING_TEST,
            "decoder_dims": node.DECODER_DIMS,
            "use_vlm_taps": node.USE_VLM_TAPS,
            "use_prior_taps": node.USE_PRIOR_TAPS,
            "tap_dims": node.TAP_DIMS,
            "tap_proj_dims": node.TAP_PROJ_DIMS,
            "vlm_blocks": node.VLM_BLOCKS,
            "prior_blocks": node.PRIOR_BLOCKS,
            "class_chunk": cfg.MODEL.SEM_SEG_HEAD.CLASS_CHUNK,
            "initial_probability": cfg.MODEL.SEM_SEG_HEAD.INITIAL_PROBABILITY,
        }

    def request(self) -> FeatureRequest:
        """Ask for the tapped blocks, and for the prior where a cost or a tap needs it."""
        return self._request

    def forward(self, image: ImageFeatures, text: TextFeatures, prior: PriorFeatures | None) -> Tensor:
        """Return [B, T, 4h, 4w] logits for a VLM grid of h x w (two decoder levels)."""
        mean = F.normalize(text.embeddings.mean(dim=1), dim=-1)
        embeddings = mean[:, None] if self.mean_prompts else text.embeddings

        # E_G and E_S in the joint space; the class query is compared with each (QGFF).
        streams = [image.dense] if self.use_vlm_cost else []
        if self.use_prior_cost:
            streams.append(self.align(prior.dense))

        # Guidance: once per image or per vocabulary, never per pair.
        appearance = F.relu(self.appearance(streams[0])).permute(0, 2, 3, 1)
        text_guidance = F.relu(self.text_guidance(mean))
        shares = self._decoder_guidance(image, prior)

        chunk = classes_per_pass(self.class_chunk, len(image.dense), len(embeddings), _MAPS_PER_PASS)
        x = torch.cat([self.fusion(*streams, part) for part in embeddings.split(chunk)], dim=1)
        x = x.permute(0, 1, 3, 4, 2)
        pooling = self.pooling_train if self.training else self.pooling_test
        for layer in self.layers:
            x = layer(x, appearance, text_guidance, pooling, chunk)
        x = x.permute(0, 1, 4, 2, 3)
        return torch.cat([self._decode(part, shares) for part in x.split(chunk, dim=1)], dim=1)

    def _decoder_guidance(self, image: ImageFeatures, prior: PriorFeatures | None) -> list[Tensor | None]:
        shares = []
        for level, stage in enumerate(self.decoder):
            guidance = []
            if self.vlm_taps is not None:
                guidance.append(self.vlm_taps[level](image.blocks[self.vlm_blocks[level]]))
            if self.prior_taps is not None:
                guidance.append(self.prior_taps[level](prior.blocks[self.prior_blocks[level]]))
            shares.append(stage.guide(guidance))
        return shares

    def _decode(self, x: Tensor, shares: list[Tensor | None]) -> Tensor:
        """RIPD: [B, T, C, h, w] cost maps -> [B, T, 4h, 4w] logits; classes do not see each other."""
        for stage, share in zip(self.decoder, shares, strict=True):
            x = stage(x, share)
        return self.predictor(x.flatten(0, 1)).squeeze(1).unflatten(0, x.shape[:2])


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(f"MODEL.GSNET.{message}")


def _grid_ratio(vlm: TowerSpec, prior: TowerSpec) -> Fraction:
    """Return how many prior cells lie along the side of one VLM cell."""
    if bool(vlm.input_size) != bool(prior.input_size):
        raise ValueError("MODEL.VLM.INPUT_SIZE and MODEL.PRIOR.INPUT_SIZE must both be set or both be 0.")
    if vlm.input_size:
        ratio = Fraction(prior.input_size // prior.patch_size, vlm.input_size // vlm.patch_size)
    else:
        ratio = Fraction(vlm.patch_size, prior.patch_size)
    if 1 not in (ratio.numerator, ratio.denominator):
        raise ValueError(
            f"the towers' grids do not match: MODEL.VLM.INPUT_SIZE {vlm.input_size} with patch {vlm.patch_size} and "
            f"MODEL.PRIOR.INPUT_SIZE {prior.input_size} with patch {prior.patch_size} give {ratio} prior cells per VLM "
            "cell; one grid must be a whole multiple of the other."
        )
    return ratio
