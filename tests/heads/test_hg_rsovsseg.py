"""The HG-RSOVSSeg head on random features."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from heads.head_inputs import choose_classes, choose_images, configured, filled, in_double, random_inputs, small
from heads.hg_reference import naive_head
from peak_memory import PeakMemory

from ovrs.errors import ConfigError
from ovrs.heads import HGRSOVSSegHead
from ovrs.heads.blocks.decoder import GuidedUpsampling
from ovrs.structures import TextFeatures, TowerFeatures, TowerRequest, TowerSpec

VLM = TowerSpec(width=24, depth=6, patch_size=16, input_size=96, joint_dim=48)  # 6 x 6 cells
VITL14 = TowerSpec(width=1024, depth=24, patch_size=14, input_size=512, joint_dim=768)
VITB16 = TowerSpec(width=768, depth=12, patch_size=16, input_size=512, joint_dim=512)


def small_head(vlm: TowerSpec = VLM, **options: object) -> HGRSOVSSegHead:
    return small(HGRSOVSSegHead, {"vlm": vlm}, **options)


def inputs_for(head: HGRSOVSSegHead, **options: object):
    return random_inputs(head, VLM, None, **options)


VARIANTS = {
    "full": {},
    "plain arithmetic": {"merge_first_level": False},
    "one level": {"guidance_channels": (32,)},
    "three levels": {"guidance_channels": (48, 32, 16), "vlm": TowerSpec(24, 6, 16, 96, 64)},
    "without TAM": {"use_tam": False},
    "without TAM and HGU": {"use_tam": False, "use_hgu": False},
    "similarity": {"aggregation": "similarity"},
    "cost": {"aggregation": "cost", "prompts": 3},
}


@pytest.fixture(params=VARIANTS, ids=str)
def variant(request) -> tuple[HGRSOVSSegHead, TowerSpec]:
    options = dict(VARIANTS[request.param])
    vlm = options.pop("vlm", VLM)
    return small_head(vlm, **options), vlm


@pytest.mark.parametrize("classes", [2, 7])
@pytest.mark.parametrize("grid", [(6, 6), (3, 5)])
def test_head_and_its_gradients_equal_the_naive_one(variant, classes, grid):
    head, vlm = variant
    head.double()
    inputs = in_double(random_inputs(head, vlm, None, classes=classes, prompts=3, grid=grid))
    actual, expected = head(*inputs), naive_head(head, *inputs)
    levels = len(head.decoder)
    assert actual.shape == (2, classes, grid[0] * 2**levels, grid[1] * 2**levels)
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)

    weights = torch.randn_like(actual)
    parameters = list(head.parameters())
    pairs = zip(
        torch.autograd.grad((actual * weights).sum(), parameters, allow_unused=True),
        torch.autograd.grad((expected * weights).sum(), parameters, allow_unused=True),
        strict=True,
    )
    scale = 0.0
    for one, other in pairs:
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)
            scale = max(scale, one.abs().max().item())
    assert scale > 0.1


def test_merged_upsampling_equals_the_plain_one_to_the_edges():
    plain = filled(GuidedUpsampling(48, 32, [16], 16)).double()
    merged = GuidedUpsampling(48, 32, [16], 16, merge=True).double()
    merged.load_state_dict(plain.state_dict())
    for grid in ((5, 7), (1, 1), (1, 4)):
        x = torch.randn(2, 3, 48, *grid, dtype=torch.float64)
        share = plain.guide([torch.randn(2, 3, 16, 2 * grid[0], 2 * grid[1], dtype=torch.float64)])
        torch.testing.assert_close(merged(x, share), plain(x, share), rtol=1e-10, atol=1e-10)


def test_logits_permute_with_classes(variant):
    head, vlm = variant
    features, text = random_inputs(head, vlm, None, classes=5, prompts=3)
    order = [3, 0, 4, 1, 2]
    with torch.no_grad():
        torch.testing.assert_close(
            head(features, choose_classes(text, order)), head(features, text)[:, order], rtol=1e-4, atol=1e-5
        )


def test_batch_equals_its_images_one_by_one(variant):
    head, vlm = variant
    inputs = random_inputs(head, vlm, None, images=3, prompts=3)
    with torch.no_grad():
        together = head(*inputs)
        for index in range(3):
            alone = head(*choose_images(inputs, index))
            torch.testing.assert_close(together[index : index + 1], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("chunk", [1, 4, 0])
def test_classes_in_chunks_give_the_same_logits(variant, chunk):
    head, vlm = variant
    inputs = random_inputs(head, vlm, None, classes=23, prompts=3)
    with torch.no_grad():
        head.class_chunk = 23
        together = head(*inputs)
        head.class_chunk = chunk
        passes = []
        head.aggregation.register_forward_hook(lambda module, args, output: passes.append(output.shape[1]))
        torch.testing.assert_close(head(*inputs), together, rtol=1e-5, atol=1e-5)
    assert sum(passes) == 23
    assert max(passes) == (chunk or 5)


def test_150_classes_at_512_need_less_than_twice_the_memory_of_10(monkeypatch):
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: nullcontext())  # it knows no meta device
    with torch.device("meta"):  # memory is counted, not taken
        head = configured(HGRSOVSSegHead, {"vlm": VITL14}).eval()

    def peak(classes: int) -> int:
        dense, *blocks = (torch.empty(1, width, 36, 36, device="meta") for width in (768, 1024, 1024))
        image = TowerFeatures(dense, dict(zip((7, 15), blocks, strict=True)))
        embeddings = torch.empty(classes, 14, 768, device="meta")
        text = TextFeatures(embeddings, torch.arange(classes, device="meta"), classes)
        with torch.no_grad(), PeakMemory() as memory:
            assert head({"vlm": image}, text).shape == (1, classes, 144, 144)
        return memory.peak

    of_ten, of_many = peak(10), peak(150)
    assert of_many < 2 * of_ten
    head.class_chunk = 150
    assert peak(150) > 5 * of_ten, "the measure must see what chunks save"


# ------------------------------------------------------------------ construction


@pytest.mark.parametrize(
    ("vlm", "options", "count"),
    [
        (VITL14, {}, 5_813_185),
        (VITL14, {"key_channels": 256}, 5_369_793),
        (VITL14, {"key_channels": 1024}, 6_699_969),
        (VITL14, {"guidance_channels": (64, 32)}, 4_392_801),
        (VITL14, {"guidance_channels": (256, 128)}, 9_182_337),
        (VITL14, {"guidance_channels": (256, 128, 64)}, 14_008_513),
        (VITB16, {}, 3_633_857),
    ],
)
def test_published_number_of_parameters(vlm, options, count):
    with torch.device("meta"):
        head = configured(HGRSOVSSegHead, {"vlm": vlm}, **options)
    assert sum(parameter.numel() for parameter in head.parameters()) == count


@pytest.mark.parametrize(
    ("vlm", "levels", "blocks"),
    [(VITL14, (128, 64), (7, 15)), (VITL14, (256, 128, 64), (5, 11, 17)), (VITB16, (128, 64), (3, 7))],
)
def test_guidance_is_spread_over_the_tower(vlm, levels, blocks):
    with torch.device("meta"):
        requests = configured(HGRSOVSSegHead, {"vlm": vlm}, guidance_channels=levels).requests()
    assert requests == {"vlm": TowerRequest(blocks, "token_residual")}


def test_the_deepest_block_guides_the_first_level():
    head = small_head(guidance_blocks=(1, 4))
    inputs, seen = inputs_for(head), []
    for module in head.guidance:
        module.register_forward_hook(lambda module, args, output: seen.append((args[0], output.shape[-1])))
    with torch.no_grad():
        head(*inputs)
    blocks = inputs[0]["vlm"].blocks
    assert seen[0][0] is blocks[4]
    assert seen[1][0] is blocks[1]
    assert [side for _, side in seen] == [12, 24]


def test_without_upsampling_no_blocks_are_asked_for():
    assert small_head(use_tam=False, use_hgu=False).requests()["vlm"].blocks == ()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"aggregation": "sum"}, "AGGREGATION must be one of product, similarity, cost, got 'sum'"),
        ({"use_hgu": False}, "USE_HGU off, turn USE_TAM off"),
        ({"guidance_channels": (32, 24)}, r"GUIDANCE_CHANNELS .*multiples of 16.*\[32, 24\]"),
        ({"guidance_channels": (16, 32)}, "shrink from level to level"),
        ({"guidance_channels": (48, 16)}, "below the joint width 48"),
        ({"guidance_channels": ()}, "GUIDANCE_CHANNELS"),
        ({"guidance_blocks": (3,)}, r"GUIDANCE_BLOCKS must name 2 blocks.*got \[3\]"),
        ({"guidance_blocks": (1, 5)}, "between 0 and 4"),
        ({"guidance_blocks": (4, 1)}, r"GUIDANCE_BLOCKS go from shallow to deep .*got \[4, 1\]"),
    ],
)
def test_options_that_do_not_fit_name_the_key(options, message):
    with pytest.raises(ConfigError, match=f"MODEL.HG_RSOVSSEG.*{message}"):
        small_head(**options)


def test_every_parameter_learns_but_the_biases_that_cannot(variant):
    head, vlm = variant
    head.train()
    logits = head(*random_inputs(head, vlm, None, prompts=3))
    F.cross_entropy(logits, torch.zeros_like(logits[:, 0], dtype=torch.long)).backward()
    dead = [n for n, p in head.named_parameters() if p.grad is None or p.grad.abs().max() < 1e-9]
    # Norms and the softmax over the classes remove these; the softmax removes the last bias too.
    removed = ("query.bias", "key.bias", "mix.bias", "predictor.bias")
    assert [name for name in dead if not name.endswith(removed)] == []


def test_dropout_takes_whole_channels_of_one_image_and_class_in_training_only():
    head = small_head(dropout=0.5)
    inputs = inputs_for(head, classes=4)
    kept = []
    head.dropout.register_forward_hook(lambda module, args, output: kept.append(output.flatten(2).ne(0).any(dim=2)))
    with torch.no_grad():
        torch.testing.assert_close(head(*inputs), head(*inputs))
        before = kept[-1]
        head.train()(*inputs)
    assert before.shape == (8, 16)
    assert 0.2 < kept[-1][before].float().mean() < 0.8
    assert len({tuple(row.tolist()) for row in kept[-1]}) > 1
