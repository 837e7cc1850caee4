"""Ground cover: parcels of fields, grass, bare ground and forest floor; water; roads.

Colours of the classes overlap on purpose. A green field, a meadow and a wood share their greens, a
ploughed field and bare ground their browns, deep water and asphalt their darks: rows, roughness,
crowns and shape tell them apart.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ovrs.demo.canvas import Box, Canvas, Curve, FloatMap, Label

GRASS = np.array([(0.31, 0.40, 0.20), (0.38, 0.45, 0.24), (0.47, 0.48, 0.29), (0.56, 0.52, 0.34), (0.25, 0.34, 0.18)])
CROPS = np.array(
    [
        (0.28, 0.39, 0.18),
        (0.36, 0.45, 0.21),
        (0.46, 0.49, 0.26),
        (0.63, 0.57, 0.35),
        (0.67, 0.60, 0.43),
        (0.50, 0.40, 0.29),
        (0.39, 0.31, 0.24),
    ]
)
BARE = np.array(
    [
        (0.61, 0.53, 0.41),
        (0.51, 0.41, 0.30),
        (0.43, 0.34, 0.26),
        (0.52, 0.49, 0.44),
        (0.68, 0.62, 0.49),
        (0.57, 0.43, 0.32),
        (0.50, 0.48, 0.31),
    ]
)
FOREST_FLOOR = np.array([(0.15, 0.21, 0.11), (0.19, 0.22, 0.13)])
WATER = np.array(
    [
        (0.13, 0.20, 0.23),
        (0.17, 0.24, 0.18),
        (0.31, 0.30, 0.23),
        (0.21, 0.29, 0.35),
        (0.11, 0.14, 0.16),
        (0.34, 0.38, 0.40),
    ]
)
ASPHALT = np.array([(0.33, 0.33, 0.34), (0.43, 0.42, 0.41), (0.52, 0.51, 0.49), (0.25, 0.26, 0.27)])
GRAVEL = np.array([(0.60, 0.53, 0.43), (0.54, 0.46, 0.36), (0.55, 0.52, 0.47)])
PAINT = (0.86, 0.86, 0.82)

COVERS: Mapping[Label, NDArray[np.float64]] = {
    Label.GRASSLAND: GRASS,
    Label.FARMLAND: CROPS,
    Label.BARE_GROUND: BARE,
    Label.FOREST: FOREST_FLOOR,
}


@dataclass(frozen=True)
class Road:
    """A road: its middle line, its size and what it is made of."""

    curve: Curve
    half_width: float
    paved: bool


def pick(rng: np.random.Generator, colours: NDArray[np.float64], count: int | None = None) -> NDArray[np.float64]:
    """Random mixtures of two neighbouring colours of a list: one RGB, or [count, 3]."""
    size = 1 if count is None else count
    position = rng.uniform(0, len(colours) - 1, size)
    low = np.minimum(position.astype(int), len(colours) - 2)
    share = (position - low)[:, None]
    mixed = colours[low] * (1 - share) + colours[low + 1] * share + rng.normal(0, 0.012, (size, 3))
    return mixed[0] if count is None else mixed


def parcels(canvas: Canvas, heading: float, blocks: NDArray[np.int32]) -> NDArray[np.int32]:
    """Cut the blocks between roads into parcels.

    Args:
        canvas: the scene.
        heading: direction of the parcel borders.
        blocks: [size, size] block number per pixel.

    Returns:
        [size, size] parcel numbers from 0, without gaps.
    """
    rng, size = canvas.rng, canvas.size
    frame = Curve(size / 2, size / 2, heading)
    numbers = blocks
    for axis in frame.coordinates(canvas):
        step = rng.uniform(55, 120)
        cuts = np.cumsum(rng.uniform(0.6, 1.4, math.ceil(2 * size / step) + 2) * step) - size
        row = np.digitize(axis + 2.5 * canvas.noise(45), cuts).astype(np.int32)
        numbers = renumber(numbers * (len(cuts) + 1) + row)
    return numbers


def renumber(numbers: NDArray[np.int32]) -> NDArray[np.int32]:
    """Close the gaps in a map of numbers from 0, in order."""
    seen = np.bincount(numbers.ravel()) > 0
    return (np.cumsum(seen, dtype=np.int32) - 1)[numbers]


def paint_parcels(canvas: Canvas, heading: float, numbers: NDArray[np.int32], covers: NDArray[np.int64]) -> None:
    """Paint every parcel with its cover.

    Args:
        canvas: the scene.
        heading: direction of the parcel borders; rows mostly follow it.
        numbers: [size, size] parcel number per pixel.
        covers: [parcels] class ids: keys of ``COVERS``.
    """
    rng, count = canvas.rng, len(covers)
    colours = np.zeros((count, 3), np.float32)
    for label, palette in COVERS.items():
        chosen = covers == label
        colours[chosen] = pick(rng, palette, int(chosen.sum()))
    image = colours[numbers]
    labels = covers.astype(np.uint8)[numbers]

    patches, grain = canvas.noise(60, 3), canvas.noise(1)
    texture = np.zeros_like(patches)
    grass, field, bare, floor = (labels == label for label in COVERS)
    texture[grass] = (0.07 * canvas.noise(24, 5) + 0.05 * grain)[grass]
    texture[field] = (0.035 * patches + 0.03 * grain + _rows(canvas, heading, numbers, count))[field]
    rough = 0.09 * canvas.noise(26, 5) + 0.10 * canvas.noise(2.2) + 0.08 * grain
    texture[bare] = rough[bare]
    texture[floor] = (0.10 * canvas.noise(5, 2))[floor]
    image *= (1 + texture)[..., None]
    # Patches differ in hue as well: drier spots are redder.
    image *= 1 + (0.035 * patches)[..., None] * np.array([1, 0.1, -0.6], np.float32)
    canvas.image[:] = image
    canvas.labels[:] = labels


def _rows(canvas: Canvas, heading: float, numbers: NDArray[np.int32], count: int) -> FloatMap:
    """Relative brightness of crop rows and tractor lanes, each parcel with its own direction and spacing."""
    rng = canvas.rng
    turned = rng.choice([0, math.pi / 2], count) + rng.normal(0, 0.05, count)
    angle = np.where(rng.random(count) < 0.25, rng.uniform(0, math.pi, count), heading + turned)
    cos, sin = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
    period = rng.uniform(3.2, 8, count).astype(np.float32)
    depth = rng.uniform(0.05, 0.15, count).astype(np.float32)
    lane = rng.uniform(30, 55, count).astype(np.float32)

    across = canvas.xs * sin[numbers] - canvas.ys * cos[numbers] + 0.8 * canvas.noise(50)
    rows = depth[numbers] * np.sin(across * (2 * np.pi / period)[numbers]) * (1 + 0.35 * canvas.noise(12))
    position = np.mod(across, lane[numbers])
    wheels = (np.abs(position - 4) < 0.9) | (np.abs(position - 8) < 0.9)
    return rows - 0.12 * wheels


def paint_water(canvas: Canvas, depth: FloatMap) -> None:
    """Paint a lake or a river with its shore.

    Args:
        canvas: the scene.
        depth: [size, size] signed distance to the shore line in pixels, positive in the water.
    """
    rng = canvas.rng
    beach = rng.uniform(0, 7)
    if beach > 2.5:
        sand = pick(rng, BARE)[None, None] * (1 + 0.06 * canvas.noise(3, 2))[..., None]
        canvas.paint(np.clip((depth + beach + 1.5 * canvas.noise(12)) / 2.5, 0, 1), sand, Label.BARE_GROUND)
    deep = pick(rng, WATER)
    shallow = 0.6 * deep + 0.4 * np.array([0.42, 0.42, 0.33])
    near = np.exp(-np.maximum(depth, 0) / rng.uniform(3, 10))[..., None]
    heading = rng.uniform(0, math.pi)
    waves = canvas.xs * math.cos(heading) + canvas.ys * math.sin(heading) + 3 * canvas.noise(20)
    ripples = rng.uniform(0.01, 0.03) * np.sin(waves * (2 * math.pi / rng.uniform(5, 9))) * (canvas.noise(40) > 0)
    glint = 1 + 0.05 * canvas.noise(90, 2) + ripples
    colour = (deep * (1 - near) + shallow * near) * glint[..., None]
    canvas.paint(np.clip(depth / 2 + 0.5, 0, 1), colour, Label.WATER)
    canvas.occupied |= depth > -4


def paint_roads(canvas: Canvas, roads: list[Road]) -> None:
    """Paint all roads, then the marks, which stop at crossings."""
    rng = canvas.rng
    lines = [road.curve.coordinates(canvas) for road in roads]
    insides = [np.abs(across) < road.half_width for road, (_, across) in zip(roads, lines, strict=True)]
    worn = 0.07 * canvas.noise(40, 3) + 0.035 * canvas.noise(1)
    for road, (_, across) in zip(roads, lines, strict=True):
        distance = np.abs(across)
        alpha = np.clip(road.half_width - distance + 0.5, 0, 1)
        tracks = np.exp(-(((distance - road.half_width / 2) / 1.6) ** 2))
        if road.paved:
            verge = np.clip(road.half_width + 2 - distance, 0, 1) * rng.uniform(0, 0.7)
            canvas.paint(verge, np.array([0.56, 0.54, 0.49]), None)
            colour = pick(rng, ASPHALT) * (1 + worn - 0.06 * tracks)[..., None]
        else:
            # Grass grows between the wheels of a gravel track.
            colour = pick(rng, GRAVEL) * (1 + worn + 0.05 * canvas.noise(3))[..., None]
            colour += (0.5 * np.exp(-((distance / 1.3) ** 2)))[..., None] * (GRASS[1] - colour)
        canvas.paint(alpha, colour, Label.ROAD)
        canvas.occupied |= distance < road.half_width + 3
    for index, (road, (along, across)) in enumerate(zip(roads, lines, strict=True)):
        if road.paved:
            others = [inside for other, inside in enumerate(insides) if other != index]
            crossing = np.logical_or.reduce(others) if others else np.zeros_like(canvas.occupied)
            _paint_marks(canvas, road, along, np.where(crossing, np.inf, across))


def _paint_marks(canvas: Canvas, road: Road, along: FloatMap, across: FloatMap) -> None:
    dash = np.clip(3.5 - np.abs(np.mod(along, 16) - 8), 0, 1)
    solid = canvas.rng.random() < 0.25
    middle = np.clip(1.1 - np.abs(across), 0, 1) * (1 if solid else dash)
    canvas.paint(0.75 * middle, PAINT, None)
    if road.half_width > 6.5:
        edge = np.clip(1.0 - np.abs(np.abs(across) - (road.half_width - 1.3)), 0, 1)
        canvas.paint(0.6 * edge, PAINT, None)


def paint_pavement(canvas: Canvas, box: Box) -> None:
    """Pave a box: a drive or a parking lot."""
    region, _, _, coverage = box.raster(canvas)
    texture = 1 + 0.035 * canvas.rng.standard_normal(coverage.shape, np.float32)
    canvas.paint(coverage, pick(canvas.rng, ASPHALT) * texture[..., None], Label.ROAD, region)
