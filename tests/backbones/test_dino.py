from __future__ import annotations

import pytest
import timm
import torch
import torch.nn.functional as F

from ovrs.backbones import DinoPrior, Dinov3Prior, XcitPrior, build_towers
from ovrs.config import get_cfg
from ovrs.errors import ConfigError, WeightsError
from ovrs.structures import TowerRequest

TINY_DINOV3 = ["depth", 3, "embed_dim", 32, "num_heads", 2, "img_size", 32]


@pytest.fixture
def tiny_dinov3(tiny_cfg):
    tiny_cfg.MODEL.PRIOR.NAME = "Dinov3Prior"
    tiny_cfg.MODEL.PRIOR.ARCH = "vit_small_patch16_dinov3"
    tiny_cfg.MODEL.PRIOR.ARCH_OPTIONS = list(TINY_DINOV3)
    return Dinov3Prior(tiny_cfg)


@pytest.fixture
def tiny_xcit(tiny_cfg):
    tiny_cfg.MODEL.PRIOR.NAME = "XcitPrior"
    tiny_cfg.MODEL.PRIOR.ARCH = "xcit_nano_12_p8_224"
    tiny_cfg.MODEL.PRIOR.ARCH_OPTIONS = ["depth", 3, "embed_dim", 32, "num_heads", 2]
    return XcitPrior(tiny_cfg).eval()


@pytest.fixture(params=["tiny_prior", "tiny_dinov3", "tiny_xcit"])
def prior(request):
    return fill(request.getfixturevalue(request.param))


@pytest.fixture(params=["tiny_prior", "tiny_dinov3"])
def plain_vit(request):
    return fill(request.getfixturevalue(request.param))


def fill(prior):
    """Give every tensor a say: at birth biases are zero, norms one and layer scales nearly zero."""
    for parameter in prior.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return prior


