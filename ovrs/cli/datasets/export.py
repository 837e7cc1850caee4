"""Write the labels of a data set as COCO annotations, which annotation tools read.

Every class of every image becomes one annotation of compressed run lengths. A card reads the file back with
"labels: {coco: annotations.json}".

Examples:
    ovrs datasets export town.yaml:train --output town_train.json
    ovrs datasets export hg_loveda_6 --split val
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ovrs.cli.datasets.show import add_set_arguments, full_name


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_set_arguments(parser)
    parser.add_argument("--format", choices=("coco",), default="coco", help="of the file (default: %(default)s)")
    parser.add_argument("--output", help="the file (default: output/export/NAME.json)")


def run(args: argparse.Namespace) -> None:
    """Read all labels and write them."""
    from detectron2.data import DatasetCatalog, MetadataCatalog
    from tqdm import tqdm

    from ovrs.data import read_labels, resolve_datasets
    from ovrs.data.coco_writing import write_coco
    from ovrs.errors import DataError
    from ovrs.vocabulary import words_of

    (name,) = resolve_datasets([full_name(args.name, args.split)], args.root)
    metadata, records = MetadataCatalog.get(name), DatasetCatalog.get(name)
    if not metadata.sem_seg_root:
        raise DataError(f"data set {name} has no labels to export; name a split with labels.")
    names = [words_of(text)[0] for text in metadata.class_strings]
    root = Path(metadata.image_root)
    label_maps = (
        (_below(record["file_name"], root), read_labels(record["sem_seg_file_name"], metadata.card))
        for record in tqdm(records, desc=name, unit="image")
    )
    path = write_coco(args.output or f"output/export/{name}.json", label_maps, names)
    print(f"{len(records)} images: {path}")


def _below(file: str, root: Path) -> str:
    """Return a file's path below its image folder, as COCO files name images."""
    return Path(file).relative_to(root).as_posix() if Path(file).is_relative_to(root) else Path(file).name
