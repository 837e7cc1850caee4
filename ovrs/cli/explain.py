r"""Show what a model's head computes on its way to the scores.

Of every IMAGE the folder OUT/STEM gets one sheet per quantity, NAME.png, and streams.png: all maps of classes below
each other. --list says what the configured head can show: correlation maps of each stream, uncertainty and gate,
features, who looks at whom. Of images that the model sees in windows, one window is shown: that around --pixel.

Examples:
    ovrs explain town.png --model gsnet-vitb16 --classes building road tree water
    ovrs explain town.png --config-file dr_seg/vitb16_dlrsd --weights model_final.pth --classes building tree \
        --pixel 310,120 --show uncertainty gate neighbours --arrays
    ovrs explain --config-file dr_seg/vitb16_dlrsd --list
"""

from __future__ import annotations

import argparse

from ovrs.cli import add_classes, add_model, listed_classes, listed_images, model_configuration


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="picture files; they stand before --classes")
    add_classes(add_model(parser))
    parser.add_argument("--pixel", metavar="X,Y", help="of the image, from its top left; for what belongs to a place")
    parser.add_argument("--show", nargs="+", default=[], metavar="NAME", help="quantities (default: all)")
    parser.add_argument("--own-scales", action="store_true", help="colours from least to largest for every class")
    parser.add_argument("--arrays", action="store_true", help="also the numbers, as arrays.npz")
    parser.add_argument("--list", action="store_true", help="say what the configured head can show, and end")
    parser.add_argument(
        "--out", "--output", default="output/explain", help="folder of the results (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> None:
    """List what can be shown, or draw it."""
    from pathlib import Path

    cfg = model_configuration(args)
    if args.list:
        _list(cfg)
        return
    images = listed_images(args)
    classes, _ = listed_classes(args)
    point = _point(args.pixel) if args.pixel else None

    from ovrs.explain import Explainer, draw, draw_streams
    from ovrs.visualization import save_image

    explainer = Explainer(cfg)
    for image in images:
        found = explainer(image, classes, args.show, point)
        folder = Path(args.out, Path(image).stem)
        for name in found.values:
            save_image(folder / f"{name}.png", draw(found, name, own_scales=args.own_scales))
        streams = draw_streams(found, own_scales=args.own_scales)
        if streams is not None:
            save_image(folder / "streams.png", streams)
        if args.arrays:
            found.save_arrays(folder / "arrays.npz")
        print(f"{len(found.values)} quantities of {image} in {folder}")


def _point(text: str) -> tuple[float, float]:
    from ovrs.errors import ConfigError

    try:
        x, y = (float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"--pixel must look like 310,120, got {text!r}.") from None
    return x, y


def _list(cfg: object) -> None:
    from tabulate import tabulate

    from ovrs.engine import build_model
    from ovrs.heads import all_quantities
    from ovrs.heads.quantities import SHAPES

    head = build_model(cfg, load_towers=False).head
    rows = [(name, q.kind, SHAPES[q.kind], q.meaning) for name, q in all_quantities(head).items()]
    print(tabulate(rows, headers=["name", "kind", "shape", "meaning"], maxcolwidths=[None, None, 28, 60]))
