"""The head of SAM 3 over a finder whose answers are given: how maps join, what is not drawn, what labels become."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
import torch.nn.functional as F
from head_inputs import VLM, configured
from torch import Tensor

from ovrs.errors import ConfigError
from ovrs.heads import Sam3Head
from ovrs.scores import enlarge
from ovrs.structures import ConceptFinder, FoundConcepts, TextFeatures, TokenSequences, TowerFeatures

WORDS, CANDIDATES, GRID, SIZE = 6, 20, (5, 7), (13, 16)


@dataclass(frozen=True)
class GivenFinder(ConceptFinder):
    """Answers with given logits; a prompt is its number. Remembers what it was asked to draw."""

    presence: Tensor  # [B, WORDS]
    confidence: Tensor  # [B, WORDS, CANDIDATES]
    semantic: Tensor  # [B, WORDS, *GRID]
    masks: Tensor  # [B, WORDS, CANDIDATES, *GRID]
    drawn: list[tuple[int, list[int], int]] = field(default_factory=list)

    def find(self, image: int, prompts: TokenSequences) -> FoundConcepts:
        rows = prompts.values[:, 0, 0].long()
        numbers = torch.arange(CANDIDATES).expand(len(rows), -1)[..., None]
        return FoundConcepts(self.presence[image, rows], self.confidence[image, rows], numbers, prompts.values, prompts)

    def draw(self, image: int, found: FoundConcepts) -> tuple[Tensor, Tensor]:
        rows, candidates = found.prompts.values[:, 0, 0].long(), found.queries[..., 0]
        self.drawn.append((image, rows.tolist(), candidates.shape[1]))
        return self.semantic[image, rows], self.masks[image, rows[:, None], candidates]


@pytest.fixture
def finder() -> GivenFinder:
    generator = torch.Generator().manual_seed(2)

    def logits(*shape: int) -> Tensor:
        return 2 * torch.randn(2, WORDS, *shape, generator=generator)

    presence = torch.linspace(-4, 4, 2 * WORDS)[torch.randperm(2 * WORDS, generator=generator)].view(2, WORDS)
    return GivenFinder(
        (torch.zeros(2, 1, *GRID),), SIZE, presence, logits(CANDIDATES), logits(*GRID), logits(CANDIDATES, *GRID)
    )


@torch.no_grad()
def scores(finder: GivenFinder, **options: float) -> Tensor:
    head = configured(Sam3Head, {"vlm": VLM}, **options)
    values = torch.arange(WORDS, dtype=torch.float32)[:, None, None]
    tokens = TokenSequences(values, torch.ones(WORDS, 1, dtype=torch.bool))
    text = TextFeatures(F.normalize(torch.ones(WORDS, 1, 1), dim=-1), torch.arange(WORDS), WORDS, tokens)
    return head({"vlm": TowerFeatures(concepts=finder)}, text)


def expected(finder: GivenFinder, confidence: float) -> Tensor:
    """The recipe word by word, as SegEarth-OV-3's paper gives it: everything is drawn, nothing is left out."""
    maps = torch.zeros(2, WORDS, *SIZE)
    for image in range(2):
        for word in range(WORDS):
            present = finder.presence[image, word].sigmoid()
            instances = torch.zeros(SIZE)
            for logit, mask in zip(finder.confidence[image, word], finder.masks[image, word], strict=True):
                score = logit.sigmoid() * present
                if score > confidence:
                    instances = torch.maximum(instances, enlarge(mask[None], SIZE)[0].sigmoid() * score)
            concept = enlarge(finder.semantic[image, word][None], SIZE)[0].sigmoid()
            maps[image, word] = torch.maximum(concept, instances) * present
    return maps


@pytest.mark.parametrize("confidence", [0.0, 0.3, 0.5, 0.99])
def test_maps_of_concept_and_instances_join_as_published(finder: GivenFinder, confidence: float):
    torch.testing.assert_close(scores(finder, confidence=confidence, presence=0.0), expected(finder, confidence))


def test_instances_count_beyond_the_number_that_is_enlarged_at_once(finder: GivenFinder):
    finder.masks[:, :, :-1], finder.semantic[:] = -20.0, -20.0
    finder.masks[:, :, -1] = 20.0
    finder.confidence[:, :, :-1], finder.confidence[:, :, -1] = 3.0, 1.0  # the one that shows is the least sure
    present = finder.presence.sigmoid()
    shown = (torch.tensor(1.0).sigmoid() * present * present)[..., None, None].expand(-1, -1, *SIZE)
    torch.testing.assert_close(scores(finder, confidence=0.0, presence=0.0), shown, atol=1e-6, rtol=1e-5)


def test_absent_words_are_not_drawn_and_score_zero(finder: GivenFinder):
    gated = scores(finder, presence=0.4, confidence=0.3)
    present = finder.presence.sigmoid() >= 0.4
    assert 0 < int(present.sum()) < present.numel()
    assert [(image, rows) for image, rows, _ in finder.drawn] == [
        (image, present[image].nonzero().flatten().tolist()) for image in range(2) if present[image].any()
    ]
    torch.testing.assert_close(gated, expected(finder, 0.3) * present[..., None, None])


def test_no_more_candidates_are_drawn_than_the_surest_word_has(finder: GivenFinder):
    scores(finder, presence=0.0, confidence=0.6)
    kept = (finder.confidence.sigmoid() * finder.presence.sigmoid()[..., None] > 0.6).sum(dim=2)
    assert [count for _, _, count in finder.drawn] == kept.amax(dim=1).tolist()


@pytest.mark.parametrize("threshold", [0.2, 0.4])
def test_gate_at_the_threshold_leaves_every_label_as_it_is(finder: GivenFinder, threshold: float):
    rule = configured(Sam3Head, {"vlm": VLM}).rule.below_is(0)
    rule = type(rule)(**{**vars(rule), "threshold": threshold})
    for one, other in zip(scores(finder, presence=threshold), scores(finder, presence=0.0), strict=True):
        assert torch.equal(rule.label_map(one, SIZE)[0], rule.label_map(other, SIZE)[0])


@pytest.mark.parametrize("chunk", [1, 4])
def test_scores_do_not_depend_on_the_words_per_pass(finder: GivenFinder, chunk: int):
    torch.testing.assert_close(scores(finder, class_chunk=chunk), scores(finder, class_chunk=100))


def test_several_templates_are_refused():
    with pytest.raises(ConfigError, match=r"VOCABULARY has 3 templates.*set VOCABULARY.TEMPLATES to \['\{\}'\]"):
        configured(Sam3Head, {"vlm": VLM}, prompts=3)


def test_scores_are_probabilities_already_and_synonyms_take_the_best_word():
    rule, given = configured(Sam3Head, {"vlm": VLM}).rule, torch.rand(3, 2, 2)
    assert rule.scores(given) is given
    found = rule.probabilities(given, torch.tensor([0, 0, 1]))
    torch.testing.assert_close(found, torch.stack([torch.maximum(given[0], given[1]), given[2]]))
