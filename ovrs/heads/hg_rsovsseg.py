"""HG-RSOVSSeg: hierarchical guidance for open-vocabulary segmentation (Remote Sensing 2026, 18(2), 213).

A frozen vision-language model delivers a dense map in the joint space and the outputs of some middle blocks. The
dense map is multiplied with every class embedding (feature aggregation, FA); a decoder then doubles the
resolution level by level (hierarchical guided upsampling, HGU), each level guided by a middle block's
output as the class at hand sees it (text attention module, TAM). Where paper and official code differ, the code is
followed, since the published numbers come from it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovrs.config.options import Options, option
from ovrs.errors import ConfigError
from ovrs.heads.base import Head, HeadContext, blocks_of, register_head
from ovrs.heads.blocks.chunks import classes_per_pass
from ovrs.heads.blocks.cost_volume import cosine_cost
from ovrs.heads.blocks.decoder import GROUP_WIDTH, GuidedUpsampling
from ovrs.heads.blocks.fusion import SingleCost
from ovrs.heads.blocks.text_attention import TextAttention
from ovrs.heads.blocks.work import as_published
from ovrs.heads.quantities import Quantity, output_of
from ovrs.scores import ScoreRule
from ovrs.structures import TextFeatures, TowerFeatures, TowerRequest, TowerSpec

# Decoded maps (images x classes) per pass at inference on a CPU: 10 of them take about 0.25 GB with ViT-L/14 at 512.
_MAPS_PER_PASS = 10


@dataclass(frozen=True)
class HGRSOVSSegOptions(Options):
    """The ablations of the paper's Tables 3 and 4 and Figure 5 are values of these."""

    guidance_blocks: tuple[int, ...] = option(
        (), "VLM blocks from shallow to deep; level 1 reads the last. Empty spreads them: 7, 15 of 24, 3, 7 of 12"
    )
    guidance_channels: tuple[int, ...] = option(
        (128, 64), "channels of guidance and output per decoder level, from level 1 on; multiples of 16 that shrink"
    )
    key_channels: int = option(512, "width in which text attention compares pixels and classes, C_k", minimum=1)
    aggregation: Literal["product", "similarity", "cost"] = option("product", "of map and classes (Table 4)")
    use_tam: bool = option(True, "text attention module (Table 3); off: all classes see the same guidance")
    use_hgu: bool = option(True, "hierarchical guided upsampling (Table 3); off: the aggregated map is classified")
    dropout: float = option(
        0.1, "share of whole channels of one image and class before the last convolution", minimum=0, maximum=1
    )
    merge_first_level: bool = option(True, "the first upsampling as one convolution: faster, the same result")

    def check(self, key: str) -> None:  # noqa: D102
        if self.use_tam and not self.use_hgu:
            raise ConfigError(f"{key}: text attention guides the upsampling; with USE_HGU off, turn USE_TAM off too.")
        if list(self.guidance_blocks) != sorted(self.guidance_blocks):
            raise ConfigError(
                f"{key}.GUIDANCE_BLOCKS go from shallow to deep (level 1 reads the last of them); got "
                f"{list(self.guidance_blocks)}."
            )


