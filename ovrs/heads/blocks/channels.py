"""Semantic and structural channels of the joint space (SPSD of DR-Seg, Eq. 5 and 6)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ovrs.channel_ranking import RankingError
from ovrs.heads.blocks.work import as_published

_UNKNOWN = -1


class ChannelSplit(nn.Module):
    """Takes features apart by channel and puts them together again, bit for bit.

    The ranking travels in checkpoints, as the buffer ``order``. One that is given, here or by a checkpoint, is
    never replaced by another silently.

    Args:
        order: [C] int64 channels from semantic to structural; ``None`` leaves it to a checkpoint.
        channels: C.
        semantic: how many channels, from the front of the order, are semantic.
        source: where ``order`` comes from, for messages.
    """

    order: Tensor

    def __init__(self, order: Tensor | None, channels: int, semantic: int, source: str) -> None:
        super().__init__()
        self.semantic, self.source, self.ranked = semantic, source, order is not None
        self.register_buffer("order", torch.full((channels,), _UNKNOWN) if order is None else order.clone())

    def split(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the semantic and the structural channels of [B, C, h, w] features.

        Raises:
            RankingError: there is no ranking yet.
        """
        if not self.ranked:
            raise RankingError(
                "MODEL.DR_SEG.SPSD.FILE is empty and no checkpoint has brought a channel ranking. Make one with "
                "tools/rank_channels.py and set MODEL.DR_SEG.SPSD.FILE to it, or set MODEL.DR_SEG.SPSD.ENABLED to "
                "False."
            )
        return features[:, self.order[: self.semantic]], features[:, self.order[self.semantic :]]

    extra_work = as_published

    def recompose(self, semantic: Tensor, structural: Tensor) -> Tensor:
        """Undo :meth:`split`."""
        return torch.cat([semantic, structural], dim=1)[:, self.order.argsort()]

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Take over the ranking of a checkpoint.

        Raises:
            RankingError: it is not the one that this model was built with.
        """
        name = f"{prefix}order"
        theirs = state_dict.get(name)
        brings_one = theirs is not None and not (theirs == _UNKNOWN).any()
        if theirs is not None and not brings_one:
            state_dict = {**state_dict, name: self.order}
        elif brings_one and self.ranked and not torch.equal(theirs.to(self.order), self.order):
            raise RankingError(
                f"the checkpoint was trained with another channel ranking than {self.source}. Leave "
                "MODEL.DR_SEG.SPSD.FILE empty to use the checkpoint's, or train anew."
            )
        super()._load_from_state_dict(state_dict, prefix, *args)
        self.ranked |= brings_one
