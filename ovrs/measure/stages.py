"""The stages of a segmenter, for whoever counts or times them, and records to run it on."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode

from ovrs.data.augmentation import resize_image, resized_shape
from ovrs.heads import head_class
from ovrs.segmenter import OpenVocabSegmenter

TEXT, VLM_IMAGE, COMPANION, PRIOR, HEAD, REST = "text", "VLM image", "companion", "prior", "head", "rest"
STAGE_OF = {"vlm": VLM_IMAGE, "companion": COMPANION, "prior": PRIOR}  # by tower name
STAGES = (TEXT, VLM_IMAGE, COMPANION, PRIOR, HEAD, REST)


@contextmanager
def around_stages(model: OpenVocabSegmenter, around: Callable[[str], AbstractContextManager]) -> Iterator[None]:
    """Within the block, run every stage of ``model`` inside ``around(stage)``; ``REST`` is what is in none."""
    modules = {STAGE_OF[name]: tower for name, tower in model.towers.items()} | {HEAD: model.head}
    running: list[AbstractContextManager] = []

    def begin(stage: str) -> None:
        running.append(around(stage))
        running[-1].__enter__()

    def end(*_: object) -> None:
        running.pop().__exit__(None, None, None)

    def within(function: Callable, stage: str) -> Callable:
        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with around(stage):
                return function(*args, **kwargs)

        return wrapped

    with ExitStack() as stack:
        for stage, module in modules.items():
            before = module.register_forward_pre_hook(lambda *_, stage=stage: begin(stage))
            stack.callback(before.remove)
            stack.callback(module.register_forward_hook(end, always_call=True).remove)
        stack.callback(delattr, model.vlm, "encode_text")
        model.vlm.encode_text = within(model.vlm.encode_text, TEXT)
        yield


def use_stand_ins(cfg: CfgNode) -> None:
    """Set, in place, what makes the head do without files that must be made from data first; its work is the same."""
    for artefact in head_class(cfg).artefacts(cfg):
        cfg.merge_from_list(list(artefact.stand_in))


def example_records(cfg: CfgNode, count: int, size: tuple[int, int], classes: int) -> list[dict[str, Any]]:
    """Draw patches of colour with grain and prepare them as evaluation does.

    Args:
        cfg: reads INPUT.MIN_SIZE_TEST and INPUT.MAX_SIZE_TEST.
        count: number of records; equal calls draw equal images.
        size: (height, width) of the files that they stand for, each at least 1.
        classes: number of class strings.

    Returns:
        Records that the segmenter takes.
    """
    records = []
    for index in range(count):
        rng = np.random.default_rng(index)
        patches = rng.integers(32, 224, (size[0] // 32 + 2, size[1] // 32 + 2, 3), np.uint8)
        image = cv2.resize(patches, size[::-1], interpolation=cv2.INTER_CUBIC)
        image = cv2.add(image, rng.integers(0, 32, image.shape, np.uint8))
        image = resize_image(image, *resized_shape(*size, cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST))
        records.append(
            {
                "image": torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))),
                "vocabulary": [f"class {number}" for number in range(classes)],
                "height": size[0],
                "width": size[1],
            }
        )
    return records
