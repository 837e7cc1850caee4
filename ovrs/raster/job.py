"""The map of one raster: what is left to do, the parts that are done, and the files at the end."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from affine import Affine
from torch import Tensor

from ovrs import __version__
from ovrs.data.rasters import turned_back
from ovrs.errors import DataError, shortened
from ovrs.files import replacing
from ovrs.raster.areas import class_areas, write_areas
from ovrs.raster.blend import BYTE_SCALE, Result, RollingBand
from ovrs.raster.grid import Axis
from ovrs.raster.ground import Ground
from ovrs.raster.model import ModelInfo
from ovrs.raster.mosaic import Layer, Part, Place, is_whole, write_mosaic, write_part
from ovrs.raster.opening import opened
from ovrs.raster.options import RasterOptions
from ovrs.raster.overlay import write_overlay
from ovrs.raster.reading import Block, valid_pixels, wanted_pixels
from ovrs.raster.scene import describe
from ovrs.visualization import class_colours, write_qml

log = logging.getLogger(__name__)

LAYERS = ("labels", "confidence", "scores")  # the files with a value per pixel, by the ending of their names

_WINDOWS_PER_BLOCK = 8


def file_endings(options: RasterOptions) -> list[str]:
    """Return how the names of all files end that are written for a raster; the layers first."""
    asked = {"labels": True, "confidence": options.confidence or options.vector, "scores": options.scores}
    endings = [f"{layer}.tif" for layer in LAYERS if asked[layer]] + ["labels.qml", "areas.csv"]
    endings += ["overlay.png"] if options.overlay else []
    return endings + ([f"polygons.{options.vector}"] if options.vector else [])


@dataclass(frozen=True)
class Strip:
    """A row of windows of a swath, and whether its results are still to be written."""

    swath: int
    row: int
    columns: range
    wanted: bool


class Job:
    """One raster on its way to a map.

    Wide rasters are cut into swaths, so that the scores of a row of windows keep to the memory that they may take. A
    swath is done from top to bottom, strip by strip; every finished strip is a file, so that a run that ends early
    leaves what it did.

    Args:
        source: the raster.
        folder: where the results go.
        stem: what their names start with.
        info: the model.
        options: see there.

    Raises:
        DataError: the raster cannot be mapped, an earlier run that should go on was another one, or files would be
            replaced that no earlier run made.
    """

    def __init__(self, source: str, folder: Path, stem: str, info: ModelInfo, options: RasterOptions) -> None:
        self.source, self.folder, self.stem = source, folder, stem
        self._info, self._options = info, options
        self.error = ""
        self.scene = describe(source, options, info)
        for note in self.scene.notes:
            log.info("%s: %s", source, note)
        self._parts = folder / f"{stem}_parts"
        self._manifest = folder / f"{stem}_manifest.json"
        labels = len(info.labels)
        self._nodata = 255 if labels <= 255 else 65535
        self._row_blocks = _needed(self.scene.rows, self.scene.area[:2])
        self._swaths = self._cut()
        self._band: RollingBand | None = None
        self._strip: Strip | None = None
        self.finished = self._take_up()

    # ------------------------------------------------------------------ what is to be done

    @cached_property
    def layers(self) -> dict[str, Layer]:
        """The files with a value per pixel, by the ending of their names."""
        options, info = self._options, self._info
        tags = {**self._source_tags(), **self._tags()}
        probability = {"dtype": "uint8", "nodata": 255, "scale": 1 / BYTE_SCALE, "tags": tags}
        layers = {}
        files = file_endings(options)
        if "confidence.tif" in files:
            layers["confidence"] = Layer(bands=("confidence",), resampling="AVERAGE", **probability)
        if "scores.tif" in files:
            layers["scores"] = Layer(bands=info.names, resampling="AVERAGE", **probability)
        # Last: a strip is done when its labels are there.
        layers["labels"] = Layer(
            dtype="uint8" if self._nodata == 255 else "uint16",
            nodata=self._nodata,
            bands=("class",),
            resampling="MODE",
            categories=info.labels,
            colours=class_colours(info.labels, options.colours),
            tags=tags,
        )
        return layers

    def strips(self) -> Iterator[Strip]:
        """Yield what is left to do, in order."""
        rows = self.scene.rows
        for swath, blocks in enumerate(self._swaths):
            missing = [row for row in self._row_blocks if not self._is_done(swath, row)]
            needed = sorted({window for row in missing for window in rows.windows_of(row)})
            columns = range(self.scene.columns.windows_of(blocks[0])[0], blocks[1])
            for row in needed:
                yield Strip(swath, row, columns, row in set(missing))

    def blocks(self, strip: Strip) -> Iterator[Block]:
        """Yield the windows of a strip in pieces that are read at once."""
        for first in range(strip.columns.start, strip.columns.stop, _WINDOWS_PER_BLOCK):
            yield Block(self.scene, strip.row, first, min(first + _WINDOWS_PER_BLOCK, strip.columns.stop))

    # ------------------------------------------------------------------ one strip after another

    def add(self, strip: Strip, column: int, scores: Tensor) -> None:
        """Add the scores of a window; windows come in order."""
        if self.scene.orientation > 1:
            upright = turned_back(scores.permute(1, 2, 0).numpy(), self.scene.orientation)
            scores = torch.from_numpy(upright).permute(2, 0, 1)
        self._enter(strip).add(column, scores)

    def close(self, strip: Strip) -> None:
        """Write what a strip completes."""
        band = self._enter(strip)
        if not strip.wanted:
            return
        part = self._part("labels", strip.swath, strip.row)
        top, left = self.scene.area[0] + part.top, self.scene.area[2] + part.left
        values = {
            name: np.full((len(layer.bands), part.height, part.width), layer.nodata, layer.dtype)
            for name, layer in self.layers.items()
        }
        for column, result in band.results("scores" in values):
            if result is not None:
                self._place(values, result, strip.row, column, top, left)
        if self.scene.masked or self.scene.aoi:
            place = (top, top + part.height, left, left + part.width)
            with opened(self.scene.path, self.scene.allow_remote) as dataset:
                valid = valid_pixels(self.scene, dataset, *place) & wanted_pixels(self.scene, dataset, *place)
            for name, array in values.items():
                array[:, ~valid] = self.layers[name].nodata
        for name, array in values.items():
            write_part(self._part(name, strip.swath, strip.row).path, array, self.layers[name].nodata)

    def _enter(self, strip: Strip) -> RollingBand:
        if self._band is None or self._strip is None or self._strip.swath != strip.swath:
            scene = self.scene
            self._band = RollingBand(self._info, scene.rows, scene.columns, self._swaths[strip.swath])
        if self._strip is not strip:
            self._band.move(strip.row)
            self._strip = strip
        return self._band

    def _place(self, values: dict[str, np.ndarray], result: Result, row: int, column: int, top: int, left: int) -> None:
        """Put the result of a block, which has canvas pixels, at its raster pixels."""
        rows, columns = self.scene.rows, self.scene.columns
        height, width = values["labels"].shape[1:]
        y0, y1 = _inside(rows.own(row), top, top + height)
        x0, x1 = _inside(columns.own(column), left, left + width)
        if y0 >= y1 or x0 >= x1:
            return
        y = np.clip(rows.canvas_of(y0, y1) - rows.span(row)[0], 0, len(result.labels) - 1)[:, None]
        x = np.clip(columns.canvas_of(x0, x1) - columns.span(column)[0], 0, result.labels.shape[1] - 1)
        place = (..., slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))
        values["labels"][place] = result.labels[y, x]
        if "confidence" in values:
            values["confidence"][place] = result.confidence[y, x]
        if result.scores is not None:
            values["scores"][place] = result.scores[:, y, x]

    # ------------------------------------------------------------------ the files at the end

    def path(self, ending: str) -> Path:
        """Return the path of one of the results."""
        return self.folder / f"{self.stem}_{ending}"

    def finish(self) -> dict[str, Any]:
        """Write the map and what is derived from it; return what the report says about it.

        Raises:
            DataError: the disk is full, or a file cannot be written.
        """
        place = self._ground_place()
        layers = dict(self.layers)
        for name, layer in layers.items():
            parts = [self._part(name, swath, row) for swath in range(len(self._swaths)) for row in self._row_blocks]
            write_mosaic(self.path(f"{name}.tif"), parts, layer, place)
        labels = layers["labels"]
        write_qml(self.path("labels.qml"), labels.categories, labels.colours)
        ground = Ground(place.transform, place.crs, place.height, place.width, self._options.planar)
        files = file_endings(self._options)
        if self._options.overlay:
            write_overlay(self.path("overlay.png"), self.scene, self.path("labels.tif"), labels, Path(self.source).name)
        areas = class_areas(self.path("labels.tif"), labels.categories, ground)
        write_areas(self.path("areas.csv"), areas, ground)
        if self._options.vector:
            from ovrs.raster.vectors import write_vectors

            write_vectors(
                self.path(f"polygons.{self._options.vector}"),
                self.path("labels.tif"),
                self.path("confidence.tif"),
                labels.categories,
                ground,
                min_area=self._options.min_area,
                simplify=self._options.simplify,
            )
            if not self._options.confidence:
                self.path("confidence.tif").unlink()
                files.remove("confidence.tif")
        summary = {
            "files": {self.path(file).name: self.path(file).stat().st_size for file in files},
            "notes": list(self.scene.notes),
            "area_kind": ground.kind,
            "classes": [asdict(area) for area in areas],
        }
        with replacing(self._manifest) as temporary:
            content = {"made_with": self._made_with, "own": self._own, **summary}
            temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")
        shutil.rmtree(self._parts)
        return summary

    # ------------------------------------------------------------------ going on

    @cached_property
    def _made_with(self) -> dict[str, Any]:
        """All that the results depend on, as it comes back from JSON."""
        status = os.stat(self.source) if os.path.exists(self.source) else None
        options = self._options
        facts = {
            "version": __version__,
            "model": self._info.identity,
            "classes": self._info.names,
            "rule": asdict(self._info.rule),
            "input": {
                "path": os.path.realpath(self.source) if status else self.source,
                "size": status and status.st_size,
                "modified": status and status.st_mtime_ns,
            },
            "reading": self.scene.decisions(),
            "swaths": self._swaths,
            "layers": list(self.layers),
            "pictures": [options.confidence, options.overlay],
            "vector": [options.vector, options.min_area, options.simplify, options.planar],
            "colours": dict(options.colours),
        }
        return json.loads(json.dumps(facts))

    def _take_up(self) -> dict[str, Any] | None:
        """Look at what an earlier run left; return the summary of a finished one."""
        done, begun = _read_manifest(self._manifest), _read_manifest(self._parts / "manifest.json")
        earlier = [left for left in (begun, done) if left]
        own = {name for left in earlier for name in left.get("own", left.get("files", ()))}
        planned = {self.path(ending).name for ending in file_endings(self._options)}
        self._own = sorted(planned | {name for name in own if os.path.lexists(self.folder / name)})
        if self._options.resume:
            for left in earlier:
                self._check_same(left["made_with"])
            if done and not begun and self._is_there(done):
                return {key: value for key, value in done.items() if key not in ("made_with", "own")}
            if begun:
                return None
        if not self._options.overwrite:
            names = planned - own | ({self._manifest.name} if not done else set())
            foreign = [name for name in sorted(names) if os.path.lexists(self.folder / name)]
            if not begun and any(self._parts.glob("[!.]*")):
                foreign.append(self._parts.name)
            check_not_foreign([self.folder / name for name in foreign])
        self._manifest.unlink(missing_ok=True)
        shutil.rmtree(self._parts, ignore_errors=True)
        with replacing(self._parts / "manifest.json") as temporary:
            temporary.write_text(json.dumps({"made_with": self._made_with, "own": self._own}), encoding="utf-8")
        return None

    def _check_same(self, before: dict[str, Any]) -> None:
        if changed := [key for key, value in self._made_with.items() if before.get(key) != value]:
            raise DataError(
                f"{self.folder / self.stem}: an earlier run had another {', '.join(changed)}; "
                "go on with the same, or start again without --resume."
            )

    def _is_there(self, done: dict[str, Any]) -> bool:
        files = done.get("files", {})
        return bool(files) and all(
            (self.folder / name).is_file() and (self.folder / name).stat().st_size == size
            for name, size in files.items()
        )

    # ------------------------------------------------------------------ helpers

    def _cut(self) -> list[tuple[int, int]]:
        """Return the columns [first, last) of blocks of every swath."""
        columns = self.scene.columns
        needed = _needed(columns, self.scene.area[2:])
        rows_of_scores = len(self._info.class_of or self._info.names)
        side = columns.kernel // columns.cell + 1
        per_block = 4 * rows_of_scores * side * (columns.stride // columns.cell)
        wide = max((self._options.memory << 20) // per_block - columns.reach, 1)
        return [(first, min(first + wide, needed.stop)) for first in range(needed.start, needed.stop, wide)]

    def _part(self, layer: str, swath: int, row: int) -> Part:
        top, bottom = _inside(self.scene.rows.own(row), *self.scene.area[:2])
        first, last = self._swaths[swath]
        columns = (self.scene.columns.own(first)[0], self.scene.columns.own(last - 1)[1])
        left, right = _inside(columns, *self.scene.area[2:])
        path = self._parts / f"{layer}_{swath:04d}_{row:07d}.tif"
        return Part(path, top - self.scene.area[0], left - self.scene.area[2], bottom - top, right - left)

    def _is_done(self, swath: int, row: int) -> bool:
        return all(is_whole(self._part(layer, swath, row)) for layer in self.layers)

    def _tags(self) -> dict[str, str]:
        return {
            "OVRS_VERSION": __version__,
            "OVRS_CLASSES": json.dumps(self._info.labels, ensure_ascii=False),
            "OVRS_SOURCE": Path(self.source).name,
            "OVRS_READING": "; ".join(self.scene.notes),
            **{f"OVRS_{key.upper()}": value for key, value in self._info.identity.items()},
        }

    def _source_tags(self) -> dict[str, str]:
        with opened(self.scene.path, self.scene.allow_remote) as dataset:
            return dict(dataset.tags())

    def _ground_place(self) -> Place:
        top, bottom, left, right = self.scene.area
        with opened(self.scene.path, self.scene.allow_remote) as dataset:
            gcps, gcp_crs = dataset.gcps
            for point in gcps:
                point.row, point.col = point.row - top, point.col - left
            transform = dataset.transform
            if not transform.is_identity:
                transform *= Affine.translation(left, top)
            return Place(bottom - top, right - left, transform, dataset.crs, tuple(gcps), gcp_crs)


def _needed(axis: Axis, area: tuple[int, int]) -> range:
    """Return the blocks that own raster pixels of an area."""
    wanted = [block for block in range(axis.count) if len(range(*_inside(axis.own(block), *area)))]
    return range(wanted[0], wanted[-1] + 1)


def _inside(span: tuple[int, int], first: int, last: int) -> tuple[int, int]:
    return max(span[0], first), min(span[1], last)


def check_not_foreign(paths: Sequence[Path]) -> None:
    """Refuse to replace files that no earlier run made.

    Raises:
        DataError: there are some.
    """
    if paths:
        raise DataError(
            f"no earlier run made {shortened(paths)}, which would be replaced; choose another folder (--out), or "
            "replace such files with --overwrite."
        )


def _read_manifest(path: Path) -> dict[str, Any] | None:
    """Return what a run left about itself; ``None`` where there is nothing of that kind."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, UnicodeDecodeError, json.JSONDecodeError):
        return None
    return content if isinstance(content, dict) and "made_with" in content else None
