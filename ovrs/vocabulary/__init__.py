"""Classes as words, prompt templates, and their cached text embeddings."""

from ovrs.vocabulary.merging import merge_classes
from ovrs.vocabulary.templates import TEMPLATE_SETS
from ovrs.vocabulary.text_bank import TextBank
from ovrs.vocabulary.vocabulary import Vocabulary, normalised_word, words_of

__all__ = ["TEMPLATE_SETS", "TextBank", "Vocabulary", "merge_classes", "normalised_word", "words_of"]
