"""Heads of small or published shape with healthy weights, and random features for them."""

from __future__ import annotations

from dataclasses import fields, replace

import torch
import torch.nn.functional as F
from golden import fill
from torch import Tensor, nn

from ovrs.heads import GSNetHead
from ovrs.heads.blocks.aggregator import SWIN, AggregatorOptions
from ovrs.heads.blocks.guided_decoder import DecoderOptions
from ovrs.heads.gsnet import GSNET_DECODER
from ovrs.structures import FeatureRequest, ImageFeatures, PriorFeatures, TextFeatures, TowerSpec
from ovrs.vocabulary import Vocabulary

VLM = TowerSpec(width=24, depth=6, patch_size=16, input_size=96, joint_dim=16)  # 6 x 6 cells
PRIOR = TowerSpec(width=20, depth=6, patch_size=8, input_size=96)  # 12 x 12 cells

SMALL = {
    "hidden_dim": 32,
    "window_size": 4,
    "pad_classes_to": 16,
    "decoder_dims": (32, 16),
    "tap_dims": (12, 10),
    "tap_proj_dims": (8, 6),
}

Inputs = tuple[ImageFeatures, TextFeatures, PriorFeatures | None]


def filled(module: nn.Module) -> nn.Module:
    """Give every parameter a value of its own, zero-initialised ones included."""
    shapes = {name: parameter.shape for name, parameter in module.named_parameters()}
    values = fill.filled_state_dict(shapes)
    module.load_state_dict({name: torch.from_numpy(value) for name, value in values.items()}, strict=False)
    return module


def head_options(defaults: DecoderOptions = GSNET_DECODER, kind: AggregatorOptions = SWIN, **options: object) -> dict:
    """A small head's options, given flat, sorted into those of the aggregator, of the decoder and the rest."""
    options = {**SMALL, **options}

    def taken(template: object) -> dict[str, object]:
        return {field.name: options.pop(field.name) for field in fields(template) if field.name in options}

    parts = {"aggregator": replace(kind, **taken(kind)), "decoder": replace(defaults, **taken(defaults))}
    return {**parts, **options}


def small_head(vlm: TowerSpec = VLM, prior: TowerSpec | None = PRIOR, **options: object) -> GSNetHead:
    """A filled head in evaluation mode."""
    return filled(GSNetHead(vlm=vlm, prior=prior, **head_options(**options))).eval()


def random_inputs(
    head: GSNetHead,
    vlm: TowerSpec = VLM,
    prior: TowerSpec | None = PRIOR,
    *,
    classes: int = 3,
    prompts: int = 1,
    images: int = 2,
    grid: tuple[int, int] | None = None,
    prior_grid: tuple[int, int] | None = None,
) -> Inputs:
    """Random features with exactly the blocks that the head asks for, and no prior where it asks for none."""
    generator = torch.Generator().manual_seed(classes)
    request: FeatureRequest = head.request()

    def maps(tower: TowerSpec, channels: int, size: tuple[int, int] | None) -> Tensor:
        side = tower.input_size // tower.patch_size
        return torch.randn(images, channels, *(size or (side, side)), generator=generator)

    image = ImageFeatures(
        maps(vlm, vlm.joint_dim, grid), {block: maps(vlm, vlm.width, grid) for block in request.vlm_blocks}
    )
    of_prior = None
    if request.uses_prior:
        blocks = {block: maps(prior, prior.width, prior_grid) for block in request.prior_blocks}
        of_prior = PriorFeatures(maps(prior, prior.width, prior_grid), blocks)
    embeddings = F.normalize(torch.randn(classes, prompts, vlm.joint_dim, generator=generator), dim=-1)
    words = Vocabulary.from_strings([f"class {t}" for t in range(classes)], [f"{p} {{}}" for p in range(prompts)])
    return image, TextFeatures(embeddings, words), of_prior


def choose_classes(text: TextFeatures, indices: list[int]) -> TextFeatures:
    """The same text features with other classes or another order."""
    words = Vocabulary(tuple(text.vocabulary.synonyms[i] for i in indices), text.vocabulary.templates)
    return TextFeatures(text.embeddings[indices], words)


def choose_images(inputs: Inputs, index: int) -> Inputs:
    """A batch of one image out of a larger one."""
    image, text, prior = inputs

    def one(features: ImageFeatures | PriorFeatures) -> ImageFeatures | PriorFeatures:
        blocks = {block: value[index : index + 1] for block, value in features.blocks.items()}
        return type(features)(features.dense[index : index + 1], blocks)

    return one(image), text, one(prior) if prior is not None else None
