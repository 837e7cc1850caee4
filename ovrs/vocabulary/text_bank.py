"""Text embeddings of vocabularies, encoded once per vocabulary and text tower state."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovrs.structures import TextFeatures
from ovrs.vocabulary.vocabulary import Vocabulary


class TextEncoder(Protocol):
    """What the bank needs of a VLM."""

    def encode_text(self, sentences: list[str]) -> Tensor:
        """Return [N, C] embeddings of ``N`` sentences, not normalised."""
        ...

    def text_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that text embeddings depend on."""
        ...


class TextBank:
    """Encodes vocabularies and remembers the results.

    A result is reused only for the same words and templates and an unchanged text tower. While the
    tower trains (gradients on and a text parameter that wants one) nothing is cached, so gradients reach it,
    and what was cached before is forgotten.

    Args:
        synonyms: how several words of one class become one embedding per template: ``mean`` of their
            unit embeddings, normalised again; ``first``, as the original GSNet code does at run time; or
            ``random``: in training one word per class, drawn anew in every call, otherwise the mean. Learning
            several words for one thing teaches a model to follow meanings instead of a few fixed vectors.
        sentences_per_batch: upper bound of sentences in one pass of the text tower, without gradients.
        capacity: number of vocabularies remembered; the least recently used is dropped.
    """

    def __init__(self, synonyms: str = "mean", sentences_per_batch: int = 512, capacity: int = 64) -> None:
        if synonyms not in ("mean", "first", "random"):
            raise ValueError(f"VOCABULARY.SYNONYMS must be 'mean', 'first' or 'random', got {synonyms!r}.")
        self._first_only, self._random = synonyms == "first", synonyms == "random"
        self._batch = sentences_per_batch
        self._capacity = capacity
        self._cache: OrderedDict[Vocabulary, tuple[tuple, Tensor]] = OrderedDict()

    def __call__(self, encoder: TextEncoder, vocabulary: Vocabulary, training: bool = False) -> TextFeatures:
        """Return the [T, P, C] unit embeddings of ``vocabulary``; ``P`` is its number of templates."""
        if training and self._random:
            return TextFeatures(self._draw(encoder, vocabulary), vocabulary)
        return TextFeatures(self._embed(encoder, vocabulary), vocabulary)

    def _draw(self, encoder: TextEncoder, vocabulary: Vocabulary) -> Tensor:
        """Return [T, P, C] of one word per class, from PyTorch's random numbers."""
        picks = [int(torch.randint(len(words), ())) for words in vocabulary.synonyms]
        if _is_trained(encoder):
            words = tuple((words[pick],) for words, pick in zip(vocabulary.synonyms, picks, strict=True))
            return self._embed(encoder, Vocabulary(words, vocabulary.templates))
        # A frozen tower encodes every word once; a draw only picks rows.
        every = Vocabulary(tuple((word,) for words in vocabulary.synonyms for word in words), vocabulary.templates)
        starts = itertools.accumulate((len(words) for words in vocabulary.synonyms[:-1]), initial=0)
        return self._embed(encoder, every)[[start + pick for start, pick in zip(starts, picks, strict=True)]]

    def _embed(self, encoder: TextEncoder, vocabulary: Vocabulary) -> Tensor:
        if _is_trained(encoder):
            self._cache.clear()  # fused optimizers change weights without raising their version
            return self._encode(encoder, vocabulary)

        # In-place updates (optimizer steps, loading a checkpoint) raise a tensor's version; moving or
        # replacing it changes its address.
        state = tuple((p.data_ptr(), p._version) for p in encoder.text_parameters())
        cached = self._cache.get(vocabulary)
        if cached is None or cached[0] != state:
            # Not in inference mode, even during an evaluation: training may read the result later.
            with torch.inference_mode(False), torch.no_grad():
                cached = (state, self._encode(encoder, vocabulary))
            self._cache[vocabulary] = cached
            if len(self._cache) > self._capacity:
                self._cache.popitem(last=False)
        self._cache.move_to_end(vocabulary)
        return cached[1]

    def _encode(self, encoder: TextEncoder, vocabulary: Vocabulary) -> Tensor:
        groups = [group for t in range(len(vocabulary)) for group in vocabulary.prompts(t)]
        if self._first_only:
            groups = [group[:1] for group in groups]
        sentences = [sentence for group in groups for sentence in group]
        if torch.is_grad_enabled():
            embeddings = encoder.encode_text(sentences)
        else:
            batches = [sentences[i : i + self._batch] for i in range(0, len(sentences), self._batch)]
            embeddings = torch.cat([encoder.encode_text(batch) for batch in batches])
        embeddings = F.normalize(embeddings.float(), dim=-1)

        if len(sentences) > len(groups):
            owner = torch.tensor([g for g, group in enumerate(groups) for _ in group], device=embeddings.device)
            sums = embeddings.new_zeros(len(groups), embeddings.shape[1]).index_add(0, owner, embeddings)
            embeddings = F.normalize(sums, dim=-1)
        return embeddings.unflatten(0, (len(vocabulary), len(vocabulary.templates)))


def _is_trained(encoder: TextEncoder) -> bool:
    return torch.is_grad_enabled() and any(p.requires_grad for p in encoder.text_parameters())
