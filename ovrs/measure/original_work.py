"""Work of the original implementations that ours leaves out, as blocks and towers report it while a model runs.

Blocks of heads report by their method ``extra_work`` (see :mod:`ovrs.heads.blocks.work`). CLIP's towers are a library's
modules, so what the originals do more in them stands here: all run the text tower over all 77 positions and project
the query and key of the last image block, which nothing reads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

import open_clip
from torch import Tensor, nn

from ovrs.backbones import VLM
from ovrs.errors import UserError
from ovrs.heads import Head
from ovrs.heads.blocks.work import KNOWN_NORM_OPERATIONS, NORM_OPERATIONS, NORMS

LAST_BLOCK, TEXT_END, TEXT_NORMS = (
    "query, key and class token of the last block",
    "text behind the last word",
    "normalisation, text",
)
_NORM_LAYERS = (nn.LayerNorm, nn.GroupNorm, nn.BatchNorm2d)
_UNCOUNTED_NORMS = (nn.RMSNorm, nn.LocalResponseNorm, nn.modules.instancenorm._InstanceNorm)


@contextmanager
def original_extra(model: nn.Module, head: Head, vlm: VLM) -> Iterator[Counter[str]]:
    """Count, while the block runs, the multiply-accumulates that the original would do on top.

    Args:
        model: the segmenter; its head must process all classes at once.
        head: of it.
        vlm: of it.

    Yields:
        {what: multiply-accumulates}, filled by every call of the model.

    Raises:
        UserError: a module whose work nobody has counted: a kind of normalisation without a price, or a block of the
            head that is not made of PyTorch's own layers, or multiplies by their weights itself, and has no
            ``extra_work``.
    """
    extra: Counter[str] = Counter()
    clip = getattr(vlm, "clip", None)
    context = len(clip.positional_embedding) if isinstance(clip, open_clip.CLIP) else 0
    of_text = {id(parameter) for parameter in vlm.text_parameters()}
    ran: set[nn.Module] = set()
    with ExitStack() as stack:

        def count(module: nn.Module, formula: Callable[..., Mapping[str, int]]) -> None:
            hook = module.register_forward_hook(lambda m, args, _: extra.update(formula(m, *args)))
            stack.callback(hook.remove)

        for name, module in model.named_modules():
            if isinstance(module, _UNCOUNTED_NORMS):
                raise UserError(f"{name} is a {type(module).__name__}, a normalisation whose work has no count yet.")
            if isinstance(module, _NORM_LAYERS):
                text = id(module.weight) in of_text
                count(module, _text_norm(context) if text else lambda m, x: {NORMS: _norm(m, x)})
        for name, module in head.named_modules():
            stack.callback(module.register_forward_hook(lambda m, *_: ran.add(m)).remove)
            if hasattr(module, "extra_work"):
                count(module, type(module).extra_work)
            elif not _of_torch(module) and (not list(module.children()) or list(module.parameters(recurse=False))):
                raise _uncounted(name, module)
        if clip is not None and head.requests()["vlm"].dense != "none":
            projection = clip.visual.proj
            count(clip.visual.ln_post, lambda _, x: {LAST_BLOCK: _last_block(x, projection)})
        if context:
            # The mask comes by keyword, so the hook sees the tokens alone.
            count(clip.transformer, lambda tower, x: {TEXT_END: _text_end(tower, x, context)})
        yield extra
        for name, module in head.named_modules():
            lent = [part for part in module.children() if _of_torch(part) and _multiplies(part) and part not in ran]
            if lent and module in ran and not _of_torch(module) and not hasattr(module, "extra_work"):
                raise _uncounted(name, module)


def _of_torch(module: nn.Module) -> bool:
    return type(module).__module__.startswith("torch.nn.")


def _multiplies(module: nn.Module) -> bool:
    return any(parameter.ndim > 1 for parameter in module.parameters(recurse=False))


def _uncounted(name: str, module: nn.Module) -> UserError:
    return UserError(
        f"the head's block {name} ({type(module).__name__}) does not say what the original multiplies beyond it: give "
        "it a method extra_work(*inputs), or 'extra_work = as_published' (ovrs.heads.blocks.work) where it is nothing."
    )


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


def _text_norm(context: int) -> Callable[[nn.Module, Tensor], dict[str, int]]:
    """Return the count of a text norm as if the sentences had all positions."""
    return lambda module, x: {TEXT_NORMS: _norm(module, x) // x.shape[1] * (context or x.shape[1])}


def _norm(module: nn.LayerNorm | nn.GroupNorm | nn.BatchNorm2d, x: Tensor) -> int:
    own = module.weight is not None
    if isinstance(module, nn.BatchNorm2d) and not module.training:
        return x.numel() * KNOWN_NORM_OPERATIONS[own]
    return x.numel() * NORM_OPERATIONS[own]
