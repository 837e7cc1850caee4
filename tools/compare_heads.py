#!/usr/bin/env python3
"""Train and score every head on the demo scenes, one after the other, and print one table.

Each model is scored with the words it was trained with and with every class renamed to words it has never
seen. Inference is timed on the same images in the same process, in turns, and reported relative to the first model. An
interrupted comparison goes on where it stopped.

Examples:
    python tools/compare_heads.py
    python tools/compare_heads.py --configs configs/demo/cat_seg.yaml configs/demo/dr_seg.yaml --output output/two
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

from detectron2.data import DatasetCatalog
from detectron2.utils.logger import setup_logger
from tabulate import tabulate

from ovrs import Predictor
from ovrs.demo import CLASSES, DemoScenes, report_of, train_on_scenes
from ovrs.engine import readable_errors
from ovrs.files import replacing

ROOT = Path(__file__).resolve().parent.parent
HEADS = ("cat_seg", "gsnet", "rskt_seg", "dr_seg", "hg_rsovsseg")
TIMED_IMAGES = 8
ROUNDS = 3


def main() -> None:
    """Train what is not trained yet, then measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--configs",
        nargs="+",
        metavar="FILE",
        default=[str(ROOT / f"configs/demo/{head}.yaml") for head in HEADS],
        help="one per model (default: the demo configurations of all heads)",
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
        runs = [
            train_on_scenes(config, scenes, Path(args.output, Path(config).stem), args.opts) for config in args.configs
        ]
        print_comparison(runs, scenes, Path(args.output))


def print_comparison(runs: list[Path], scenes: DemoScenes, output: Path) -> None:
    """Print one row per run, and write the same as ``comparison.md`` and ``comparison.json``."""
    models = {run.name: Predictor.from_files(run / "config.yaml", run / "model_final.pth") for run in runs}
    seen, renamed = scenes.names()
    seconds = inference_seconds(models, [record["file_name"] for record in DatasetCatalog.get(seen)])
    rows = []
    for run in runs:
        figures = {name: entry["figures"] for name, entry in report_of(run).items()}
        head = models[run.name].model.head
        rows.append(
            {
                "model": run.name,
                "mIoU, trained words": figures[seen]["mIoU"],
                "mIoU, renamed": figures[renamed]["mIoU"],
                "pixel accuracy, trained words": figures[seen]["aACC"],
                "head, parameters": sum(parameter.numel() for parameter in head.parameters()),
                "inference time, relative": seconds[run.name] / seconds[runs[0].name],
            }
        )
    chance = scenes.chance()
    rows.append({"model": "chance", "mIoU, trained words": chance, "mIoU, renamed": chance})
    formats = ("", ".1f", ".1f", ".1f", "", ".2f")
    table = tabulate(rows, headers="keys", floatfmt=formats, intfmt=",", tablefmt="github")
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
