"""One labelled aerial scene: themes, and the order in which a scene is put together."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ovrs.demo import objects
from ovrs.demo.canvas import Box, Canvas, Curve, Label
from ovrs.demo.ground import (
    PAINT,
    Road,
    paint_parcels,
    paint_pavement,
    paint_roads,
    paint_water,
    parcels,
    renumber,
)

MIN_SIZE = 64
GAP = 13.0  # least distance between the middles of two driving cars, in pixels
BASE_SIZE = 256  # counts in a theme are for a scene of this side


@dataclass(frozen=True)
class Theme:
    """What a kind of scene tends to contain.

    Attributes:
        frequency: relative frequency of the theme.
        roads: fewest and most roads.
        covers: relative frequency of each ground cover among the parcels.
        settled: probability that a block between roads is built up.
        water: probability of a lake or a river.
        halls: large buildings, at most.
        lots: parking lots, at most.
        trees: scattered trees.
    """

    frequency: float
    roads: tuple[int, int]
    covers: Mapping[Label, float]
    settled: float
    water: float
    halls: int
    lots: int
    trees: int


FARMLAND, FOREST, GRASS, BARE = Label.FARMLAND, Label.FOREST, Label.GRASSLAND, Label.BARE_GROUND
THEMES = (
    Theme(0.28, (2, 3), {GRASS: 4, BARE: 1.5, FOREST: 2, FARMLAND: 2}, 0.85, 0.15, 1, 1, 45),  # suburb
    Theme(0.22, (1, 2), {FARMLAND: 7, GRASS: 1.5, BARE: 1, FOREST: 1.5}, 0.15, 0.15, 0, 0, 14),  # fields
    Theme(0.14, (0, 2), {FOREST: 5, GRASS: 2, FARMLAND: 2, BARE: 1}, 0.10, 0.25, 0, 0, 14),  # woods
    Theme(0.20, (0, 2), {GRASS: 2.5, FOREST: 2, FARMLAND: 3, BARE: 2}, 0.20, 1.00, 0, 0, 18),  # waterside
    Theme(0.16, (1, 3), {BARE: 6, GRASS: 3, FARMLAND: 2}, 0.15, 0.10, 4, 2, 14),  # works and building sites
)


def render_scene(rng: np.random.Generator, size: int = BASE_SIZE) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw one scene.

    Args:
        rng: the only source of randomness: equal generators draw equal scenes.
        size: side of the scene in pixels, of about half a metre each.

    Returns:
        RGB image [size, size, 3] and class ids [size, size] (values of :class:`Label`).

    Raises:
        ValueError: ``size`` is too small to hold a house.
    """
    if size < MIN_SIZE:
        raise ValueError(f"size is {size}; a scene needs at least {MIN_SIZE} pixels a side to hold a house.")
    canvas = Canvas(rng, size)
    frequencies = np.array([theme.frequency for theme in THEMES])
    theme = THEMES[rng.choice(len(THEMES), p=frequencies / frequencies.sum())]
    heading = rng.uniform(0, math.pi)

    roads = _plan_roads(canvas, theme, heading)
    settled = _paint_ground(canvas, theme, heading, roads)
    if rng.random() < theme.water:
        _add_water(canvas, roads)
    paint_roads(canvas, roads)
    cars = _traffic(canvas, roads, dense=theme.settled > 0.5)
    for _ in range(_count(canvas, theme.lots)):
        cars += _parking_lot(canvas, heading)
    buildings, parked = _settle(canvas, theme, heading, roads, settled)
    objects.draw_cars(canvas, cars + parked)
    objects.cast_shadows(canvas, [(building.box, building.height) for building in buildings])
    for building in buildings:
        objects.draw_building(canvas, building)
    objects.draw_trees(canvas, _plant(canvas, theme))
    return _develop(canvas), canvas.labels


def _count(canvas: Canvas, most: int) -> int:
    """A random number of things: up to ``most`` in a scene of the base size, in proportion to the area."""
    return round(canvas.rng.integers(0, most + 1) * (canvas.size / BASE_SIZE) ** 2)


