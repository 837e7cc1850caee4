"""Make a prior of your own from images without labels, by DINO: GSNet's RSIB.

IMAGES is a folder, with all folders in it, or the name of a data set. The recipe is RSIB's (ViT-B/8, 300 epochs, batch
8); a YAML file and KEY VALUE pairs change it. The run ends with prior.safetensors, which MODEL.PRIOR.WEIGHTS takes; so
does every checkpoint on the way.

Examples:
    ovrs pretrain --keys                                          # the recipe, key by key
    ovrs pretrain data/LandDiscover50K/TR_Image --output output/rsib --num-gpus 4
    ovrs pretrain data/tiles WEIGHTS dino/ViT-B-8 EPOCHS 50 --output output/my_prior
    ovrs pretrain data/sentinel2 BANDS "[4, 3, 2]" VALUE_RANGE "[0, 3000]" BAD_IMAGES skip
    ovrs pretrain data/tiles --recipe my_recipe.yaml --resume
"""

from __future__ import annotations

import argparse

from ovrs.cli.train import add_processes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("images", nargs="?", metavar="IMAGES", help="a folder of images, or a data set")
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="keys of the recipe and their values")
    parser.add_argument("--recipe", default="", metavar="YAML", help="keys and values that replace the recipe's")
    parser.add_argument("--output", default="output/pretraining", help="folder of everything (default: %(default)s)")
    parser.add_argument("--keys", action="store_true", help="print the recipe, with what every key means")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint; exact")
    add_processes(parser)


def run(args: argparse.Namespace) -> None:
    """Train, or print the recipe."""
    from ovrs.config import ConfigError
    from ovrs.engine import launch_processes
    from ovrs.pretraining import load_recipe, pretrain

    if args.keys:
        _print_keys(load_recipe(args.recipe))
    elif args.images is None:
        raise ConfigError("no images given: name a folder of images, or a data set.")
    else:
        launch_processes(pretrain, args)


def _print_keys(recipe: object) -> None:
    from tabulate import tabulate

    from ovrs.config.options import walk_options

    rows = [
        [key.partition(".")[2], list(value) if isinstance(value, tuple) else value, item.metadata["meaning"]]
        for key, item, _, value in walk_options("recipe", recipe)
    ]
    print(tabulate(rows, headers=["key", "value", "meaning"], maxcolwidths=[None, 26, 70], disable_numparse=True))
