"""What CAT-Seg and its descendants share: cost maps are refined by an aggregator and enlarged by a guided decoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor, nn

from ovrs.config.options import Options, option
from ovrs.errors import ConfigError
from ovrs.heads.base import Head, HeadContext, blocks_of, grid_ratio, needed
from ovrs.heads.blocks.aggregator import CostAggregator
from ovrs.heads.blocks.chunks import MAPS_PER_PASS, classes_per_pass
from ovrs.heads.blocks.cost_volume import cosine_cost, rotation_cost
from ovrs.heads.blocks.decoder import GROUP_WIDTH, Guide, GuidedDecoder, resampler
from ovrs.heads.quantities import Pass, Quantity, output_of
from ovrs.structures import ROTATIONS, TextFeatures, TowerFeatures, TowerRequest, TowerSpec

GUIDES = ("vlm", "companion", "prior")  # towers that can guide the decoder, in the order of the weights


@dataclass(frozen=True)
class CostVolumeOptions(Options):
    """Aggregator and decoder as in CAT-Seg and GSNet."""

    hidden_dim: int = option(128, "channels of the cost maps", minimum=1)
    aggregator: Literal["swin", "efficient"] = option("swin", "layers of CAT-Seg (swin) or RSKT-Seg (efficient)")
    num_layers: int = option(2, "layers of the aggregator", minimum=0)
    num_heads: int = option(4, "attention heads of the aggregator", minimum=1)
    pooling_train: int = option(2, "pooling of the maps that class attention sees, in training", minimum=1)
    pooling_test: int = option(1, "the same in evaluation", minimum=1)
    window_size: int = option(12, "of swin: side of a window in cells", minimum=1)
    class_attention: Literal["linear", "full"] = option("linear", "of swin: kernel elu + 1, or softmax")
    pad_classes_to: int = option(256, "of swin: class attention sees learned padding up to this many classes")
    decoder_dims: tuple[int, ...] = option((64, 32), "channels after each doubling of the resolution")
    tap_dims: tuple[int, ...] = option((256, 128), "channels of the decoder's guidance after resampling, per level")
    tap_proj_dims: tuple[int, ...] = option((32, 16), "channels of the guidance after projection, per level")
    use_vlm_taps: bool = option(True, "decoder guidance from blocks of the vision-language model")
    vlm_blocks: tuple[int, ...] = option((), "those blocks, one per decoder level; empty for 1/3, 2/3 of the depth")

    def check(self, key: str) -> None:  # noqa: D102
        if self.hidden_dim % self.num_heads:
            raise ConfigError(
                f"{key}.HIDDEN_DIM ({self.hidden_dim}) must be a multiple of {key}.NUM_HEADS ({self.num_heads})."
            )
        levels = len(self.decoder_dims)
        for name, values in (("TAP_DIMS", self.tap_dims), ("TAP_PROJ_DIMS", self.tap_proj_dims)):
            if len(values) != levels:
                raise ConfigError(f"{key}.{name} must have one value per decoder level ({levels}), got {list(values)}.")
        for width in self.decoder_dims:
            if width < 1 or width % GROUP_WIDTH:
                raise ConfigError(f"{key}.DECODER_DIMS must be multiples of {GROUP_WIDTH}, got {width}.")
        entering = (self.hidden_dim, *self.decoder_dims)
        if self.use_vlm_taps and any(
            guidance >= width for guidance, width in zip(self.tap_proj_dims, entering, strict=False)
        ):
            raise ConfigError(
                f"{key}.TAP_PROJ_DIMS {list(self.tap_proj_dims)} must stay below the widths that enter the decoder "
                f"levels: HIDDEN_DIM {self.hidden_dim}, then DECODER_DIMS {list(self.decoder_dims)}."
            )


@dataclass(frozen=True)
class PromptOptions(CostVolumeOptions):
    """The same, where templates can be kept apart."""

    prompt_fusion: Literal["mean", "channels"] = option(
        "mean", "several templates: the mean of their embeddings, or one channel of the cost volume each"
    )


@dataclass(frozen=True)
class RotationOptions(CostVolumeOptions):
    """Aggregator and decoder as in RSKT-Seg and DR-Seg, and what their decoders can be guided by."""

    aggregator: Literal["swin", "efficient"] = option("efficient", "layers of CAT-Seg (swin) or RSKT-Seg (efficient)")
    num_layers: int = option(3, "layers of the aggregator", minimum=0)
    num_heads: int = option(8, "attention heads; RSKT-Seg's code ignores the four of its configuration", minimum=1)
    pooling_test: int = option(2, "pooling of the maps that class attention sees, in evaluation", minimum=1)
    use_rotation: bool = option(True, "cost maps of the image under four quarter turns")
    use_prior_taps: bool = option(True, "decoder guidance from blocks of the prior")
    prior_blocks: tuple[int, ...] = option((), "those blocks, as VLM_BLOCKS")
    use_companion_taps: bool = option(True, "decoder guidance from blocks of the companion")
    companion_blocks: tuple[int, ...] = option((), "those blocks, as VLM_BLOCKS")


class CostVolumeHead(Head):
    """The common skeleton. A head embeds its cost volumes into maps and hands these to :meth:`refine`.

    Its constructor builds what embeds them, then calls :meth:`add_refinement`.

    Args:
        options: of the head.
        towers: {name: shape} of the towers that exist.
        context: what every head is told.

    Raises:
        ConfigError: options that do not fit the towers.
    """

    short_weights = True

    def __init__(self, options: CostVolumeOptions, towers: Mapping[str, TowerSpec], context: HeadContext) -> None:
        super().__init__()
        self.class_chunk = context.class_chunk
        self.key = f"MODEL.{self.group}"
        # Templates that are kept apart are channels of the cost volume.
        self.mean_prompts = getattr(options, "prompt_fusion", "mean") == "mean"
        self.prompts = 1 if self.mean_prompts else context.prompts

    def add_refinement(self, options: CostVolumeOptions, towers: Mapping[str, TowerSpec], context: HeadContext) -> None:
        """Build aggregator and decoder; the last step of a head's constructor."""
        self.aggregator = CostAggregator(towers["vlm"].joint_dim, options)
        self.decoder = GuidedDecoder(
            options.hidden_dim,
            options.decoder_dims,
            {
                name: self._guide(name, options, towers)
                for name in GUIDES
                if getattr(options, f"use_{name}_taps", False)
            },
            options.tap_dims,
            options.tap_proj_dims,
            context.initial_bias,
        )

    def _guide(self, name: str, options: CostVolumeOptions, towers: Mapping[str, TowerSpec]) -> Guide:
        tower = needed(towers, name, f"{self.key}.USE_{name.upper()}_TAPS")
        configured = getattr(options, f"{name}_blocks")
        blocks = blocks_of(tower, configured, len(options.decoder_dims), f"{self.key}.{name.upper()}_BLOCKS")
        return Guide(tower.width, blocks, grid_ratio(towers, name))

    def prior_to_joint(self, towers: Mapping[str, TowerSpec], wanted_by: str) -> nn.Module:
        """Return the layer that brings prior features to the grid and the width of the joint space."""
        prior, vlm = needed(towers, "prior", f"{self.key}.{wanted_by}"), towers["vlm"]
        return resampler(prior.width, vlm.joint_dim, 1 / grid_ratio(towers, "prior"))

    def requests(self) -> dict[str, TowerRequest]:
        """Ask for the blocks that guide the decoder, and for the dense map of the joint space."""
        wanted = {name: TowerRequest(blocks, dense="none") for name, blocks in self.decoder.blocks.items()}
        return {**wanted, "vlm": TowerRequest(self.decoder.blocks.get("vlm", ()), dense="class_residual")}

    def queries(self, text: TextFeatures) -> Tensor:
        """Return the [T, P, C] unit embeddings that pixels are compared with; P is 1 for the mean of the prompts."""
        return text.mean[:, None] if self.mean_prompts else text.per_class

    def chunk(self, images: Tensor, text: TextFeatures) -> int:
        """Return how many classes the memory-hungry parts take at once."""
        return classes_per_pass(self.class_chunk, images, text.classes, MAPS_PER_PASS)

    def refine(
        self, maps: Tensor, image: Tensor, features: Mapping[str, TowerFeatures], text: TextFeatures, chunk: int
    ) -> Tensor:
        """Aggregate and decode.

        Args:
            maps: [B, T, hidden, h, w] cost maps.
            image: [B, C, h, w] features in the joint space, which guide the aggregation over space.
            features: of the towers, whose blocks guide the decoder.
            text: the classes, which guide the aggregation over classes.
            chunk: classes at once.

        Returns:
            [B, T, 2^n h, 2^n w] logits for n decoder levels.
        """
        maps = self.aggregator(maps, image, text.mean, chunk)
        return self.decoder(maps, self.decoder.guide(features), chunk)

    def correlation(self, meaning: str, pixels: Callable[[Pass], Tensor]) -> Quantity:
        """Return the cosines of classes and [B, C, h, w] ``pixels`` as what can be shown, the mean of the prompts."""
        return Quantity(
            "class_maps", meaning, lambda seen: cosine_cost(pixels(seen), self.queries(seen.text)).mean(dim=2)
        )

    def quantities(self) -> dict[str, Quantity]:
        """Return what aggregator and decoder make of the cost maps."""
        shown = {"aggregated": output_of(self.aggregator, "class_features", "cost maps after the aggregator")}
        for number, layer in enumerate(self.aggregator.layers, start=1):
            part = layer.classes
            shown[f"class_attention_{number}"] = Quantity(
                "class_relations",
                f"attention between classes, layer {number} of the aggregator, mean of its heads",
                lambda seen, part=part: part.attention(*seen.inputs(part)),
                (part,),
            )
        for level, stage in enumerate(self.decoder.stages, start=1):
            shown[f"decoder_{level}"] = output_of(stage, "class_features", f"features of decoder level {level}")
        return shown


