"""The published GSNet: its size, what it trains, and the outputs of the official implementation.

The reference arrays come from the official code with weights made by ``golden/fill.py`` (name and shape in, numbers
out). The always-run tests look at the global view, one of the five crops; the heavy ones at everything.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden import fill

from ovrs.backbones.state_dict import load_strictly
from ovrs.config import get_cfg
from ovrs.engine.optimizer import parameter_groups
from ovrs.interop import LAYOUTS, from_any_layout
from ovrs.segmenter import OpenVocabSegmenter

GSNET = LAYOUTS["GSNet"]
FILES = Path(fill.__file__).with_name("gsnet_vitb16")
GLOBAL_VIEW = 4  # of the five crops
# Which elements of an array were recorded.
SUBSAMPLED = {
    "text": (),
    "clip_dense": np.s_[:, ::8, ::3, ::3],
    "dino_down": np.s_[:, ::8, ::3, ::3],
    "agg0": np.s_[:, ::8, :, ::3, ::3],
    "agg1": np.s_[:, ::8, :, ::3, ::3],
    "logits": np.s_[:, :, ::2, ::2],
    "sliding": np.s_[:, ::4, ::4],
    "whole384": np.s_[:, ::4, ::4],
}


def published_config() -> Any:
    cfg = get_cfg()
    cfg.MODEL.VLM.WEIGHTS = ""
    cfg.MODEL.VLM.ACTIVATION = "quick_gelu"
    cfg.MODEL.GSNET.POOLING_TRAIN = 1  # as recorded
    cfg.TEST.OUTPUT = "scores"
    return cfg


def read_json(suffix: str) -> dict[str, Any]:
    return json.loads(FILES.with_name(f"{FILES.name}_{suffix}.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    with np.load(FILES.with_suffix(".npz")) as archive:
        arrays = dict(archive)
    return arrays | {"meta": json.loads(str(arrays["meta"]))}


@pytest.fixture(scope="module")
def published() -> OpenVocabSegmenter:
    """The published model without numbers: names and shapes only."""
    with torch.device("meta"):
        return OpenVocabSegmenter(published_config())


@pytest.fixture(scope="module")
def model() -> OpenVocabSegmenter:
    """The published model with the weights of the recording: about a gigabyte."""
    with np.load(FILES.with_suffix(".npz")) as archive:
        seed = json.loads(str(archive["meta"]))["seed"]
    model = OpenVocabSegmenter(published_config())
    state = fill.filled_state_dict(read_json("manifest"), seed)
    state = from_any_layout({name: torch.from_numpy(value) for name, value in state.items()})
    load_strictly(model, state, "fill.py")
    return model


@pytest.fixture
def stages(model: OpenVocabSegmenter) -> Iterator[dict[str, torch.Tensor]]:
    """The recorded stages of the model's last pass, by their golden names, [crops, ...]."""
    seen: dict[str, torch.Tensor] = {}

    def keep_inputs(module: torch.nn.Module, inputs: tuple) -> None:
        image, text, _ = inputs
        seen.update(text=text.embeddings[:, 0], clip_dense=image.dense)

    def keep(name: str, module: torch.nn.Module) -> Any:
        return module.register_forward_hook(lambda module, inputs, output: seen.update({name: output}))

    handles = [model.head.register_forward_pre_hook(keep_inputs)]
    handles += [keep("dino_down", model.head.align), keep("logits", model.head)]
    handles += [keep(f"agg{index}", layer) for index, layer in enumerate(model.head.aggregator.layers)]
    model.eval()
    yield seen
    for handle in handles:
        handle.remove()


def recorded_form(name: str, value: torch.Tensor) -> np.ndarray:
    if name.startswith("agg"):  # ours are [B, T, H, W, C]
        value = value.permute(0, 4, 1, 2, 3)
    return value.float().numpy()[SUBSAMPLED[name]]


def assert_equals_golden(name: str, actual: np.ndarray, expected: np.ndarray) -> None:
    assert actual.shape == expected.shape, name
    error = np.abs(actual - expected).max() / np.abs(expected).max()
    assert error < 1e-4, f"{name}: relative error {error:.1e}"


# ---------------------------------------------------------------------- size and training, without numbers


def test_model_has_the_published_number_of_parameters(published: OpenVocabSegmenter):
    def count(parameters: Any, trained: bool = False) -> int:
        return sum(p.numel() for p in parameters if p.requires_grad or not trained)

    assert count(published.parameters()) == 243_988_242
    assert count(published.parameters(), trained=True) == 29_006_865
    assert count(published.vlm.parameters()) == 149_620_737
    assert count(published.vlm.image_parameters(), trained=True) == 14_155_776
    assert count(published.vlm.text_parameters(), trained=True) == 6_291_456
    assert (count(published.prior.parameters()), count(published.prior.parameters(), trained=True)) == (85_807_872, 0)


