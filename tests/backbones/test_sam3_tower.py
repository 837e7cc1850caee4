"""SAM 3's tower: what it hands out equals Transformers' own forward pass, and its weights are read strictly."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from safetensors.torch import save_file
from tiny_sam3 import spread, tiny_sam3_cfg
from torch import Tensor

from ovrs.backbones import Sam3VLM, build_vlm
from ovrs.errors import ConfigError, VocabularyError, WeightsError
from ovrs.structures import TowerRequest

WORDS = ["road", "a very old oak tree", "building"]
CONCEPTS = TowerRequest(dense="none", concepts=True)


@pytest.fixture
def cfg(tmp_path: Path) -> CfgNode:
    return tiny_sam3_cfg(tmp_path)


@pytest.fixture
def vlm(cfg: CfgNode) -> Sam3VLM:
    vlm = build_vlm(cfg)
    spread(vlm)
    return vlm


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, 150, 90, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def own_forward(vlm: Sam3VLM, image: Tensor, word: str) -> dict[str, Tensor]:
    """Transformers' forward pass over one image and one word, without anything of this project but the token ids."""
    ids = vlm.tokenizer([word])
    mask = torch.zeros_like(ids)
    mask[:, : int(ids.argmax()) + 1] = 1
    squashed = F.interpolate(image[None], (vlm.side, vlm.side), mode="bilinear", antialias=True)
    return vlm.model(pixel_values=squashed, input_ids=ids, attention_mask=mask)


@torch.no_grad()
def test_all_words_in_one_batch_equal_transformers_forward_for_each_image_and_word(vlm: Sam3VLM, images: Tensor):
    vlm, images = vlm.double(), images.double()  # in fp32 the order of sums changes with the batch
    finder, words = vlm(images, CONCEPTS).concepts, vlm.encode_text(WORDS)
    presences = []
    for index, image in enumerate(images):
        found = finder.find(index, words)
        semantic, masks = finder.draw(index, found)
        for row, word in enumerate(WORDS):
            own = own_forward(vlm, image, word)
            close = {"atol": 2e-5, "rtol": 1e-4}
            torch.testing.assert_close(found.presence[row], own.presence_logits[0, 0], **close)
            torch.testing.assert_close(found.confidence[row], own.pred_logits[0], **close)
            torch.testing.assert_close(semantic[row], own.semantic_seg[0, 0], **close)
            torch.testing.assert_close(masks[row], own.pred_masks[0], **close)
        presences += found.presence.tolist()
    assert len({round(presence, 3) for presence in presences}) == len(presences), "words and images matter"


