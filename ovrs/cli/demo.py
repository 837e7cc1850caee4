"""The main job on a small scale: make labelled scenes, train, evaluate, draw.

A small model learns eight classes of generated overhead scenes from their names, through the ordinary
training. It is then scored twice: with the words it was trained with, and with every class renamed
to words it has never seen. At the end it maps a larger scene that has a place on the earth. An interrupted run goes on
where it stopped.

Examples:
    ovrs demo
    ovrs demo demo/dr_seg --output output/demo
"""

from __future__ import annotations

import argparse
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ovrs.cli import add_configuration

if TYPE_CHECKING:
    from ovrs.demo import DemoScenes

PICTURES = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_configuration(parser, default="demo/gsnet")
    parser.add_argument("--output", default="output/demo", help="folder of everything (default: %(default)s)")
    parser.add_argument("--train-scenes", type=int, default=200, help="default: %(default)s")
    parser.add_argument("--val-scenes", type=int, default=32, help="default: %(default)s")
    parser.add_argument(
        "--processes", type=int, default=0, help="that train together (default: two on a CPU of several cores)"
    )


def run(args: argparse.Namespace) -> None:
    """Run every step and print the scores."""
    from detectron2.utils.logger import setup_logger

    from ovrs.demo import CLASSES, DemoScenes, spare_processes, train_on_scenes, write_town
    from ovrs.gallery import draw_predictions
    from ovrs.predictor import Predictor, trained_ground_size

    setup_logger(name="ovrs")
    start = time.perf_counter()
    scenes = DemoScenes.written(Path(args.output, "scenes"), args.train_scenes, args.val_scenes)
    folder = Path(args.output, Path(args.name).stem)
    train_on_scenes(args.name, scenes, folder, args.overrides, args.processes or spare_processes())
    predictor = Predictor.from_files(folder / "config.yaml", folder / "model_final.pth")
    pictures = [
        picture
        for dataset in (scenes.seen, scenes.renamed)
        for picture in draw_predictions(predictor.cfg, predictor.model, dataset, folder / "pictures", PICTURES)
    ]
    town, truth = write_town(Path(args.output, "town"))
    maps = folder / "maps"
    ground_size = trained_ground_size(predictor.cfg)
    predictor.predict_raster(town, CLASSES, maps, vector="gpkg", overlay=True, gsd=ground_size)
    logging.getLogger("ovrs").info("Finished in %.1f minutes.", (time.perf_counter() - start) / 60)
    print_scores(folder, scenes)
    print(
        f"\nThe map agrees with the truth on {100 * agreement(maps / 'town_labels.tif', truth):.1f} % of the pixels.\n"
        f"  qgis {town} {maps / 'town_labels.tif'} {maps / 'town_polygons.gpkg'}\n"
        f"  ovrs serve --model {folder}      # and drop {town} there, with words of your own\n\n"
        f"Map:      {maps / 'town_overlay.png'}\n"
        f"Pictures: {pictures[0].parent.parent}/*/*.png\n"
        f"Report:   {folder / 'report.md'}"
    )


def agreement(labels: Path, truth: Path) -> float:
    """Return the share of pixels on which two rasters of labels agree."""
    import rasterio

    with rasterio.open(labels) as ours, rasterio.open(truth) as theirs:
        return float((ours.read(1) == theirs.read(1)).mean())


def print_scores(run: Path, scenes: DemoScenes) -> None:
    """Print both mIoUs beside the chance level, and every class with its two names."""
    from detectron2.data import MetadataCatalog
    from tabulate import tabulate

    from ovrs.demo import report_of

    names = scenes.names()
    first, second = (MetadataCatalog.get(name).stuff_classes for name in names)
    scores = [report_of(run)[name] for name in names]
    rows = [
        [word, scores[0]["classes"][word]["IoU"], other, scores[1]["classes"][other]["IoU"]]
        for word, other in zip(first, second, strict=True)
    ]
    rows.append(["mIoU", scores[0]["figures"]["mIoU"], "mIoU", scores[1]["figures"]["mIoU"]])
    chance = scenes.chance()
    rows.append(["(chance)", chance, "(chance)", chance])
    header = ["trained word", "IoU %", "renamed, never seen", "IoU %"]
    print("\n" + tabulate(rows, headers=header, floatfmt=".1f", tablefmt="github"))
