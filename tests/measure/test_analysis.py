import json
from pathlib import Path
from typing import Any

import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from heads.hg_reference import naive_attention
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ovrs.config import ConfigError, get_cfg, load_config
from ovrs.engine import build_model
from ovrs.errors import UserError
from ovrs.heads.blocks.efficient import ClassFusion, ReducedAttention
from ovrs.heads.blocks.work import ATTENTION, GUIDANCE, NORMS, PADDING, UPSAMPLING
from ovrs.measure.analysis import analyze, count_parameters
from ovrs.measure.original_work import LAST_BLOCK, TEXT_END, TEXT_NORMS, original_extra
from ovrs.measure.stages import HEAD, PRIOR, REST, TEXT, VLM_IMAGE, example_records
from ovrs.vocabulary import TEMPLATE_SETS

# The tiny model of tests/conftest.py: widths of image tower, text tower, joint space, prior and cost maps.
W, V, C, D, HIDDEN = 32, 16, 16, 24, 32
CELLS, PRIOR_CELLS = 4 * 4, 8 * 8
PASSES = 5  # four windows and the global view
CONFIGS = Path(__file__).parents[2] / "configs"
HG_CONFIG = CONFIGS / "hg_rsovsseg" / "clip_vitl14_globe230k.yaml"


@pytest.fixture
def hg_cfg(tiny_cfg):
    """HG-RSOVSSeg on the tiny towers, their joint space made wide enough for two levels."""
    arch = Path(tiny_cfg.MODEL.VLM.ARCH)
    arch.write_text(json.dumps({**json.loads(arch.read_text(encoding="utf-8")), "embed_dim": 48}), encoding="utf-8")
    tiny_cfg.MODEL.PRIOR.NAME = ""
    tiny_cfg.MODEL.SEM_SEG_HEAD.NAME = "HGRSOVSSegHead"
    tiny_cfg.MODEL.HG_RSOVSSEG.GUIDANCE_CHANNELS = [32, 16]
    tiny_cfg.MODEL.HG_RSOVSSEG.KEY_CHANNELS = 24
    tiny_cfg.TEST.SLIDING_WINDOW.ENABLED = False
    return tiny_cfg


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
    assert analysis.original_extra[TEXT_NORMS] == 3 * 77 * (2 * 2 + 1) * 5 * V


def test_the_last_block_of_the_original_is_a_whole_one_with_projected_queries_and_keys(tiny_cfg):
    extra = analyze(tiny_cfg, 3).original_extra[LAST_BLOCK]
    original = (CELLS + 1) * ((3 + 3 + 8) * W**2 + W * C)  # all three into the block and out of it, the MLP
    assert extra == PASSES * (original - CELLS * ((1 + 1 + 8) * W**2 + W * C))


def test_upsampling_apart_costs_what_the_extra_says(hg_cfg):
    merged = analyze(hg_cfg, 3)
    hg_cfg.MODEL.HG_RSOVSSEG.MERGE_FIRST_LEVEL = False
    apart = analyze(hg_cfg, 3)
    assert merged.macs[HEAD] + merged.original_extra[UPSAMPLING] == apart.macs[HEAD]
    assert apart.original_extra[UPSAMPLING] == 0
    assert merged.original_macs() == apart.original_macs()


def test_guidance_of_each_class_is_not_repeated(hg_cfg):
    assert analyze(hg_cfg, 3).original_extra[GUIDANCE] == 0
    hg_cfg.MODEL.HG_RSOVSSEG.USE_TAM = False
    assert analyze(hg_cfg, 3).original_extra[GUIDANCE] == 2 * (64 * 32 * 32 * 9 + 256 * 16 * 16 * 9)


