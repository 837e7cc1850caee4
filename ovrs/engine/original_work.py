"""Work of the original implementations that ours leaves out, by formula.

Papers print the cost of their original code. CAT-Seg's and GSNet's compute the padding of the class axis anew at every
position, and with RSKT-Seg they repeat the guidance of an image for every class; HG-RSOVSSeg's forms the text
attention of every class in full and upsamples before it convolves; all run the text tower over all 77 positions and
project the query and key of the last image block, which nothing reads. With these terms added, our count can be
compared with theirs (gsnet spec, section 13.2; HG-RSOVSSeg spec, section 13.2).
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import open_clip
from torch import Tensor, nn

from ovrs.backbones import VLM
from ovrs.heads.blocks.class_attention import ClassAttention
from ovrs.heads.blocks.decoder import GuidedUpsampling
from ovrs.heads.blocks.efficient import ClassFusion, ReducedAttention
from ovrs.heads.blocks.swin import GuidedWindowAttention
from ovrs.heads.blocks.text_attention import Attended, TextAttention

PADDING, GUIDANCE, ATTENTION, UPSAMPLING, LAST_BLOCK, TEXT_END = (
    "padding of the class attention",
    "guidance repeated per class",
    "text attention not factored",
    "upsampling apart from its convolution",
    "query, key and class token of the last block",
    "text behind the last word",
)
# Not products, but fvcore, with which HG-RSOVSSeg was counted, has them in its sum.
NORMS, TEXT_NORMS = "normalisation", "normalisation, text"
_PER_ELEMENT, _PER_ELEMENT_PLAIN = 5, 4  # fvcore's price of a norm with and without its own scale and shift


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
    clip = getattr(vlm, "clip", None)
    context = len(clip.positional_embedding) if isinstance(clip, open_clip.CLIP) else 0
    with ExitStack() as stack:

        def count(what: str, module: nn.Module, formula: Callable[..., int]) -> None:
            hook = module.register_forward_hook(lambda m, args, _: extra.update({what: formula(m, *args)}))
            stack.callback(hook.remove)

        of_text = {id(parameter) for parameter in vlm.text_parameters()}
        for module in model.modules():
            if isinstance(module, ClassAttention):
                count(PADDING, module, _class_padding)
            elif isinstance(module, GuidedWindowAttention):
                count(GUIDANCE, module, _window_guidance)
            elif isinstance(module, ReducedAttention):
                count(GUIDANCE, module, _reduced_guidance)
            elif isinstance(module, ClassFusion):
                count(GUIDANCE, module, _class_guidance)
            elif isinstance(module, GuidedUpsampling):
                count(GUIDANCE, module, _decoder_guidance)
                count(UPSAMPLING, module, _upsampling_apart)
            elif isinstance(module, TextAttention):
                attend = _reporting(module.attend, functools.partial(_text_attention, module, extra))
                stack.enter_context(mock.patch.object(module, "attend", attend))
            elif isinstance(module, (nn.LayerNorm, nn.GroupNorm)):
                if id(module.weight) in of_text:
                    count(TEXT_NORMS, module, lambda m, x: _norm(m, x) // x.shape[1] * (context or x.shape[1]))
                else:
                    count(NORMS, module, _norm)
        if clip is not None:
            projection = clip.visual.proj
            count(LAST_BLOCK, clip.visual.ln_post, lambda _, x: _last_block(x, projection))
        if context:
            count(TEXT_END, clip.transformer, lambda tower, x, **_: _text_end(tower, x, context))
        yield extra


def _reporting(function: Callable[..., Any], report: Callable[[Any], None]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapped(*args: Any) -> Any:
        result = function(*args)
        report(result)
        return result

    return wrapped


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


def _reduced_guidance(module: ReducedAttention, y: Tensor, guidance: Tensor) -> int:
    """The guidance's part of the queries and of the reduction before the keys, for all classes but one."""
    images, classes, height, breadth, width = y.shape
    side = module.reduce_k.stride[0]
    keys = (height // side) * (breadth // side) * side**2 * 2
    return (classes - 1) * images * (height * breadth + keys) * width**2


def _class_guidance(module: ClassFusion, x: Tensor, guidance: Tensor, pooling: int) -> int:
    """The guidance's half of the queries and keys, for all positions but one."""
    images, classes, height, breadth, width = x.shape
    positions = images * (height // pooling) * (breadth // pooling)
    return (positions - 1) * classes * 2 * width**2


def _decoder_guidance(module: GuidedUpsampling, x: Tensor, share: Tensor | None) -> int:
    """The guidance's part of the first convolution, for all classes but one, where they share it."""
    if share is None or share.dim() == 5:
        return 0
    images, classes, _, height, breadth = x.shape
    out, channels, *kernel = module.conv1.weight.shape
    per_cell = (channels - module.up_dim) * out * kernel[0] * kernel[1]
    return (classes - 1) * images * 4 * height * breadth * per_cell


def _upsampling_apart(module: GuidedUpsampling, x: Tensor, _: Tensor | None) -> int:
    """The transposed convolution and its part of the first convolution, less what the merged one takes."""
    if not module.merge:
        return 0
    images, classes, channels, height, breadth = x.shape
    up, out = module.up_dim, module.conv1.out_channels
    cells = height * breadth
    apart = 4 * cells * up * (channels + 9 * out)
    merged = 16 * (height + 1) * (breadth + 1) * channels * out
    # Made once per pass: all pairs of weights, their sums along both axes, and the bias with its map.
    weights = channels * out * (36 * up + 144 + 96) + 9 * out * (up + 4 * cells)
    return images * classes * (apart - merged) - weights


def _text_attention(module: TextAttention, extra: Counter[str], attended: Attended) -> None:
    """The weighted values of every class, their mixing, and the instance norms before and after."""
    images, channels, height, breadth = attended.visual.shape
    classes, pixels = attended.weights.shape[1], height * breadth
    maps = images * classes * channels * pixels
    extra[ATTENTION] += maps * (1 + channels) - classes * channels**2
    extra[NORMS] += _PER_ELEMENT_PLAIN * (images * module.query.out_channels * pixels + maps)


def _last_block(x: Tensor, projection: Tensor) -> int:
    """Query and key through both projections, and the class token through all that values take.

    Args:
        x: [B, h * w, W] tokens that end the block.
        projection: [W, C] weight that comes after it.
    """
    images, tokens, width = x.shape
    return images * ((tokens + 1) * 4 * width**2 + 10 * width**2 + projection.numel())


def _text_end(tower: nn.Module, x: Tensor, context: int) -> int:
    """Positions of the text tower that come after the longest sentence of the batch, [N, length, W]."""
    sentences, length, width = x.shape
    per_token = sum(parameter.numel() for parameter in tower.parameters() if parameter.ndim == 2)
    attention = 2 * width * len(tower.resblocks) * (context**2 - length**2)
    return sentences * ((context - length) * per_token + attention)


def _norm(module: nn.LayerNorm | nn.GroupNorm, x: Tensor) -> int:
    return x.numel() * (_PER_ELEMENT if module.weight is not None else _PER_ELEMENT_PLAIN)
