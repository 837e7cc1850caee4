"""Work of the original implementations that ours leaves out, by formula.

The published cost of GSNet is that of its original code, which computes the padding of the class axis anew at
every position, repeats the guidance of an image for every class, and runs the text tower over all 77 positions.
With these terms added, our count can be compared with the paper's (gsnet spec, section 13.2).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import open_clip
from torch import Tensor, nn

from ovrs.backbones import VLM
from ovrs.heads.blocks.class_attention import ClassAttention
from ovrs.heads.blocks.decoder import GuidedUpsampling
from ovrs.heads.blocks.swin import GuidedWindowAttention

PADDING, GUIDANCE, TEXT_END = (
    "padding of the class attention",
    "guidance repeated per class",
    "text behind the last word",
)


@contextmanager
def original_extra(model: nn.Module, vlm: VLM) -> Iterator[Counter[str]]:
    """Count, while the block runs, the multiply-accumulates that the original would do on top.

    Args:
        model: the segmenter; its head must process all classes at once.
        vlm: its vision-language model.

    Yields:
        {what: multiply-accumulates}, filled by every call of the model.
    """
    extra: Counter[str] = Counter()
    hooks = []

    def count(what: str, module: nn.Module, formula: Any) -> None:
        hooks.append(module.register_forward_hook(lambda m, args, _: extra.update({what: formula(m, *args)})))

    for module in model.modules():
        if isinstance(module, ClassAttention):
            count(PADDING, module, _class_padding)
        elif isinstance(module, GuidedWindowAttention):
            count(GUIDANCE, module, _window_guidance)
        elif isinstance(module, GuidedUpsampling):
            count(GUIDANCE, module, _decoder_guidance)
    clip = getattr(vlm, "clip", None)
    if isinstance(clip, open_clip.CLIP):
        context = clip.positional_embedding.shape[0]
        count(TEXT_END, clip.transformer, lambda tower, x, **_: _text_end(tower, x, context))
    try:
        yield extra
    finally:
        for hook in hooks:
            hook.remove()


def _class_padding(module: ClassAttention, x: Tensor, guidance: Tensor, pooling: int = 1) -> int:
    """Padding tokens through attention and MLP, at every position of [B, T, H, W, C] maps."""
    images, classes, height, breadth, width = x.shape
    copies = max(module.pad_to - classes, 0)
    per_token = 13 * width**2  # q and k of [x ; guidance], v, and the MLP
    if module.kind == "linear":
        attention = copies * (2 * width * (width // module.heads) + width)
    else:
        attention = 2 * width * ((classes + copies) ** 2 - classes**2)
    return images * (height // pooling) * (breadth // pooling) * (copies * per_token + attention)


def _window_guidance(module: GuidedWindowAttention, x: Tensor, *_: Any) -> int:
    """The guidance's half of the queries and keys, for all classes but one."""
    images, classes, height, breadth, width = x.shape
    return (classes - 1) * images * height * breadth * 2 * width**2


def _decoder_guidance(module: GuidedUpsampling, x: Tensor, share: Tensor | None) -> int:
    """The guidance's part of the first convolution, for all classes but one."""
    images, classes, _, height, breadth = x.shape
    out, channels, *kernel = module.conv1.weight.shape
    per_cell = (channels - module.up_dim) * out * kernel[0] * kernel[1]
    return (classes - 1) * images * 4 * height * breadth * per_cell


def _text_end(tower: nn.Module, x: Tensor, context: int) -> int:
    """Positions of the text tower that come after the longest sentence of the batch, [N, length, W]."""
    sentences, length, width = x.shape
    per_token = sum(parameter.numel() for parameter in tower.parameters() if parameter.ndim == 2)
    attention = 2 * width * len(tower.resblocks) * (context**2 - length**2)
    return sentences * ((context - length) * per_token + attention)