@torch.no_grad()
def macs_and_repetition(module: nn.Module, *inputs: Any) -> int:
    """What a module multiplies, with what it would by repeating its guidance."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        module(*inputs)
    return counter.get_total_flops() // 2 + module.extra_work(*inputs)[GUIDANCE]


@pytest.mark.parametrize("grid", [(4, 6), (5, 3)])
def test_repeating_the_guidance_makes_every_class_cost_as_much_as_one_alone(grid):
    module, width, guidance = ReducedAttention(16, 2), 16, torch.randn(2, *grid, 16)
    costs = [macs_and_repetition(module, torch.randn(2, t, *grid, width), guidance) for t in (1, 5)]
    assert costs[1] == 5 * costs[0]


@pytest.mark.parametrize("pooling", [1, 2])
def test_repeating_the_guidance_makes_every_position_cost_as_much_as_one_alone(pooling):
    module, guidance = ClassFusion(16, 2), torch.randn(5, 16)
    one = macs_and_repetition(module, torch.randn(1, 5, pooling, pooling, 16), guidance, pooling)
    many = macs_and_repetition(module, torch.randn(2, 5, 4, 6, 16), guidance, pooling)
    assert many == one * 2 * 24 // pooling**2


def test_text_attention_in_full_costs_what_the_extra_says(hg_cfg):
    model = build_model(hg_cfg)
    attention, classes = model.head.attention[0], 5
    image, text = torch.randn(1, 32, 6, 7), torch.randn(classes, 48)
    with original_extra(model, model.head, model.vlm) as extra, FlopCounterMode(display=False) as ours:
        attention.guidance(attention(image, text), slice(None))
    with FlopCounterMode(display=False) as naive:
        naive_attention(attention, image, text)
    weighting = classes * 32 * 6 * 7  # a product without a sum, which PyTorch does not count
    assert extra[ATTENTION] == (naive.get_total_flops() - ours.get_total_flops()) // 2 + weighting


def test_normalisation_is_counted_by_element(hg_cfg):
    classes, levels = 3, 64 * 32 + 256 * 16  # elements of the maps of one class
    image = 5 * W * (7 * (CELLS + 1) + 3 * CELLS)
    attention = 4 * (24 * (64 + 256) + classes * levels)
    decoder = 5 * 2 * classes * levels
    analysis = analyze(hg_cfg, classes)
    assert analysis.original_extra[NORMS] == image + attention + decoder
    extra = analysis.original_extra
    assert analysis.original_macs(norms=True) - analysis.original_macs() == extra[NORMS]
    text = analysis.macs[TEXT] + extra[TEXT_END]
    assert analysis.original_macs(text=True) - analysis.original_macs() == text
    everything = sum(analysis.macs.values()) + sum(extra.values())
    assert analysis.original_macs(text=True, norms=True) == everything


def test_counting_leaves_the_model_as_it_was(hg_cfg):
    model = build_model(hg_cfg)
    before = {name: (len(module._forward_hooks), set(vars(module))) for name, module in model.named_modules()}
    with original_extra(model, model.head, model.vlm):
        assert model.head.attention[0]._forward_hooks
    assert {n: (len(m._forward_hooks), set(vars(m))) for n, m in model.named_modules()} == before


class Scale(nn.Module):
    """A block that is made of nothing but its own parameters."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return x * self.factor


class Borrowing(nn.Module):
    """A block that multiplies by the weights of a layer that never runs."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def forward(self, x):
        return x * self.layer.weight[0, 0]


@pytest.mark.parametrize("block", [Scale, Borrowing])
def test_a_block_without_a_count_is_an_error_and_not_a_silent_zero(tiny_cfg, block):
    model = build_model(tiny_cfg, load_towers=False).eval()
    model.head.decoder.predictor = nn.Sequential(model.head.decoder.predictor, block())
    records = example_records(tiny_cfg, 1, (64, 64), 3)
    with (
        pytest.raises(UserError, match=rf"decoder\.predictor\.1 \({block.__name__}\).*extra_work"),
        torch.no_grad(),
        original_extra(model, model.head, model.vlm),
    ):
        model(records)


def test_a_normalisation_without_a_price_is_an_error(tiny_cfg):
    model = build_model(tiny_cfg, load_towers=False)
    model.head.decoder.stages[0].norm1 = nn.InstanceNorm2d(32)
    with (
        pytest.raises(UserError, match=r"head\.decoder\.stages\.0\.norm1 is a InstanceNorm2d"),
        original_extra(model, model.head, model.vlm),
    ):
        pass


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_has_fvcores_price(tiny_cfg, affine, training):
    model = build_model(tiny_cfg, load_towers=False).eval()
    norm = model.head.extra_norm = nn.BatchNorm2d(4, affine=affine).train(training)
    image = torch.randn(2, 4, 3, 5)
    with original_extra(model, model.head, model.vlm) as extra:
        norm(image)
    assert extra[NORMS] == FlopCountAnalysis(norm, image).total()


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONFIGS / "demo").glob("[a-z]*.yaml")))
def test_every_block_of_every_head_has_a_count(name):
    analysis = analyze(load_config(CONFIGS / "demo" / f"{name}.yaml"), 3, (128, 128))
    assert analysis.macs[HEAD] > 0


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
    assert analysis.original_macs() / 1e9 == pytest.approx(cached, rel=0.005)
    assert analysis.original_macs(text=True) / 1e9 == pytest.approx(with_text, rel=0.005)
    assert analysis.image_macs < 0.9 * analysis.original_macs()


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("side", "classes", "parameters", "giga"),
    [
        (224, 10, 433_429_697, 1035.60),  # the row in the paper's Table 1
        (512, 10, 434_494_657, 1518.65),
        (512, 5, 434_494_657, 998.85),
        (512, 6, 434_494_657, 1102.81),
    ],
)
def test_hg_rsovsseg_has_the_papers_size_and_cost(side, classes, parameters, giga):
    """Table 1 of the HG-RSOVSSeg paper (0.433 G, 1.036 T), and what fvcore counts in its code."""
    analysis = analyze(load_config(HG_CONFIG, ["MODEL.VLM.INPUT_SIZE", str(side)]), classes, (512, 512))
    logit_scale = 1  # the original drops it
    assert analysis.parameters["model"] == (parameters + logit_scale, 5_813_185)
    assert analysis.original_macs(text=True, norms=True) / 1e9 == pytest.approx(giga, abs=0.01)
    assert analysis.image_macs < analysis.original_macs()
