from __future__ import annotations

import copy
import json

import open_clip
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ovrs.backbones import OpenClipVLM, build_vlm
from ovrs.backbones.finetune import VLM_MODES, set_trainable
from ovrs.backbones.position_embedding import adapt_position_embedding
from ovrs.config import get_cfg
from ovrs.errors import ConfigError, VocabularyError, WeightsError
from ovrs.structures import TowerRequest

SENTENCES = ["A photo of a road in the scene", "sea", "a tree, seen from above, beside a low building."]
LAST = 3  # the tiny CLIP's last image block
DENSE = TowerRequest(dense="class_residual")


@pytest.fixture
def build(tiny_arch):
    """Build an open_clip model with unusual random weights and our tower of the same weights."""

    def build_pair(input_size: int = 32, **changes) -> tuple[nn.Module, OpenClipVLM]:
        config = json.loads(tiny_arch.read_text()) | changes
        custom = config.pop("custom_text", False)
        clip = (open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**config)
        for parameter in clip.parameters():  # biases are zero and norms one at birth, which hides errors
            nn.init.normal_(parameter, std=0.3)
        tokenizer = open_clip.SimpleTokenizer()
        return clip.eval(), OpenClipVLM(copy.deepcopy(clip), tokenizer, input_size)

    return build_pair


@pytest.fixture
def write_arch(tiny_cfg, tiny_arch):
    """Write changes of the tiny model configuration into its file and return the whole configuration."""

    def write(text: dict | None = None, **changes):
        config = json.loads(tiny_arch.read_text()) | changes
        if text is not None:
            config["text_cfg"] = text
        tiny_arch.write_text(json.dumps(config), encoding="utf-8")
        return tiny_cfg

    return write


def reference_dense(clip: nn.Module, image: torch.Tensor, residual: str) -> torch.Tensor:
    """The dense map from open_clip's own modules: value-only last block, final norm, projection."""
    visual = clip.visual
    entering = visual.forward_intermediates(image, indices=[LAST - 1], output_fmt="NLC", output_extra_tokens=True)
    patches, token = entering["image_intermediates"][0], entering["image_intermediates_prefix"][0]
    block = visual.transformer.resblocks[LAST]
    weight, bias = block.attn.in_proj_weight.chunk(3)[2], block.attn.in_proj_bias.chunk(3)[2]
    y = block.attn.out_proj(F.linear(block.ln_1(patches), weight, bias))
    y = y + (token if residual == "class_residual" else patches)
    y = visual.ln_post(y + block.mlp(block.ln_2(y))) @ visual.proj
    rows = image.shape[2] // 8
    return y.permute(0, 2, 1).unflatten(2, (rows, -1))


# ---------------------------------------------------------------------- image tower


