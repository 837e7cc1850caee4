"""One image and the answers about it."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ovrs.errors import ConfigError, DataError
from ovrs.predictor import Predictor
from ovrs.raster.ground import Ground
from ovrs.raster.model import ModelInfo
from ovrs.raster.mosaic import Layer, Part, Place, write_mosaic
from ovrs.raster.opening import environment, forget, opened
from ovrs.raster.options import RasterOptions, require
from ovrs.raster.overlay import write_overlay
from ovrs.raster.reading import as_colours
from ovrs.raster.scene import describe
from ovrs.scores import ScoreRule
from ovrs.serve.encoding import encoding_once
from ovrs.serve.limits import MIB, Gone, Limits
from ovrs.visualization import class_colours, overlay, write_qml

VIEW_SIDES = (640, 1280)  # pixels of the longer side of what is shown: smaller images are enlarged, larger ones reduced
FILES = ("labels.tif", "labels.qml", "overlay.png", "polygons.gpkg", "areas.csv", "confidence.tif", "scores.tif")
_PAINTED = ("labels.tif", "labels.qml", "overlay.png")  # the files with colours in them


@dataclass
class Answer:
    """What was asked last, and what came out.

    Attributes:
        classes: class strings.
        threshold: as of :meth:`ovrs.Predictor.predict`.
        names: of the labels.
        outcome: what the raster engine reports.
        labels: uint8 [h, w] of the view; 255 where there is no data.
        painted: whether the files have the current colours.
    """

    classes: tuple[str, ...]
    threshold: float | None
    names: tuple[str, ...]
    outcome: dict[str, Any]
    labels: np.ndarray
    painted: bool


class Session:
    """Maps one image into one vocabulary after the other; the towers see it once.

    Its methods may be called from any thread; they wait for each other.

    Args:
        key: its name in addresses, not to be guessed.
        path: the image, which was checked (:meth:`Limits.check_header`), alone in a folder that the session owns.
        predictor: the model; not changed.
        limits: of the server.
        turn: gives a context in which the model may be used.
        bands: see :class:`ovrs.raster.RasterOptions`.

    Attributes:
        picture: uint8 [h, w, 3] RGB, the image as the model sees it, at the size at which it is shown.
        used: when somebody last asked, in seconds of the monotonic clock.

    Raises:
        DataError: the image cannot be read.
    """

    def __init__(
        self,
        key: str,
        path: Path,
        predictor: Predictor,
        limits: Limits,
        turn: Callable[[], AbstractContextManager[None]],
        bands: tuple[int, ...] = (),
    ) -> None:
        self.key, self.path, self.used = key, path, time.monotonic()
        self._limits, self._turn = limits, turn
        self._predictor = encoding_once(predictor, int(limits.memory * MIB))
        self._options = RasterOptions(bands=bands, scores=True, confidence=True, overlay=True)
        self._lock = threading.RLock()
        self._maps = path.parent / "maps"
        self._chosen: dict[str, str] = {}
        self._answer: Answer | None = None
        self._closed = False
        # Windows do not matter here: how bands and values are read does not depend on the model.
        self._scene = describe(str(path), self._options, ModelInfo((), 1 << 8, ScoreRule(), {}))
        with opened(str(path)) as dataset:
            self.height, self.width = dataset.shape
            self.crs = dataset.crs.to_string() if dataset.crs else None
            longer = max(self.height, self.width)
            # Small images by a whole factor, so that all their pixels are shown alike.
            factor = min(VIEW_SIDES[1] / longer, max(VIEW_SIDES[0] // longer, 1))
            self._view = (max(round(self.height * factor), 1), max(round(self.width * factor), 1))
            values = dataset.read(self._scene.bands, out_shape=(len(self._scene.bands), *self._view))
            self.picture = np.ascontiguousarray(as_colours(self._scene, values).transpose(1, 2, 0))
        forget(str(path))

    # ------------------------------------------------------------------ questions

    def ask(self, classes: Sequence[str], threshold: float | None = None) -> None:
        """Map the image. The first time towers and head run, later the head alone; the same question costs nothing.

        A class that takes the place of another one, all others staying where they are, takes its colour, too.

        Args:
            classes: class strings; ``|`` separates synonyms.
            threshold: weaker pixels become "other".

        Raises:
            UserError: classes that cannot be used, an image that cannot be read, or too many people before this one.
        """
        classes = tuple(classes)
        self._limits.check_classes(list(classes))
        if threshold is not None and not 0 <= threshold <= 1:
            raise ConfigError(f"threshold must be from 0 to 1, got {threshold}.")
        with self._open():
            before = self._answer
            if before and (before.classes, before.threshold) == (classes, threshold):
                return
            folder = self._maps.with_name("new")
            shutil.rmtree(folder, ignore_errors=True)
            try:
                with self._turn():
                    outcome = self._predictor.predict_raster(
                        self.path, classes, folder, threshold=threshold, **vars(self._options)
                    )
            except DataError as error:
                raise DataError(str(error).replace(f"{self.path.parent}/", "")) from None
            shutil.rmtree(self._maps, ignore_errors=True)
            folder.rename(self._maps)
            names = tuple(entry["name"] for entry in outcome["classes"])
            self._chosen = self._carried(names)
            self._answer = Answer(classes, threshold, names, outcome, self._read_labels(), painted=not self._chosen)

    def recolour(self, colours: Mapping[str, str]) -> None:
        """Give classes other colours; nothing is computed anew.

        Args:
            colours: {name: "#rrggbb"}; an empty text takes a colour back.

        Raises:
            ConfigError: no such class, or no such colour.
        """
        with self._open():
            answer = self._answered()
            chosen = {name: colour for name, colour in {**self._chosen, **colours}.items() if colour}
            class_colours(answer.names, chosen)
            if chosen != self._chosen:
                self._chosen, answer.painted = chosen, False

    # ------------------------------------------------------------------ answers

    def summary(self) -> dict[str, Any]:
        """Return what there is to say in words, ready for JSON: the image, and its classes with shares and areas."""
        with self._open():
            said: dict[str, Any] = {
                "id": self.key,
                "file": self.path.name,
                "width": self.width,
                "height": self.height,
                "crs": self.crs,
                "notes": list(self._scene.notes),
            }
            if self._answer is not None:
                outcome = self._answer.outcome
                colours = ["#{:02x}{:02x}{:02x}".format(*colour) for colour in self._colours().tolist()]
                said |= {
                    "question": list(self._answer.classes),
                    "threshold": self._answer.threshold,
                    "area_unit": "px" if outcome["area_kind"] == "pixels" else "m2",
                    "classes": [
                        {**entry, "colour": colour} for entry, colour in zip(outcome["classes"], colours, strict=True)
                    ],
                    "files": list(FILES),
                }
            return said

    def view(self, opacity: float = 0.5) -> np.ndarray:
        """Return uint8 [h, w, 3], the image with the map over it (``opacity`` 0 to 1); the image before any answer."""
        with self._open():
            if self._answer is None:
                return self.picture
            if not 0 <= opacity <= 1:
                raise ConfigError(f"opacity must be from 0 to 1, got {opacity}.")
            return overlay(self.picture, self._answer.labels, self._colours(), opacity)

    def pixel(self, x: int, y: int) -> dict[str, Any]:
        """Return what is known of a pixel: its class and the probability of every class, best first.

        Args:
            x: column in the image, from 0.
            y: row, from 0.

        Raises:
            DataError: it lies outside.
        """
        import rasterio
        from rasterio.windows import Window

        with self._open():
            answer = self._answered()
            if not (0 <= x < self.width and 0 <= y < self.height):
                raise DataError(f"pixel {x}, {y} lies outside of the image, which has {self.width} x {self.height}.")
            window = Window(x, y, 1, 1)
            with environment(), rasterio.open(self._file("labels.tif")) as labels:
                label = int(labels.read(1, window=window)[0, 0])
                place = labels.xy(y, x) if self.crs else None
            with environment(), rasterio.open(self._file("scores.tif")) as dataset:
                values = dataset.read(window=window)[:, 0, 0]
                scores = {
                    name: round(float(value) * scale, 4)
                    for name, value, scale in zip(answer.names, values, dataset.scales, strict=False)
                }
            known = label < len(answer.names)
            return {
                "x": x,
                "y": y,
                "position": place and [float(value) for value in place],
                "class": answer.names[label] if known else None,
                "scores": dict(sorted(scores.items(), key=lambda item: -item[1])) if known else {},
            }

    def pixel_of_view(self, x: int, y: int) -> dict[str, Any]:
        """Return :meth:`pixel` of the image's pixel under a pixel of :meth:`view`."""
        height, width = self._view
        return self.pixel(int((x + 0.5) * self.width / width), int((y + 0.5) * self.height / height))

    def file(self, ending: str) -> Path:
        """Return the path of one of :data:`FILES`, made now if need be. It lasts until the next answer.

        Raises:
            Gone: no such file.
        """
        if ending not in FILES:
            raise Gone(f"there is no file {ending!r}; there are {', '.join(FILES)}.")
        with self._open():
            answer = self._answered()
            if ending in _PAINTED and not answer.painted:
                self._paint(answer)
            if ending == "polygons.gpkg" and not self._file(ending).exists():
                self._trace(answer)
            return self._file(ending)

    def close(self) -> None:
        """Remove all files; whoever asks later is told so."""
        with self._lock:
            self._closed = True
            self._answer = None
            shutil.rmtree(self.path.parent, ignore_errors=True)

    # ------------------------------------------------------------------ parts

    @contextmanager
    def _open(self) -> Iterator[None]:
        """Wait for other threads; whatever the block opened is closed, so that removed files leave the disk."""
        with self._lock:
            if self._closed:
                raise Gone("this map was forgotten, or never there; upload the image again.")
            self.used = time.monotonic()
            try:
                yield
            finally:
                forget(str(self.path))

    def _answered(self) -> Answer:
        if self._answer is None:
            raise ConfigError("nothing was asked yet: name classes first.")
        return self._answer

    def _carried(self, names: Sequence[str]) -> dict[str, str]:
        """Return the chosen colours that still have a class, renamed ones included."""
        chosen = dict(self._chosen)
        before = self._answer.names if self._answer else ()
        if len(before) == len(names):
            for old, new in zip(before, names, strict=True):
                if old in chosen and old not in names:
                    chosen[new] = chosen.pop(old)
        return {name: colour for name, colour in chosen.items() if name in names}

    def _colours(self) -> np.ndarray:
        return class_colours(self._answered().names, self._chosen)

    def _file(self, ending: str) -> Path:
        return self._maps / f"{self.path.stem}_{ending}"

    def _read_labels(self) -> np.ndarray:
        import rasterio

        with environment(), rasterio.open(self._file("labels.tif")) as dataset:
            return dataset.read(1, out_shape=self._view)

    def _paint(self, answer: Answer) -> None:
        """Write the files with colours again."""
        import rasterio

        labels = self._file("labels.tif")
        with environment(), rasterio.open(labels) as dataset:
            layer = Layer(
                dtype=dataset.dtypes[0],
                nodata=int(dataset.nodata),
                bands=dataset.descriptions,
                resampling="MODE",
                categories=answer.names,
                colours=self._colours(),
                tags=dataset.tags(),
            )
            place = Place(self.height, self.width, dataset.transform, dataset.crs, *dataset.gcps)
        write_mosaic(labels, [Part(labels, 0, 0, self.height, self.width)], layer, place)
        write_qml(self._file("labels.qml"), answer.names, layer.colours)
        write_overlay(self._file("overlay.png"), self._scene, labels, layer, self.path.name)
        answer.painted = True

    def _trace(self, answer: Answer) -> None:
        """Write the polygons."""
        require("a GeoPackage", "shapely", "pyogrio", "pyarrow", extra="serve")
        import rasterio

        from ovrs.raster.vectors import write_vectors

        with environment(), rasterio.open(self._file("labels.tif")) as dataset:
            ground = Ground(dataset.transform, dataset.crs, *dataset.shape)
        paths = (self._file(ending) for ending in ("polygons.gpkg", "labels.tif", "confidence.tif"))
        write_vectors(*paths, answer.names, ground)
