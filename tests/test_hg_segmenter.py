"""HG-RSOVSSeg in a tiny segmenter: training, inference on logits, position embedding, official checkpoints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from detectron2.config import CfgNode

from ovrs.backbones import build_vlm
from ovrs.engine import load_weights
from ovrs.engine.optimizer import build_optimizer
from ovrs.errors import ConfigError, WeightsError
from ovrs.segmenter import OpenVocabSegmenter
from ovrs.zoo import LAYOUTS

CLASSES = ("grass", "water", "a roof")


@pytest.fixture
def hg_cfg(tiny_cfg: CfgNode) -> CfgNode:
    """HG-RSOVSSeg in tiny sizes."""
    model = tiny_cfg.MODEL
    model.VLM.INPUT_SIZE = 36  # not a multiple of the patch size 8, as 512 is none of 14
    model.VLM.POSITION_EMBEDDING = "adapted"
    model.VLM.FINETUNE_IMAGE = model.VLM.FINETUNE_TEXT = "frozen"
    model.PRIOR.NAME = ""
    model.SEM_SEG_HEAD.NAME = "HGRSOVSSegHead"
    model.HG_RSOVSSEG.GUIDANCE_CHANNELS = [32, 16]
    model.HG_RSOVSSEG.KEY_CHANNELS = 16
    model.LOSS.NAME = "ce"
    tiny_cfg.VOCABULARY.TEMPLATE_SET = "vild"
    tiny_cfg.INPUT.SIZE_DIVISIBILITY = 1
    tiny_cfg.TEST.SLIDING_WINDOW.ENABLED = False
    tiny_cfg.TEST.OUTPUT = "scores"
    return tiny_cfg


@pytest.fixture
def tiny_arch(tiny_arch: Path) -> Path:
    """The tiny CLIP of all tests with a wider joint space: decoder widths are multiples of 16 and shrink."""
    config = json.loads(tiny_arch.read_text(encoding="utf-8"))
    tiny_arch.write_text(json.dumps({**config, "embed_dim": 48}), encoding="utf-8")
    return tiny_arch


def picture(height: int, width: int) -> torch.Tensor:
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8)


def segment(model: OpenVocabSegmenter, image: torch.Tensor) -> dict[str, torch.Tensor]:
    with torch.inference_mode():
        return model([{"image": image, "vocabulary": CLASSES}])[0]


def logits_of(model: OpenVocabSegmenter, images: torch.Tensor) -> torch.Tensor:
    return model.classify(model.embed(images), model.vocabulary(CLASSES))


def test_tiny_model_learns(hg_cfg):
    model = OpenVocabSegmenter(hg_cfg).train()
    image = picture(36, 36) // 4
    labels = torch.zeros(36, 36, dtype=torch.long)
    image[0, :, 18:] += 150
    labels[:, 18:] = 1
    image[2, 18:] += 150
    labels[18:] = 2
    labels[:3] = 255
    hg_cfg.SOLVER.BASE_LR = 3e-3
    optimizer = build_optimizer(model, hg_cfg)
    losses = []
    for _ in range(25):
        loss = model([{"image": image, "sem_seg": labels, "vocabulary": CLASSES}])["loss_sem_seg"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(torch.tensor(3.0).log().item() * 33 / 36, rel=0.1)
    assert losses[-1] < 0.5 * losses[0]
    predicted = segment(model.eval(), image)["labels"]
    valid = labels != 255
    assert (predicted[valid] == labels[valid]).float().mean() > 0.8


def test_scores_are_the_softmax_of_enlarged_logits(hg_cfg):
    model = OpenVocabSegmenter(hg_cfg).eval()
    image = picture(36, 36)
    result = segment(model, image)
    with torch.inference_mode():
        logits = logits_of(model, model.normalise(image)[None])
        assert logits.shape == (1, 3, 16, 16)
        expected = F.interpolate(logits, size=(36, 36), mode="bilinear", align_corners=False)[0].softmax(dim=0)
    torch.testing.assert_close(result["sem_seg"], expected)
    torch.testing.assert_close(result["scores"], expected.max(dim=0).values)
    assert torch.equal(result["labels"].long(), expected.argmax(dim=0))


def test_windows_are_averaged_as_logits(hg_cfg):
    window = hg_cfg.TEST.SLIDING_WINDOW
    window.ENABLED, window.CANVAS, window.KERNEL, window.OVERLAP, window.GLOBAL_VIEW = True, 0, 36, 0.5, False
    model = OpenVocabSegmenter(hg_cfg).eval()
    image = picture(36, 54)
    result = segment(model, image)
    with torch.inference_mode():
        logits = torch.zeros(3, 36, 54)
        for left in (0, 18):
            part = model.normalise(image)[None, :, :, left : left + 36]
            part = logits_of(model, part)
            logits[:, :, left : left + 36] += F.interpolate(part, size=(36, 36), mode="bilinear")[0]
        logits[:, :, 18:36] /= 2
    torch.testing.assert_close(result["sem_seg"], logits.softmax(dim=0))


def test_pixels_beyond_the_last_whole_patch_are_not_seen_in_a_square(hg_cfg):
    model = OpenVocabSegmenter(hg_cfg).eval()
    image = picture(36, 36)
    changed = image.clone()
    changed[:, 32:], changed[:, :, 32:] = 0, 255
    assert torch.equal(segment(model, image)["sem_seg"], segment(model, changed)["sem_seg"])
    changed[:, 31] = 255
    assert not torch.equal(segment(model, image)["sem_seg"], segment(model, changed)["sem_seg"])


def test_images_at_their_own_size_are_seen_to_the_last_pixel(hg_cfg):
    hg_cfg.MODEL.VLM.INPUT_SIZE = 0
    hg_cfg.MODEL.VLM.POSITION_EMBEDDING = "runtime"
    hg_cfg.INPUT.SIZE_DIVISIBILITY = 8
    model = OpenVocabSegmenter(hg_cfg).eval()
    image = picture(36, 44)
    changed = image.clone()
    changed[:, 35] = 255
    result = segment(model, image)
    assert result["labels"].shape == (36, 44)
    assert not torch.equal(result["sem_seg"], segment(model, changed)["sem_seg"])


def test_adapted_position_embedding_is_a_parameter_of_the_inputs_grid(hg_cfg):
    for side, rows in ((36, 17), (64, 65), (32, 17)):
        hg_cfg.MODEL.VLM.INPUT_SIZE = side
        hg_cfg.MODEL.VLM.FINETUNE_IMAGE = "position"
        vlm = build_vlm(hg_cfg)
        trained = {name: p for name, p in vlm.named_parameters() if p.requires_grad}
        assert [tuple(p.shape) for p in trained.values()] == [(rows, 32)]


def test_adapting_at_building_equals_adapting_in_every_pass(hg_cfg):
    hg_cfg.MODEL.VLM.INPUT_SIZE = 64
    image, results = picture(64, 64), []
    for rule in ("adapted", "runtime"):
        torch.manual_seed(1)  # the same random weights
        hg_cfg.MODEL.VLM.POSITION_EMBEDDING = rule
        results.append(segment(OpenVocabSegmenter(hg_cfg).eval(), image)["sem_seg"])
    torch.testing.assert_close(*results)


@pytest.mark.parametrize(
    ("rule", "size", "message"),
    [("once", 32, "must be one of runtime, runtime_dino, adapted"), ("adapted", 0, "INPUT_SIZE")],
)
def test_position_rule_that_cannot_be_followed_names_the_key(hg_cfg, rule, size, message):
    hg_cfg.MODEL.VLM.POSITION_EMBEDDING, hg_cfg.MODEL.VLM.INPUT_SIZE = rule, size
    with pytest.raises(ConfigError, match=f"MODEL.VLM.POSITION_EMBEDDING.*{message}"):
        build_vlm(hg_cfg)


# ------------------------------------------------------------------ official checkpoints


def test_official_checkpoint_fills_the_whole_model(hg_cfg, tmp_path):
    source = OpenVocabSegmenter(hg_cfg).eval()
    official = LAYOUTS["HG-RSOVSSeg"].to_official(source.state_dict())
    assert "image_encoder.visual.transformer.resblocks.3.attn.in_proj_weight" in official
    assert official["decode_head.TA.1.f_query.0.weight"].shape == (16, 16, 1)
    path = tmp_path / "iter 80000.pth"
    torch.save({"meta": {"iter": 80000}, "state_dict": official}, path)

    with torch.no_grad():
        for parameter in (target := OpenVocabSegmenter(hg_cfg).eval()).parameters():
            parameter.zero_()
    load_weights(target, path)
    for name, tensor in source.state_dict().items():
        if name != "vlm.clip.logit_scale":  # not stored, not read
            assert torch.equal(target.state_dict()[name], tensor), name
    image = picture(36, 36)
    assert torch.equal(segment(target, image)["sem_seg"], segment(source, image)["sem_seg"])


def test_official_checkpoint_for_another_input_size_is_refused(hg_cfg, tmp_path):
    official = LAYOUTS["HG-RSOVSSeg"].to_official(OpenVocabSegmenter(hg_cfg).state_dict())
    torch.save({"state_dict": official}, tmp_path / "iter.pth")
    hg_cfg.MODEL.VLM.INPUT_SIZE = 64
    with pytest.raises(WeightsError, match=r"positional_embedding is \(17, 32\), the model's is \(65, 32\)"):
        load_weights(OpenVocabSegmenter(hg_cfg), tmp_path / "iter.pth")


def test_official_checkpoint_with_an_unknown_tensor_is_refused(hg_cfg, tmp_path):
    official = LAYOUTS["HG-RSOVSSeg"].to_official(OpenVocabSegmenter(hg_cfg).state_dict())
    official["image_encoder.visual.extra"] = torch.zeros(1)
    official["decode_head.TA.0.unheard_of.0.weight"] = torch.zeros(1)
    with pytest.raises(WeightsError, match=r"does not know 1 tensors, such as \['decode_head\.TA\.0\.unheard_of"):
        LAYOUTS["HG-RSOVSSeg"].to_ours(official)
