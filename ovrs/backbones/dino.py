"""timm's DINO models as frozen (or trained) remote-sensing priors."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import timm
import torch
from detectron2.config import CfgNode, configurable
from timm.layers import to_2tuple
from timm.models.eva import Eva
from timm.models.eva import checkpoint_filter_fn as to_timm_names
from timm.models.vision_transformer import VisionTransformer
from timm.models.xcit import Xcit
from timm.models.xcit import checkpoint_filter_fn as xcit_to_timm
from torch import Tensor, nn

from ovrs.backbones.base import PRIOR_REGISTRY, Tower
from ovrs.backbones.finetune import PRIOR_MODES, set_trainable
from ovrs.backbones.position_embedding import PositionTables
from ovrs.backbones.weights import find_entry
from ovrs.errors import WeightsError
from ovrs.structures import TowerFeatures, TowerRequest, TowerSpec
from ovrs.zoo import catalogue, is_present, resolve
from ovrs.zoo.state_dict import load_strictly, read_state_dict

logger = logging.getLogger(__name__)

# DINO training checkpoints carry the projection head of the pretext task.
_PRETEXT = ("head.", "dino_head.", "ibot_head.", "mask_token", "rope")


class TimmPrior(Tower):
    """A timm ViT that returns final-norm patch features, and the class token, of its last and of chosen blocks.

    Args:
        vit: the timm model, without classification head.
        input_size: side of the square that images arrive in; 0 for any size.
        finetune: a mode of ``ovrs.backbones.finetune.PRIOR_MODES``.
    """

    short_weights = True

    @configurable
    def __init__(self, vit: nn.Module, input_size: int = 0, finetune: str = "frozen") -> None:
        super().__init__()
        self.vit = vit
        self.spec = TowerSpec(
            width=vit.embed_dim,
            depth=len(vit.blocks),
            patch_size=to_2tuple(vit.patch_embed.patch_size)[0],
            input_size=input_size,
        )
        set_trainable(vit.named_parameters(), finetune, PRIOR_MODES, "MODEL.PRIOR.FINETUNE")
        self.train(self.training)

    @classmethod
    def from_config(cls, cfg: CfgNode, *, load_weights: bool = True) -> dict[str, Any]:
        """Build the tower that ``MODEL.PRIOR`` describes and fill it."""
        node = cfg.MODEL.PRIOR
        entry = find_entry(node.WEIGHTS, node.ARCH, "MODEL.PRIOR")
        from_hub = load_weights and entry is not None and entry.timm and not is_present(entry)
        vit = _create(node.ARCH, node.ARCH_OPTIONS, from_hub)
        if not cls.takes(vit):
            raise WeightsError(
                f"MODEL.PRIOR.ARCH {node.ARCH!r} is a timm {type(vit).__name__} that MODEL.PRIOR.NAME {cls.__name__!r} "
                "does not run. DinoPrior runs plain ViTs with one class token (DINO, DINOv2), Dinov3Prior runs DINOv3, "
                "XcitPrior XCiT."
            )
        if load_weights and node.WEIGHTS and not from_hub:
            path = resolve(node.WEIGHTS, "MODEL.PRIOR.WEIGHTS")
            state = {name: tensor.float() for name, tensor in read_state_dict(path).items()}
            remedy = f"Is MODEL.PRIOR.ARCH, {node.ARCH!r}, the architecture of this file?"
            load_strictly(vit, cls.rename(state, vit), str(path), _PRETEXT, remedy)
            logger.info("prior %s: weights from %s", node.ARCH, path)
        elif load_weights and not node.WEIGHTS:
            logger.warning("prior %s: random weights (MODEL.PRIOR.WEIGHTS is empty)", node.ARCH)
        return {"vit": vit, "input_size": node.INPUT_SIZE, "finetune": node.FINETUNE}

    @staticmethod
    @abstractmethod
    def takes(vit: nn.Module) -> bool:
        """Whether ``vit`` has the form that ``run_blocks`` runs."""

    @staticmethod
    def rename(state: dict[str, Tensor], vit: nn.Module) -> dict[str, Tensor]:
        """Bring the names of a weights file to timm's."""
        return state

    def equal_blocks(self) -> list[nn.Module]:
        """Return the transformer blocks."""
        return list(self.vit.blocks)

    def encode(self, image: Tensor, request: TowerRequest) -> TowerFeatures:
        """Return what is asked for, rotations aside, of normalised [B, 3, H, W] images; the token is [B, W]."""
        last = self.spec.depth - 1
        dense = request.dense != "none"
        indices = sorted({*request.blocks, last} if dense or request.token else set(request.blocks))
        found = dict(zip(indices, self.run_blocks(image, indices, request.token), strict=True)) if indices else {}
        return TowerFeatures(
            dense=found[last][0] if dense else None,
            blocks={index: found[index][0] for index in request.blocks},
            token=found[last][1] if request.token else None,
        )

    @abstractmethod
    def run_blocks(self, image: Tensor, indices: Sequence[int], token: bool) -> list[tuple[Tensor, Tensor | None]]:
        """Return the final-norm ([B, W, h, w] map, [B, W] class token) of the given blocks, in increasing order.

        Without ``token`` nobody reads the class tokens.
        """


