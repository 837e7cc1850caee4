"""One vocabulary for several data sets: classes that share a word become one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ovrs.errors import VocabularyError
from ovrs.vocabulary.vocabulary import normalised_word, words_of


def merge_classes(class_lists: Mapping[str, Sequence[str]]) -> tuple[tuple[str, ...], dict[str, tuple[int, ...]]]:
    """Merge class lists, in order: a class joins the first one that it shares a word with, or is added at the end.

    Words are all synonyms of a class, compared as :func:`normalised_word`. The merged class keeps the string of
    the list that named it first; the words of the others only help later lists to find it.

    Args:
        class_lists: {who lists them: class strings, ``|`` between synonyms}, each a valid vocabulary.

    Returns:
        The merged class strings, and per list the merged index of each of its classes.

    Raises:
        VocabularyError: words contradict each other: two classes of one list would become one, or a class
            shares words with two merged classes.

    Examples:
        >>> merge_classes({"a": ["building|house", "Road"], "b": ["road", "tree", "House"]})
        (('building|house', 'Road', 'tree'), {'a': (0, 1), 'b': (1, 2, 0)})
    """
    merged: list[str] = []
    owner: dict[str, int] = {}  # of every word
    indices: dict[str, tuple[int, ...]] = {}
    for source, classes in class_lists.items():
        taken: dict[int, str] = {}
        for text in classes:
            words = [normalised_word(word) for word in words_of(text)]
            found = sorted({owner[word] for word in words if word in owner})
            if len(found) > 1:
                raise VocabularyError(
                    f"class {text!r} of {source} shares words with both {merged[found[0]]!r} and {merged[found[1]]!r}, "
                    "which are two classes; take the synonyms that join them out of the card."
                )
            index = found[0] if found else len(merged)
            if index in taken:
                raise VocabularyError(
                    f"{source} lists {taken[index]!r} and {text!r} as two classes, but by their words both are "
                    f"{merged[index]!r}; take the synonyms that join them out of the cards."
                )
            if not found:
                merged.append(text)
            taken[index] = text
            owner.update(dict.fromkeys(words, index))
        indices[source] = tuple(taken)
    return tuple(merged), indices
