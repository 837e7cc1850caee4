"""What every painter of a scene shares: the classes, the canvas, noise and curves.

One pixel is about half a metre: a car is 9 by 4 pixels, a house 20 to 50. Colours are float RGB in
0..1, positions are (x, y) in pixels, angles are radians.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatMap = NDArray[np.float32]
Region = tuple[slice, slice]


class Label(enum.IntEnum):
    """Class ids in the label images."""

    BUILDING = 0
    ROAD = 1
    CAR = 2
    FOREST = 3
    WATER = 4
    FARMLAND = 5
    BARE_GROUND = 6
    GRASSLAND = 7


CLASSES = (
    "building|house|residence|apartment|rooftop",
    "road|highway|avenue|roadway|asphalt",
    "car|vehicle|truck|van",
    "forest|trees|tree canopy|tree cover",
    "water|river|pond|reservoir|lagoon",
    "farmland|crops|cropland|farming area|cultivated land",
    "bare ground|soil|sand|mud|gravel",
    "grassland|grass|lawn|turf|prairie",
)
# The same classes in words that training never sees; no word is shared with CLASSES or its synonyms.
RENAMED_CLASSES = ("dwelling", "street", "automobile", "woods", "lake", "agricultural field", "dirt", "meadow")
CLASS_COLOURS = np.array(
    [
        (214, 72, 61),
        (110, 110, 122),
        (250, 200, 40),
        (24, 98, 48),
        (52, 120, 200),
        (236, 220, 150),
        (164, 116, 76),
        (132, 190, 84),
    ],
    dtype=np.uint8,
)


class Canvas:
    """A square scene that is being painted.

    Attributes:
        rng: the only source of randomness.
        size: side in pixels.
        image: [size, size, 3] RGB.
        labels: [size, size] class ids.
        occupied: [size, size], True where nothing more may be built or planted.
        xs: [1, size] column coordinates.
        ys: [size, 1] row coordinates.
        sun: (x, y) unit vector that points towards the sun; shadows fall the other way.
        shadow_per_height: length of a shadow, in pixels per pixel of height.
    """

    def __init__(self, rng: np.random.Generator, size: int) -> None:
        self.rng = rng
        self.size = size
        self.image = np.zeros((size, size, 3), np.float32)
        self.labels = np.full((size, size), Label.GRASSLAND, np.uint8)
        self.occupied = np.zeros((size, size), bool)
        self.xs = np.arange(size, dtype=np.float32)[None]
        self.ys = np.arange(size, dtype=np.float32)[:, None]
        azimuth = rng.uniform(0, 2 * math.pi)
        self.sun = np.array([math.cos(azimuth), math.sin(azimuth)], np.float32)
        self.shadow_per_height = rng.uniform(0.6, 1.2)

    def paint(self, alpha: FloatMap, colour: ArrayLike, label: Label | None, region: Region = np.s_[:, :]) -> None:
        """Blend a colour (map) into a region, and label what it covers by more than half.

        Args:
            alpha: [h, w] coverage in 0..1.
            colour: RGB, or [h, w, 3].
            label: class of the paint; None keeps the labels that are there, as marks and shadows do.
            region: the part of the canvas that ``alpha`` stands for.
        """
        target = self.image[region]
        target += alpha[..., None] * (np.asarray(colour, np.float32) - target)
        if label is not None:
            self.labels[region][alpha > 0.5] = label

    def noise(self, scale: float, octaves: int = 1) -> FloatMap:
        """Smooth random map [size, size], mean about 0 and deviation about 1.

        Args:
            scale: size of the largest blobs, in pixels.
            octaves: each further octave has half the scale and 0.6 of the strength.
        """
        total = np.zeros((self.size, self.size), np.float32)
        power = 0.0
        for octave in range(octaves):
            step = max(scale / 2**octave, 1.0)
            strength = 0.6**octave
            total += strength * self._blobs(step)
            power += strength**2
        return total / math.sqrt(power)

    def _blobs(self, step: float) -> FloatMap:
        if step <= 1:
            return self.rng.standard_normal((self.size, self.size), np.float32)
        cells = math.ceil(self.size / step) + 2
        coarse = self.rng.standard_normal((cells, cells), np.float32)
        side = math.ceil(cells * step)
        x, y = self.rng.integers(0, side - self.size + 1, 2)
        # 1.35 makes up for the contrast that cubic interpolation takes away.
        smooth = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC) * np.float32(1.35)
        return smooth[y : y + self.size, x : x + self.size]

    def is_free(self, corners: NDArray[np.floating]) -> bool:
        """Whether a convex polygon [n, 2] has its centre on the canvas and meets nothing that is occupied."""
        centre = corners.mean(axis=0)
        if not ((centre >= 0) & (centre < self.size)).all():
            return False
        region = self.region(corners)
        there = self.occupied[region]
        mask = np.zeros(there.shape, bool)
        fill_polygon(mask, corners - (region[1].start, region[0].start))
        return not there[mask].any()

    def occupy(self, corners: NDArray[np.floating]) -> None:
        """Keep a convex polygon [n, 2] free of whatever comes later."""
        fill_polygon(self.occupied, corners)

    def region(self, corners: NDArray[np.floating]) -> Region:
        """The part of the canvas, maybe empty, around a polygon [n, 2]."""
        low = np.clip(np.floor(corners.min(axis=0)), 0, self.size).astype(int)
        high = np.clip(np.ceil(corners.max(axis=0)) + 1, 0, self.size).astype(int)
        return np.s_[low[1] : high[1], low[0] : high[0]]


def fill_polygon(mask: NDArray[np.bool_], corners: NDArray[np.floating]) -> None:
    """Set a mask, in place, inside a convex polygon [n, 2]."""
    cv2.fillConvexPoly(mask.view(np.uint8), np.round(corners).astype(np.int32), 1)


@dataclass(frozen=True)
class Box:
    """A rotated rectangle on the ground.

    Attributes:
        x: column of the centre.
        y: row of the centre.
        heading: direction of the long axis.
        half_length: half the extent along ``heading``.
        half_width: half the extent across it.
    """

    x: float
    y: float
    heading: float
    half_length: float
    half_width: float

    @property
    def axis(self) -> NDArray[np.float32]:
        """Unit vector along the heading."""
        return np.array([math.cos(self.heading), math.sin(self.heading)], np.float32)

    @property
    def normal(self) -> NDArray[np.float32]:
        """Unit vector across the heading."""
        return np.array([-math.sin(self.heading), math.cos(self.heading)], np.float32)

    def corners(self, margin: float = 0.0) -> NDArray[np.float32]:
        """The four corners [4, 2], in order, of the box grown by ``margin``."""
        along, across = (self.half_length + margin) * self.axis, (self.half_width + margin) * self.normal
        centre = np.array([self.x, self.y], np.float32)
        return np.stack(
            [centre - along - across, centre + along - across, centre + along + across, centre - along + across]
        )

    def part(self, along: float, across: float, half_length: float, half_width: float) -> Box:
        """A box with the same heading, centred at (along, across) of this one."""
        x, y = np.array([self.x, self.y]) + along * self.axis + across * self.normal
        return Box(float(x), float(y), self.heading, half_length, half_width)

    def raster(self, canvas: Canvas) -> tuple[Region, FloatMap, FloatMap, FloatMap]:
        """Rasterise onto the canvas with soft edges.

        Returns:
            The region of the canvas that the box touches (may be empty), and there the coordinates
            along and across the box, in pixels from its centre, and the coverage in 0..1.
        """
        region = canvas.region(self.corners(margin=1))
        dx, dy = canvas.xs[:, region[1]] - self.x, canvas.ys[region[0]] - self.y
        along = dx * self.axis[0] + dy * self.axis[1]
        across = dx * self.normal[0] + dy * self.normal[1]
        inside = np.minimum(self.half_length - np.abs(along), self.half_width - np.abs(across))
        return region, along, across, np.clip(inside + 0.5, 0, 1)


@dataclass(frozen=True)
class Curve:
    """A gently winding line across the whole scene: the middle of a road or a river.

    Attributes:
        x: column of a point that the line passes by.
        y: row of that point.
        heading: overall direction.
        amplitude: largest distance from the straight line, in pixels; 0 is straight, and a rotated frame.
        wavelength: of the windings, in pixels.
        phase: where the windings start.
    """

    x: float
    y: float
    heading: float
    amplitude: float = 0.0
    wavelength: float = 1.0
    phase: float = 0.0

    def _offset(self, along: FloatMap | float) -> FloatMap | float:
        return self.amplitude * np.sin(along * (2 * math.pi / self.wavelength) + self.phase)

    def _slope(self, along: FloatMap | float) -> FloatMap | float:
        rate = 2 * math.pi / self.wavelength
        return self.amplitude * rate * np.cos(along * rate + self.phase)

    def coordinates(self, canvas: Canvas) -> tuple[FloatMap, FloatMap]:
        """Maps [size, size] of the distance along the line and the signed distance across it, in pixels."""
        cos, sin = np.float32(math.cos(self.heading)), np.float32(math.sin(self.heading))
        dx, dy = canvas.xs - np.float32(self.x), canvas.ys - np.float32(self.y)
        along = dx * cos + dy * sin
        across = dy * cos - dx * sin - self._offset(along)
        return along, across / np.sqrt(1 + self._slope(along) ** 2)

    def point(self, along: float, across: float) -> tuple[float, float, float]:
        """Position (x, y) and heading of the line at a distance along and across it."""
        slope = float(self._slope(along))
        heading = self.heading + math.atan(slope)
        lateral = float(self._offset(along))
        cos, sin = math.cos(self.heading), math.sin(self.heading)
        x = self.x + along * cos - lateral * sin - across * math.sin(heading)
        y = self.y + along * sin + lateral * cos + across * math.cos(heading)
        return x, y, heading
