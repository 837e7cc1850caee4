"""Companion, rotations and channel order through the whole segmenter, on tiny towers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from records import picture, training_record

from ovrs.engine import CheckpointStore, load_weights
from ovrs.errors import ConfigError, WeightsError
from ovrs.heads.dr_seg.ranking_file import ChannelRanking, RankingError
from ovrs.segmenter import OpenVocabSegmenter
from ovrs.structures import TowerFeatures, TowerRequest

THREE = ["water", "tree", "field"]
SHARED = ("HIDDEN_DIM", "DECODER_DIMS", "TAP_DIMS", "TAP_PROJ_DIMS")


def choose_head(cfg: CfgNode, head: str, node: str) -> CfgNode:
    """Give a head the sizes of the tiny GSNet."""
    cfg.MODEL.SEM_SEG_HEAD.NAME = head
    for key in SHARED:
        cfg.MODEL[node][key] = cfg.MODEL.GSNET[key]
    cfg.MODEL[node].NUM_LAYERS = 1
    cfg.MODEL.PRIOR.PIXEL_MEAN, cfg.MODEL.PRIOR.PIXEL_STD = [110.0, 100.0, 90.0], [50.0, 40.0, 30.0]
    return cfg


@pytest.fixture
def rskt_cfg(tiny_cfg: CfgNode, tiny_arch: Path) -> CfgNode:
    """RSKT-Seg with a companion that sees a larger square than the VLM: 8 x 8 cells against 4 x 4."""
    tiny_cfg.MODEL.COMPANION.ARCH, tiny_cfg.MODEL.COMPANION.INPUT_SIZE = str(tiny_arch), 64
    return choose_head(tiny_cfg, "RSKTSegHead", "RSKT_SEG")


@pytest.fixture
def dr_cfg(tiny_cfg: CfgNode) -> CfgNode:
    """DR-Seg with a random order of channels."""
    tiny_cfg.MODEL.DR_SEG.SPSD.SELECT = "random"
    tiny_cfg.MODEL.DR_SEG.PDGR.TOPK = 5
    return choose_head(tiny_cfg, "DRSegHead", "DR_SEG")


@pytest.fixture(params=["rskt_cfg", "dr_cfg"])
def cfg(request: pytest.FixtureRequest) -> CfgNode:
    """Either of both."""
    return request.getfixturevalue(request.param)


def segment(model: OpenVocabSegmenter, **record: object) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        return model.eval()([{"vocabulary": THREE, **record}])[0]


def loss_of(model: OpenVocabSegmenter) -> torch.Tensor:
    return model.train()([training_record(THREE)])["loss_sem_seg"]


def head_inputs(model: OpenVocabSegmenter, images: torch.Tensor) -> dict[str, TowerFeatures]:
    """What the head is given for normalised images."""
    with torch.no_grad():
        return model.eval().embed(images)


# ---------------------------------------------------------------------- features


def test_head_gets_views_and_blocks_of_every_tower(rskt_cfg: CfgNode):
    model = OpenVocabSegmenter(rskt_cfg)
    features = head_inputs(model, model.normalise(torch.stack([picture(48, 40), picture(48, 40, 1)])))
    image, companion, prior = (features[name] for name in ("vlm", "companion", "prior"))
    assert image.rotated.shape == (2, 4, 16, 4, 4)
    assert torch.equal(image.rotated[:, 0], image.dense)
    assert {index: tuple(block.shape) for index, block in image.blocks.items()} == {
        0: (2, 32, 4, 4),
        1: (2, 32, 4, 4),
    }
    assert {index: tuple(block.shape) for index, block in companion.blocks.items()} == {
        0: (2, 32, 8, 8),
        1: (2, 32, 8, 8),
    }
    assert set(prior.blocks) == {0, 1}


@torch.no_grad()
def test_companion_sees_its_own_square_under_the_common_statistics(rskt_cfg: CfgNode):
    model = OpenVocabSegmenter(rskt_cfg)
    images = model.normalise(picture(48, 40))[None]
    companion = head_inputs(model, images)["companion"].blocks
    square = F.interpolate(images, size=(64, 64), mode="bilinear", align_corners=False)
    expected = model.companion(square, TowerRequest(blocks=(0, 1), dense="none")).blocks
    assert list(companion) == list(expected)
    for index, block in expected.items():
        torch.testing.assert_close(companion[index], block)


@torch.no_grad()
def test_square_is_turned_and_not_the_image(cfg: CfgNode):
    model = OpenVocabSegmenter(cfg)
    images = model.normalise(picture(48, 40))[None]
    square = F.interpolate(images, size=(32, 32), mode="bilinear", align_corners=False)
    rotated = head_inputs(model, images)["vlm"].rotated
    request = replace(model.requests["vlm"], rotations=False)
    for turn in range(4):
        turned = model.vlm(square.rot90(turn, (2, 3)), request).dense.rot90(-turn, (2, 3))
        torch.testing.assert_close(rotated[:, turn], turned, rtol=1e-4, atol=1e-5)


def test_images_are_encoded_once_without_rotations(cfg: CfgNode):
    cfg.MODEL.RSKT_SEG.USE_ROTATION = cfg.MODEL.DR_SEG.USE_ROTATION = False
    model = OpenVocabSegmenter(cfg)
    seen = []
    model.vlm.clip.visual.conv1.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    assert head_inputs(model, model.normalise(picture())[None])["vlm"].rotated is None
    assert seen == [1]


def test_bf16_towers_hand_over_fp32(rskt_cfg: CfgNode):
    rskt_cfg.MODEL.PRECISION.TOWERS = "bf16"
    model = OpenVocabSegmenter(rskt_cfg)
    towers = head_inputs(model, model.normalise(picture())[None])
    image = towers["vlm"]
    features = [image.dense, image.rotated, *image.blocks.values(), *towers["companion"].blocks.values()]
    features += [towers["prior"].dense, *towers["prior"].blocks.values()]
    assert len(features) == 9
    assert all(feature.dtype == torch.float32 for feature in features)


# ---------------------------------------------------------------------- results and training


def test_result_has_the_wanted_size(cfg: CfgNode):
    for sliding in (True, False):
        cfg.TEST.SLIDING_WINDOW.ENABLED = sliding
        result = segment(OpenVocabSegmenter(cfg), image=picture(40, 50), height=21, width=77)
        assert result["labels"].shape == (21, 77)
        assert 0 < result["scores"].min() <= result["scores"].max() < 1


def test_gradients_reach_exactly_what_trains(cfg: CfgNode):
    model = OpenVocabSegmenter(cfg)
    loss_of(model).backward()
    with_gradient = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    # The value-only last block never reads its query weight.
    assert trained - with_gradient == {"vlm.clip.visual.transformer.resblocks.3.attn.q_proj_weight"}
    assert with_gradient < trained
    in_clip = {name for name in trained if name.startswith("vlm.")}
    assert all(name.endswith(("attn.q_proj_weight", "attn.v_proj_weight")) for name in in_clip)
    assert len(in_clip) == 2 * (4 + 2)  # blocks of both towers
    assert {name for name, _ in model.head.named_parameters(prefix="head")} == trained - in_clip


def test_frozen_towers_get_no_graph(rskt_cfg: CfgNode):
    rskt_cfg.MODEL.VLM.FINETUNE_IMAGE = rskt_cfg.MODEL.VLM.FINETUNE_TEXT = "frozen"
    model = OpenVocabSegmenter(rskt_cfg)
    seen = []
    model.head.register_forward_pre_hook(lambda module, inputs: seen.append(inputs))
    loss_of(model).backward()
    towers, _ = seen[0]
    image = towers["vlm"]
    features = [image.dense, image.rotated, *image.blocks.values()]
    features += [*towers["companion"].blocks.values(), *towers["prior"].blocks.values()]
    assert len(features) == 8
    assert not any(feature.requires_grad for feature in features)


def test_only_clips_own_features_carry_a_graph(rskt_cfg: CfgNode):
    model = OpenVocabSegmenter(rskt_cfg)
    seen = []
    model.head.register_forward_pre_hook(lambda module, inputs: seen.append(inputs))
    loss_of(model)
    towers, text = seen[0]
    image, companion, prior = (towers[name] for name in ("vlm", "companion", "prior"))
    assert all(part.requires_grad for part in (image.dense, image.rotated, text.embeddings))
    assert not any(part.requires_grad for part in (prior.dense, *prior.blocks.values(), *companion.blocks.values()))


def test_permuted_classes_permute_the_scores(cfg: CfgNode):
    cfg.TEST.OUTPUT = "scores"
    model = OpenVocabSegmenter(cfg)
    straight = segment(model, image=picture())["sem_seg"]
    turned = segment(model, image=picture(), vocabulary=[THREE[i] for i in (2, 0, 1)])["sem_seg"]
    assert straight.std(dim=0).max() > 1e-3
    torch.testing.assert_close(turned, straight[[2, 0, 1]], rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------------- padding


@pytest.mark.parametrize("crop", [True, False])
def test_padding_is_cut_off_or_stretched_as_configured(tiny_cfg: CfgNode, crop: bool):
    tiny_cfg.TEST.SLIDING_WINDOW.ENABLED, tiny_cfg.TEST.OUTPUT = False, "scores"
    assert tiny_cfg.TEST.CROP_PADDING is True
    tiny_cfg.TEST.CROP_PADDING = crop
    model = OpenVocabSegmenter(tiny_cfg)
    image = picture(40, 64)
    result = segment(model, image=image, height=80, width=128)["sem_seg"]

    padded = F.pad(model.normalise(image), (0, 0, 0, 24))[None]
    with torch.no_grad():
        scores = model.classify(model.embed(padded), model.vocabulary(THREE)).sigmoid()
    # 40 of 64 rows are the image: enlarged twice with the padding, or the whole squeezed into 80 rows.
    expected = F.interpolate(scores, size=(128, 128) if crop else (80, 128), mode="bilinear", align_corners=False)
    torch.testing.assert_close(result, expected[0, :, :80], rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------------- refusals and checkpoints


@pytest.mark.parametrize(("head", "node"), [("GSNetHead", "GSNET"), ("DRSegHead", "DR_SEG"), ("CATSegHead", "CAT_SEG")])
def test_companion_that_no_head_uses_is_refused(dr_cfg: CfgNode, tiny_arch: Path, head: str, node: str):
    choose_head(dr_cfg, head, node).MODEL.COMPANION.ARCH = str(tiny_arch)
    dr_cfg.MODEL.COMPANION.INPUT_SIZE = 32
    with pytest.raises(ConfigError, match=rf"MODEL\.COMPANION\.ARCH is set, but {head} as configured asks for nothing"):
        OpenVocabSegmenter(dr_cfg)


def test_checkpoint_carries_the_companion_without_its_text_tower(rskt_cfg: CfgNode, tmp_path: Path):
    source = OpenVocabSegmenter(rskt_cfg)
    assert {name.split(".")[0] for name in source.state_dict()} == {"vlm", "prior", "companion", "head"}
    assert all(name.startswith("companion.visual.") for name in source.state_dict() if name.startswith("companion."))
    path = CheckpointStore(tmp_path).save("model_final", {"model": source.state_dict()})

    rskt_cfg.MODEL.WEIGHTS = str(path)
    rskt_cfg.MODEL.COMPANION.WEIGHTS = str(tmp_path / "gone.pt")  # filled by the checkpoint, so never read
    rskt_cfg.MODEL.COMPANION.ACTIVATION = "quick_gelu"
    target = OpenVocabSegmenter(rskt_cfg)
    load_weights(target, path)
    assert torch.equal(segment(target, image=picture())["scores"], segment(source, image=picture())["scores"])


def saved(cfg: CfgNode, folder: Path) -> tuple[OpenVocabSegmenter, Path]:
    """A model and its checkpoint."""
    model = OpenVocabSegmenter(cfg)
    return model, CheckpointStore(folder).save("model_final", {"model": model.state_dict()})


def some_ranking(path: Path, seed: int) -> str:
    """Write a ranking of the tiny joint space."""
    generator = np.random.default_rng(seed)
    activations = np.abs(generator.normal(size=(4, 16)))
    ranking = ChannelRanking.from_class_means(
        generator.normal(size=(4, 16)), activations, np.full(4, 9), generator.uniform(0.5, 2, 16)
    )
    return str(ranking.save(path))


def test_order_of_channels_travels_in_a_checkpoint(dr_cfg: CfgNode, tmp_path: Path):
    dr_cfg.MODEL.DR_SEG.SPSD.SELECT = "score"
    dr_cfg.MODEL.DR_SEG.SPSD.FILE = some_ranking(tmp_path / "a ranking.npz", 1)
    source, path = saved(dr_cfg, tmp_path)

    dr_cfg.MODEL.DR_SEG.SPSD.FILE = ""
    target = OpenVocabSegmenter(dr_cfg)
    with pytest.raises(RankingError, match="no checkpoint has brought a channel ranking"):
        segment(target, image=picture())
    load_weights(target, path)
    assert torch.equal(target.head.channels.order, source.head.channels.order)
    assert torch.equal(segment(target, image=picture())["scores"], segment(source, image=picture())["scores"])


def test_order_that_disagrees_with_the_checkpoint_is_refused(dr_cfg: CfgNode, tmp_path: Path):
    dr_cfg.MODEL.DR_SEG.SPSD.SELECT = "score"
    dr_cfg.MODEL.DR_SEG.SPSD.FILE = some_ranking(tmp_path / "one.npz", 1)
    _, path = saved(dr_cfg, tmp_path)
    load_weights(OpenVocabSegmenter(dr_cfg), path)
    dr_cfg.MODEL.DR_SEG.SPSD.FILE = some_ranking(tmp_path / "another.npz", 2)
    with pytest.raises(RankingError, match=r"another channel ranking than .*another\.npz.*SPSD\.FILE empty"):
        load_weights(OpenVocabSegmenter(dr_cfg), path)


def test_checkpoint_of_another_head_is_refused(dr_cfg: CfgNode, tmp_path: Path):
    _, path = saved(dr_cfg, tmp_path)
    other = choose_head(dr_cfg, "CATSegHead", "CAT_SEG")
    with pytest.raises(WeightsError, match=r"model_final\.pth: .* missing.*use the config file"):
        load_weights(OpenVocabSegmenter(other), path)
