"""Semantic and structural channels of the joint space (SPSD of DR-Seg, Eq. 5 and 6)."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ovrs.config.options import Options, option
from ovrs.errors import ConfigError
from ovrs.heads.blocks.work import as_published
from ovrs.heads.dr_seg.ranking_file import ChannelRanking, RankingError

logger = logging.getLogger(__name__)

_KEY = "MODEL.DR_SEG.SPSD"
_CONTROL_SEED = 0  # of the random order of channels, an ablation
_UNKNOWN = -1


@dataclass(frozen=True)
class ChannelOptions(Options):
    """Which channels are semantic, and how the tool ranks them."""

    enabled: bool = option(True, "off: every channel is structural")
    file: str = option("", "the channel ranking; empty where a checkpoint carries it", path=True)
    rho: float = option(0.5, "share of semantic channels (Table 5)", minimum=0, maximum=1)
    select: Literal["score", "random", "inverse"] = option(
        "score", "the most semantic ones, or the controls random (needs no file) and inverse"
    )
    lambda_: float = option(
        0.3, "weight of the entropy rank in the score (Eq. 4); re-ranks a file of another", minimum=0, maximum=1
    )
    n_p: int = option(0, "of the tool: prototypes per class; 0 for all cells", minimum=0)
    purity: float = option(0.5, "of the tool: share of a cell that its class must cover", minimum=0, maximum=1)
    s_weighting: Literal["balanced", "pairs"] = option(
        "balanced", "of the tool: classes or pairs of prototypes count alike"
    )

    @property
    def needs_file(self) -> bool:
        """Whether the order comes from a channel ranking."""
        return self.enabled and self.select != "random"


@dataclass(frozen=True)
class ChannelOrder:
    """The channels from semantic to structural.

    Attributes:
        order: [C] int64; ``None`` leaves it to a checkpoint.
        channel_rms: [C] root mean square of the un-normalised features, if known.
        source: for messages.
    """

    order: Tensor | None
    channel_rms: Tensor | None = None
    source: str = ""

    @classmethod
    def of(cls, options: ChannelOptions, channels: int, checkpoint: bool = False) -> ChannelOrder:
        """Return the order that the options ask for. A checkpoint brings a file's content, so the file may be gone.

        Raises:
            RankingError: the file cannot be used.
        """
        if not options.enabled:
            return cls(torch.arange(channels), source=f"none ({_KEY}.ENABLED is off)")
        wanted = options.file and (Path(options.file).exists() or not checkpoint)
        if options.file and not wanted:
            logger.info("%s.FILE %s does not exist; the checkpoint brings the channel ranking.", _KEY, options.file)
        ranking = ChannelRanking.load(options.file, channels) if wanted else None
        rms = torch.from_numpy(ranking.channel_rms).float() if ranking else None
        if options.select == "random":
            order = torch.randperm(channels, generator=torch.Generator().manual_seed(_CONTROL_SEED))
            return cls(order, rms, f"the random one of {_KEY}.SELECT")
        if ranking is None:
            return cls(None)
        if ranking.meta["lambda"] != options.lambda_:
            ranking = ranking.reranked(options.lambda_)
        order = torch.from_numpy(ranking.order)
        return cls(order.flip(0) if options.select == "inverse" else order, rms, options.file)

    def mean_rms(self, semantic: int) -> float:
        """Return the mean RMS of the structural channels; 1 where a checkpoint brings order and scale.

        Raises:
            ConfigError: there is an order, but no ranking that it comes from.
        """
        if self.order is None:
            return 1.0
        if self.channel_rms is None:
            raise ConfigError(
                f"MODEL.DR_SEG.PDGR.LN_GAMMA_INIT 0 takes the scale from the channel ranking: set {_KEY}.FILE too."
            )
        return float(self.channel_rms[self.order[semantic:]].mean())


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
