"""SAM 3 asked word by word, its two kinds of masks joined as SegEarth-OV-3 joins them (arXiv 2512.08730)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ovrs.config.options import Options, option
from ovrs.errors import ConfigError
from ovrs.heads.base import Head, HeadContext, register_head
from ovrs.heads.blocks.work import as_published
from ovrs.heads.quantities import Pass, Quantity
from ovrs.scores import ScoreRule, enlarge
from ovrs.structures import ConceptFinder, TextFeatures, TokenSequences, TowerFeatures, TowerRequest, TowerSpec

PROMPTS_PER_PASS = 8  # half a gigabyte each at SAM 3's own size, in fp32
MASKS_PER_PASS = 16  # enlarged at once


@dataclass(frozen=True)
class Sam3Options(Options):
    """``MODEL.SAM3``."""

    confidence: float = option(0.5, "instances count whose confidence, times presence, is above it", minimum=0)
    presence: float = option(
        0.1,
        "words whose presence is below it are not drawn and score 0 everywhere; labels stay the same while it is not "
        "above TEST.THRESHOLD",
        minimum=0,
        maximum=1,
    )


@register_head("SAM3", Sam3Options)
class Sam3Head(Head):
    """Probabilities of every word by itself, at the resolution of the images.

    With presence p, the map of the concept S and candidates of confidence c_k and masks M_k (all probabilities), a
    pixel scores ``p * max(S, max over c_k p > CONFIDENCE of c_k p M_k)``.
    """

    needs_training = False
    extra_work = as_published

    def __init__(self, options: Sam3Options, towers: Mapping[str, TowerSpec], context: HeadContext) -> None:
        super().__init__()
        if context.prompts != 1:
            raise ConfigError(
                f"VOCABULARY has {context.prompts} templates, but Sam3Head reads one noun phrase per word: set "
                "VOCABULARY.TEMPLATES to ['{}']."
            )
        self.settings, self.class_chunk = options, context.class_chunk
        self.rule = ScoreRule("none", synonyms="max")

    def requests(self) -> dict[str, TowerRequest]:
        """Ask for the finder."""
        return {"vlm": TowerRequest(dense="none", concepts=True)}

    def forward(self, features: Mapping[str, TowerFeatures], text: TextFeatures) -> Tensor:
        """Return [B, Q, H, W] probabilities; H and W are those of the images."""
        finder = features["vlm"].concepts
        return torch.stack([self._scores(finder, image, text.tokens) for image in range(len(finder.maps[0]))])

    def _scores(self, finder: ConceptFinder, image: int, words: TokenSequences) -> Tensor:
        """Return [Q, H, W] probabilities of one image."""
        count, size = len(words.values), self.class_chunk or PROMPTS_PER_PASS
        scores = words.values.new_zeros(count, *finder.size)
        for first in range(0, count, size):
            found = finder.find(image, words[first : first + size])
            presence = found.presence.float().sigmoid()
            drawn = self._drawn(presence, found.confidence.float().sigmoid() * presence[:, None])
            if not drawn:
                continue
            rows = list(drawn)
            found = found.choose(rows, max(drawn.values()))
            semantic, masks = finder.draw(image, found)
            confidence = found.confidence.float().sigmoid() * presence[rows, None]
            for index, (row, number) in enumerate(drawn.items()):
                score = enlarge(semantic[index : index + 1].float(), finder.size).sigmoid()
                for start in range(0, number, MASKS_PER_PASS):
                    some = slice(start, min(start + MASKS_PER_PASS, number))
                    masked = enlarge(masks[index, some].float(), finder.size).sigmoid()
                    score = torch.cat([score, masked * confidence[index, some, None, None]]).amax(dim=0, keepdim=True)
                scores[first + row] = score[0] * presence[row]
        return scores

    def _drawn(self, presence: Tensor, confidence: Tensor) -> dict[int, int]:
        """Return {word that is drawn: number of its instances}; everything for tensors without content.

        Args:
            presence: [N] probabilities.
            confidence: [N, K] probabilities, presence included.
        """
        if presence.is_meta:
            return dict.fromkeys(range(len(presence)), confidence.shape[1])
        present, instances = presence >= self.settings.presence, (confidence > self.settings.confidence).sum(dim=1)
        return {
            row: number
            for row, (there, number) in enumerate(torch.stack([present, instances], dim=1).tolist())
            if there
        }

    def quantities(self) -> dict[str, Quantity]:
        """Return what the finder says of every word, before both kinds of masks are joined."""
        return {
            "presence": Quantity("class_values", "p, whether a word is in the image at all", self._presence),
            "concept": Quantity("class_maps", "S, the map of the concept", lambda seen: self._maps(seen)[0]),
            "instances": Quantity(
                "class_maps", "the best of c_k M_k over all candidates", lambda seen: self._maps(seen)[1]
            ),
        }

    @staticmethod
    def _presence(seen: Pass) -> Tensor:
        finder = seen.features["vlm"].concepts
        images = range(len(finder.maps[0]))
        return torch.stack([finder.find(image, seen.text.tokens).presence.float().sigmoid() for image in images])

    def _maps(self, seen: Pass) -> tuple[Tensor, Tensor]:
        """Return the maps of concepts and the best of the weighed candidates, each [B, Q, h, w] probabilities."""
        finder, words = seen.features["vlm"].concepts, seen.text.tokens
        parts = []
        for image in range(len(finder.maps[0])):
            for chunk in torch.arange(len(words.values), device=words.values.device).split(PROMPTS_PER_PASS):
                found = finder.find(image, words[chunk])
                semantic, masks = finder.draw(image, found)
                weighed = masks.float().sigmoid() * found.confidence.float().sigmoid()[..., None, None]
                parts.append((semantic.float().sigmoid(), weighed.amax(dim=1)))
        return tuple(torch.cat(part).unflatten(0, (len(finder.maps[0]), -1)) for part in zip(*parts, strict=True))
