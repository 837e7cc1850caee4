#!/usr/bin/env python3
"""Train and score every head on the demo scenes, one after the other, and print one table.

Each model is scored with the words it was trained with and with every class renamed to words it has never
seen. Inference is timed on the same images in the same process, in turns, and reported relative to the first model. An
interrupted comparison goes on where it stopped: what is trained is not trained again.

Heads that need no training are scored under the same protocol, on the towers as they are before training. Image towers
start from random weights here, so these rows show what such a head costs, and chance.

Examples:
    python tools/compare_heads.py
    python tools/compare_heads.py --heads cat_seg pi_seg sclip --output output/three
    python tools/compare_heads.py --heads gsnet my/config.yaml --opts SOLVER.MAX_ITER 2400
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from detectron2.data import DatasetCatalog
from detectron2.utils.logger import setup_logger
from tabulate import tabulate

from ovrs import Predictor
from ovrs.config import load_config
from ovrs.data.reading import read_size
from ovrs.demo import CLASSES, DemoScenes, report_of, spare_processes, train_on_scenes
from ovrs.engine import evaluate, needs_checkpoint, readable_errors
from ovrs.files import replacing
from ovrs.measure.analysis import GIGA, analyze

TRAINED = ("cat_seg", "gsnet", "rskt_seg", "dr_seg", "hg_rsovsseg", "pi_seg")
FREE = ("sclip", "segearth_ov", "proxyclip")
TIMED_IMAGES = 8
ROUNDS = 3
NOTE = (
    "Image towers start from random weights. What is trained has learned from them; heads without training read them "
    "as they are, so their scores are chance (or less, where one class wins everywhere) and say nothing of the methods."
)


class Entry(NamedTuple):
    """One model of the comparison.

    Attributes:
        name: of its row.
        predictor: the model.
        figures: {data set: figures of the report}.
        trained: whether it was trained.
    """

    name: str
    predictor: Predictor
    figures: dict[str, dict[str, float]]
    trained: bool


def main() -> None:
    """Train what is not trained yet, then measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--heads",
        nargs="+",
        metavar="NAME",
        default=[*TRAINED, *FREE],
        help="configurations of configs/demo, or YAML files (default: %(default)s)",
    )
    parser.add_argument("--output", default="output/demo", help="folder of everything (default: %(default)s)")
    parser.add_argument("--train-scenes", type=int, default=200, help="default: %(default)s")
    parser.add_argument("--val-scenes", type=int, default=32, help="default: %(default)s")
    parser.add_argument(
        "--opts", nargs=argparse.REMAINDER, default=[], help="overrides of all configurations: KEY VALUE ...; last"
    )
    args = parser.parse_args()
    setup_logger(name="ovrs")
    with readable_errors():
        scenes = DemoScenes.written(Path(args.output, "scenes"), args.train_scenes, args.val_scenes)
        configs = [head if Path(head).suffix else f"demo/{head}" for head in args.heads]
        for config in configs:  # a mistake in the last one shows now
            load_config(config, args.opts)
        entries = [entry_of(config, scenes, Path(args.output, Path(config).stem), args.opts) for config in configs]
        print_comparison(entries, scenes, Path(args.output))


def entry_of(config: str, scenes: DemoScenes, run: Path, overrides: Sequence[str] = ()) -> Entry:
    """Train and score a configuration in the folder ``run``; one that needs no training is scored only."""
    data = ["DATASETS.TRAIN", "[]", "DATASETS.TEST", json.dumps([scenes.seen, scenes.renamed])]
    cfg = load_config(config, [*data, *overrides])
    trained = needs_checkpoint(cfg)
    if trained:
        train_on_scenes(config, scenes, run, overrides, spare_processes())
        predictor = Predictor.from_files(run / "config.yaml", run / "model_final.pth")
    else:
        torch.manual_seed(max(cfg.SEED, 0))  # of the random towers
        predictor = Predictor(cfg)
        evaluate(cfg, predictor.model, run, None)
    return Entry(run.name, predictor, {name: each["figures"] for name, each in report_of(run).items()}, trained)


def print_comparison(entries: Sequence[Entry], scenes: DemoScenes, output: Path) -> None:
    """Print one row per model, and write the same as ``comparison.md`` and ``comparison.json``."""
    seen, renamed = scenes.names()
    images = [record["file_name"] for record in DatasetCatalog.get(seen)]
    seconds = inference_seconds({entry.name: entry.predictor for entry in entries}, images)
    rows = []
    for name, predictor, figures, trained in entries:
        analysis = analyze(predictor.cfg, len(CLASSES), read_size(images[0]))
        rows.append(
            {
                "model": name,
                "trained": "yes" if trained else "no",
                "mIoU, trained words": figures[seen]["mIoU"],
                "mIoU, renamed": figures[renamed]["mIoU"],
                "pixel accuracy, trained words": figures[seen]["aACC"],
                "head, parameters": analysis.parameters["head"].total,
                "giga-MACs per scene": analysis.image_macs / GIGA,
                "inference time, relative": seconds[name] / seconds[entries[0].name],
            }
        )
    chance = scenes.chance()
    rows.append({"model": "chance", "mIoU, trained words": chance, "mIoU, renamed": chance})
    formats = ("", "", ".1f", ".1f", ".1f", "", ".2f", ".2f")
    table = tabulate(rows, headers="keys", floatfmt=formats, intfmt=",", tablefmt="github")
    if not all(entry.trained for entry in entries):
        table += f"\n\n{NOTE}"
    for name, text in (("comparison.md", table + "\n"), ("comparison.json", json.dumps(rows, indent=1) + "\n")):
        with replacing(output / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    print(f"\n{table}\n\nTable: {output / 'comparison.md'}")


def inference_seconds(models: dict[str, Predictor], files: list[str]) -> dict[str, float]:
    """Return the median time per image and model; the models take turns, so that all see the same machine."""
    times: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(ROUNDS + 1):
        for name, predictor in models.items():
            start = time.perf_counter()
            for file in files[:TIMED_IMAGES]:
                predictor(file, CLASSES)
            if turn:  # the first one warms up
                times[name].append((time.perf_counter() - start) / min(len(files), TIMED_IMAGES))
    return {name: statistics.median(values) for name, values in times.items()}


if __name__ == "__main__":
    main()
