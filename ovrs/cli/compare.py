r"""Draw several models side by side: a row for every image, a column for every model, one palette and legend.

With --dataset the truth stands beside the image, and classes and colours are the data set's.

Examples:
    ovrs compare town.png field.png --models output/demo/gsnet output/demo/dr_seg --classes building road tree
    ovrs compare --dataset town.yaml:val --limit 3 --models gsnet=gsnet-vitb16 mine=output/town --out sheet.png
    ovrs compare town.png --models training_free/clearclip gsnet-vitb16 --classes building road tree
"""

from __future__ import annotations

import argparse

from ovrs.cli import add_classes, add_palette, listed_classes, listed_images


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="picture files; they stand before --models")
    parser.add_argument(
        "--models",
        nargs="+",
        required=True,
        metavar="MODEL",
        help="released models, folders of trainings, release files, or configurations that need no training; "
        "TITLE=MODEL to name its column",
    )
    add_classes(parser)
    add_palette(parser)
    parser.add_argument("--dataset", default="", help="instead of images: registered name, or CARD.yaml:split")
    parser.add_argument("--limit", type=int, default=4, help="images of the data set; 0 for all (default: %(default)s)")
    parser.add_argument("--width", type=int, default=256, help="of every picture in pixels (default: %(default)s)")
    parser.add_argument("--out", "--output", default="output/models.png", help="the sheet (default: %(default)s)")


def run(args: argparse.Namespace) -> None:
    """Draw the sheet."""
    from pathlib import Path

    from ovrs.config import load_config
    from ovrs.config.names import shipped_configs
    from ovrs.errors import ConfigError
    from ovrs.explain import compare_models
    from ovrs.predictor import pretrained_config
    from ovrs.visualization import save_image

    classes, colours = [], {}
    if not args.dataset:
        listed_images(args)
        classes, colours = listed_classes(args)
    models = {}
    for text in args.models:
        title, _, model = text.rpartition("=")
        title = title or Path(model).name
        if title in models:
            raise ConfigError(f"--models: two columns are called {title!r}; name them, as in first={model}.")
        recipe = model in shipped_configs() or model.endswith(".yaml")
        models[title] = load_config(model) if recipe else pretrained_config(model)
    picture = compare_models(
        models, args.images, classes, dataset=args.dataset, limit=args.limit, colours=colours, width=args.width
    )
    print(save_image(args.out, picture))