def test_trained_parameters_are_the_official_ones(published: OpenVocabSegmenter):
    trained = {name: parameter for name, parameter in published.named_parameters() if parameter.requires_grad}
    official = set(GSNET.to_official(trained))
    in_clip = re.compile(r"sem_seg_head\.predictor\.clip_model\..*resblocks\.\d+\.attn\.[qv]_proj_weight")
    manifest = read_json("manifest")
    elsewhere = {n for n in manifest if not n.startswith(("dino_model.", "sem_seg_head.predictor.clip_model."))}
    assert official == elsewhere | {name for name in manifest if in_clip.fullmatch(name)}
    assert official == set(read_json("gradnorms"))
    assert len(official) == 194


def test_optimizer_groups_are_the_official_ones(published: OpenVocabSegmenter):
    groups = {
        (group["lr"], group["weight_decay"]): (len(group["params"]), sum(p.numel() for p in group["params"]))
        for group in parameter_groups(published, get_cfg())
    }
    rates = sorted(groups)
    assert rates == [(pytest.approx(2e-6), 1e-4), (pytest.approx(2e-4), 0.0), (pytest.approx(2e-4), 1e-4)]
    assert [groups[key] for key in rates] == [(48, 20_447_232), (36, 3_968), (110, 8_555_665)]


# ---------------------------------------------------------------------- one crop, always


@torch.inference_mode()
def test_global_view_equals_the_official_model_at_every_stage(
    model: OpenVocabSegmenter, stages: dict[str, torch.Tensor], golden: dict[str, Any]
):
    meta = golden["meta"]
    image = model.normalise(torch.from_numpy(fill.image(*meta["hw"], meta["image_seed"])))
    view = F.interpolate(image[None], size=(384, 384), mode="bilinear", align_corners=False)
    model.class_logits(view, model.vocabulary(meta["classes"]))
    assert set(stages) == {"text", "clip_dense", "dino_down", "agg0", "agg1", "logits"}
    for name, value in stages.items():
        expected = golden[name] if name == "text" else golden[name][GLOBAL_VIEW : GLOBAL_VIEW + 1]
        assert_equals_golden(name, recorded_form(name, value), expected)


# ---------------------------------------------------------------------- everything, on demand


@pytest.mark.heavy
@torch.inference_mode()
def test_sliding_inference_equals_the_official_model_at_every_stage(
    model: OpenVocabSegmenter, stages: dict[str, torch.Tensor], golden: dict[str, Any]
):
    meta = golden["meta"]
    image = torch.from_numpy(fill.image(*meta["hw"], meta["image_seed"]))
    result = model([{"image": image, "vocabulary": meta["classes"]}])[0]
    for name, value in {**stages, "sliding": result["sem_seg"]}.items():
        assert_equals_golden(name, recorded_form(name, value), golden[name])
    assert (result["labels"].numpy() == golden["argmax"]).mean() >= 0.9995


@pytest.mark.heavy
@torch.inference_mode()
def test_whole_image_inference_equals_the_official_model(
    model: OpenVocabSegmenter, golden: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    meta = golden["meta"]
    monkeypatch.setattr(model.eval(), "window", None)
    image = torch.from_numpy(fill.image(384, 384, meta["image_seed"] + 1))
    result = model([{"image": image, "vocabulary": meta["classes"]}])[0]
    assert_equals_golden("whole384", recorded_form("whole384", result["sem_seg"]), golden["whole384"])


@pytest.mark.heavy
def test_loss_and_all_gradients_equal_the_official_model(model: OpenVocabSegmenter, golden: dict[str, Any]):
    meta = golden["meta"]
    classes = meta["classes"]
    rows = torch.arange(384)
    labels = (rows[:, None] + rows[None]) // 48 % len(classes)
    labels[:20] = 255
    image = torch.from_numpy(fill.image(384, 384, meta["image_seed"] + 1))
    model.zero_grad(set_to_none=True)
    loss = model.train()([{"image": image, "sem_seg": labels, "vocabulary": classes}])["loss_sem_seg"]
    loss.backward()
    assert loss.item() == pytest.approx(golden["train_loss"].item(), rel=1e-4)

    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    norms = {name: gradient.norm().item() for name, gradient in GSNET.to_official(gradients).items()}
    model.zero_grad(set_to_none=True)
    expected = read_json("gradnorms")
    # The value-only last block never reads its query weight; the official code gives it zeros, ours nothing.
    unread = "sem_seg_head.predictor.clip_model.visual.transformer.resblocks.11.attn.q_proj_weight"
    assert expected.pop(unread) == norms.pop(unread, 0.0) == 0.0
    assert set(norms) == set(expected)
    assert sum(norm > 1e-8 for norm in expected.values()) == 189
    for name, norm in expected.items():
        if norm > 1e-8:
            assert norms[name] == pytest.approx(norm, rel=1e-3), name
        else:
            assert norms[name] < 1e-7, name
