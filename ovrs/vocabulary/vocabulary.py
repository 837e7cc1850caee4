"""A list of classes that a person can name, and the sentences they are put into."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ovrs.errors import VocabularyError, choose
from ovrs.vocabulary.templates import TEMPLATE_SETS

if TYPE_CHECKING:
    from detectron2.config import CfgNode

SYNONYM_SEPARATOR = "|"
MIN_CLASSES = 2
_WORD_BREAKS = re.compile(r"[-_\s]+")


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
        >>> words.class_of
        (0, 0, 0, 1)
        >>> words.sentences[:2]
        ['a photo of a building.', 'a photo of a house.']
    """

    synonyms: tuple[tuple[str, ...], ...]
    templates: tuple[str, ...]

    @classmethod
    def from_strings(
        cls,
        classes: Sequence[str],
        templates: Sequence[str] = TEMPLATE_SETS["scene"],
        minimum: int = MIN_CLASSES,
    ) -> Vocabulary:
        """Build a vocabulary from class strings.

        Args:
            classes: one string per class, see :func:`words_of`.
            templates: sentences with one ``{}``.
            minimum: of classes. By default two: a pixel's class is the best of the listed ones, so a single class
                would cover every pixel. One is for callers who have something to compare it with.

        Raises:
            VocabularyError: too few classes, one that is no string, an empty word, a word with a comma, a word that
                two classes share, no template, or a template without exactly one ``{}``.
        """
        if isinstance(classes, str):
            raise VocabularyError(f"classes must be a list of strings, got the single string {classes!r}.")
        synonyms = tuple(words_of(text) for text in classes)
        if len(synonyms) < minimum:
            raise VocabularyError(
                f"a vocabulary needs at least {minimum} classes, got {len(synonyms)}: {list(classes)}. Every pixel "
                "gets the best of the listed classes, so name what else is in the image too, for example 'background'."
            )
        _refuse_shared_words(classes, synonyms)
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
            ConfigError: unknown template set.
        """
        node = cfg.VOCABULARY
        if node.TEMPLATES:
            return tuple(node.TEMPLATES)
        return TEMPLATE_SETS[choose("VOCABULARY.TEMPLATE_SET", node.TEMPLATE_SET, tuple(TEMPLATE_SETS))]

    @property
    def names(self) -> tuple[str, ...]:
        """The first word of every class."""
        return tuple(words[0] for words in self.synonyms)

    @property
    def class_of(self) -> tuple[int, ...]:
        """The class that every word belongs to, in increasing order."""
        return tuple(t for t, words in enumerate(self.synonyms) for _ in words)

    @property
    def sentences(self) -> list[str]:
        """Every word under every template: the templates of the first word, those of the second, and so on."""
        return [
            template.replace("{}", word) for words in self.synonyms for word in words for template in self.templates
        ]

    def __len__(self) -> int:
        return len(self.synonyms)


def words_of(text: str) -> tuple[str, ...]:
    """Return the words that a class string names its class with.

    ``|`` separates them. A comma is refused, because ``"building, road"`` is two classes more often than one; a word
    that really has one stands in double quotes, as in ``'"tree, forest"|wood'``.

    Raises:
        VocabularyError: no string, an empty word, or a comma outside quotes.
    """
    if not isinstance(text, str):
        # YAML reads a bare yes, no, on or off as a truth value.
        raise VocabularyError(f"class {text!r} is a {type(text).__name__}; classes are strings, so put it in quotes.")
    words = []
    for part in text.split(SYNONYM_SEPARATOR):
        word = part.strip()
        quoted = len(word) > 1 and word[0] == word[-1] == '"'
        if "," in word and not quoted:
            split = [piece.strip() for piece in text.replace(SYNONYM_SEPARATOR, ",").split(",") if piece.strip()]
            raise VocabularyError(
                f"class {text!r} contains a comma. Write several classes as {' '.join(map(repr, split))}, several "
                f"words for one class as {SYNONYM_SEPARATOR.join(split)!r}, and a name that really has a comma in "
                f"double quotes, as {f'{chr(34)}{word}{chr(34)}'!r}."
            )
        words.append(word[1:-1].strip() if quoted else word)
    if not all(words):
        raise VocabularyError(f"class {text!r} contains an empty word; remove the stray {SYNONYM_SEPARATOR!r}.")
    return tuple(words)


def normalised_word(word: str) -> str:
    """Return a word as it is compared: lower case, with "-", "_" and runs of spaces as one space.

    Nothing else is done. Plurals stay, since "car" and "cars" may be two decisions of two authors.

    Examples:
        >>> normalised_word(" Low-Vegetation")
        'low vegetation'
    """
    return _WORD_BREAKS.sub(" ", word).strip().lower()


def _refuse_shared_words(classes: Sequence[str], synonyms: Sequence[Sequence[str]]) -> None:
    """Two classes with one word would have the same score wherever that word is the best."""
    owner: dict[str, tuple[int, str]] = {}
    clashes = []
    for index, words in enumerate(synonyms):
        for word in words:
            first, spelling = owner.setdefault(normalised_word(word), (index, word))
            if first != index:
                clashes.append(f"{spelling!r} of class {classes[first]!r} and {word!r} of class {classes[index]!r}")
    if clashes:
        raise VocabularyError(
            f"classes share words: {'; '.join(clashes)}. Every word belongs to one class: remove it from the others, "
            f"or join the classes with {SYNONYM_SEPARATOR!r}."
        )
