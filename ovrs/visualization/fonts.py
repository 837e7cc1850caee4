"""Text in pictures: Noto Sans CJK has Latin, Greek, Cyrillic, Chinese, Japanese and Korean letters in one file."""

from __future__ import annotations

import logging
from functools import lru_cache

from noto_cjk_sans_otc import FONT_PATH
from PIL import ImageDraw, ImageFont

_INK = (30, 30, 30)
_CHINESE = 2  # of the file's faces; all have the same letters, in the forms of one country
_NOT_A_CHARACTER = "\uffff"  # every font shows it as its sign for what it does not have

_logger = logging.getLogger(__name__)
_told: set[str] = set()


@lru_cache(maxsize=16)
def font(size: int) -> ImageFont.FreeTypeFont:
    """Return the font of pictures in a size in pixels."""
    return ImageFont.truetype(str(FONT_PATH), size, index=_CHINESE)


def draw_text(
    draw: ImageDraw.ImageDraw,
    place: tuple[float, float],
    text: str,
    size: int,
    anchor: str = "lm",
    ink: tuple[int, int, int] = _INK,
) -> None:
    """Draw a line of text; characters that the font does not have become boxes, and are told in the log once.

    Args:
        draw: the canvas.
        place: (x, y) of the anchor in pixels.
        text: a line.
        size: in pixels.
        anchor: Pillow's, such as "lm" for left and middle.
        ink: RGB.
    """
    if new := sorted(_without_glyph(text) - _told):
        _told.update(new)
        signs = ", ".join(f"{char} (U+{ord(char):04X})" for char in new)
        _logger.warning("The font of pictures has no %s: boxes stand in their place, here in %r.", signs, text)
    draw.text(place, text, ink, font(size), anchor=anchor)


def plot_families() -> list[str]:
    """Return families for Matplotlib, which takes every letter from the first that has it."""
    from matplotlib import font_manager

    font_manager.fontManager.addfont(str(FONT_PATH))
    return ["DejaVu Sans", font_manager.get_font(str(FONT_PATH)).family_name]


def _without_glyph(text: str) -> set[str]:
    face = font(16)
    box = bytes(face.getmask(_NOT_A_CHARACTER))
    return {char for char in set(text) if bytes(face.getmask(char)) == box}
