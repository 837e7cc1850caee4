"""A list of classes that a person can name, and the sentences they are put into."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ovrs.errors import VocabularyError
from ovrs.vocabulary.templates import TEMPLATE_SETS

if TYPE_CHECKING:
    from detectron2.config import CfgNode

SYNONYM_SEPARATOR = "|"
MIN_CLASSES = 2


@dataclass(frozen=True)
class Vocabulary:
    """Classes, each with its synonyms, and the templates every synonym is put into.

    Attributes:
        synonyms: per class, the words that name it; the first is the class's name.
        templates: sentences with one ``{}``.

    Examples:
        >>> words = Vocabulary.from_strings(["building|house|roof", "road"], ["a photo of a {}."])
        >>> words.names
        ('building', 'road')
        >>> words.prompts(0)
        (('a photo of a building.', 'a photo of a house.', 'a photo of a roof.'),)
    """

    synonyms: tuple[tuple[str, ...], ...]
    templates: tuple[str, ...]

    @classmethod
    def from_strings(cls, classes: Sequence[str], templates: Sequence[str] = TEMPLATE_SETS["scene"]) -> Vocabulary:
        """Build a vocabulary from class strings.

        Args:
            classes: one string per class; ``|`` separates synonyms. At least two: a pixel's class is
                the best of the listed ones, so a single class would cover every pixel.
            templates: sentences with one ``{}``.

        Raises:
            VocabularyError: too few classes, one that is no string, an empty or repeated name, no template, or
                a template without exactly one ``{}``.
        """
        if isinstance(classes, str):
            raise VocabularyError(f"classes must be a list of strings, got the single string {classes!r}.")
        for text in classes:
            if not isinstance(text, str):
                # YAML reads a bare yes, no, on or off as a truth value.
                kind = type(text).__name__
                raise VocabularyError(f"class {text!r} is a {kind}; classes are strings, so put it in quotes.")
        synonyms = tuple(tuple(word.strip() for word in text.split(SYNONYM_SEPARATOR)) for text in classes)
        if len(synonyms) < MIN_CLASSES:
            raise VocabularyError(
                f"a vocabulary needs at least {MIN_CLASSES} classes, got {len(synonyms)}: {list(classes)}. Every pixel "
                "gets the best of the listed classes, so name what else is in the image too, for example 'background'."
            )
        for text, words in zip(classes, synonyms, strict=True):
            if not all(words):
                raise VocabularyError(f"class {text!r} contains an empty word; remove the stray {SYNONYM_SEPARATOR!r}.")
        names = [words[0] for words in synonyms]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise VocabularyError(f"classes named more than once: {repeated}. Every class needs a name of its own.")
        if not templates:
            raise VocabularyError("no template given; 'A photo of a {} in the scene' is a good first choice.")
        for template in templates:
            if template.count("{}") != 1:
                raise VocabularyError(f"template {template!r} must contain '{{}}' exactly once.")
        return cls(synonyms, tuple(templates))

    @staticmethod
    def templates_of(cfg: CfgNode) -> tuple[str, ...]:
        """Return the templates that a configuration chooses.

        Raises:
            VocabularyError: unknown template set.
        """
        node = cfg.VOCABULARY
        if node.TEMPLATES:
            return tuple(node.TEMPLATES)
        if node.TEMPLATE_SET not in TEMPLATE_SETS:
            raise VocabularyError(
                f"VOCABULARY.TEMPLATE_SET is {node.TEMPLATE_SET!r}; known sets are {', '.join(TEMPLATE_SETS)}."
            )
        return TEMPLATE_SETS[node.TEMPLATE_SET]

    @property
    def names(self) -> tuple[str, ...]:
        """The first word of every class."""
        return tuple(words[0] for words in self.synonyms)

    def __len__(self) -> int:
        return len(self.synonyms)

    def prompts(self, index: int) -> tuple[tuple[str, ...], ...]:
        """Return the sentences of one class: per template, one for each synonym."""
        return tuple(
            tuple(template.replace("{}", word) for word in self.synonyms[index]) for template in self.templates
        )
