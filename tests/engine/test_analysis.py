import pytest
import torch

from ovrs.config import ConfigError, get_cfg
from ovrs.engine import build_model
from ovrs.engine.analysis import analyze, count_parameters
from ovrs.engine.original_work import GUIDANCE, PADDING, TEXT_END
from ovrs.engine.stages import HEAD, PRIOR, REST, TEXT, VLM_IMAGE
from ovrs.vocabulary import TEMPLATE_SETS

# The tiny model of tests/conftest.py: widths of image tower, text tower, joint space, prior and cost maps.
W, V, C, D, HIDDEN = 32, 16, 16, 24, 32
CELLS, PRIOR_CELLS = 4 * 4, 8 * 8
PASSES = 5  # four windows and the global view


def image_tower() -> int:
    tokens = CELLS + 1
    patches = CELLS * 3 * 8 * 8 * W
    blocks = 3 * (tokens * 12 * W**2 + 2 * tokens**2 * W)
    value_only = CELLS * 10 * W**2
    return patches + blocks + value_only + CELLS * W * C


def text_tower(classes: int, length: int) -> int:
    return classes * (2 * (length * 12 * V**2 + 2 * length**2 * V) + V * C)


def prior_tower() -> int:
    tokens = PRIOR_CELLS + 1
    return PRIOR_CELLS * 3 * 4 * 4 * D + 4 * (tokens * 12 * D**2 + 2 * tokens**2 * D)


def head(classes: int) -> int:
    maps = classes * CELLS
    align = CELLS * D * C * 4
    guidance = CELLS * C * HIDDEN * 9
    fusion = 2 * maps * C + 2 * maps * HIDDEN * 49 + maps * 2 * HIDDEN * HIDDEN * 49
    swin = 2 * (CELLS * 2 * HIDDEN**2 + maps * (3 + 1 + 8) * HIDDEN**2 + 2 * maps * 4 * HIDDEN)
    class_attention = maps * (3 + 8) * HIDDEN**2 + 2 * CELLS * classes**2 * HIDDEN
    vlm_taps = CELLS * W * 16 * 4 + 64 * 16 * 8 * 9 + CELLS * W * 8 * 16 + 256 * 8 * 4 * 9
    prior_taps = 64 * D * 16 + 64 * 16 * 8 * 9 + 64 * D * 8 * 4 + 256 * 8 * 4 * 9
    level_1 = classes * (CELLS * 32 * 24 * 4 + 64 * 24 * 32 * 9 + 64 * 32 * 32 * 9) + 64 * 16 * 32 * 9
    level_2 = classes * (64 * 32 * 28 * 4 + 256 * 28 * 16 * 9 + 256 * 16 * 16 * 9) + 256 * 8 * 16 * 9
    predictor = classes * 256 * 16 * 9
    return align + guidance + fusion + swin + class_attention + vlm_taps + prior_taps + level_1 + level_2 + predictor


def per_vocabulary(classes: int) -> int:
    """Text guidance of the head, and its queries' and keys' share: once per batch of windows."""
    return classes * C * HIDDEN + 2 * classes * HIDDEN**2


def test_multiply_accumulates_are_those_counted_by_hand(tiny_cfg):
    classes = 3
    analysis = analyze(tiny_cfg, classes)
    tokenizer = build_model(tiny_cfg).vlm.tokenizer
    template = TEMPLATE_SETS[tiny_cfg.VOCABULARY.TEMPLATE_SET][0]
    length = int(tokenizer([template.format("class 0")]).argmax()) + 1
    assert analysis.passes == PASSES
    assert analysis.macs[VLM_IMAGE] == PASSES * image_tower()
    assert analysis.macs[PRIOR] == PASSES * prior_tower()
    assert analysis.macs[TEXT] == text_tower(classes, length)
    assert analysis.macs[HEAD] == pytest.approx(PASSES * head(classes) + per_vocabulary(classes), abs=3 * HIDDEN**2)
    assert analysis.macs[REST] == 0
    assert analysis.image_macs == sum(analysis.macs.values()) - analysis.macs[TEXT]


