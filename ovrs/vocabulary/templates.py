"""Prompt template sets by name.

Sources: ``scene`` is GSNet's and CAT-Seg's sentence of record; ``vild`` (14) is HG-RSOVSSeg's default;
``imagenet`` (80) and ``simple`` (7) are OpenAI's lists as open_clip ships them; ``imagenet_select`` (8)
and ``imagenet_select_clip`` (32) are the two selections of the same papers.
"""

from __future__ import annotations

from open_clip import OPENAI_IMAGENET_TEMPLATES, SIMPLE_IMAGENET_TEMPLATES

SCENE = "A photo of a {} in the scene"


def _as_strings(functions: list) -> tuple[str, ...]:
    """open_clip keeps templates as functions of the class name."""
    return tuple(function("{}") for function in functions)


def _vild() -> tuple[str, ...]:
    sizes = ("small", "medium", "large")
    return (
        "a photo of a {}.",
        "This is a photo of a {}",
        "There is a {} in the scene",
        "There is the {} in the scene",
        "a photo of a {} in the scene",
        *(f"a photo of a {size} {{}}." for size in sizes),
        *(f"This is a photo of a {size} {{}}." for size in sizes),
        *(f"There is a {size} {{}} in the scene." for size in sizes),
    )


def _imagenet_select_clip() -> tuple[str, ...]:
    kinds, sizes = ("", "masked ", "cropped "), ("", "small ", "medium ", "large ")
    photos = (
        "A photo of a {}",
        "a bad photo of the {}",
        "a photo of the large {}",
        "a photo of the small {}",
        "a cropped photo of a {}",
        "a photo of a masked {}",
    )
    openings = ("There is a", "There is the", "This is a", "This is the", "This is one")
    return (
        "a bad photo of the {}.",
        "a photo of the large {}.",
        "a photo of the small {}.",
        "a cropped photo of a {}.",
        *(f"This is a {kind}photo of a {size}{{}}" for kind in kinds for size in sizes),
        *(f"{photo} in the scene" for photo in photos),
        *(f"{opening} {kind}{{}} in the scene" for kind in ("", "masked ") for opening in openings),
    )


TEMPLATE_SETS: dict[str, tuple[str, ...]] = {
    "scene": (SCENE,),
    "photo": ("A photo of a {}",),
    "word": ("{}",),
    "vild": _vild(),
    "imagenet": _as_strings(OPENAI_IMAGENET_TEMPLATES),
    "simple": _as_strings(SIMPLE_IMAGENET_TEMPLATES),
    "imagenet_select": (*_as_strings(SIMPLE_IMAGENET_TEMPLATES), SCENE),
    "imagenet_select_clip": _imagenet_select_clip(),
}