class RotationHead(CostVolumeHead):
    """The skeleton with the cost volume of RSKT-Seg and DR-Seg: of the image under its four quarter turns.

    Attributes:
        rotations: channels of that cost volume.
    """

    def __init__(self, options: RotationOptions, towers: Mapping[str, TowerSpec], context: HeadContext) -> None:
        super().__init__(options, towers, context)
        self.use_rotation = options.use_rotation
        self.rotations = ROTATIONS if options.use_rotation else 1

    def requests(self) -> dict[str, TowerRequest]:
        """Ask for rotations too."""
        wanted = super().requests()
        return {**wanted, "vlm": replace(wanted["vlm"], rotations=self.use_rotation)}

    def rotated_cost(self, features: Mapping[str, TowerFeatures], text: TextFeatures) -> Tensor:
        """Return the cost volume [B, T, rotations, h, w] (RSKT-Seg's RS-CMA; Eq. 10 of DR-Seg)."""
        vlm = features["vlm"]
        return rotation_cost(vlm.rotated if self.use_rotation else vlm.dense[:, None], text.mean)

    def quantities(self) -> dict[str, Quantity]:
        """Return the cosines under every rotation too."""

        def cost(seen: Pass) -> Tensor:
            return self.rotated_cost(seen.features, seen.text)

        mean = Quantity("class_maps", "cosines of CLIP's map and classes", lambda seen: cost(seen).mean(dim=2))
        turns = {
            f"correlation_{90 * turn}": Quantity(
                "class_maps",
                f"the same, of the image turned by {90 * turn} degrees before CLIP sees it",
                lambda seen, turn=turn: cost(seen)[:, :, turn],
            )
            for turn in range(self.rotations if self.use_rotation else 0)
        }
        return {"correlation": mean, **turns, **super().quantities()}
