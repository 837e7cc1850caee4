from __future__ import annotations

import random
import zlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ovrs.errors import ConfigError
from ovrs.structures import TokenSequences
from ovrs.vocabulary import TextBank, Vocabulary

WIDTH = 6
WORDS = Vocabulary.from_strings(["sea|lake|pond", "road", "tree|forest"], ["a {}.", "the {}"])


class CountingEncoder(nn.Module):
    """A linear "text tower" over one fixed random vector per sentence, which records what it encodes."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(WIDTH, WIDTH))
        self.batches: list[list[str]] = []

    def encode_text(self, sentences: list[str]) -> torch.Tensor:
        self.batches.append(list(sentences))
        return torch.stack([self.raw(sentence) for sentence in sentences]) @ self.weight

    def text_parameters(self) -> list[nn.Parameter]:
        return [self.weight]

    @staticmethod
    def raw(sentence: str) -> torch.Tensor:
        return torch.randn(WIDTH, generator=torch.Generator().manual_seed(zlib.crc32(sentence.encode())))

    @property
    def sentences(self) -> list[str]:
        return [sentence for batch in self.batches for sentence in batch]


@pytest.fixture
def encoder():
    return CountingEncoder()


@pytest.fixture
def frozen(encoder):
    return encoder.requires_grad_(False)


# ---------------------------------------------------------------------- the embeddings


def unit(encoder, word: str, template: str) -> torch.Tensor:
    """Return the [C] unit embedding of one sentence."""
    return F.normalize(encoder.raw(template.replace("{}", word)) @ encoder.weight.detach(), dim=0)


def test_embeddings_are_words_by_prompts_of_unit_length(frozen):
    text = TextBank()(frozen, WORDS)
    assert text.embeddings.shape == (6, 2, WIDTH)
    assert text.embeddings.dtype == torch.float32
    torch.testing.assert_close(text.embeddings.norm(dim=-1), torch.ones(6, 2))
    assert text.class_of.tolist() == [0, 0, 0, 1, 2, 2]
    assert text.class_of.dtype == torch.int64
    assert text.classes == 3
    words = [word for words in WORDS.synonyms for word in words]
    for q, word in enumerate(words):
        for p, template in enumerate(WORDS.templates):
            torch.testing.assert_close(text.embeddings[q, p], unit(frozen, word, template))


def test_class_is_the_normalised_mean_of_its_words_unit_embeddings(frozen):
    found = TextBank("mean")(frozen, WORDS).per_class
    assert found.shape == (3, 2, WIDTH)
    for t, words in enumerate(WORDS.synonyms):
        for p, template in enumerate(WORDS.templates):
            units = [unit(frozen, word, template) for word in words]
            torch.testing.assert_close(found[t, p], F.normalize(torch.stack(units).mean(dim=0), dim=0))


def test_prompts_are_averaged_and_normalised_again(frozen):
    text = TextBank()(frozen, WORDS)
    for t in range(3):
        torch.testing.assert_close(text.mean[t], F.normalize(text.per_class[t].mean(dim=0), dim=0))
    for q in range(6):
        torch.testing.assert_close(text.per_word[q], F.normalize(text.embeddings[q].mean(dim=0), dim=0))


def test_one_class_alone_is_encoded(frozen):
    text = TextBank()(frozen, Vocabulary.from_strings(["sea|lake"], ["a {}."], minimum=1))
    assert (text.embeddings.shape, text.per_class.shape, text.mean.shape) == ((2, 1, WIDTH), (1, 1, WIDTH), (1, WIDTH))


def test_first_encodes_only_the_first_word(frozen):
    found = TextBank("first")(frozen, WORDS).embeddings
    names = Vocabulary.from_strings(WORDS.names, WORDS.templates)
    assert frozen.sentences == ["a sea.", "the sea", "a road.", "the road", "a tree.", "the tree"]
    torch.testing.assert_close(found, TextBank("mean")(frozen, names).embeddings)


def test_unknown_synonym_rule_is_refused():
    with pytest.raises(ConfigError, match=r"VOCABULARY\.SYNONYMS must be one of mean, first, random, got 'all'"):
        TextBank("all")


def test_batches_of_sentences_give_the_same_embeddings(frozen):
    at_once = TextBank()(frozen, WORDS).embeddings
    frozen.batches.clear()
    torch.testing.assert_close(TextBank(sentences_per_batch=5)(frozen, WORDS).embeddings, at_once)
    assert [len(batch) for batch in frozen.batches] == [5, 5, 2]


def test_classes_keep_their_order(frozen):
    reversed_words = Vocabulary.from_strings(["tree|forest", "road", "sea|lake|pond"], WORDS.templates)
    bank = TextBank()
    torch.testing.assert_close(bank(frozen, reversed_words).per_class, bank(frozen, WORDS).per_class.flip(0))


# ---------------------------------------------------------------------- one word at random


def in_all_templates(encoder, word: str) -> torch.Tensor:
    """Return the [P, C] unit embeddings of one word."""
    return torch.stack([unit(encoder, word, template) for template in WORDS.templates])


def drawn_words(bank, encoder) -> tuple[str, ...]:
    """Return the word of every class that one training call of ``bank`` embeds.

    Each of its embeddings must be that of exactly one of the class's words, the same word in every template.
    """
    text = bank(encoder, WORDS, training=True)
    assert text.class_of.tolist() == [0, 1, 2]
    found = text.per_class.detach()
    drawn = []
    for words, embeddings in zip(WORDS.synonyms, found, strict=True):
        matching = [word for word in words if torch.allclose(in_all_templates(encoder, word), embeddings, atol=1e-6)]
        drawn.extend(matching)
        assert len(matching) == 1
    return tuple(drawn)


@pytest.fixture(params=[False, True], ids=["frozen", "trained"])
def any_tower(request, encoder):
    return encoder.requires_grad_(request.param)


def test_training_draws_every_listed_word_in_turn(any_tower):
    bank = TextBank("random")
    draws = [drawn_words(bank, any_tower) for _ in range(60)]
    assert [set(words) for words in zip(*draws, strict=True)] == [set(words) for words in WORDS.synonyms]
    assert len(set(draws)) == 6  # 3 words times 1 times 2, independent of each other


def test_draws_follow_the_seed_and_nothing_else(any_tower):
    def draws(bank):
        torch.manual_seed(7)
        return [drawn_words(bank, any_tower) for _ in range(8)]

    used = TextBank("random")
    first = draws(used)
    np.random.seed(1)  # noqa: NPY002 - the global generator is what must not matter
    random.seed(1)
    assert draws(used) == first  # with a filled cache
    assert draws(TextBank("random")) == first
    assert len(set(first)) > 1


def test_frozen_tower_encodes_each_word_once_for_all_draws(frozen):
    bank = TextBank("random")
    for _ in range(20):
        bank(frozen, WORDS, training=True)
    assert len(frozen.batches) == 1
    assert sorted(frozen.sentences) == sorted(
        template.replace("{}", word) for words in WORDS.synonyms for word in words for template in WORDS.templates
    )


def test_trained_tower_encodes_only_the_drawn_words_and_learns_from_them(encoder):
    bank = TextBank("random")
    for _ in range(3):
        encoder.zero_grad()
        encoder.batches.clear()
        text = bank(encoder, WORDS, training=True)
        assert (text.class_of.tolist(), text.classes) == ([0, 1, 2], 3)
        assert len(encoder.sentences) == len(WORDS) * len(WORDS.templates)
        for t, in_templates in enumerate(zip(encoder.sentences[::2], encoder.sentences[1::2], strict=True)):
            assert in_templates in [tuple(s.replace("{}", word) for s in WORDS.templates) for word in WORDS.synonyms[t]]
        text.embeddings[0].sum().backward()
        assert encoder.weight.grad.abs().max() > 0


def test_evaluation_takes_all_words(any_tower):
    with torch.no_grad():
        found = TextBank("random")(any_tower, WORDS).embeddings
        torch.testing.assert_close(found, TextBank("mean")(any_tower, WORDS).embeddings)


def test_training_takes_all_words_where_nothing_is_drawn(frozen):
    bank = TextBank("mean")
    assert bank(frozen, WORDS, training=True).embeddings is bank(frozen, WORDS).embeddings


# ---------------------------------------------------------------------- caching


def test_vocabulary_is_encoded_once(frozen):
    bank = TextBank()
    first = bank(frozen, WORDS).embeddings
    again = bank(frozen, Vocabulary.from_strings(["sea|lake|pond", "road", "tree|forest"], ["a {}.", "the {}"]))
    assert len(frozen.batches) == 1
    assert again.embeddings is first


def test_means_are_computed_once(frozen):
    bank = TextBank()
    first = bank(frozen, WORDS)
    again = bank(frozen, WORDS)
    assert again.per_class is first.per_class
    assert again.mean is first.mean
    assert again.per_word is first.per_word


@pytest.mark.parametrize(
    "other",
    [
        Vocabulary.from_strings(["sea|lake|pond", "road"], WORDS.templates),
        Vocabulary.from_strings(["sea|lake", "road", "tree|forest"], WORDS.templates),
        Vocabulary(WORDS.synonyms, WORDS.templates[:1]),
    ],
    ids=["classes", "synonyms", "templates"],
)
def test_cache_follows_the_vocabulary(frozen, other):
    bank = TextBank()
    bank(frozen, WORDS)
    torch.testing.assert_close(bank(frozen, other).embeddings, TextBank()(frozen, other).embeddings)
    assert len(frozen.batches) == 3
    bank(frozen, WORDS)
    bank(frozen, other)
    assert len(frozen.batches) == 3


def test_least_recently_used_vocabulary_is_dropped(frozen):
    a, b, c = (Vocabulary.from_strings([name, "other"], ["{}"]) for name in "abc")
    bank = TextBank(capacity=2)
    for words in (a, b, a, c):  # c drops b, since a was used later
        bank(frozen, words)
    frozen.batches.clear()
    bank(frozen, a)
    bank(frozen, c)
    assert not frozen.batches
    bank(frozen, b)
    assert frozen.sentences == ["b", "other"]


# ---------------------------------------------------------------------- a text tower that changes


def change_in_place(encoder):
    with torch.no_grad():
        encoder.weight.mul_(-1)


def load_other_weights(encoder):
    encoder.load_state_dict(CountingEncoder().state_dict())


def load_by_assignment(encoder):
    encoder.load_state_dict(CountingEncoder().state_dict(), assign=True)


def replace_data(encoder):
    encoder.weight.data = torch.randn(WIDTH, WIDTH)


@pytest.mark.parametrize("change", [change_in_place, load_other_weights, load_by_assignment, replace_data])
def test_changed_weights_are_encoded_anew(frozen, change):
    bank = TextBank()
    before = bank(frozen, WORDS).embeddings.clone()
    change(frozen)
    after = bank(frozen, WORDS).embeddings
    torch.testing.assert_close(after, TextBank()(frozen, WORDS).embeddings)
    assert not torch.allclose(after, before)


@pytest.mark.parametrize("options", [{"foreach": False}, {"foreach": True}, {"fused": True}], ids=str)
def test_training_step_between_evaluations_is_seen(encoder, options):
    bank = TextBank()
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=0.1, **options)
    with torch.inference_mode():
        before = bank(encoder, WORDS).embeddings.clone()
    bank(encoder, WORDS).embeddings.sum().backward()
    optimizer.step()
    with torch.inference_mode():
        after = bank(encoder, WORDS).embeddings
        torch.testing.assert_close(after, TextBank()(encoder, WORDS).embeddings)
    assert not torch.allclose(after, before)


def test_training_tower_is_encoded_every_time_with_gradient(encoder):
    bank = TextBank()
    gradients = []
    for _ in range(2):
        encoder.zero_grad()
        bank(encoder, WORDS).embeddings[0].sum().backward()
        gradients.append(encoder.weight.grad.clone())
    assert len(encoder.batches) == 2
    assert gradients[0].abs().max() > 0
    torch.testing.assert_close(gradients[0], gradients[1])


def test_trainable_tower_is_cached_while_gradients_are_off(encoder):
    bank = TextBank()
    with torch.no_grad():
        assert bank(encoder, WORDS).embeddings is bank(encoder, WORDS).embeddings
    assert len(encoder.batches) == 1


def test_cached_embeddings_of_inference_mode_can_be_trained_with(frozen):
    bank = TextBank()
    with torch.inference_mode():
        cached = bank(frozen, WORDS).embeddings
    assert not cached.is_inference()
    projection = nn.Linear(WIDTH, 2)
    text = bank(frozen, WORDS)
    assert text.embeddings is cached
    projection(text.embeddings).sum().backward()
    assert projection.weight.grad.abs().max() > 0


def test_means_read_in_inference_mode_can_be_trained_with(frozen):
    bank = TextBank()
    with torch.inference_mode():
        _ = bank(frozen, WORDS).mean, bank(frozen, WORDS).per_word
    projection = nn.Linear(WIDTH, 2)
    text = bank(frozen, WORDS)
    for values in (text.per_class, text.mean, text.per_word):
        assert not values.is_inference()
        projection(values).sum().backward()


# ---------------------------------------------------------------------- with a real text tower


def test_gradient_reaches_only_the_trained_part_of_a_clip(tiny_vlm):
    TextBank()(tiny_vlm, WORDS).embeddings.std().backward()
    grads = {name for name, p in tiny_vlm.clip.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    blocks = [f"transformer.resblocks.{i}.attn" for i in range(2)]
    assert grads == {f"{block}.{part}_proj_weight" for block in blocks for part in "qv"}


def test_clip_embeddings_are_those_of_single_sentences(tiny_vlm):
    with torch.no_grad():
        found = TextBank(sentences_per_batch=3)(tiny_vlm, WORDS).embeddings
        alone = F.normalize(tiny_vlm.encode_text(["the road"]), dim=-1)[0]
    torch.testing.assert_close(found[3, 1], alone, rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------------- text towers whose heads read every token


class TokenEncoder(CountingEncoder):
    """Every sentence is three tokens: itself twice and padding."""

    def encode_text(self, sentences: list[str]) -> TokenSequences:
        rows = super().encode_text(sentences)
        padding = torch.full_like(rows, 1e6)
        return TokenSequences(
            torch.stack([rows, 3 * rows, padding], dim=1), torch.tensor([[True, True, False]] * len(rows))
        )


@torch.no_grad()
def test_tokens_are_kept_once_per_vocabulary_and_their_mean_is_the_embedding():
    encoder = TokenEncoder().requires_grad_(False)
    bank = TextBank(sentences_per_batch=3)
    text = bank(encoder, WORDS)
    raw = torch.stack([encoder.raw(sentence) for sentence in WORDS.sentences]) @ encoder.weight
    torch.testing.assert_close(text.tokens.values[:, 1], 3 * raw)
    assert text.tokens.valid.tolist() == [[True, True, False]] * len(raw)
    torch.testing.assert_close(text.embeddings.flatten(0, 1), F.normalize(raw, dim=1))
    assert bank(encoder, WORDS) is text
    assert len(encoder.sentences) == len(raw)
