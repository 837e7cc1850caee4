#!/usr/bin/env python3
r"""Make a release of a trained model: one safetensors file that says everything about itself, and a model card.

The checkpoint must fit the configuration. Its figures are taken from the store of results (output/results, or
$OVRS_RESULTS), where every evaluation of that file has left a record.

Examples:
    python tools/export_release.py gsnet/vitb16_landdiscover50k output/gsnet/vitb16_landdiscover50k/model_final.pth \
        --name gsnet-vitb16-ours --licence MIT --output release

    # the demo model, with a sentence for its users
    python tools/export_release.py demo/gsnet output/demo/gsnet/model_final.pth --name demo --licence CC0-1.0 \
        --note "Knows drawn scenes only." --output output/release
"""

from __future__ import annotations

import argparse
from pathlib import Path

import yaml
from detectron2.data import MetadataCatalog

from ovrs import __version__
from ovrs.config import get_cfg, load_config
from ovrs.config.loader import changed_keys
from ovrs.data import resolve_datasets
from ovrs.engine import build_model, load_weights
from ovrs.errors import readable_errors
from ovrs.evaluation import ResultStore
from ovrs.zoo.release import CARD_NAME, Release, write_release


def main() -> None:
    """Parse the command line, check, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="configuration of the model, by name or file")
    parser.add_argument("weights", type=Path, help="its checkpoint")
    parser.add_argument("--name", required=True, help="of the release: letters, digits and dashes")
    parser.add_argument("--licence", required=True, help="of the weights: an SPDX identifier, or a text")
    parser.add_argument("--title", help="one line (default: the name)")
    parser.add_argument("--note", action="append", default=[], metavar="TEXT", help="what a user must know; repeatable")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="where file and card go")
    args = parser.parse_args()
    with readable_errors():
        path = _export(args)
        print(f"{path}: {path.stat().st_size:,} bytes; card: {path.with_name(CARD_NAME)}")


def _export(args: argparse.Namespace) -> Path:
    cfg = load_config(args.config)
    cfg.MODEL.DEVICE = "cpu"
    model = build_model(cfg, load_towers=False)
    sha256 = load_weights(model, args.weights)
    trained = resolve_datasets(cfg.DATASETS.TRAIN, cfg.DATASETS.ROOT)
    results = [result for result in ResultStore().results() if result.protocol["weights"]["sha256"] == sha256]
    defaults = get_cfg()
    # Of one machine, not of the model.
    cfg.MODEL.DEVICE, cfg.MODEL.WEIGHTS, cfg.OUTPUT_DIR = defaults.MODEL.DEVICE, "", defaults.OUTPUT_DIR
    cfg.DATASETS.ROOT = defaults.DATASETS.ROOT
    changed = changed_keys(cfg, defaults)
    release = Release(
        name=args.name,
        title=args.title or args.name,
        licence=args.licence,
        config=yaml.safe_dump(changed, sort_keys=False, default_flow_style=None, width=120, allow_unicode=True),
        vocabulary=tuple(dict.fromkeys(text for name in trained for text in MetadataCatalog.get(name).class_strings)),
        version=__version__,
        source_sha256=sha256,
        results=[
            {"dataset": result.dataset, "figures": dict(result.figures), "protocol": dict(result.protocol)}
            for result in results
        ],
        notes=tuple(args.note),
    )
    return write_release(release, model.state_dict(), args.output)


if __name__ == "__main__":
    main()