def _plan_roads(canvas: Canvas, theme: Theme, heading: float) -> list[Road]:
    """Roads along the heading and across it by turns, well apart."""
    rng, size = canvas.rng, canvas.size
    low, high = theme.roads
    count = max(round(rng.integers(low, high + 1) * size / BASE_SIZE), low)
    places = [rng.permutation(math.ceil(count / 2)) for _ in range(2)]
    roads = []
    for index in range(count):
        direction = index % 2
        # Each road of one direction gets a strip of its own across the scene.
        strips = len(places[direction])
        offset = ((places[direction][index // 2] + rng.uniform(0.25, 0.75)) / strips - 0.5) * size * 0.9
        angle = heading + direction * math.pi / 2
        x, y = size / 2 - offset * math.sin(angle), size / 2 + offset * math.cos(angle)
        amplitude = 0.0 if rng.random() < 0.4 else rng.uniform(4, 16)
        curve = Curve(x, y, angle, amplitude, rng.uniform(180, 320), rng.uniform(0, 2 * math.pi))
        paved = bool(rng.random() < 0.5 + 0.5 * theme.settled)
        roads.append(Road(curve, rng.uniform(5.5, 8.5) if paved else rng.uniform(3.5, 5), paved))
    return roads


def _paint_ground(canvas: Canvas, theme: Theme, heading: float, roads: list[Road]) -> NDArray[np.bool_]:
    """Paint the parcels; returns a mask [size, size] of the land that may be built upon."""
    rng = canvas.rng
    blocks = np.zeros((canvas.size, canvas.size), np.int32)
    for road in roads:
        blocks = renumber(2 * blocks + (road.curve.coordinates(canvas)[1] > 0))
    built = rng.random(int(blocks.max()) + 1) < theme.settled
    settled = built[blocks]
    numbers = parcels(canvas, heading, blocks)
    count = int(numbers.max()) + 1
    labels = np.array(list(theme.covers))
    weights = np.array(list(theme.covers.values()))
    covers = rng.choice(labels, count, p=weights / weights.sum())
    gardens = np.bincount(numbers[settled], minlength=count) > 0
    covers[gardens] = rng.choice([GRASS, BARE], int(gardens.sum()), p=[0.85, 0.15])
    paint_parcels(canvas, heading, numbers, covers)
    return settled


def _add_water(canvas: Canvas, roads: list[Road]) -> None:
    rng, size = canvas.rng, canvas.size
    if rng.random() < 0.4:
        x, y = rng.uniform(0.25, 0.75, 2) * size
        curve = Curve(x, y, rng.uniform(0, math.pi), rng.uniform(10, 30), rng.uniform(160, 300), rng.uniform(0, 6))
        across = curve.coordinates(canvas)[1]
        depth = rng.uniform(9, 26) * (1 + 0.15 * canvas.noise(70)) - np.abs(across) + 1.2 * canvas.noise(14)
    else:
        # The lake goes where it is farthest from the roads.
        spots = rng.uniform(0.05, 0.95, (12, 2)) * size
        room = np.full((size, size), np.inf, np.float32)
        for road in roads:
            room = np.minimum(room, np.abs(road.curve.coordinates(canvas)[1]))
        x, y = max(spots, key=lambda spot: room[int(spot[1]), int(spot[0])])
        stretch, angle = rng.uniform(1, 1.8), rng.uniform(0, math.pi)
        frame = Curve(x, y, angle)
        along, across = frame.coordinates(canvas)
        radius = rng.uniform(40, 85)
        depth = radius - np.hypot(along / stretch, across) + 12 * canvas.noise(60, 2) + 0.8 * canvas.noise(9)
        depth = np.minimum(depth, room - 14)
    paint_water(canvas, depth)


def _traffic(canvas: Canvas, roads: list[Road], dense: bool) -> list[Box]:
    rng, cars = canvas.rng, []
    reach = canvas.size * 0.75
    for road in roads:
        if not road.paved:
            continue
        for side in (-1, 1):
            along = -reach + rng.uniform(0, 40)
            while along < reach:
                x, y, angle = road.curve.point(along, side * (road.half_width / 2 - 0.2))
                angle += rng.normal(0, 0.03) + (math.pi if side > 0 else 0)
                if all(math.hypot(x - other.x, y - other.y) > GAP for other in cars):
                    cars.append(objects.car(x, y, angle))
                along += GAP + rng.exponential(40 if dense else 60)
    return cars


def _parking_lot(canvas: Canvas, heading: float) -> list[Box]:
    """Pave a parking lot on free land, if there is any, and fill some of its bays."""
    rng, bay = canvas.rng, 6.0
    bays = int(rng.integers(6, 12))
    for _ in range(8):
        x, y = rng.uniform(0.1, 0.9, 2) * canvas.size
        lot = Box(x, y, heading + rng.choice([0, math.pi / 2]), bays * bay / 2 + 3, 18.0)
        if canvas.is_free(lot.corners(margin=2)):
            break
    else:
        return []
    paint_pavement(canvas, lot)
    canvas.occupy(lot.corners(margin=2))
    cars = []
    for side in (-1, 1):
        for index in range(bays + 1):
            along = (index - bays / 2) * bay
            region, _, _, coverage = lot.part(along, side * 11.5, 0.45, 5.5).raster(canvas)
            canvas.paint(0.7 * coverage, PAINT, None, region)
            if index < bays and rng.random() < 0.7:
                place = lot.part(along + bay / 2, side * 11.5 + rng.normal(0, 0.4), 1, 1)
                turn = rng.choice([-1, 1]) * math.pi / 2 + rng.normal(0, 0.03)
                cars.append(objects.car(place.x, place.y, lot.heading + turn))
    return cars


def _settle(
    canvas: Canvas, theme: Theme, heading: float, roads: list[Road], settled: NDArray[np.bool_]
) -> tuple[list[objects.Building], list[Box]]:
    """Place houses along the roads of settled blocks, and halls and farmhouses anywhere; returns parked cars too."""
    rng, size = canvas.rng, canvas.size
    buildings: list[objects.Building] = []
    cars: list[Box] = []
    for _ in range(_count(canvas, 6 * theme.halls)):
        x, y = rng.uniform(0, size, 2)
        _try_to_build(canvas, objects.hall(rng, x, y, heading + rng.choice([0, math.pi / 2])), buildings)
        if len(buildings) >= theme.halls * max((size / BASE_SIZE) ** 2, 1):
            break
    for road in roads:
        for side in (-1, 1):
            along = -0.75 * size + rng.uniform(0, 30)
            while along < 0.75 * size:
                setback = rng.uniform(17, 23)
                x, y, angle = road.curve.point(along, side * (road.half_width + setback))
                turned = rng.random() < 0.25
                if 0 <= x < size and 0 <= y < size and settled[int(y), int(x)]:
                    wings = objects.house(rng, x, y, angle + (math.pi / 2 if turned else 0))
                    if _try_to_build(canvas, wings, buildings):
                        cars += _drive(canvas, road, along + wings[0].box.half_length + 4, side, setback)
                along += rng.uniform(38, 62)
    for _ in range(_count(canvas, 14)):
        x, y = rng.uniform(0, size, 2)
        if settled[int(y), int(x)] or rng.random() < 0.06:
            _try_to_build(canvas, objects.house(rng, x, y, heading + rng.choice([0, math.pi / 2])), buildings)
    return buildings, cars


def _try_to_build(canvas: Canvas, wings: list[objects.Building], buildings: list[objects.Building]) -> bool:
    """Add the wings to the buildings if they all stand on free land."""
    if not all(canvas.is_free(wing.box.corners(margin=2)) for wing in wings):
        return False
    for wing in wings:
        canvas.occupy(wing.box.corners(margin=5))
    buildings.extend(wings)
    return True


def _drive(canvas: Canvas, road: Road, along: float, side: int, setback: float) -> list[Box]:
    """Pave a drive from the road past the house, if there is room, perhaps with a car on it."""
    rng = canvas.rng
    x, y, angle = road.curve.point(along, side * (road.half_width + setback / 2))
    drive = Box(x, y, angle + math.pi / 2, setback / 2 + 3, 3.2)
    # Near the road the land always counts as occupied, so only the far end is tested.
    far = drive.part(side * setback / 4, 0, setback / 4 - 2, 2.0)
    if not canvas.is_free(far.corners()):
        return []
    paint_pavement(canvas, drive)
    canvas.occupy(drive.corners(margin=1))
    if rng.random() < 0.4:
        return []
    spot = drive.part(side * rng.uniform(0, 3), 0, 1, 1)
    return [objects.car(spot.x, spot.y, drive.heading + rng.choice([0, math.pi]))]


def _plant(canvas: Canvas, theme: Theme) -> objects.Trees:
    """Trees that fill the forest parcels, and scattered ones."""
    rng, size = canvas.rng, canvas.size
    step = rng.uniform(8, 10.5)
    grid = np.stack(np.meshgrid(*[np.arange(-step, size + step, step)] * 2), axis=-1).reshape(-1, 2)
    dense = grid + rng.uniform(-0.45, 0.45, grid.shape) * step
    inside = np.clip(dense, 0, size - 1).astype(int)
    dense = dense[canvas.labels[inside[:, 1], inside[:, 0]] == Label.FOREST]

    count = round(theme.trees * (size / BASE_SIZE) ** 2 * rng.uniform(0.4, 1.6))
    # Scattered trees come in loose groups of three, rarely in the middle of a field.
    lone = rng.uniform(0, size, (math.ceil(count / 3), 1, 2)) + rng.normal(0, 11, (1, 3, 2))
    lone = lone.reshape(-1, 2)
    lone = lone[((lone >= 0) & (lone < size)).all(axis=1)]
    on = lone.astype(int)
    lone = lone[(canvas.labels[on[:, 1], on[:, 0]] != Label.FARMLAND) | (rng.random(len(lone)) < 0.1)]

    centres = np.concatenate([dense, lone])
    radii = np.concatenate([rng.uniform(0.55, 0.85, len(dense)) * step, rng.uniform(4, 8.5, len(lone))])
    on = np.clip(centres, 0, size - 1).astype(int)
    blocked = cv2.dilate(canvas.occupied.view(np.uint8), np.ones((5, 5), np.uint8)).view(bool)
    free = ~blocked[on[:, 1], on[:, 0]]
    return objects.Trees(centres[free].astype(np.float32), radii[free].astype(np.float32))


def _develop(canvas: Canvas) -> NDArray[np.uint8]:
    """Turn the canvas into a photograph: light, haze, lens and sensor."""
    rng = canvas.rng
    warmth = rng.normal(0, 0.03)
    tint = np.array([1 + warmth, 1, 1 - warmth]) * rng.uniform(0.95, 1.15)
    haze = rng.uniform(0, 0.10)
    image = cv2.GaussianBlur(canvas.image, (0, 0), rng.uniform(0.45, 0.7)) * tint.astype(np.float32)
    image = (1 - haze) * image + haze * np.array([0.62, 0.66, 0.70], np.float32)
    image += 0.01 * rng.standard_normal((canvas.size, canvas.size, 3), np.float32)
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