@PRIOR_REGISTRY.register()
class DinoPrior(TimmPrior):
    """DINO's plain ViT (timm ``VisionTransformer``), RSIB included; positions resized by DINO's rule."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._positions = PositionTables(rule="dino")

    @staticmethod
    def takes(vit: nn.Module) -> bool:  # noqa: D102
        return (
            isinstance(vit, VisionTransformer)
            and vit.num_prefix_tokens == 1
            and vit.pos_embed is not None
            and vit.pos_embed.shape[1] == 1 + vit.patch_embed.num_patches
            and isinstance(vit.norm_pre, nn.Identity)
            and not isinstance(vit.norm, nn.Identity)
        )

    def run_blocks(self, image: Tensor, indices: Sequence[int], token: bool) -> list[tuple[Tensor, Tensor]]:  # noqa: D102
        vit = self.vit
        x = vit.patch_embed.proj(image)
        grid = tuple(x.shape[-2:])
        x = torch.cat([vit.cls_token.expand(x.shape[0], -1, -1), x.flatten(2).transpose(1, 2)], dim=1)
        x = x + self._positions(vit.pos_embed, grid)
        found = []
        for index, block in enumerate(vit.blocks[: indices[-1] + 1]):
            x = block(x)
            if index in indices:
                y = vit.norm(x)
                found.append((y[:, 1:].transpose(1, 2).unflatten(2, grid).contiguous(), y[:, 0]))
        return found


@PRIOR_REGISTRY.register()
class Dinov3Prior(TimmPrior):
    """DINOv3 (timm ``Eva`` with rotary positions and register tokens), satellite weights included."""

    @staticmethod
    def takes(vit: nn.Module) -> bool:  # noqa: D102
        return isinstance(vit, Eva)

    @staticmethod
    def rename(state: dict[str, Tensor], vit: nn.Module) -> dict[str, Tensor]:
        """Accept Meta's own names as well as timm's."""
        return to_timm_names(state, vit) if "storage_tokens" in state else state

    def run_blocks(self, image: Tensor, indices: Sequence[int], token: bool) -> list[tuple[Tensor, Tensor]]:  # noqa: D102
        found = self.vit.forward_intermediates(
            image,
            indices=list(indices),
            return_prefix_tokens=True,
            norm=True,
            stop_early=True,
            intermediates_only=True,
        )
        return [(patches, prefix[:, 0]) for patches, prefix in found]


@PRIOR_REGISTRY.register()
class XcitPrior(TimmPrior):
    """DINO's XCiT: a stem of convolutions, attention between channels, and depthwise convolutions in every block.

    Its cost grows linearly with the number of patches, and unlike a plain ViT it learns from few images. Dense maps are
    those of the blocks; the class token comes from the class-attention blocks behind them.
    """

    @staticmethod
    def takes(vit: nn.Module) -> bool:  # noqa: D102
        return isinstance(vit, Xcit) and vit.cls_attn_blocks is not None

    @staticmethod
    def rename(state: dict[str, Tensor], vit: nn.Module) -> dict[str, Tensor]:
        """Accept Meta's own names as well as timm's."""
        return xcit_to_timm(state, vit)

    def run_blocks(  # noqa: D102
        self, image: Tensor, indices: Sequence[int], token: bool
    ) -> list[tuple[Tensor, Tensor | None]]:
        vit = self.vit
        x, grid = vit.patch_embed(image)
        x = x.float()  # as it leaves every block, whatever the precision of the layers
        if vit.pos_embed is not None:
            x = x + vit.pos_embed(len(x), *grid).flatten(2).transpose(1, 2)
        found = []
        for index, block in enumerate(vit.blocks[: indices[-1] + 1]):
            x = block(x, *grid)
            if index in indices:
                y = vit.norm(x).transpose(1, 2).unflatten(2, grid).contiguous()
                found.append((y, vit.norm(vit.forward_cls(x))[:, 0] if token else None))
        return found


def _create(arch: str, options: Sequence[Any], pretrained: bool) -> nn.Module:
    if len(options) % 2:
        raise WeightsError(f"MODEL.PRIOR.ARCH_OPTIONS must alternate keyword and value, got {list(options)}.")
    keywords = dict(zip(options[::2], options[1::2], strict=True))
    if not timm.is_model(arch):
        near = ", ".join(timm.list_models("*dino*", pretrained=True))
        raise WeightsError(f"MODEL.PRIOR.ARCH: timm knows no model {arch!r}; its DINO models are {near}.")
    try:
        # XCiT computes its positions from the grid, whatever the size.
        size = {} if arch.startswith("xcit") else {"dynamic_img_size": True}
        vit = timm.create_model(arch, pretrained=pretrained, num_classes=0, **size, **keywords)
    except (TypeError, OSError, RuntimeError) as error:
        if not pretrained or isinstance(error, TypeError):
            raise WeightsError(
                f"timm cannot build MODEL.PRIOR.ARCH {arch!r} with MODEL.PRIOR.ARCH_OPTIONS {keywords}: {error}. "
                "Priors are ViTs; correct one of the two keys."
            ) from error
        entry = next(entry for entry in catalogue().values() if entry.arch == arch and entry.timm)
        raise WeightsError(
            f"MODEL.PRIOR.WEIGHTS: downloading {arch} from {entry.source} failed ({error}). Fetch the file elsewhere "
            f"and give it: ovrs models fetch {entry.name} --from FILE; or set MODEL.PRIOR.WEIGHTS to its path."
        ) from error
    return vit
