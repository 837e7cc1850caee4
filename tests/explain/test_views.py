"""Which view is shown, and where a pixel lies in it."""

from __future__ import annotations

import pytest
import torch

from ovrs.explain import widest_view
from ovrs.inference import SlidingWindow, WholeImage


def ramp(height: int, width: int) -> torch.Tensor:
    """An image whose channels say where a pixel is."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([columns, rows, torch.ones(height, width)]).float()


def seen_at(view) -> list[float]:
    row, column = view.point
    return view.pixels[:2, row, column].tolist()


def test_whole_image_is_shown_without_its_padding():
    view = widest_view(WholeImage(divisor=32), ramp(40, 70), (69.2, 3.4))
    assert view.pixels.shape[-2:] == (64, 96)
    assert view.inside == (0, 40, 0, 70)
    assert seen_at(view) == [69, 3]


def test_without_a_point_the_middle_is_taken():
    assert widest_view(WholeImage(), ramp(64, 32)).point in {(31, 15), (32, 16), (31, 16), (32, 15)}


def test_view_of_the_whole_image_comes_before_windows():
    plan = SlidingWindow(canvas=64, kernel=32, overlap=0.333, global_view=True)
    view = widest_view(plan, ramp(100, 200), (150, 20))
    assert view.pixels.shape[-2:] == (32, 32)
    assert view.inside == (0, 32, 0, 32)
    assert seen_at(view) == pytest.approx([150, 20], abs=4)  # a pixel of the view is 6 x 3 of the image
    assert view.pixels[0].max() - view.pixels[0].min() > 180


@pytest.mark.parametrize("canvas", [0, 96])
@pytest.mark.parametrize("point", [(5, 5), (90, 10), (60, 55), (95, 95), (33, 66)])
def test_window_around_the_point_is_shown(canvas: int, point: tuple[int, int]):
    plan = SlidingWindow(canvas=canvas, kernel=32, overlap=0.5, global_view=False)
    view = widest_view(plan, ramp(96, 96), point)
    assert seen_at(view) == pytest.approx(point, abs=1)
    row, column = view.point
    # No other window has it nearer to its centre: at most half a stride away, but for the edges of the image.
    for at, where in ((row, point[1]), (column, point[0])):
        assert abs(at - 16) <= 8 or where < 16 or where >= 80


def test_small_image_in_a_window_is_shown_without_padding():
    view = widest_view(SlidingWindow(canvas=0, kernel=64, global_view=False, fit=16), ramp(30, 64), (10, 29))
    assert view.pixels.shape[-2:] == (32, 64)
    assert view.inside == (1, 31, 0, 64)
    assert seen_at(view) == [10, 29]


def test_cell_of_a_grid_holds_the_point():
    view = widest_view(WholeImage(), ramp(64, 64), (63, 16))
    assert view.cell((4, 4)) == (1, 3)
    assert view.cell((64, 64)) == (16, 63)
