"""SAM 3 ("Segment Anything with Concepts", arXiv 2511.16719) as the Transformers library has it."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor, nn

from ovrs.backbones.base import VLM, VLM_REGISTRY
from ovrs.backbones.clip import StrictTokenizer
from ovrs.backbones.weights import find_entry
from ovrs.errors import ConfigError, WeightsError, choose, shortened
from ovrs.structures import ConceptFinder, FoundConcepts, TokenSequences, TowerFeatures, TowerRequest, TowerSpec
from ovrs.zoo import resolve
from ovrs.zoo.state_dict import read_state_dict

if TYPE_CHECKING:
    from transformers import Sam3Config, Sam3Model

logger = logging.getLogger(__name__)

ARCH = "sam3"
CONTEXT = 32  # tokens of a prompt, start and end included
_OTHER_MODELS = ("tracker_model.", "tracker_neck.")  # the released file also holds the tracker of videos
_PREFIX = "detector_model."


@VLM_REGISTRY.register()
class Sam3VLM(VLM):
    """The image model of SAM 3, frozen: it finds concepts that short noun phrases name.

    It has no dense map in a joint space; it hands out a :class:`ovrs.structures.ConceptFinder`.

    Args:
        model: an image model of Transformers.
    """

    dense_forms = ("none",)
    has_concepts = True

    @configurable
    def __init__(self, model: Sam3Model) -> None:
        super().__init__()
        self.model = model.requires_grad_(False).eval()
        self.tokenizer = StrictTokenizer(SimpleTokenizer(context_length=CONTEXT))
        vision = model.config.vision_config.backbone_config
        self.side = vision.image_size
        # Images keep their size on the way here: the finder must know it, and they are squashed with antialiasing.
        self.spec = TowerSpec(
            width=vision.hidden_size,
            depth=vision.num_hidden_layers,
            patch_size=vision.patch_size,
            input_size=0,
            joint_dim=model.config.detr_encoder_config.hidden_size,
        )

    @classmethod
    def from_config(cls, cfg: CfgNode, *, load_weights: bool = True) -> dict[str, Any]:
        """Build the model that ``MODEL.VLM`` describes and fill it.

        Raises:
            ConfigError: Transformers is missing or too old, or a key has a value that means nothing here.
            WeightsError: no such architecture or weights, or weights that do not fit.
        """
        node = cfg.MODEL.VLM
        for part in ("FINETUNE_IMAGE", "FINETUNE_TEXT"):
            choose(f"MODEL.VLM.{part} of Sam3VLM", node[part], ("frozen",))
        config = _architecture(node.ARCH, node.INPUT_SIZE)
        find_entry(node.WEIGHTS, node.ARCH, "MODEL.VLM")
        if load_weights and node.WEIGHTS:
            return {"model": _filled(config, resolve(node.WEIGHTS, "MODEL.VLM.WEIGHTS"))}
        if load_weights:
            logger.warning("MODEL.VLM %s: random weights (MODEL.VLM.WEIGHTS is empty)", node.ARCH)
        return {"model": sam3_classes()[1](config)}

    def check(self, request: TowerRequest) -> None:
        """Raise a ``ConfigError`` if something other than concepts or pixels is asked for."""
        super().check(request)
        if request.blocks or request.token:
            raise ConfigError(
                "Sam3VLM gives neither block outputs nor a class token: set MODEL.SEM_SEG_HEAD.NAME to 'Sam3Head', or "
                "MODEL.VLM.NAME to 'OpenClipVLM'."
            )

    def encode(self, image: Tensor, request: TowerRequest) -> TowerFeatures:
        """Return the finder of normalised [B, 3, H, W] images, which are squashed to the model's square."""
        if not request.concepts:
            return TowerFeatures()
        squashed = F.interpolate(image, (self.side, self.side), mode="bilinear", align_corners=False, antialias=True)
        # The coarsest of the four maps belongs to the tracker of videos.
        maps = self.model.vision_encoder(squashed).fpn_hidden_states[:-1]
        return TowerFeatures(concepts=Sam3Finder(tuple(maps), tuple(image.shape[-2:]), self.model))

    def encode_text(self, sentences: list[str]) -> TokenSequences:
        """Return the tokens of noun phrases, [N, 32, C].

        Raises:
            VocabularyError: a phrase has more than 32 tokens, start and end included.
        """
        ids = self.tokenizer(sentences).to(self.model.device)
        ends = ids.argmax(dim=-1, keepdim=True)  # the end-of-text token has the highest number
        valid = torch.arange(ids.shape[1], device=ids.device) <= ends
        states = self.model.text_encoder(input_ids=ids, attention_mask=valid.long()).last_hidden_state
        return TokenSequences(self.model.text_projection(states), valid)

    def image_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of the image tower."""
        return list(self.model.vision_encoder.parameters())

    def text_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of the text tower."""
        return [*self.model.text_encoder.parameters(), *self.model.text_projection.parameters()]


