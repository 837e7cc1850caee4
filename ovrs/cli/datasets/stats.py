"""Count what the labels of data sets hold: pixels, segments, their sizes and places; and how alike class lists are.

Sizes are quantiles over connected segments (10, 50 and 90 percent), in pixels. Places are the mean of a class's
pixels from the left and top edge, 0 to 1, and how far the segments' centres spread around it (0.29 is evenly).
The similarity of two class lists is GSNet's (Table 7): the Hausdorff comparison of their names' text embeddings.

Examples:
    ovrs datasets stats gsnet_potsdam_5_all
    ovrs datasets stats town.yaml:train --sample 500 --json town.json
    ovrs datasets stats gsnet_flair_12_test gsnet_fast_37_val --against gsnet_landdiscover50k_40_train
    ovrs datasets stats hg_loveda_6_val --against hg_globe230k_10_train --config hg_rsovsseg/clip_vitl14_globe230k
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("names", nargs="+", metavar="NAME", help="registered names, or CARD.yaml:SPLIT")
    parser.add_argument("--against", metavar="NAME", help="compare class lists with this set's, and count nothing")
    parser.add_argument(
        "--config",
        default="gsnet/vitb16_landdiscover50k",
        metavar="NAME",
        help="whose text tower (default: %(default)s)",
    )
    parser.add_argument("--sample", type=int, default=0, metavar="N", help="read only N label files, evenly spread")
    parser.add_argument("--root", default="", help="data root; default: $DETECTRON2_DATASETS, then ./datasets")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers to this file too")


def run(args: argparse.Namespace) -> None:
    """Count or compare, and print."""
    import json

    from ovrs.data import resolve_datasets
    from ovrs.files import replacing

    names = resolve_datasets(args.names, args.root)
    found = _compare(names, args) if args.against else {name: _count(name, args.sample) for name in names}
    if args.json:
        with replacing(args.json) as temporary:
            temporary.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _count(name: str, sample: int) -> dict[str, Any]:
    from detectron2.data import MetadataCatalog
    from tabulate import tabulate

    from ovrs.data.segments import segments_of

    segments, files = segments_of(name, sample)
    total = max(sum(each.pixels for each in segments), 1)
    classes = dict(zip(MetadataCatalog.get(name).stuff_classes, segments, strict=True))
    rows = []
    for word, each in classes.items():
        sizes = [f"{size:,.0f}" for size in each.size_quantiles] if each.pixels else [""] * 3
        places = [f"{value:.2f}" for value in (*each.centre, *each.spread)] if each.pixels else [""] * 4
        rows.append(
            [
                word,
                f"{each.pixels:,}",
                f"{100 * each.pixels / total:.2f}",
                each.images,
                len(each.sizes),
                *sizes,
                *places,
            ]
        )
    headers = ["class", "pixels", "%", "images", "segments", "10 %", "50 %", "90 %", "x", "y", "spread x", "spread y"]
    print(f"{name}: {files:,} label files")
    print(tabulate(rows, headers, disable_numparse=True, colalign=("left", *["right"] * 11)), end="\n\n")
    return {
        word: {
            "pixels": each.pixels,
            "images": each.images,
            "segments": len(each.sizes),
            **({"sizes": each.size_quantiles, "centre": each.centre, "spread": each.spread} if each.pixels else {}),
        }
        for word, each in classes.items()
    }


def _compare(names: list[str], args: argparse.Namespace) -> dict[str, Any]:
    from detectron2.data import MetadataCatalog

    from ovrs.config import load_config
    from ovrs.data import resolve_datasets
    from ovrs.measure.label_sets import compare_label_sets

    (other,) = resolve_datasets([args.against], args.root)
    found = compare_label_sets(load_config(args.config), names, other)
    ours, theirs = (lambda name: MetadataCatalog.get(name).stuff_classes), MetadataCatalog.get(other).stuff_classes
    for name, each in found.items():
        print(f"{name} and {other}: similarity {each.similarity:.4f}, Hausdorff distance {each.distance:.4f}")
        ranked = sorted(zip(each.first, ours(name), each.nearest, strict=True))
        for cosine, word, index in ranked:
            print(f"  {cosine:.3f}  {word} - {theirs[index]}")
    return {
        name: {
            "similarity": each.similarity,
            "distance": each.distance,
            "nearest": dict(zip(ours(name), each.first, strict=True)),
        }
        for name, each in found.items()
    }
