"""Text embeddings of vocabularies, encoded once per vocabulary and text tower state."""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovrs.caching import ParameterCache, being_trained
from ovrs.errors import choose
from ovrs.structures import TextFeatures, TokenSequences
from ovrs.vocabulary.vocabulary import Vocabulary


class TextEncoder(Protocol):
    """What the bank needs of a VLM."""

    def encode_text(self, sentences: list[str]) -> Tensor | TokenSequences:
        """Return [N, C] embeddings of ``N`` sentences, not normalised; or their tokens, all equally many."""
        ...

    def text_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that text embeddings depend on."""
        ...


class TextBank:
    """Encodes vocabularies and remembers the results.

    A result is reused only for the same words and templates and an unchanged text tower, and never while the tower
    trains, see :class:`ovrs.caching.ParameterCache`.

    Args:
        synonyms: the words of a class that are encoded: ``mean``: all (heads average them or take their best);
            ``first``: the first, as the original GSNet code does at run time; ``random``: in training one per class,
            drawn anew in every call, otherwise all. Learning several words for one thing teaches a model to follow
            meanings instead of a few fixed vectors.
        sentences_per_batch: upper bound of sentences in one pass of the text tower, without gradients.
        capacity: number of vocabularies remembered.
    """

    def __init__(self, synonyms: str = "mean", sentences_per_batch: int = 512, capacity: int = 64) -> None:
        self._synonyms = choose("VOCABULARY.SYNONYMS", synonyms, ("mean", "first", "random"))
        self._batch = sentences_per_batch
        self._cache: ParameterCache[TextFeatures] = ParameterCache(capacity)

    def __call__(self, encoder: TextEncoder, vocabulary: Vocabulary, training: bool = False) -> TextFeatures:
        """Return the unit embeddings of ``vocabulary``'s words under each of its templates."""
        if training and self._synonyms == "random":
            return self._draw(encoder, vocabulary)
        if self._synonyms == "first":
            vocabulary = Vocabulary(tuple(words[:1] for words in vocabulary.synonyms), vocabulary.templates)
        return self._embed(encoder, vocabulary)

    def _draw(self, encoder: TextEncoder, vocabulary: Vocabulary) -> TextFeatures:
        """Embed one word per class, from PyTorch's random numbers."""
        picks = [int(torch.randint(len(words), ())) for words in vocabulary.synonyms]
        if being_trained(encoder.text_parameters()):
            drawn = tuple((words[pick],) for words, pick in zip(vocabulary.synonyms, picks, strict=True))
            return self._embed(encoder, Vocabulary(drawn, vocabulary.templates))
        # A frozen tower encodes every word once; a draw only picks rows.
        every = self._embed(encoder, vocabulary)
        starts = [vocabulary.class_of.index(t) for t in range(len(vocabulary))]
        rows = [start + pick for start, pick in zip(starts, picks, strict=True)]
        return TextFeatures(every.embeddings[rows], every.class_of[rows], every.classes)

    def _embed(self, encoder: TextEncoder, vocabulary: Vocabulary) -> TextFeatures:
        return self._cache(vocabulary, encoder.text_parameters(), lambda: self._encode(encoder, vocabulary))

    def _encode(self, encoder: TextEncoder, vocabulary: Vocabulary) -> TextFeatures:
        sentences = vocabulary.sentences
        size = len(sentences) if torch.is_grad_enabled() else self._batch
        parts = [encoder.encode_text(sentences[i : i + size]) for i in range(0, len(sentences), size)]
        tokens = None
        if isinstance(parts[0], TokenSequences):
            values, valid = (torch.cat([getattr(part, name) for part in parts]) for name in ("values", "valid"))
            tokens = TokenSequences(values.float(), valid)
        embeddings = torch.cat(parts) if tokens is None else tokens.mean
        features = TextFeatures(
            F.normalize(embeddings.float(), dim=-1).unflatten(0, (-1, len(vocabulary.templates))),
            torch.tensor(vocabulary.class_of, device=embeddings.device),
            len(vocabulary),
            tokens,
        )
        if not torch.is_grad_enabled():
            # Computed here, their results are remembered too and are no inference tensors.
            _ = features.mean, features.per_word
        return features
