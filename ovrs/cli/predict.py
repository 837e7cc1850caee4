r"""Segment images into the classes that you name.

For every image two files are written: STEM_labels.png (palette PNG, pixel = position of the class in your
list, from 0; at most 256 classes) and STEM_overlay.png (picture with legend).

Examples:
    ovrs predict town.png village.jpg --config-file output/demo/gsnet/config.yaml \
        --weights output/demo/gsnet/model_final.pth --classes "building|house|roof" road water meadow
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

MOST_CLASSES = 256  # one byte per pixel


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="image files; they stand before --classes")
    parser.add_argument("--config-file", required=True, help="the configuration that the model was trained with")
    parser.add_argument("--weights", required=True, help="checkpoint")
    parser.add_argument("--classes", nargs="+", required=True, help="at least two; 'a|b' gives synonyms")
    parser.add_argument("--output", default="output/pictures", help="folder of the results (default: %(default)s)")


def run(args: argparse.Namespace) -> None:
    """Predict."""
    from ovrs.errors import UserError

    if swallowed := [word for word in args.classes if Path(word).is_file()]:
        raise UserError(f"--classes took the file {swallowed[0]} for a class: put the images before --classes.")
    if not args.images:
        raise UserError("no image given: put the images before --classes.")
    if len(args.classes) > MOST_CLASSES:
        raise UserError(f"--classes: {len(args.classes)} given; a palette PNG holds at most {MOST_CLASSES}.")
    stems = Counter(Path(path).stem for path in args.images)
    if repeated := sorted(stem for stem, count in stems.items() if count > 1):
        raise UserError(f"several images are called {', '.join(repeated)}; their results would overwrite each other.")
    _predict(args)


def _predict(args: argparse.Namespace) -> None:
    from tqdm import tqdm

    from ovrs.data import read_image
    from ovrs.predictor import Predictor
    from ovrs.visualization import comparison_sheet, palette, save_image

    predictor = Predictor.from_files(args.config_file, args.weights)
    colours = palette(len(args.classes))
    for path in tqdm(args.images, unit="image"):
        image = read_image(path)
        found = predictor(image, args.classes)
        sheet = comparison_sheet(image, None, found.labels, list(found.names), colours, title=Path(path).name)
        save_image(Path(args.output, f"{Path(path).stem}_overlay.png"), sheet)
        _save_labels(Path(args.output, f"{Path(path).stem}_labels.png"), found.labels, colours)


def _save_labels(path: Path, labels: np.ndarray, colours: np.ndarray) -> None:
    import numpy as np
    from PIL import Image

    from ovrs.files import replacing

    picture = Image.fromarray(labels.astype(np.uint8))
    picture.putpalette(np.asarray(colours, dtype=np.uint8).tobytes())
    with replacing(path) as temporary:
        picture.save(temporary, optimize=True)
