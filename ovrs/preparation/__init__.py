r"""From what a data set's authors distribute to what its card reads.

``prepare(card, sources, out)`` does the work, ``check(card, out)`` looks at the result; ``datasets/prepare.py``
is the command line. Facts (tiling, splits, colours, counts) stand in the ``source:`` part of the card, and
nowhere in Python. What is particular about the files of a family is a *recipe*.

Writing a recipe:

1.  A module in ``recipes/`` with a class like this one, and its name in ``recipes/__init__.py``::

        class Town(Recipe):
            family = "town"                           # source.family of its cards
            download = "town_images.zip and town_masks.zip"
            wrong_conversion = "Much water: 0 taken for the first class."

            def jobs(self, source, card):
                images = source.find(r"(train|val)/images/(\d+)\.jpg", "train/images/17.jpg")
                labels = source.find(r"(train|val)/masks/(\d+)\.png", "train/masks/17.png")
                encoding, tiling = OriginalLabels.of_card(card), Tiling.of_card(card)
                for (folder, number), image, mask in paired(images, labels):
                    yield PairJob(number, splits_of_folder(card, folder), image, mask, encoding, tiling)

    ``Source.find`` looks into folders and archives alike and matches the last parts of paths; its groups are
    the key by which ``paired`` brings images and labels together, or refuses what stands alone.
    ``PairJob`` does the rest: reading, re-coding, cutting, dropping of empty windows, formats (from the suffixes
    of the card), atomic writing, checksums. Derive another job from ``Job`` where pairs need something else.
    ``listed`` reads the authors' list files, and ``listed_splits`` those that are splits; ``drawn`` makes a choice
    that the authors did not publish.

2.  In the card: ``source.family``; ``source.source_colours`` (``"255,0,0": class`` or null for ignored, with
    ``source.colour_threshold`` for masks stored with loss) or ``source.original_to_index`` (255: ignored);
    ``source.tiling``; ``source.split_ids`` (with ``other_ids``: the splits of what it does not name) or
    ``source.original_splits``; ``source.md5`` by archive name; ``source.counts.<split>``: the pairs of a complete
    preparation; ``<split>_originals``: the images that they are cut from. Ignored pixels are stored as the one
    value that ``labels:`` lists as ignored, else as 255.

3.  A test that writes a miniature of the authors' archives, prepares and loads it, and compares label arrays.

A job that names several splits writes its files for the first and hard-links them into the others. Stems must be
unique within a card. Every error is a :class:`~ovrs.data.DataError` that names the file and the remedy.
"""

from ovrs.preparation.check import CheckReport, SplitReport, check
from ovrs.preparation.jobs import Job, JobResult, PairJob, PairWriter
from ovrs.preparation.labels import OriginalLabels, ignored_id
from ovrs.preparation.lists import listed_splits, taken
from ovrs.preparation.recipe import Recipe, drawn, fact, listed, splits_of_folder, splits_of_id
from ovrs.preparation.recipes import RECIPES
from ovrs.preparation.run import Summary, find_card, prepare, recipe_for
from ovrs.preparation.sources import Member, Source, paired
from ovrs.preparation.tiling import Tiling, Window

__all__ = [
    "RECIPES",
    "CheckReport",
    "Job",
    "JobResult",
    "Member",
    "OriginalLabels",
    "PairJob",
    "PairWriter",
    "Recipe",
    "Source",
    "SplitReport",
    "Summary",
    "Tiling",
    "Window",
    "check",
    "drawn",
    "fact",
    "find_card",
    "ignored_id",
    "listed",
    "listed_splits",
    "paired",
    "prepare",
    "recipe_for",
    "splits_of_folder",
    "splits_of_id",
    "taken",
]
