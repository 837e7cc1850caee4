"""The outputs of official implementations, and our models with the weights that these were computed with.

The arrays and manifests in ``golden/`` come from the official code with weights made by ``golden/fill.py`` (name and
shape in, numbers out).
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from golden import fill

from ovrs.config import get_cfg
from ovrs.segmenter import OpenVocabSegmenter
from ovrs.zoo import from_any_layout
from ovrs.zoo.state_dict import load_strictly

FOLDER = Path(fill.__file__).parent
# Which elements of an array were recorded; of the results of whole aggregation layers by "agg".
SUBSAMPLED = {
    "text": (),
    "clip_dense": np.s_[:, ::8, ::3, ::3],
    "dino_down": np.s_[:, ::8, ::3, ::3],
    "agg": np.s_[:, ::8, :, ::3, ::3],
    "logits": np.s_[:, :, ::2, ::2],
    "sliding": np.s_[:, ::4, ::4],
    "whole384": np.s_[:, ::4, ::4],
    "output": np.s_[:, ::4, ::4],
}


def published_config(head: str = "GSNetHead") -> CfgNode:
    """The configuration of a head's recording, towers without weight files; GSNet's and CAT-Seg's is sliding."""
    cfg = get_cfg()
    cfg.MODEL.SEM_SEG_HEAD.NAME = head
    cfg.MODEL.VLM.WEIGHTS = ""
    cfg.MODEL.VLM.ACTIVATION = "quick_gelu"
    cfg.TEST.OUTPUT = "scores"
    if head == "CATSegHead":
        cfg.MODEL.PRIOR.NAME = ""
    elif head == "RSKTSegHead":
        cfg.MODEL.COMPANION.ARCH = "ViT-B-32"
        cfg.MODEL.COMPANION.ACTIVATION = "quick_gelu"
        cfg.TEST.SLIDING_WINDOW.ENABLED = False
        cfg.TEST.CROP_PADDING = False
    return cfg


def read_json(name: str) -> dict[str, Any]:
    """Read ``golden/NAME.json``."""
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def read_golden(model: str) -> dict[str, Any]:
    """Read the arrays of ``golden/MODEL.npz``; ``text`` is [T, C] and ``meta`` a dictionary."""
    with np.load(FOLDER / f"{model}.npz") as archive:
        arrays = dict(archive)
    text = arrays["text"].reshape(-1, arrays["text"].shape[-1])
    return arrays | {"text": text, "meta": json.loads(str(arrays["meta"]))}


def without_numbers(cfg: CfgNode) -> OpenVocabSegmenter:
    """A model of names and shapes only."""
    with torch.device("meta"):
        return OpenVocabSegmenter(cfg)


def with_recorded_weights(cfg: CfgNode, model: str) -> OpenVocabSegmenter:
    """A model with the weights of the recording, by their official names: gigabytes."""
    segmenter = OpenVocabSegmenter(cfg)
    state = fill.filled_state_dict(read_json(f"{model}_manifest"), read_golden(model)["meta"]["seed"])
    load_strictly(segmenter, from_any_layout({n: torch.from_numpy(v) for n, v in state.items()}), "fill.py")
    return segmenter.eval()


@contextlib.contextmanager
def watched(model: OpenVocabSegmenter) -> Iterator[dict[str, torch.Tensor]]:
    """Give the stages of the model's last pass, by their golden names and in the recorded axes."""
    seen: dict[str, torch.Tensor] = {}

    def keep_inputs(module: torch.nn.Module, inputs: tuple) -> None:
        features, text = inputs
        seen.update(text=text.embeddings[:, 0], clip_dense=features["vlm"].dense)

    def keep(name: str, module: torch.nn.Module) -> Any:
        return module.register_forward_hook(lambda module, inputs, output: seen.update({name: output}))

    def keep_layer(index: int, module: torch.nn.Module) -> Any:  # ours are [B, T, H, W, C]
        return module.register_forward_hook(
            lambda module, inputs, output: seen.update({f"agg{index}": output.permute(0, 4, 1, 2, 3)})
        )

    handles = [model.head.register_forward_pre_hook(keep_inputs), keep("logits", model.head)]
    if isinstance(getattr(model.head, "align", None), torch.nn.Module):
        handles.append(keep("dino_down", model.head.align))
    handles += [keep_layer(index, layer) for index, layer in enumerate(model.head.aggregator.layers)]
    yield seen
    for handle in handles:
        handle.remove()


def recorded_form(name: str, value: torch.Tensor) -> np.ndarray:
    """The elements of a stage that were recorded."""
    return value.detach().float().numpy()[SUBSAMPLED[name.rstrip("0123456789") if name.startswith("agg") else name]]


def assert_equals_golden(name: str, actual: torch.Tensor, expected: np.ndarray) -> None:
    """Compare a stage with what was recorded of it: 1e-4 of the largest value."""
    recorded = recorded_form(name, actual)
    assert recorded.shape == expected.shape, name
    error = np.abs(recorded - expected).max() / np.abs(expected).max()
    print(f"{name}: {error:.1e}")  # shown by pytest -s
    assert error < 1e-4, f"{name}: relative error {error:.1e}"


def assert_labels_equal_golden(actual: torch.Tensor, expected: np.ndarray) -> None:
    """Labels differ at most where two classes are equal to many digits."""
    same = (actual.numpy() == expected).mean()
    print(f"labels: {100 * same:.3f} % equal")
    assert same >= 0.9995


def recorded_image(meta: dict[str, Any]) -> torch.Tensor:
    """The picture that the recording segments."""
    return torch.from_numpy(fill.image(*meta["hw"], meta["image_seed"]))


def training_image(meta: dict[str, Any]) -> torch.Tensor:
    """The 384 x 384 picture of the recorded loss."""
    return torch.from_numpy(fill.image(384, 384, meta["image_seed"] + 1))


def training_loss(model: OpenVocabSegmenter, meta: dict[str, Any]) -> torch.Tensor:
    """The loss in training mode of :func:`training_image` with diagonal stripes and twenty ignored rows."""
    rows = torch.arange(384)
    labels = (rows[:, None] + rows[None]) // 48 % len(meta["classes"])
    labels[:20] = 255
    record = {"image": training_image(meta), "sem_seg": labels, "vocabulary": meta["classes"]}
    try:
        return model.train()([record])["loss_sem_seg"]
    finally:
        model.eval()