@torch.no_grad()
def test_block_outputs_are_open_clips(build):
    clip, vlm = build()
    image = torch.randn(2, 3, 32, 32)
    found = vlm(image, TowerRequest((0, 2), "class_residual")).blocks
    expected = clip.visual.forward_intermediates(image, indices=[0, 2])["image_intermediates"]
    assert list(found) == [0, 2]
    for ours, theirs in zip(found.values(), expected, strict=True):
        assert ours.shape == (2, 32, 4, 4)
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("residual", ["class_residual", "token_residual"])
def test_dense_map_is_the_value_only_last_block_in_the_joint_space(build, residual):
    clip, vlm = build()
    image = torch.randn(2, 3, 32, 32)
    found = vlm(image, TowerRequest(dense=residual)).dense
    assert found.shape == (2, 16, 4, 4)
    torch.testing.assert_close(found, reference_dense(clip, image, residual), rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("size", [(24, 40), (48, 48), (8, 64)])
def test_other_sizes_use_resized_positions(build, size):
    clip, vlm = build(input_size=0)
    image = torch.randn(1, 3, *size)
    features = vlm(image, TowerRequest((1,), "class_residual"))
    grid = (size[0] // 8, size[1] // 8)
    table = adapt_position_embedding(clip.visual.positional_embedding, grid)
    clip.visual.positional_embedding = nn.Parameter(table)
    blocks = clip.visual.forward_intermediates(image, indices=[1])["image_intermediates"]
    torch.testing.assert_close(features.blocks[1], blocks[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(features.dense, reference_dense(clip, image, "class_residual"), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_pixels_beyond_the_last_whole_patch_are_not_seen(tiny_vlm):
    image = torch.randn(1, 3, 38, 33)
    whole = tiny_vlm(image, DENSE).dense
    assert torch.equal(whole, tiny_vlm(image[:, :, :32, :32], DENSE).dense)


@torch.no_grad()
@pytest.mark.parametrize(("residual", "unchanged"), [("class_residual", True), ("token_residual", False)])
def test_class_residual_ignores_what_the_norm_removes_from_patch_tokens(tiny_vlm, residual, unchanged):
    """The last block's first norm removes an offset and a positive factor that all channels of a token share."""
    request = TowerRequest(dense=residual)
    image = torch.randn(1, 3, 32, 32)
    before = tiny_vlm(image, request).dense

    def disturb_patches(module, inputs, output):
        factors, offsets = torch.rand(1, 16, 1) * 3 + 1, torch.randn(1, 16, 1)
        return torch.cat([output[:, :1], output[:, 1:] * factors + offsets], dim=1)

    tiny_vlm.clip.visual.transformer.resblocks[LAST - 1].register_forward_hook(disturb_patches)
    after = tiny_vlm(image, request).dense
    assert torch.allclose(after, before, atol=1e-3) == unchanged


def test_last_query_has_no_gradient_and_the_value_has(tiny_vlm):
    tiny_vlm(torch.randn(1, 3, 32, 32), DENSE).dense.std().backward()
    blocks = tiny_vlm.clip.visual.transformer.resblocks
    assert blocks[LAST].attn.q_proj_weight.grad is None
    assert blocks[LAST].attn.v_proj_weight.grad.abs().max() > 0
    assert blocks[0].attn.q_proj_weight.grad.abs().max() > 0


@torch.no_grad()
def test_image_of_a_batch_is_encoded_as_alone(tiny_vlm):
    images = torch.randn(3, 3, 32, 32)
    request = TowerRequest((1,), "class_residual")
    batch = tiny_vlm(images, request)
    for index in range(3):
        alone = tiny_vlm(images[index : index + 1], request)
        torch.testing.assert_close(batch.dense[index], alone.dense[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(batch.blocks[1][index], alone.blocks[1][0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("block", [LAST + 1, 7, -1])
def test_block_that_does_not_exist_is_refused(tiny_vlm, block):
    with pytest.raises(ConfigError, match=rf"blocks \[{block}\] of OpenClipVLM asked for; a tower of 4 has 0\.\.3"):
        tiny_vlm(torch.randn(1, 3, 32, 32), TowerRequest((block,), "class_residual"))


def test_dense_form_of_another_family_is_refused(tiny_vlm):
    with pytest.raises(ConfigError, match=r"TowerRequest\.dense of OpenClipVLM must be one of .*, got 'final_norm'"):
        tiny_vlm(torch.randn(1, 3, 32, 32), TowerRequest(dense="final_norm"))


# ---------------------------------------------------------------------- class token and last block


@torch.no_grad()
def test_token_is_open_clips_image_embedding(build):
    clip, vlm = build()
    image = torch.randn(2, 3, 32, 32)
    features = vlm(image, TowerRequest(dense="none", token=True))
    assert features.dense is None
    torch.testing.assert_close(features.token, clip.encode_image(image), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_token_and_last_block_change_nothing_else(build):
    _, vlm = build()
    image = torch.randn(2, 3, 32, 32)
    alone = vlm(image, TowerRequest((1,), "token_residual"))
    together = vlm(image, TowerRequest((1, LAST), "token_residual", token=True, last_block=True))
    assert torch.equal(together.dense, alone.dense)
    assert torch.equal(together.blocks[1], alone.blocks[1])


@torch.no_grad()
def test_block_output_of_the_last_block_is_the_plain_blocks(build):
    clip, vlm = build()
    image = torch.randn(2, 3, 32, 32)
    found = vlm(image, TowerRequest((LAST,), "none")).blocks[LAST]
    expected = clip.visual.forward_intermediates(image, indices=[LAST])["image_intermediates"][0]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(
    ("wanted", "count"),
    [
        (TowerRequest((1, 0), "none"), 2),
        (TowerRequest(dense="none"), 0),
        (TowerRequest(dense="none", last_block=True), 3),
        (TowerRequest((0,), "class_residual"), 3),
        (TowerRequest(dense="none", token=True), 4),
    ],
    ids=["blocks", "nothing", "last block", "dense", "token"],
)
def test_blocks_behind_what_is_wanted_are_not_run(tiny_vlm, wanted, count):
    ran = []
    for index, block in enumerate(tiny_vlm.visual.transformer.resblocks):
        block.register_forward_hook(lambda *_, index=index: ran.append(index))
    tiny_vlm(torch.randn(1, 3, 32, 32), wanted)
    assert ran == list(range(count))


def last_block_of(vlm, image):
    return vlm(image, TowerRequest(dense="none", last_block=True)).last_block


@torch.no_grad()
def test_last_block_with_its_own_attention_is_the_plain_block(build):
    """softmax(q k') v, closed with residuals and MLP: the block as CLIP has it, patches and class token."""
    _, vlm = build(input_size=0)
    image = torch.randn(2, 3, 32, 48)
    plain = vlm(image, TowerRequest((LAST,), "none", token=True))
    block = last_block_of(vlm, image)
    q, k, v = block.qkv()
    assert q.shape == k.shape == v.shape == (2, 2, 1 + 4 * 6, 16)
    tokens = block.close((q @ k.mT / 16**0.5).softmax(dim=-1) @ v, residual=True)
    patches = tokens[:, 1:].transpose(1, 2).unflatten(2, block.grid)
    torch.testing.assert_close(patches, plain.blocks[LAST], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(block.joint(tokens[:, 0]), plain.token, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_last_block_with_every_token_to_itself_is_the_dense_map(build):
    """MaskCLIP: identity attention; closed with residuals and MLP it is the tower's own dense map."""
    clip, vlm = build()
    image = torch.randn(2, 3, 32, 32)
    block = last_block_of(vlm, image)
    values = block.qkv()[2]
    found = block.joint(block.close(values, residual=True))[:, 1:].transpose(1, 2).unflatten(2, block.grid)
    torch.testing.assert_close(found, reference_dense(clip, image, "token_residual"), rtol=1e-4, atol=1e-5)

    bare = block.joint(block.close(values[:, :, 1:])).transpose(1, 2).unflatten(2, block.grid)
    module = clip.visual.transformer.resblocks[LAST]
    weight, bias = module.attn.in_proj_weight.chunk(3)[2], module.attn.in_proj_bias.chunk(3)[2]
    expected = module.attn.out_proj(F.linear(module.ln_1(block.input[:, 1:]), weight, bias))
    expected = (clip.visual.ln_post(expected) @ clip.visual.proj).transpose(1, 2).unflatten(2, block.grid)
    torch.testing.assert_close(bare, expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_last_block_follows_what_happens_to_features(tiny_vlm):
    features = tiny_vlm(torch.randn(3, 3, 32, 32), TowerRequest((0,), "class_residual", token=True, last_block=True))
    part = features.map(lambda tensor: tensor[1:])
    assert torch.equal(part.last_block.input, features.last_block.input[1:])
    assert all(torch.equal(a, b[1:]) for a, b in zip(part.last_block.qkv(), features.last_block.qkv(), strict=True))
    assert torch.equal(part.dense, features.dense[1:])
    assert torch.equal(part.token, features.token[1:])
    assert torch.equal(part.blocks[0], features.blocks[0][1:])


def test_spec_tells_the_shape_of_the_tower(tiny_vlm):
    spec = tiny_vlm.spec
    assert (spec.width, spec.depth, spec.patch_size, spec.input_size, spec.joint_dim) == (32, 4, 8, 32, 16)


def test_every_parameter_belongs_to_one_of_the_towers(tiny_vlm):
    image, text = tiny_vlm.image_parameters(), tiny_vlm.text_parameters()
    assert {id(p) for p in image} | {id(p) for p in text} == {id(p) for p in tiny_vlm.parameters()}
    assert not {id(p) for p in image} & {id(p) for p in text}
    assert any(p is tiny_vlm.clip.visual.proj for p in image)
    assert any(p is tiny_vlm.clip.text_projection for p in text)


@torch.no_grad()
def test_adapted_positions_see_what_resized_ones_see(tiny_cfg):
    """PEA once, when the model is built, or in every pass."""
    tiny_cfg.MODEL.VLM.INPUT_SIZE = 48
    image = torch.randn(1, 3, 48, 48)
    tables, maps = {}, {}
    for rule in ("runtime", "adapted"):
        tiny_cfg.MODEL.VLM.POSITION_EMBEDDING = rule
        torch.manual_seed(1)
        vlm = build_vlm(tiny_cfg)
        tables[rule] = vlm.clip.visual.positional_embedding.shape
        maps[rule] = vlm(image, DENSE).dense
    assert tables == {"runtime": (1 + 4 * 4, 32), "adapted": (1 + 6 * 6, 32)}
    torch.testing.assert_close(maps["adapted"], maps["runtime"])


@pytest.mark.parametrize(
    ("rule", "size", "reason"),
    [
        ("adapted", 0, "needs one input size; set MODEL.VLM.INPUT_SIZE"),
        ("load", 32, "must be one of runtime, runtime_dino, adapted, got 'load'"),
    ],
)
def test_position_rule_that_cannot_be_followed_is_refused(tiny_cfg, rule, size, reason):
    tiny_cfg.MODEL.VLM.POSITION_EMBEDDING = rule
    tiny_cfg.MODEL.VLM.INPUT_SIZE = size
    with pytest.raises(ConfigError, match=f"MODEL.VLM.POSITION_EMBEDDING .*{reason}"):
        build_vlm(tiny_cfg)


# ---------------------------------------------------------------------- text tower


@torch.no_grad()
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"custom_text": True},
        {"quick_gelu": False},
        {"text_cfg": {"layers": 2, "width": 16, "heads": 2, "proj_bias": True}},
        {"text_cfg": {"layers": 2, "width": 16, "heads": 2, "pool_type": "last"}},
        {"text_cfg": {"layers": 2, "width": 16, "heads": 2, "pool_type": "last", "no_causal_mask": True}},
    ],
    ids=["plain", "custom text tower", "exact GELU", "projection with bias", "last-position pooling", "no causal mask"],
)
def test_text_embeddings_are_open_clips(build, changes):
    clip, vlm = build(**changes)
    expected = clip.encode_text(open_clip.tokenize(SENTENCES))
    found = vlm.encode_text(SENTENCES)
    assert found.shape == (3, 16)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert (found[0] - found[1]).abs().max() > 1e-2


@torch.no_grad()
def test_sentence_is_encoded_as_alone(tiny_vlm):
    together = tiny_vlm.encode_text(SENTENCES)
    alone = torch.cat([tiny_vlm.encode_text([sentence]) for sentence in SENTENCES])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("word", "token"), [("road", 1759), ("tree", 2677), ("Background", 5994)])
def test_tokens_are_clips(tiny_vlm, word, token):
    ids = tiny_vlm.tokenizer([f"A photo of a {word} in the scene"])
    assert ids.shape == (1, 77)
    assert ids[0, :10].tolist() == [49406, 320, 1125, 539, 320, token, 530, 518, 3562, 49407]
    assert not ids[0, 10:].any()


def test_sentence_beyond_the_context_is_refused_not_cut(tiny_vlm):
    fits = "road " * 75
    assert tiny_vlm.tokenizer([fits])[0, 76] == 49407
    with pytest.raises(VocabularyError, match="has 78 tokens, the text tower reads 77; shorten it"):
        tiny_vlm.encode_text(["sea", fits + "road"])


# ---------------------------------------------------------------------- building


def test_random_weights_take_the_activation_of_the_architecture(write_arch):
    for quick in (True, False):
        vlm = build_vlm(write_arch(quick_gelu=quick))
        activations = {type(module).__name__ for name, module in vlm.named_modules() if name.endswith(".mlp.gelu")}
        assert activations == ({"QuickGELU"} if quick else {"GELU"})


def test_configured_activation_overrules_the_architecture(write_arch):
    cfg = write_arch(quick_gelu=False)
    cfg.MODEL.VLM.ACTIVATION = "quick_gelu"
    assert isinstance(build_vlm(cfg).clip.visual.transformer.resblocks[0].mlp.gelu, open_clip.transformer.QuickGELU)


def test_unknown_model_says_how_to_list_them(tiny_cfg):
    tiny_cfg.MODEL.VLM.ARCH = "ViT-B-17"
    with pytest.raises(WeightsError, match=r"MODEL.VLM.ARCH: open_clip knows no model 'ViT-B-17'.*list_models"):
        build_vlm(tiny_cfg)


def test_missing_model_file_is_named(tiny_cfg):
    tiny_cfg.MODEL.VLM.ARCH = "my models/absent.json"
    with pytest.raises(WeightsError, match=r"model config my models/absent.json does not exist"):
        build_vlm(tiny_cfg)


def test_damaged_model_file_is_named(tiny_cfg, tiny_arch):
    tiny_arch.write_text('{"embed_dim": 16,')
    with pytest.raises(WeightsError, match=r"tiny_clip.json is not valid JSON"):
        build_vlm(tiny_cfg)


def test_model_file_without_a_text_tower_is_refused(tiny_cfg, tiny_arch):
    tiny_arch.write_text('{"embed_dim": 16, "vision_cfg": {}}')
    with pytest.raises(WeightsError, match="is not a two-tower CLIP model: it lacks text_cfg"):
        build_vlm(tiny_cfg)


def test_captioning_model_is_refused(tiny_cfg):
    tiny_cfg.MODEL.VLM.ARCH = "coca_ViT-B-32"
    with pytest.raises(WeightsError, match=r"'coca_ViT-B-32' is not a two-tower CLIP model: .*\(CoCa\)"):
        build_vlm(tiny_cfg)


@pytest.mark.parametrize(
    "vision",
    [
        {"image_size": 32, "layers": [1, 1, 1, 1], "width": 16, "patch_size": None},
        {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8, "attentional_pool": True},
        {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8, "qk_norm": True},
    ],
    ids=["ResNet", "attention pooling", "other blocks"],
)
def test_image_tower_without_a_dense_form_is_refused(write_arch, vision):
    with pytest.raises(WeightsError, match="is not a plain ViT with a class token and a projection"):
        build_vlm(write_arch(vision_cfg=vision))


@torch.no_grad()
def test_published_sizes():
    """Counted in the original GSNet; built without memory."""
    with torch.device("meta"):
        vlm = build_vlm(get_cfg(), load_weights=False)
    assert sum(p.numel() for p in vlm.parameters()) == 149_620_737
    trained = [p for p in vlm.parameters() if p.requires_grad]
    assert (len(trained), sum(p.numel() for p in trained)) == (48, 20_447_232)


@pytest.mark.parametrize("mode", ["attention", "all"])
def test_recomputing_blocks_changes_no_gradient(tiny_vlm, mode):
    set_trainable(tiny_vlm.clip.named_parameters(), mode, VLM_MODES, "MODE")
    image = torch.randn(2, 3, 64, 64)
    parameters = [parameter for parameter in tiny_vlm.image_parameters() if parameter.requires_grad]
    gradients, kept = {}, {}
    for recompute in (False, True):
        tiny_vlm.recompute = recompute
        saved: list[int] = []

        def keep(tensor, saved=saved):
            saved.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            features = tiny_vlm(image, TowerRequest((0, 1), "class_residual"))
            loss = features.dense.square().mean() + features.blocks[1].square().mean()
        kept[recompute] = sum(saved)
        gradients[recompute] = torch.autograd.grad(loss, parameters, allow_unused=True)
    assert kept[True] < kept[False]
    for plain, again in zip(gradients[False], gradients[True], strict=True):
        assert (plain is None) == (again is None)
        assert plain is None or torch.equal(plain, again)


@torch.inference_mode()
def test_earlier_attention_and_pixels_are_handed_out(tiny_vlm):
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = tiny_vlm(images, TowerRequest(blocks=(0,), dense="none", attention=(1,), pixels=True))
    assert torch.equal(found.pixels, images)
    block = tiny_vlm.visual.transformer.resblocks[1]
    whole = tiny_vlm(images, TowerRequest(dense="none", last_block=True, attention=(1,)))
    q, k = found.attention[1]
    assert q.shape == k.shape == (2, 2, 17, 16)
    torch.testing.assert_close(whole.attention[1][0], q)
    patches = found.blocks[0].flatten(2).transpose(1, 2)  # the class token comes first, and is left out here
    expected = block.attn.qkv(block.ln_1(patches))
    torch.testing.assert_close(q[:, :, 1:], expected[0])
    torch.testing.assert_close(k[:, :, 1:], expected[1])