def test_extra_work_of_the_original_follows_from_its_padding_and_repetitions(tiny_cfg):
    classes, pad_to = 3, tiny_cfg.MODEL.GSNET.PAD_CLASSES_TO
    extra = analyze(tiny_cfg, classes).original_extra
    per_token = 13 * HIDDEN**2 + 2 * HIDDEN * 16 + HIDDEN
    assert extra[PADDING] == PASSES * CELLS * (pad_to - classes) * per_token
    swin = 2 * CELLS * 2 * HIDDEN**2
    decoder = 64 * 16 * 32 * 9 + 256 * 8 * 16 * 9
    assert extra[GUIDANCE] == PASSES * (classes - 1) * (swin + decoder)
    assert extra[TEXT_END] > 0
    assert analyze(tiny_cfg, pad_to).original_extra[PADDING] == 0


def test_a_text_tower_over_all_positions_costs_what_the_extra_says(tiny_cfg):
    analysis = analyze(tiny_cfg, 3)
    assert analysis.macs[TEXT] + analysis.original_extra[TEXT_END] == text_tower(3, 77)


def test_the_protocol_of_the_configuration_decides_the_number_of_passes(tiny_cfg):
    sliding = analyze(tiny_cfg, 3)
    tiny_cfg.TEST.SLIDING_WINDOW.ENABLED = False
    whole = analyze(tiny_cfg, 3)
    assert (sliding.passes, whole.passes) == (5, 1)
    assert sliding.macs[VLM_IMAGE] == 5 * whole.macs[VLM_IMAGE]
    tiny_cfg.TEST.SLIDING_WINDOW.ENABLED, tiny_cfg.TEST.SLIDING_WINDOW.CANVAS = True, 0
    tiny_cfg.TEST.SLIDING_WINDOW.GLOBAL_VIEW = False
    assert analyze(tiny_cfg, 3, (64, 96)).passes == 3 * 5  # a window begins every 21 pixels


def test_precision_and_device_of_the_configuration_change_no_count(tiny_cfg):
    expected = analyze(tiny_cfg, 3).macs
    tiny_cfg.MODEL.PRECISION.TOWERS = tiny_cfg.MODEL.PRECISION.HEAD = "bf16"
    tiny_cfg.MODEL.DEVICE = "cuda"
    assert analyze(tiny_cfg, 3).macs == expected
    assert torch.get_autocast_dtype("cpu") is torch.bfloat16  # autocast works again


def test_parts_add_up_to_the_model(tiny_cfg):
    counts = count_parameters(build_model(tiny_cfg))
    towers_and_head = [counts[name] for name in ("VLM, image tower", "VLM, text tower", "prior", "head")]
    assert tuple(map(sum, zip(*towers_and_head, strict=True))) == counts["model"]
    parts = [count for name, count in counts.items() if name.startswith("head: ")]
    assert tuple(map(sum, zip(*parts, strict=True))) == counts["head"]
    assert counts["prior"].trained == 0 < counts["prior"].total


def test_the_table_shows_every_part_and_sum(tiny_cfg):
    analysis = analyze(tiny_cfg, 3)
    table = analysis.table()
    for words in (
        "VLM, image tower",
        "head: decoder",
        "sum, text cached",
        PADDING,
        GUIDANCE,
        "comparable with the papers",
    ):
        assert words in table
    assert f"{analysis.parameters['model'].total:,}" in table


def test_one_class_is_no_vocabulary(tiny_cfg):
    with pytest.raises(ValueError, match="at least 2 classes"):
        analyze(tiny_cfg, 1)


def test_an_unusable_configuration_is_a_config_error(tiny_cfg):
    tiny_cfg.MODEL.SEM_SEG_HEAD.NAME = "Unknown"
    with pytest.raises(ConfigError, match="Unknown"):
        analyze(tiny_cfg, 3)


@pytest.mark.heavy
@pytest.mark.parametrize(("classes", "cached", "with_text"), [(5, 2154, 2169), (40, 2539, 2658)])
def test_gsnet_has_the_papers_size_and_cost(classes, cached, with_text):
    """Table 5 of the GSNet paper (243M / 29M / 2,160G), and the cost measured on its code."""
    analysis = analyze(get_cfg(), classes)
    assert analysis.parameters["model"] == (243_988_242, 29_006_865)
    assert analysis.parameters["prior"] == (85_807_872, 0)
    assert analysis.parameters["VLM, image tower"] == (86_192_640, 14_155_776)
    text = analysis.macs[TEXT] + analysis.original_extra[TEXT_END]
    assert analysis.original_image_macs / 1e9 == pytest.approx(cached, rel=0.01)
    assert (analysis.original_image_macs + text) / 1e9 == pytest.approx(with_text, rel=0.01)
    assert analysis.image_macs < 0.9 * analysis.original_image_macs
