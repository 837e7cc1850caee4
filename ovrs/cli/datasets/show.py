"""Look at a data set before training on it: images beside their labels, and how many pixels each class has.

All images and labels are read for the histogram, which is drawn and printed. Files that cannot be read, pairs that
differ in size, values that the card does not list, and a set without a labelled pixel end the program with an error.

Examples:
    ovrs datasets show hg_potsdam_5_val
    ovrs datasets show hg_potsdam_5 --split val --images 24 --sample 500 --output sheet.png

    # your own data set
    ovrs datasets show town.yaml --split train

    # the table alone
    ovrs datasets show town.yaml:train --histogram
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ovrs.data.inspection import ClassCounts


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_set_arguments(parser)
    parser.add_argument("--images", type=_positive, default=12, help="pictures on the sheet (default: %(default)s)")
    parser.add_argument("--sample", type=_positive, default=0, help="count only so many label files, evenly spread")
    parser.add_argument("--histogram", action="store_true", help="print the table and draw nothing")
    parser.add_argument("--output", type=_picture, help="the sheet (default: output/inspection/NAME.png)")


def add_set_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that name one split of a data set; :func:`full_name` reads them."""
    what = "registered name, CARD.yaml:SPLIT, or with --split the name or the file of a card"
    parser.add_argument("name", metavar="NAME", help=what)
    parser.add_argument("--split", help="split of the card")
    parser.add_argument("--root", default="", help="data root; default: $DETECTRON2_DATASETS, then ./datasets")


def run(args: argparse.Namespace) -> None:
    """Count, print and draw."""
    from detectron2.data import MetadataCatalog
    from detectron2.utils.logger import setup_logger

    from ovrs.data import resolve_datasets
    from ovrs.data.contact_sheet import contact_sheet
    from ovrs.data.inspection import count_classes
    from ovrs.visualization import save_image

    setup_logger(name="ovrs")
    (name,) = resolve_datasets([full_name(args.name, args.split)], args.root)
    metadata = MetadataCatalog.get(name)
    counts = None
    if args.histogram or metadata.sem_seg_root:
        counts = count_classes(name, args.sample)
        print(table(name, counts))
        counts.require_labelled()
    if not args.histogram:
        sheet = contact_sheet(name, args.images, counts)
        print(f"\nSheet: {save_image(args.output or f'output/inspection/{name}.png', sheet)}")


def table(name: str, counts: ClassCounts) -> str:
    """Return pixels, share and images of every class as text."""
    from detectron2.data import MetadataCatalog
    from tabulate import tabulate

    metadata = MetadataCatalog.get(name)
    rows = []
    for index, word in enumerate(metadata.stuff_classes):
        note = "" if index in metadata.card.labelled_classes else "a text query that no label stands for"
        rows.append([index, word, f"{counts.pixels[index]:,}", 100 * counts.shares[index], counts.images[index], note])
    rows.append(["", "ignored", f"{counts.ignored:,}", 100 * counts.ignored_share, "", "share of all pixels"])
    align = ("right", "left", "right", "right", "right", "left")
    body = tabulate(rows, ["id", "class", "pixels", "%", "images", ""], floatfmt=".2f", colalign=align)
    return f"{name}: {counts.files:,} of {counts.of_files:,} label files\n{body}"


def full_name(name: str, split: str | None) -> str:
    """Return the one name of a split."""
    if split is None:
        return name
    return f"{name}:{split}" if name.endswith((".yaml", ".yml")) else f"{name}_{split}"


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number


def _picture(text: str) -> str:
    if not text.lower().endswith((".png", ".jpg")):
        raise argparse.ArgumentTypeError(f"must end in .png or .jpg, got {text!r}")
    return text