@register_head("HG_RSOVSSEG", HGRSOVSSegOptions)
class HGRSOVSSegHead(Head):
    """Feature aggregation, text attention and hierarchical guided upsampling.

    Level 1 is the first to run: it reads the deepest of the guidance blocks and doubles the grid of the dense map;
    level i reads the i-th deepest and works at 2^i times that grid.

    Raises:
        ConfigError: options that do not fit the tower; the message names the key.
    """

    rule = ScoreRule("softmax")
    short_weights = True

    def __init__(self, options: HGRSOVSSegOptions, towers: Mapping[str, TowerSpec], context: HeadContext) -> None:
        super().__init__()
        vlm, key = towers["vlm"], f"MODEL.{self.group}"
        configured = options.guidance_channels
        _check_widths(vlm.joint_dim, configured, f"{key}.GUIDANCE_CHANNELS")
        blocks = blocks_of(vlm, options.guidance_blocks, len(configured), f"{key}.GUIDANCE_BLOCKS")
        channels = configured if options.use_hgu else ()
        self.blocks = blocks[::-1] if options.use_hgu else ()  # of each level
        self.mean_prompts = options.aggregation != "cost"
        self.class_chunk = context.class_chunk

        joint = vlm.joint_dim
        if options.aggregation == "product":
            self.aggregation = ProductAggregation()
        elif options.aggregation == "similarity":
            self.aggregation = SimilarityAggregation(joint)
        else:
            self.aggregation = SingleCost(context.prompts, joint)

        self.guidance = nn.ModuleList(
            nn.ConvTranspose2d(vlm.width, out, kernel_size=2**level, stride=2**level)
            for level, out in enumerate(channels, start=1)
        )
        self.attention = None
        if options.use_tam:
            self.attention = nn.ModuleList(TextAttention(out, joint, options.key_channels) for out in channels)
        widths = (joint, *channels)
        self.decoder = nn.ModuleList(
            GuidedUpsampling(width, width - out, [out], out, merge=options.merge_first_level and level == 0)
            for level, (width, out) in enumerate(zip(widths, channels, strict=False))
        )
        self.dropout = nn.Dropout2d(options.dropout)
        self.predictor = nn.Conv2d(widths[-1], 1, 3, padding=1)
        self._initialise()

    def requests(self) -> dict[str, TowerRequest]:
        """Ask for the guidance blocks and for a dense map that keeps each token's own residual."""
        return {"vlm": TowerRequest(tuple(sorted(self.blocks)), dense="token_residual")}

    def forward(self, features: Mapping[str, TowerFeatures], text: TextFeatures) -> Tensor:
        """Return [B, T, 2^n h, 2^n w] logits for a VLM grid of h x w and n levels."""
        vlm = features["vlm"]
        embeddings = text.mean[:, None] if self.mean_prompts else text.per_class

        # TAM's softmax runs over the classes, so it sees all of them; everything after it is per class.
        guides = [self._guide(level, vlm, text.mean) for level in range(len(self.decoder))]
        chunk = classes_per_pass(self.class_chunk, vlm.dense, len(embeddings), _MAPS_PER_PASS)
        parts = [slice(start, start + chunk) for start in range(0, len(embeddings), chunk)]
        return torch.cat([self._decode(vlm.dense, embeddings[part], guides, part) for part in parts], dim=1)

    def quantities(self) -> dict[str, Quantity]:
        """Return what is aggregated, the guidance of every level as the classes see it, and the levels."""
        shown = {
            "correlation": Quantity(
                "class_maps",
                "cosines of the dense map and classes, the sums of F_a",
                lambda seen: cosine_cost(seen.features["vlm"].dense, seen.text.mean[:, None]).squeeze(2),
            ),
            "aggregated": output_of(self.aggregation, "class_features", "F_a, map and classes aggregated (FA)"),
        }
        for level, stage in enumerate(self.decoder, start=1):
            if self.attention is None:
                guide = self.guidance[level - 1]
                shown[f"guidance_{level}"] = output_of(guide, "features", f"guidance of level {level}, E_u")
            else:
                shown |= _shown_of_attention(self.attention[level - 1], level)
            shown[f"decoder_{level}"] = output_of(stage, "class_features", f"features of decoder level {level} (HD)")
        return shown

    def _guide(self, level: int, vlm: TowerFeatures, text: Tensor) -> Callable[[slice], Tensor]:
        """Return the function from classes to their guidance's share of a decoder level."""
        stage = self.decoder[level]
        features = self.guidance[level](vlm.blocks[self.blocks[level]])  # E_u
        if self.attention is None:
            share = stage.guide([features])
            return lambda classes: share
        attention = self.attention[level]
        attended = attention(features, text)
        return lambda classes: stage.guide([attention.guidance(attended, classes)])

    def _decode(
        self, dense: Tensor, embeddings: Tensor, guides: list[Callable[[slice], Tensor]], classes: slice
    ) -> Tensor:
        """Return the logits of some classes, whose ``embeddings`` are [t, P, C]."""
        x = self.aggregation(dense, embeddings)  # F_a
        for stage, guide in zip(self.decoder, guides, strict=True):
            x = stage(x, guide(classes))  # HD
        shape = x.shape[:2]
        return self.predictor(self.dropout(x.flatten(0, 1))).squeeze(1).unflatten(0, shape)

    def _initialise(self) -> None:
        """Start the 3x3 convolutions as the official training does; the rest keeps PyTorch's defaults."""
        for stage in self.decoder:
            for conv in (stage.conv1, stage.conv2):
                nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(self.predictor.weight, std=0.01)
        nn.init.zeros_(self.predictor.bias)


def _shown_of_attention(attention: TextAttention, level: int) -> dict[str, Quantity]:
    """What text attention tells the classes at a decoder level (TAM)."""
    return {
        f"text_attention_{level}": Quantity(
            "class_maps",
            f"share of a class in the attention of level {level}, less its mean over the image (A_t)",
            lambda seen: seen.output(attention).weights,
            (attention,),
        ),
        f"guidance_{level}": Quantity(
            "class_features",
            f"guidance of level {level} as each class sees it (HG_t)",
            lambda seen: attention.guidance(seen.output(attention), slice(None)),
            (attention,),
        ),
    }


class ProductAggregation(nn.Module):
    """Channel by channel product of unit image features and unit embeddings (FA): a cosine before its sum.

    Entries are about 1 / C, and nothing rescales them. They are not rounded to a shorter type here.
    """

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        """[B, C, h, w] features of any length and [T, 1, C] unit embeddings -> F_a [B, T, C, h, w]."""
        return F.normalize(image, dim=1)[:, None] * text[None, :, 0, :, None, None]

    extra_work = as_published


class SimilarityAggregation(nn.Module):
    """The cosine of image and class, widened by a 1x1 convolution (our reading of Table 4's "similarity").

    Args:
        channels: of the output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.widen = nn.Conv2d(1, channels, kernel_size=1)

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        """[B, C, h, w] features and [T, 1, C] unit embeddings -> [B, T, channels, h, w]."""
        similarity = cosine_cost(image, text)
        return self.widen(similarity.flatten(0, 1)).unflatten(0, similarity.shape[:2])


def _check_widths(joint: int, channels: tuple[int, ...], key: str) -> None:
    shrinks = all(before > after for before, after in zip((joint, *channels), channels, strict=False))
    if not channels or not shrinks or any(width <= 0 or width % GROUP_WIDTH for width in channels):
        raise ConfigError(
            f"{key} must be multiples of {GROUP_WIDTH} that shrink from level to level, the first below the joint "
            f"width {joint} of the VLM; got {list(channels)}."
        )
