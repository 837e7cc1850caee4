"""Things that stand on the ground and cast shadows: buildings, cars, trees."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from ovrs.demo.canvas import Box, Canvas, FloatMap, Label, fill_polygon
from ovrs.demo.ground import pick

ROOFS = np.array(
    [
        (0.60, 0.31, 0.23),
        (0.50, 0.33, 0.25),
        (0.42, 0.34, 0.28),
        (0.34, 0.33, 0.34),
        (0.48, 0.48, 0.49),
        (0.68, 0.66, 0.62),
        (0.62, 0.55, 0.44),
    ]
)
FLAT_ROOFS = np.array(
    [(0.80, 0.79, 0.76), (0.62, 0.61, 0.59), (0.48, 0.47, 0.46), (0.36, 0.37, 0.39), (0.44, 0.52, 0.56)]
)
CARS = np.array(
    [
        (0.88, 0.88, 0.87),
        (0.62, 0.63, 0.65),
        (0.14, 0.14, 0.16),
        (0.62, 0.13, 0.12),
        (0.16, 0.25, 0.50),
        (0.34, 0.36, 0.36),
    ]
)
CROWNS = np.array([(0.20, 0.29, 0.15), (0.27, 0.36, 0.18), (0.34, 0.41, 0.20), (0.42, 0.42, 0.22)])
GLASS = (0.10, 0.12, 0.15)
SHADE = np.array([0.42, 0.45, 0.52], np.float32)  # what is left of the light, bluish from the sky

CAR_LENGTH, CAR_WIDTH, CAR_HEIGHT = 9.0, 4.2, 3.0


@dataclass(frozen=True)
class Building:
    """A box with a roof; houses with several wings are several of these."""

    box: Box
    height: float
    roof: Literal["gable", "hip", "flat"]
    colour: NDArray[np.float64]


def house(rng: np.random.Generator, x: float, y: float, heading: float) -> list[Building]:
    """A family house with its centre at (x, y): one or two wings under tiles, or a flat roof."""
    length, width = rng.uniform(12, 19), rng.uniform(8.5, 11.5)
    height = rng.uniform(7, 11)
    flat = rng.random() < 0.15
    colour = pick(rng, FLAT_ROOFS if flat else ROOFS)
    roof = "flat" if flat else str(rng.choice(["gable", "gable", "hip"]))
    main = Box(x, y, heading, length, width)
    wings = [Building(main, height, roof, colour)]
    if rng.random() < 0.35:
        side = main.part(rng.choice([-1, 1]) * (length - 6.5), rng.choice([-1, 1]) * 5.5, 6.5, width)
        turned = Box(side.x, side.y, heading + math.pi / 2, side.half_width, side.half_length)
        wings.append(Building(turned, height - 1, roof, colour))
    return wings


def hall(rng: np.random.Generator, x: float, y: float, heading: float) -> list[Building]:
    """A large building with a flat or shallow roof with its centre at (x, y)."""
    box = Box(x, y, heading, rng.uniform(22, 34), rng.uniform(13, 21))
    flat = rng.random() < 0.75
    return [Building(box, rng.uniform(11, 17), "flat" if flat else "gable", pick(rng, FLAT_ROOFS if flat else ROOFS))]


def cast_shadows(canvas: Canvas, solids: Iterable[tuple[Box, float]]) -> None:
    """Cast the shadows of boxes of the given heights; the ground under the boxes is in them too."""
    shadow = np.zeros_like(canvas.occupied)
    for box, height in solids:
        corners = box.corners()
        shifted = corners - canvas.sun * height * canvas.shadow_per_height
        fill_polygon(shadow, cv2.convexHull(np.concatenate([corners, shifted]))[:, 0])
    darken(canvas, shadow)


def darken(canvas: Canvas, shadow: NDArray[np.bool_]) -> None:
    """Darken what lies in a shadow [size, size]; labels stay those of the ground."""
    soft = cv2.GaussianBlur(shadow.astype(np.float32), (0, 0), 0.7)[..., None]
    canvas.image *= 1 - soft * (1 - SHADE)


def draw_building(canvas: Canvas, building: Building) -> None:
    """Draw the roof of a building; its shadow is cast elsewhere, before."""
    rng, box = canvas.rng, building.box
    region, along, across, coverage = box.raster(canvas)
    grain = rng.standard_normal(coverage.shape, np.float32)
    side_light = float(box.normal @ canvas.sun) * np.sign(across)
    end_light = float(box.axis @ canvas.sun) * np.sign(along)
    to_side, to_end = box.half_width - np.abs(across), box.half_length - np.abs(along)
    if building.roof == "flat":
        rim = np.minimum(to_side, to_end) < 1.7
        gravel = 0.05 * grain + 0.04 * np.sin(along / 9) * np.cos(across / 7)
        light = np.where(rim, 1.13, 1 + gravel)
    else:
        on_end = (to_end < to_side) if building.roof == "hip" else np.zeros_like(coverage, bool)
        courses = np.sin(np.where(on_end, along, across) * (2 * math.pi / 2.7))
        light = 1 + 0.27 * np.where(on_end, end_light, side_light) + 0.045 * courses + 0.05 * grain
        ridge = np.abs(across) < 0.8
        light = np.where(ridge & ~on_end, light + 0.12, light)
    canvas.paint(coverage, building.colour * light[..., None], Label.BUILDING, region)
    _furnish(canvas, building)
    canvas.occupy(box.corners(margin=3))


def _furnish(canvas: Canvas, building: Building) -> None:
    """Put chimneys, skylights and solar panels, or air conditioning, onto a roof."""
    rng, box = canvas.rng, building.box
    reach = box.half_length - 4
    if building.roof == "flat":
        for _ in range(rng.integers(1, 2 + int(box.half_length / 6))):
            along, across = rng.uniform(-reach, reach), rng.uniform(-0.6, 0.6) * box.half_width
            unit = box.part(along, across, rng.uniform(1.2, 2.6), rng.uniform(1.2, 2.2))
            _raised(canvas, unit, np.array([0.72, 0.73, 0.74]) * rng.uniform(0.75, 1.2), rng.uniform(1.5, 3))
        return
    if rng.random() < 0.7:
        chimney = box.part(rng.uniform(-0.6, 0.6) * reach, rng.choice([-2.2, 2.2]), 1.3, 1.1)
        _raised(canvas, chimney, np.array([0.46, 0.36, 0.32]), 3)
    if rng.random() < 0.3:
        panel = box.part(rng.uniform(-0.3, 0.3) * reach, rng.choice([-0.52, 0.52]) * box.half_width, 0.45 * reach, 2.6)
        region, along, across, coverage = panel.raster(canvas)
        frame = (np.mod(along, 3.2) < 0.7) | (np.abs(across) < 0.5)
        canvas.paint(coverage, np.where(frame, 0.34, 0.15)[..., None] * np.array([0.8, 1.0, 1.4]), None, region)


def _raised(canvas: Canvas, box: Box, colour: NDArray[np.float64], height: float) -> None:
    """A small box with its shadow."""
    x, y = np.array([box.x, box.y]) - canvas.sun * height * canvas.shadow_per_height / 2
    region, _, _, coverage = Box(float(x), float(y), box.heading, box.half_length, box.half_width).raster(canvas)
    canvas.paint(0.5 * coverage, SHADE * 0.3, None, region)
    region, _, _, coverage = box.raster(canvas)
    canvas.paint(coverage, colour, None, region)


def draw_cars(canvas: Canvas, cars: list[Box]) -> None:
    """Draw cars, all shadows first."""
    cast_shadows(canvas, [(car, CAR_HEIGHT) for car in cars])
    for car, colour in zip(cars, CARS[canvas.rng.integers(len(CARS), size=len(cars))], strict=True):
        region, along, across, coverage = car.raster(canvas)
        relative = along / car.half_length
        light = 1 + 0.1 * float(car.normal @ canvas.sun) * np.sign(across)
        canvas.paint(coverage, colour * light[..., None], Label.CAR, region)
        # Windscreen and rear window, front and back of the cabin.
        glass = (np.abs(relative - 0.32) < 0.13) | (np.abs(relative + 0.62) < 0.10)
        canvas.paint(coverage * glass * 0.85 * (np.abs(across) < car.half_width - 0.4), GLASS, None, region)


def car(x: float, y: float, heading: float) -> Box:
    """The ground plan of a car."""
    return Box(x, y, heading, CAR_LENGTH / 2, CAR_WIDTH / 2)


@dataclass(frozen=True)
class Trees:
    """Crowns of trees.

    Attributes:
        centres: [n, 2] (x, y).
        radii: [n] in pixels.
    """

    centres: NDArray[np.float32]
    radii: NDArray[np.float32]


def draw_trees(canvas: Canvas, trees: Trees) -> None:
    """Draw crowns with their shadows."""
    if not len(trees.centres):
        return
    margin = 12
    centres = np.clip(np.round(trees.centres) + margin, 0, canvas.size + 2 * margin - 1).astype(int)
    seeds = np.ones((canvas.size + 2 * margin,) * 2, np.uint8)
    seeds[centres[:, 1], centres[:, 0]] = 0
    # Each pixel belongs to the nearest trunk: neighbouring crowns press against each other.
    _, nearest = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL)
    owner_of = np.zeros(nearest.max() + 1, np.int64)
    owner_of[nearest[centres[:, 1], centres[:, 0]]] = np.arange(len(centres))
    owner = owner_of[nearest[margin:-margin, margin:-margin]]

    radius = trees.radii[owner] * (1 + 0.13 * canvas.noise(4, 2))
    dx = canvas.xs - trees.centres[owner, 0]
    dy = canvas.ys - trees.centres[owner, 1]
    distance = np.hypot(dx, dy)
    coverage = np.clip(radius - distance + 0.5, 0, 1)

    reach = -canvas.sun * canvas.shadow_per_height * 8
    darken(canvas, cv2.dilate((coverage > 0.5).astype(np.uint8), _smear(*reach)).view(bool))
    canvas.paint(
        coverage, _crown_colours(canvas, len(centres))[owner] * _crown_light(canvas, dx, dy, radius), Label.FOREST
    )


def _crown_colours(canvas: Canvas, count: int) -> NDArray[np.float32]:
    """[count, 3]: one kind of wood with variation from tree to tree, and some odd ones."""
    rng = canvas.rng
    colours = pick(rng, CROWNS) * rng.normal(1, 0.09, (count, 1)) + rng.normal(0, 0.012, (count, 3))
    odd = rng.random(count) < 0.15
    colours[odd] = pick(rng, CROWNS, int(odd.sum()))
    return colours.astype(np.float32)


def _crown_light(canvas: Canvas, dx: FloatMap, dy: FloatMap, radius: FloatMap) -> FloatMap:
    """[size, size, 1] brightness: domes lit from the sun's side, rough with leaves."""
    rise = np.clip(1 - (dx**2 + dy**2) / radius**2, 0, 1)
    facing = (dx * canvas.sun[0] + dy * canvas.sun[1]) / radius
    light = 0.72 + 0.38 * rise + 0.36 * facing + 0.13 * canvas.noise(2.2) + 0.06 * canvas.noise(1)
    return np.clip(light, 0.35, 1.7)[..., None]


def _smear(dx: float, dy: float) -> NDArray[np.uint8]:
    """Structuring element whose dilation smears a mask from where it is to (dx, dy) pixels away."""
    reach = max(math.ceil(max(abs(dx), abs(dy))), 1)
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.uint8)
    # OpenCV's dilation takes the maximum over the kernel as seen from the target, hence the signs.
    cv2.line(kernel, (reach, reach), (reach - round(dx), reach - round(dy)), 1)
    return kernel