@torch.no_grad()
def test_drawing_some_words_and_candidates_equals_drawing_all(vlm: Sam3VLM, images: Tensor):
    finder = vlm(images, CONCEPTS).concepts
    found = finder.find(1, vlm.encode_text(WORDS))
    semantic, masks = finder.draw(1, found)
    rows, best = torch.tensor([2, 0]), found.confidence.argsort(dim=1, descending=True)[:, :3]
    some = found.choose(rows, 3)
    assert (some.confidence.diff(dim=1) <= 0).all()
    drawn, instances = finder.draw(1, some)
    torch.testing.assert_close(drawn, semantic[rows], atol=2e-5, rtol=1e-4)
    for index, row in enumerate(rows):
        torch.testing.assert_close(instances[index], masks[row][best[row]], atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_nothing_but_the_concept_is_drawn_without_candidates(vlm: Sam3VLM, images: Tensor):
    finder = vlm(images, CONCEPTS).concepts
    found = finder.find(0, vlm.encode_text(WORDS))
    semantic, masks = finder.draw(0, found.choose(torch.arange(3), 0))
    assert (semantic.shape, masks.shape) == ((3, 32, 32), (3, 0, 32, 32))


@torch.no_grad()
def test_text_equals_transformers_text_features(vlm: Sam3VLM):
    words = vlm.encode_text(WORDS)
    own = vlm.model.get_text_features(input_ids=vlm.tokenizer(WORDS), attention_mask=words.valid.long())
    torch.testing.assert_close(words.values, own.pooler_output)
    assert words.valid.sum(dim=1).tolist() == [3, 7, 3]


@torch.no_grad()
def test_finder_knows_the_size_of_images_and_another_input_size_reads_the_same_weights(vlm: Sam3VLM, cfg: CfgNode):
    cfg.MODEL.VLM.INPUT_SIZE = 168
    larger = build_vlm(cfg)
    larger.load_state_dict(vlm.state_dict())
    finder = larger(torch.randn(1, 3, 40, 50), CONCEPTS).concepts
    assert finder.size == (40, 50)
    assert [tuple(level.shape[-2:]) for level in finder.maps] == [(48, 48), (24, 24), (12, 12)]


def test_tower_is_frozen_and_stays_in_evaluation_mode(vlm: Sam3VLM):
    assert not any(parameter.requires_grad for parameter in vlm.parameters())
    assert not any(module.training for module in vlm.train().modules())


# ---------------------------------------------------------------------- weights


def test_released_file_is_read_without_its_tracker(vlm: Sam3VLM, cfg: CfgNode, tmp_path: Path):
    released = {f"detector_model.{name}": tensor for name, tensor in vlm.model.state_dict().items()}
    save_file(
        {**released, "tracker_model.memory": torch.ones(2), "tracker_neck.w": torch.ones(2)}, tmp_path / "m.safetensors"
    )
    cfg.MODEL.VLM.WEIGHTS = str(tmp_path / "m.safetensors")
    torch.manual_seed(5)
    found = build_vlm(cfg).model.state_dict()
    assert set(found) == set(vlm.model.state_dict())
    assert all(torch.equal(tensor, found[name]) for name, tensor in vlm.model.state_dict().items())


@pytest.mark.parametrize("fault", ["missing", "of another shape"])
def test_file_that_does_not_fill_the_model_is_refused(vlm: Sam3VLM, cfg: CfgNode, tmp_path: Path, fault: str):
    state = dict(vlm.model.state_dict())
    name = "mask_decoder.semantic_projection.weight"
    if fault == "missing":
        del state[name]
    else:
        state[name] = torch.zeros(1, 9, 1, 1)
    save_file(state, tmp_path / "m.safetensors")
    cfg.MODEL.VLM.WEIGHTS = str(tmp_path / "m.safetensors")
    with pytest.raises(WeightsError, match=rf"m\.safetensors: 1 tensors are {fault}: .*{name}"):
        build_vlm(cfg)


def test_gated_weights_say_where_to_get_them(cfg: CfgNode, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cfg.MODEL.VLM.ARCH, cfg.MODEL.VLM.WEIGHTS = "sam3", "facebook/sam3"
    with pytest.raises(WeightsError, match=r"huggingface\.co/facebook/sam3, accept its conditions.*sam3\.safetensors"):
        build_vlm(cfg)


# ---------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    "wish", [{"blocks": (0,)}, {"token": True}, {"dense": "class_residual"}, {"last_block": True}], ids=str
)
def test_what_clip_heads_ask_for_is_refused(vlm: Sam3VLM, wish: dict[str, Any]):
    with pytest.raises(ConfigError, match="Sam3VLM"):
        vlm(torch.zeros(1, 3, 14, 14), TowerRequest(**{"dense": "none", **wish}))


def test_concepts_of_another_tower_are_refused(tiny_vlm: torch.nn.Module):
    with pytest.raises(ConfigError, match=r"OpenClipVLM finds no named concepts; set MODEL\.VLM\.NAME to 'Sam3VLM'"):
        tiny_vlm(torch.zeros(1, 3, 32, 32), CONCEPTS)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("INPUT_SIZE", 100, r"MODEL\.VLM\.INPUT_SIZE must be a multiple of 14, SAM 3's patch, got 100"),
        ("FINETUNE_TEXT", "all", r"MODEL\.VLM\.FINETUNE_TEXT of Sam3VLM must be one of frozen"),
        ("ARCH", "ViT-B-16", r"MODEL\.VLM\.ARCH of Sam3VLM must be one of sam3"),
    ],
)
def test_values_that_mean_nothing_here_are_refused(cfg: CfgNode, key: str, value: object, message: str):
    cfg.MODEL.VLM[key] = value
    with pytest.raises(ConfigError, match=message):
        build_vlm(cfg)


def test_phrase_that_is_too_long_is_refused(vlm: Sam3VLM):
    with pytest.raises(VocabularyError, match="tokens, the text tower reads 32; shorten it"):
        vlm.encode_text(["road " * 31])


def test_without_transformers_the_error_says_what_to_install(cfg: CfgNode, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError, match=r"needs transformers 5 or newer: pip install 'ovrs\[sam3\]'"):
        build_vlm(cfg)