@dataclass(frozen=True)
class Sam3Finder(ConceptFinder):
    """The detector of SAM 3 behind its image tower; one image serves all prompts of a call without being copied."""

    model: Sam3Model

    def find(self, image: int, prompts: TokenSequences) -> FoundConcepts:
        """Run encoder and decoder."""
        coarse, model, count = self.maps[-1][image : image + 1], self.model, len(prompts.values)
        position = model.vision_encoder.neck.position_encoding(coarse.shape, coarse.device, coarse.dtype)
        encoded = model.detr_encoder(
            vision_features=[coarse.expand(count, -1, -1, -1)],
            text_features=prompts.values,
            vision_pos_embeds=[position.expand(count, -1, -1, -1)],
            text_mask=_mask(prompts),
        )
        decoded = model.detr_decoder(
            vision_features=encoded.last_hidden_state,
            text_features=encoded.text_features,
            vision_pos_encoding=encoded.pos_embeds_flattened,
            text_mask=_mask(prompts),
            spatial_shapes=torch.tensor([coarse.shape[-2:]]),  # not on the GPU, where reading it would wait
        )
        queries = decoded.intermediate_hidden_states[-1]
        confidence = model.dot_product_scoring(queries[None], encoded.text_features, _mask(prompts))[0, :, :, 0]
        presence = decoded.presence_logits[-1].flatten()
        return FoundConcepts(presence, confidence, queries, encoded.last_hidden_state, prompts)

    def draw(self, image: int, found: FoundConcepts) -> tuple[Tensor, Tensor]:
        """Run the mask decoder."""
        count = len(found.queries)
        drawn = self.model.mask_decoder(
            decoder_queries=found.queries,
            backbone_features=[level[image : image + 1].expand(count, -1, -1, -1) for level in self.maps],
            encoder_hidden_states=found.memory,
            prompt_features=found.prompts.values,
            prompt_mask=_mask(found.prompts),
        )
        return drawn.semantic_seg[:, 0], drawn.pred_masks


def _mask(prompts: TokenSequences) -> Tensor | None:
    """Return the mask of tokens; none for tensors without content, since Transformers reads it to save work."""
    return None if prompts.valid.is_meta else prompts.valid


# ---------------------------------------------------------------------- building


def sam3_classes() -> tuple[type[Sam3Config], type[Sam3Model]]:
    """Return the classes of Transformers.

    Raises:
        ConfigError: it is not installed, or older than SAM 3.
    """
    try:
        from transformers import Sam3Config, Sam3Model
    except ImportError as error:
        raise ConfigError("MODEL.VLM.NAME 'Sam3VLM' needs transformers 5 or newer: pip install 'ovrs[sam3]'") from error
    return Sam3Config, Sam3Model


def _architecture(name: str, side: int) -> Sam3Config:
    """Return the configuration of SAM 3, or that of a JSON file, at another input size if ``side`` is not 0."""
    kind, _ = sam3_classes()
    path = Path(name)
    if path.suffix == ".json":
        if not path.is_file():
            raise WeightsError(f"MODEL.VLM.ARCH: model config {path} does not exist.")
        try:
            config = kind(**json.loads(path.read_text(encoding="utf-8")))
        except json.JSONDecodeError as error:
            raise WeightsError(f"MODEL.VLM.ARCH: model config {path} is not valid JSON: {error}.") from error
    else:
        choose("MODEL.VLM.ARCH of Sam3VLM", name, (ARCH,))
        config = kind()
    vision = config.vision_config.backbone_config
    if side % vision.patch_size:
        raise ConfigError(f"MODEL.VLM.INPUT_SIZE must be a multiple of {vision.patch_size}, SAM 3's patch, got {side}.")
    vision.image_size = side or vision.image_size
    return config


def _filled(config: Sam3Config, path: Path) -> Sam3Model:
    """Return the model with the tensors of a file in Transformers' names, those of the tracker left aside."""
    state = {name: tensor for name, tensor in read_state_dict(path).items() if not name.startswith(_OTHER_MODELS)}
    state = {name.removeprefix(_PREFIX): tensor for name, tensor in state.items()}
    # Transformers itself knows how names have changed between its releases.
    model, report = sam3_classes()[1].from_pretrained(
        None,
        config=config,
        state_dict=state,
        dtype=torch.float32,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
    )
    for kind, names in (("missing", report["missing_keys"]), ("of another shape", report["mismatched_keys"])):
        if names:
            raise WeightsError(
                f"{path}: {len(names)} tensors are {kind}: {shortened(sorted(map(str, names)))}. Is it "
                "model.safetensors of facebook/sam3, and MODEL.VLM.ARCH its architecture?"
            )
    logger.info("MODEL.VLM %s: weights from %s", ARCH, path)
    return model