def as_map(tokens: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    return tokens.transpose(1, 2).reshape(len(tokens), -1, rows, columns)


# ---------------------------------------------------------------------- features


@torch.no_grad()
def test_dense_map_is_timms_own_forward_at_the_native_size(plain_vit):
    image = torch.randn(2, 3, 32, 32)
    cells = 32 // plain_vit.spec.patch_size
    tokens = plain_vit.vit.forward_features(image)[:, plain_vit.vit.num_prefix_tokens :]
    found = plain_vit(image, TowerRequest()).dense
    torch.testing.assert_close(found, as_map(tokens, cells, cells), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_block_outputs_are_normalised_by_the_final_norm(prior):
    image = torch.randn(1, 3, 32, 32)
    expected = prior.vit.forward_intermediates(image, indices=[0, 1], norm=True, intermediates_only=True)
    features = prior(image, TowerRequest((1, 0)))
    assert set(features.blocks) == {0, 1}
    for index in (0, 1):
        torch.testing.assert_close(features.blocks[index], expected[index], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(features.blocks[0], features.blocks[1], atol=0.01)


@torch.no_grad()
def test_last_block_may_be_asked_for_too(prior):
    last = prior.spec.depth - 1
    features = prior(torch.randn(1, 3, 32, 32), TowerRequest((last,)))
    assert torch.equal(features.blocks[last], features.dense)


@torch.no_grad()
def test_dino_resizes_positions_by_its_own_rule(tiny_prior):
    """A timm model made for the larger size, with a table enlarged by the literal rule, is the reference."""
    rows, columns = 10, 16
    fill(tiny_prior)
    vit = timm.create_model(
        "vit_tiny_patch16_224",
        num_classes=0,
        patch_size=4,
        depth=4,
        embed_dim=24,
        num_heads=2,
        img_size=(rows * 4, columns * 4),
    ).eval()
    state = tiny_prior.vit.state_dict()
    table = as_map(state["pos_embed"][:, 1:], 8, 8)
    factor = ((rows + 0.1) / 8, (columns + 0.1) / 8)
    table = F.interpolate(table, scale_factor=factor, mode="bicubic").flatten(2).transpose(1, 2)
    state["pos_embed"] = torch.cat([state["pos_embed"][:, :1], table], dim=1)
    vit.load_state_dict(state)

    image = torch.randn(1, 3, rows * 4, columns * 4)
    found = tiny_prior(image, TowerRequest()).dense
    torch.testing.assert_close(found, as_map(vit.forward_features(image)[:, 1:], rows, columns), rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("size", [(32, 64), (48, 16)])
def test_rectangles_keep_their_shape(prior, size):
    features = prior(torch.randn(1, 3, *size), TowerRequest((0,)))
    grid = tuple(side // prior.spec.patch_size for side in size)
    assert features.dense.shape == (1, prior.spec.width, *grid)
    assert features.blocks[0].shape == features.dense.shape


@torch.no_grad()
def test_image_of_a_batch_is_seen_as_alone(prior):
    images = torch.randn(3, 3, 32, 32)
    batch = prior(images, TowerRequest()).dense
    alone = torch.cat([prior(image[None], TowerRequest()).dense for image in images])
    torch.testing.assert_close(batch, alone, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_blocks_after_the_last_wanted_one_are_not_run(prior):
    ran = []
    for index, block in enumerate(prior.vit.blocks):
        block.register_forward_hook(lambda *_, index=index: ran.append(index))
    image = torch.randn(1, 3, 32, 32)
    features = prior(image, TowerRequest((1, 0), "none"))
    assert ran == [0, 1]
    assert set(features.blocks) == {0, 1}
    assert features.dense is features.token is None
    ran.clear()
    assert prior(image, TowerRequest(dense="none")).blocks == {}
    assert not ran
    prior(image, TowerRequest((0,)))
    assert ran == list(range(prior.spec.depth))


@pytest.mark.parametrize("block", [-1, 4])
def test_block_that_does_not_exist_is_refused(tiny_prior, block):
    with pytest.raises(ConfigError, match=rf"blocks \[{block}\] of DinoPrior asked for; a tower of 4 has 0\.\.3"):
        tiny_prior(torch.randn(1, 3, 32, 32), TowerRequest((block,)))


@torch.no_grad()
def test_token_is_the_class_token_after_the_final_norm(prior):
    image = torch.randn(2, 3, 32, 32)
    features = prior(image, TowerRequest(token=True))
    assert features.token.shape == (2, prior.spec.width)
    torch.testing.assert_close(features.token, prior.vit.forward_features(image)[:, 0], rtol=1e-5, atol=1e-5)
    assert torch.equal(prior(image, TowerRequest(dense="none", token=True)).token, features.token)


@torch.no_grad()
def test_tokens_of_xcit_cost_nothing_where_nobody_asks(tiny_xcit):
    ran = []
    for block in tiny_xcit.vit.cls_attn_blocks:
        block.register_forward_hook(lambda *_: ran.append(1))
    image = torch.randn(1, 3, 32, 32)
    assert tiny_xcit(image, TowerRequest((0,))).token is None
    assert not ran
    tiny_xcit(image, TowerRequest((0,), token=True))
    assert ran


@torch.no_grad()
def test_quarter_turns_are_those_of_turned_images(prior):
    image = torch.randn(2, 3, 32, 32)
    features = prior(image, TowerRequest((0,), token=True, rotations=True))
    straight = prior(image, TowerRequest((0,), token=True))
    for turn in range(4):
        turned = prior(image.rot90(turn, (2, 3)), TowerRequest()).dense.rot90(-turn, (2, 3))
        torch.testing.assert_close(features.rotated[:, turn], turned, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(features.token, straight.token, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(features.blocks[0], straight.blocks[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (TowerRequest(dense="class_residual"), r"dense of DinoPrior must be one of final_norm, none, got 'class_res"),
        (TowerRequest(last_block=True), "DinoPrior does not hand out its last block"),
    ],
    ids=["form", "last block"],
)
def test_what_only_clip_has_is_refused(tiny_prior, wanted, message):
    with pytest.raises(ConfigError, match=message):
        tiny_prior(torch.randn(1, 3, 32, 32), wanted)


def test_spec_tells_the_shape_of_the_tower(tiny_prior, tiny_dinov3):
    spec = tiny_prior.spec
    assert (spec.width, spec.depth, spec.patch_size, spec.input_size, spec.joint_dim) == (24, 4, 4, 32, 0)
    spec = tiny_dinov3.spec
    assert (spec.width, spec.depth, spec.patch_size) == (32, 3, 16)


# ---------------------------------------------------------------------- frozen or trained


def with_drop_path(cfg, mode: str):
    cfg.MODEL.PRIOR.ARCH_OPTIONS += ["drop_path_rate", 0.9]
    cfg.MODEL.PRIOR.FINETUNE = mode
    return DinoPrior(cfg)


def test_frozen_prior_stays_in_evaluation_mode(tiny_cfg):
    prior = with_drop_path(tiny_cfg, "frozen")
    assert not prior.training
    holder = torch.nn.ModuleList([prior]).train()
    assert holder.training
    assert not any(module.training for module in prior.modules())
    image = torch.randn(8, 3, 32, 32)
    assert torch.equal(prior(image, TowerRequest()).dense, prior(image, TowerRequest()).dense)


def test_trained_prior_follows_its_model(tiny_cfg):
    prior = with_drop_path(tiny_cfg, "full")
    image = torch.randn(8, 3, 32, 32)
    assert prior.train().training
    assert not torch.equal(prior(image, TowerRequest()).dense, prior(image, TowerRequest()).dense)
    prior.eval()
    assert torch.equal(prior(image, TowerRequest()).dense, prior(image, TowerRequest()).dense)


def test_gradient_reaches_a_trained_prior(tiny_cfg):
    tiny_cfg.MODEL.PRIOR.FINETUNE = "attention"
    prior = DinoPrior(tiny_cfg)
    prior(torch.randn(1, 3, 32, 32), TowerRequest()).dense.pow(3).sum().backward()
    for name, parameter in prior.vit.named_parameters():
        reached = parameter.grad is not None and bool(parameter.grad.abs().max() > 0)
        assert reached == (name == "pos_embed" or name.endswith("attn.qkv.weight")), name


# ---------------------------------------------------------------------- building


def test_empty_name_is_no_prior(tiny_cfg):
    tiny_cfg.MODEL.PRIOR.NAME = ""
    assert set(build_towers(tiny_cfg)) == {"vlm"}


@pytest.mark.parametrize(("key", "near"), [("PRIOR", "DinoPrior"), ("VLM", "OpenClipVLM")])
def test_unknown_tower_names_the_nearest(tiny_cfg, key, near):
    tiny_cfg.MODEL[key].NAME = near[:-1]
    with pytest.raises(ConfigError, match=rf"MODEL\.{key}\.NAME must be one of .*Did you mean '{near}'"):
        build_towers(tiny_cfg)


def test_unknown_arch_lists_the_known(tiny_cfg):
    tiny_cfg.MODEL.PRIOR.ARCH = "vit_base_patch8_225.dino"
    with pytest.raises(
        WeightsError, match=r"timm knows no model 'vit_base_patch8_225.dino'.*vit_base_patch8_224\.dino"
    ):
        build_towers(tiny_cfg)


@pytest.mark.parametrize(
    ("name", "arch"),
    [
        ("DinoPrior", "vit_small_patch16_dinov3"),
        ("Dinov3Prior", "vit_tiny_patch16_224"),
        ("DinoPrior", "vit_small_patch14_reg4_dinov2"),
        ("XcitPrior", "vit_tiny_patch16_224"),
        ("DinoPrior", "xcit_nano_12_p8_224"),
    ],
    ids=["DINOv3 for DINO", "DINO for DINOv3", "register tokens", "DINO for XCiT", "XCiT for DINO"],
)
def test_tower_of_another_family_is_refused(tiny_cfg, name, arch):
    tiny_cfg.MODEL.PRIOR.NAME = name
    tiny_cfg.MODEL.PRIOR.ARCH = arch
    tiny_cfg.MODEL.PRIOR.ARCH_OPTIONS = ["depth", 1, "embed_dim", 32, "num_heads", 2]
    with pytest.raises(WeightsError, match=f"'{arch}' is a timm .* that MODEL.PRIOR.NAME '{name}' does not run"):
        build_towers(tiny_cfg)


@pytest.mark.parametrize("options", [["global_pool", "avg"], ["class_token", False, "global_pool", "avg"]])
def test_vit_without_class_token_or_final_norm_is_refused(tiny_cfg, options):
    tiny_cfg.MODEL.PRIOR.ARCH_OPTIONS += options
    with pytest.raises(WeightsError, match="DinoPrior runs plain ViTs with one class token"):
        build_towers(tiny_cfg)


def test_half_an_option_is_refused(tiny_cfg):
    tiny_cfg.MODEL.PRIOR.ARCH_OPTIONS = ["depth"]
    with pytest.raises(WeightsError, match=r"ARCH_OPTIONS must alternate keyword and value, got \['depth'\]"):
        build_towers(tiny_cfg)


@pytest.mark.parametrize(
    ("arch", "options"),
    [("vit_tiny_patch16_224", ["width", 8]), ("resnet18", []), ("vit_tiny_patch16_224.wrong_tag", [])],
)
def test_tower_that_timm_cannot_build_names_both_keys(tiny_cfg, arch, options):
    tiny_cfg.MODEL.PRIOR.ARCH = arch
    tiny_cfg.MODEL.PRIOR.ARCH_OPTIONS = options
    with pytest.raises(WeightsError, match=f"cannot build MODEL.PRIOR.ARCH '{arch}' with MODEL.PRIOR.ARCH_OPTIONS"):
        build_towers(tiny_cfg)


def test_published_sizes():
    """Counted in the original GSNet; built without memory."""
    cfg = get_cfg()
    with torch.device("meta"):
        prior = build_towers(cfg, load_weights=False)["prior"]
    assert sum(p.numel() for p in prior.parameters()) == 85_807_872
    assert not any(p.requires_grad for p in prior.parameters())

    cfg.MODEL.PRIOR.NAME = "Dinov3Prior"
    cfg.MODEL.PRIOR.ARCH = "vit_large_patch16_dinov3.sat493m"
    with torch.device("meta"):
        prior = build_towers(cfg, load_weights=False)["prior"]
    assert isinstance(prior, Dinov3Prior)
    assert (prior.spec.width, prior.spec.depth, prior.spec.patch_size) == (1024, 24, 16)
