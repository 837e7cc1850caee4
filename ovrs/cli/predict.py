r"""Make maps of rasters and pictures of any size, in the classes that you name.

Of every input STEM.* the folder of the results gets
  STEM_labels.tif     the map: a cloud-optimised GeoTIFF on the input's own pixels, value = position of the class in
                      your list, from 0; with colours, names and STEM_labels.qml, QGIS opens it styled
  STEM_overlay.png    a picture of both, with a legend
  STEM_areas.csv      pixels, share and area of every class
  STEM_polygons.*     polygons, with --vector
and report.json says what became of each. A run that was stopped goes on with --resume. Without --model, one that
needs no training is fetched and used.

Examples:
    ovrs predict scene.tif --model gsnet-vitb16 --classes "building|house|roof" road tree water "bare soil"
    ovrs predict tiles/*.tif --model output/demo/gsnet --classes-file landuse.yaml --vector gpkg --resume
    ovrs predict town.png --model output/demo/gsnet --classes building --threshold 0.4
    ovrs predict sentinel2.tif --model gsnet-vitb16 --classes field forest lake --bands 4 3 2 --range 0 3000 --gsd 1
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovrs.cli import add_classes, add_model, add_palette, listed_classes, listed_images, model_configuration

if TYPE_CHECKING:
    from detectron2.config import CfgNode

    from ovrs.raster import Executor

# Options of the command that are options of the engine under the same name.
_SAME = (
    *("overlap", "allow_remote", "confidence", "scores"),
    *("vector", "min_area", "simplify", "planar", "resume", "overwrite"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="rasters and pictures; they stand before --classes")

    model = add_model(parser)
    add_classes(model)
    model.add_argument(
        "--threshold", type=float, help="weaker pixels become 'other' (default: none, and 0.5 for a single class)"
    )

    reading = parser.add_argument_group("reading")
    reading.add_argument("--bands", type=int, nargs="+", default=[], metavar="N", help="for red, green, blue; from 1")
    reading.add_argument(
        "--range", type=float, nargs="+", default=[], metavar="V", help="LOW HIGH that become black and white, or three"
    )
    reading.add_argument(
        "--gsd", default="0", help="metres per pixel that the model is to see, or 'model': those that it was trained on"
    )
    reading.add_argument("--aoi", nargs="+", metavar="V", help="LEFT BOTTOM RIGHT TOP in the raster's CRS, or a file")
    reading.add_argument("--overlap", type=float, default=1 / 3, help="of neighbouring windows (default: a third)")
    reading.add_argument("--allow-remote", action="store_true", help="accept URLs and /vsi paths")
    reading.add_argument("--max-pixels", type=float, default=1e11, help="refuse larger rasters (default: %(default)g)")

    writing = parser.add_argument_group("writing")
    writing.add_argument(
        "--out", "--output", default="output/maps", help="folder of the results (default: %(default)s)"
    )
    add_palette(writing)
    writing.add_argument("--confidence", action="store_true", help="also the probability of the winner, as bytes")
    writing.add_argument("--scores", action="store_true", help="also the probabilities of all classes, as bytes")
    writing.add_argument("--no-overlay", action="store_true", help="no picture")
    writing.add_argument("--vector", default="", metavar="FORMAT", help="polygons as gpkg, geojson or parquet")
    writing.add_argument(
        "--min-area", type=float, default=0.0, help="merge polygons of fewer square metres into neighbours"
    )
    writing.add_argument("--simplify", type=float, default=0.0, help="straighten outlines by about so many pixels")
    writing.add_argument("--planar", action="store_true", help="areas in the plane of the CRS, not on the ellipsoid")

    working = parser.add_argument_group("working")
    working.add_argument("--resume", action="store_true", help="go on with what an earlier run left")
    working.add_argument("--overwrite", action="store_true", help="replace files that no earlier run made, too")
    working.add_argument("--executor", default="local", metavar="KIND", help="local or ray (default: %(default)s)")
    working.add_argument("--workers", type=int, default=0, help="copies of the model (default: one per GPU)")
    working.add_argument("--address", default="", help="of a Ray cluster (default: the one we are in, or a new one)")
    working.add_argument("--batch-size", type=int, default=0, help="windows per pass of a GPU (default: 8)")


def run(args: argparse.Namespace) -> int:
    """Make the maps; 1 if one could not be made."""
    import sys

    from ovrs.raster import RasterOptions, map_rasters

    images = listed_images(args)
    classes, colours = listed_classes(args)
    cfg = model_configuration(args)
    options = RasterOptions(
        bands=tuple(args.bands),
        value_range=tuple(args.range),
        gsd=_ground_size(args.gsd, cfg),
        aoi=_area(args.aoi),
        colours=colours,
        overlay=not args.no_overlay,
        max_pixels=int(args.max_pixels),
        **{name: getattr(args, name) for name in _SAME},
    )
    executor = _executor(args, cfg, classes)
    try:
        outcomes = map_rasters(images, args.out, executor, options)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("stopped; what is done stays, the same command with --resume goes on.") from None
    finally:
        executor.close()
    for outcome in outcomes:
        for note in outcome.get("notes", []):
            print(f"{outcome['input']}: {note}")
    failed = [outcome for outcome in outcomes if outcome["status"] == "failed"]
    for outcome in failed:
        print(f"{outcome['input']}: {outcome['error']}", file=sys.stderr)
    done = len(outcomes) - len(failed)
    print(f"{done} of {len(outcomes)} maps in {args.out}; {Path(args.out, 'report.json')} says what became of each.")
    return int(bool(failed))


def _area(words: list[str] | None) -> Any:
    from ovrs.errors import ConfigError

    if words is None or len(words) == 1:
        return words and words[0]
    try:
        return tuple(float(word) for word in words)
    except ValueError:
        raise ConfigError(f"--aoi must be a file, or four numbers, got {' '.join(words)}.") from None


def _ground_size(text: str, cfg: CfgNode) -> float:
    from ovrs.errors import ConfigError
    from ovrs.predictor import trained_ground_size

    if text == "model":
        return trained_ground_size(cfg)
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"--gsd must be metres per pixel, or 'model', got {text!r}.") from None


def _executor(args: argparse.Namespace, cfg: CfgNode, classes: list[str]) -> Executor:
    from functools import partial

    import torch

    from ovrs.errors import choose
    from ovrs.predictor import load_windows
    from ovrs.raster import LocalExecutor, ProcessExecutor

    choose("--executor", args.executor, ("local", "ray"))
    load = partial(
        load_windows,
        cfg=cfg,
        classes=classes,
        threshold=args.threshold,
        batch_size=args.batch_size,
    )
    if args.executor == "ray":
        from ovrs.raster.ray_executor import RayExecutor

        return RayExecutor(load, args.workers, args.address)
    workers = args.workers or torch.cuda.device_count()
    return ProcessExecutor(load, workers) if workers > 1 else LocalExecutor(load(0))
