"""Training-free methods against the originals, stage by stage: full-size CLIP, DINO and upsampler.

All need a full-size tower, so all are heavy; what can be compared without one is in ``test_clip_attention_block.py``,
``test_simfeatup.py`` and ``tests/inference/test_coninfer.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden import fill
from golden.free import assert_close, normalised_image, read_free, recorded_weights, relative_error

from ovrs.config import get_cfg
from ovrs.config.keys import CLIP_PIXEL_MEAN, CLIP_PIXEL_STD
from ovrs.segmenter import OpenVocabSegmenter
from ovrs.structures import TextFeatures
from ovrs.zoo import split_fused_attention
from ovrs.zoo.state_dict import load_strictly

pytestmark = pytest.mark.heavy

DINO_MEAN, DINO_STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]


@torch.inference_mode(False)
def build(meta: dict[str, Any], head: str = "ClipAttentionHead", **options: Any) -> OpenVocabSegmenter:
    """The published model with the weights of a recording."""
    cfg = get_cfg()
    cfg.MODEL.SEM_SEG_HEAD.NAME = head
    cfg.MODEL.VLM.WEIGHTS, cfg.MODEL.VLM.ACTIVATION, cfg.MODEL.VLM.INPUT_SIZE = "", "quick_gelu", 0
    cfg.MODEL.VLM.FINETUNE_IMAGE = cfg.MODEL.VLM.FINETUNE_TEXT = "frozen"
    cfg.MODEL.VLM.POSITION_EMBEDDING = "runtime_dino"
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = meta["mean"], meta["std"]
    cfg.VOCABULARY.TEMPLATE_SET = "imagenet"
    cfg.TEST.OUTPUT = "scores"
    sliding = cfg.TEST.SLIDING_WINDOW
    sliding.CANVAS, sliding.GLOBAL_VIEW, sliding.FIT = 0, False, 16
    sliding.KERNEL = meta.get("slide_crop", 224)
    sliding.OVERLAP = 1 - (meta.get("slide_stride", 112) + 0.5) / sliding.KERNEL
    cfg.TEST.BACKGROUND = meta["classes"][meta.get("bg_idx", 0)] if "classes" in meta else ""
    cfg.TEST.THRESHOLD = meta.get("prob_thd", 0.0)
    node = cfg.MODEL.CLIP_ATTENTION if head == "ClipAttentionHead" else cfg.MODEL.PROXY_CLIP
    node.LOGIT_SCALE = float(meta.get("logit_scale", 50))
    if head == "ProxyClipHead":
        prior = cfg.MODEL.PRIOR
        prior.WEIGHTS, prior.INPUT_SIZE = "", 0
        prior.PIXEL_MEAN, prior.PIXEL_STD = DINO_MEAN, DINO_STD
    else:
        cfg.MODEL.PRIOR.NAME = ""
    for key, value in options.items():
        node[key.upper()] = value
    model = OpenVocabSegmenter(cfg).eval()
    load_strictly(model.vlm.clip, split_fused_attention(recorded_weights(meta)), "fill.py")
    if head == "ProxyClipHead":
        load_strictly(model.prior.vit, recorded_weights(meta, manifest="dino"), "fill.py")
    if options.get("upsampler", "none") != "none":
        load_strictly(model.head.upsampler, recorded_weights(meta, "upsampler."), "fill.py")
    return model


class Stages:
    """The dense map, class row and cosines of one pass of a training-free head."""

    def __init__(self, model: OpenVocabSegmenter, images: torch.Tensor, words: torch.Tensor) -> None:
        tokens = []
        block_of = model.vlm.visual if hasattr(model.vlm, "visual") else model.vlm.clip.visual
        handle = block_of.ln_post.register_forward_hook(lambda module, inputs, output: tokens.append(output))
        text = TextFeatures(words[:, None], torch.arange(len(words)), len(words))
        self.cosines = model.head(model.embed(images), text)[0]
        handle.remove()
        joint = (tokens[-1] @ block_of.proj)[0]
        patches = joint if joint.shape[0] % 2 == 0 and "Proxy" in type(model.head).__name__ else joint[1:]
        self.token = joint[0]
        self.dense = patches.T


def slide(model: OpenVocabSegmenter, image: np.ndarray, classes: list[str], **size: int) -> tuple[torch.Tensor, ...]:
    """Averaged cosines, probabilities and labels of an image."""
    vocabulary = model.vocabulary([line.replace(",", "|") for line in classes])
    sample = {"image": torch.from_numpy(image), **size}
    encoded = model.encode([sample], keep=True)
    found = model.score_maps(encoded, vocabulary)[0]
    result = model.decode(encoded, vocabulary)[0]
    cosines = found.scores / model.head.rule.scale
    return cosines, result["sem_seg"], result["labels"]


def assert_labels(actual: torch.Tensor, expected: np.ndarray) -> None:
    assert actual.shape == expected.shape
    assert (actual.numpy() == expected).mean() >= 0.999


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


VARIANTS = {
    "vanilla": "vanilla",
    "MaskCLIP": "maskclip",
    "SCLIP": "sclip",
    "ClearCLIP": "clearclip",
    "NACLIP": "naclip",
    "SegEarth": "segearth",
}


@pytest.fixture(scope="module")
def plain() -> tuple[dict[str, Any], OpenVocabSegmenter]:
    golden = read_free("segearth_plain")
    return golden, build(golden["meta"], sigma=golden["meta"]["naclip_sigma"], class_bias=0.0)


def variant(model: OpenVocabSegmenter, **changes: Any) -> OpenVocabSegmenter:
    """The same model with other options of its head; the tower is the same for all."""
    from dataclasses import replace

    model.head.settings = replace(model.head.settings, **{"closing": "bare", "class_bias": 0.0, **changes})
    return model


def test_query_embeddings_equal_the_original(plain: tuple[dict[str, Any], OpenVocabSegmenter]):
    golden, model = plain
    text = model.text(model.vocabulary([line.replace(",", "|") for line in golden["meta"]["classes"]]))
    assert text.class_of.tolist() == golden["meta"]["query_idx"]
    assert_close(text.per_word, golden, "query")


@pytest.mark.parametrize(("theirs", "ours"), VARIANTS.items())
def test_every_attention_equals_the_original(theirs: str, ours: str, plain: tuple[dict[str, Any], OpenVocabSegmenter]):
    golden, model = plain
    meta, words = golden["meta"], torch.from_numpy(golden["query"])
    crop = normalised_image(meta)[None, :, :224, :224]
    stages = Stages(variant(model, attention=ours), crop, words)
    assert_close(stages.dense.unflatten(1, (14, 14)), golden, f"{theirs}/dense")
    assert_close(stages.token, golden, f"{theirs}/class_row")
    assert_close(stages.cosines, golden, f"{theirs}/cos")
    biased = Stages(variant(model, attention=ours, class_bias=-0.3), crop, words)
    assert_close(biased.cosines, golden, f"{theirs}/cos_lambda")
    if ours in ("vanilla", "sclip", "segearth"):
        closed = Stages(variant(model, attention=ours, closing="block"), crop, words)
        assert_close(closed.dense.unflatten(1, (14, 14)), golden, f"{theirs}/block_dense")
        assert_close(closed.token, golden, f"{theirs}/block_class_row")


@pytest.mark.parametrize(("theirs", "ours"), VARIANTS.items())
def test_windows_and_decision_equal_the_original(
    theirs: str, ours: str, plain: tuple[dict[str, Any], OpenVocabSegmenter]
):
    golden, model = plain
    meta = golden["meta"]
    image = fill.image(*meta["hw"], meta["image_seed"])
    for name, factor in (("l0", 0.0), ("l03", -0.3)):
        cosines, probabilities, labels = slide(
            variant(model, attention=ours, class_bias=factor), image, meta["classes"]
        )
        assert_close(cosines, golden, f"{theirs}/slide_cos_{name}")
        assert_close(probabilities, golden, f"{theirs}/slide_prob_{name}")
        assert_labels(labels, golden[f"{theirs}/argmax_{name}"])


def test_sizes_of_all_kinds_equal_the_original(plain: tuple[dict[str, Any], OpenVocabSegmenter]):
    golden, model = plain
    meta, words = golden["meta"], torch.from_numpy(golden["query"])
    variant(model, attention="segearth", class_bias=-0.3)
    height, width = meta["enlarged_hw"]
    _, probabilities, labels = slide(
        model, fill.image(*meta["hw"], meta["image_seed"]), meta["classes"], height=height, width=width
    )
    assert_close(probabilities, golden, "SegEarth/enlarged_prob_l03")
    assert_labels(labels, golden["SegEarth/enlarged_argmax_l03"])

    odd = fill.image(*meta["odd_hw"], meta["odd_image_seed"])
    cosines, probabilities, labels = slide(model, odd, meta["classes"])
    assert_close(cosines, golden, "SegEarth/odd_cos_l03")
    assert_close(probabilities, golden, "SegEarth/odd_prob_l03")
    assert_labels(labels, golden["SegEarth/odd_argmax_l03"])

    whole = Stages(model, normalised_image(meta)[None], words)
    assert_close(whole.dense.unflatten(1, (20, 28)), golden, "SegEarth/whole_dense")
    assert_close(whole.token, golden, "SegEarth/whole_class_row")
    assert_close(whole.cosines, golden, "SegEarth/whole_cos_l03")


def test_segearth_with_its_upsampler_equals_the_original():
    golden = read_free("segearth_jbu")
    meta, words = golden["meta"], torch.from_numpy(golden["query"])
    model = build(meta, upsampler="jbu_one")
    crop = normalised_image(meta)[None, :, :224, :224]
    enlarged = []
    handle = model.head.upsampler.register_forward_hook(lambda module, inputs, output: enlarged.append(output))
    stages = Stages(model, crop, words)
    handle.remove()
    assert_close(stages.dense.unflatten(1, (14, 14)), golden, "dense")
    assert_close(enlarged[0][0], golden, "up")
    assert_close(stages.cosines, golden, "crop_cos_l03")
    image = fill.image(*meta["hw"], meta["image_seed"])
    for name, factor in (("l03", -0.3), ("l0", 0.0)):
        cosines, probabilities, labels = slide(variant(model, class_bias=factor), image, meta["classes"])
        assert_close(cosines, golden, f"slide_cos_{name}")
        assert_close(probabilities, golden, f"slide_prob_{name}")
        assert_labels(labels, golden[f"argmax_{name}"])
    odd = fill.image(*meta["odd_hw"], meta["odd_image_seed"])
    cosines, _, labels = slide(variant(model, class_bias=-0.3), odd, meta["classes"])
    assert_close(cosines, golden, "odd_cos_l03")
    assert_labels(labels, golden["odd_argmax_l03"])


@pytest.mark.parametrize(
    ("file", "options"),
    [
        ("sclip_own", {"attention": "sclip", "closing": "block"}),
        ("naclip_own", {"attention": "naclip"}),
        ("clearclip_own", {"attention": "clearclip"}),
    ],
)
def test_methods_own_protocols_equal_the_originals(file: str, options: dict[str, Any]):
    golden = read_free(file)
    meta, words = golden["meta"], torch.from_numpy(golden["query"])
    model = build(meta, class_bias=0.0, **options)
    image = normalised_image(meta)
    crop, whole = Stages(model, image[None, :, :224, :224], words), Stages(model, image[None], words)
    assert_close(crop.dense.unflatten(1, (14, 14)), golden, "dense")
    assert_close(crop.cosines, golden, "cos")
    assert_close(whole.dense.unflatten(1, (20, 28)), golden, "whole_dense")
    assert_close(whole.cosines, golden, "whole_cos")
    cosines, probabilities, labels = slide(model, fill.image(*meta["hw"], meta["image_seed"]), meta["classes"])
    if file == "naclip_own":  # stores probabilities divided by their sum, after the decision
        probabilities = probabilities / probabilities.sum(dim=0)
    assert_close(cosines, golden, "slide_cos")
    assert_close(probabilities, golden, "slide_prob")
    assert_labels(labels, golden["argmax"])


def test_coninfers_tower_equals_the_original():
    golden = read_free("coninfer_clip")
    image, words = normalised_image(golden["meta"]), F.normalize(torch.ones(1, 512), dim=-1)
    model = build(golden["meta"], class_bias=0.0, earlier_blocks=[1, 4, 7, 10])
    for share in (0.0, 0.1, 0.6):
        variant(model, earlier_share=share)
        crop, whole = Stages(model, image[None, :, :224, :224], words), Stages(model, image[None], words)
        assert_close(crop.dense.unflatten(1, (14, 14)), golden, f"crop/dense_attn{share}")
        assert_close(whole.dense.unflatten(1, (20, 28)), golden, f"whole/dense_attn{share}")


def test_proxyclip_equals_the_original():
    golden = read_free("proxyclip_dino")
    meta, words = golden["meta"], torch.from_numpy(golden["query"])
    model = build(meta, head="ProxyClipHead")
    # The original normalises with rounded constants and undoes it with the exact ones before DINO.
    exact, own = [torch.tensor(v).view(-1, 1, 1) for v in (CLIP_PIXEL_MEAN, CLIP_PIXEL_STD)], (DINO_MEAN, DINO_STD)
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in own)
    model.prior_scale, model.prior_shift = exact[1] / std, (exact[0] - mean) / std
    crop = normalised_image(meta)[None, :, :336, :336]
    assert_close(model.embed(crop)["prior"].dense[0], golden, "proxy")
    stages = Stages(model, crop, words)
    assert_but_for_steps(stages.dense.unflatten(1, (42, 42)), golden, "dense")
    assert_but_for_steps(stages.cosines, golden, "cos")
    cosines, probabilities, labels = slide(model, fill.image(*meta["hw"], meta["image_seed"]), meta["classes"])
    assert_but_for_steps(cosines, golden, "slide_cos")
    assert_but_for_steps(probabilities, golden, "slide_prob")
    assert_labels(labels, golden["argmax"])


def assert_but_for_steps(actual: torch.Tensor, golden: dict[str, Any], name: str) -> None:
    """The cut-off is a step: similarities within rounding of it may fall on either side and move a row by 2.5e-3."""
    assert relative_error(actual, golden, name) < 5e-3
    assert relative_error(actual, golden, name, quantile=0.998) < 1e-4
