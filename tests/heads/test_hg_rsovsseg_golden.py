"""HG-RSOVSSeg against the original implementation: its decoder on random features, and the whole model."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden import fill
from head_inputs import Inputs, configured
from torch import Tensor

from ovrs.backbones.position_embedding import adapt_position_embedding
from ovrs.config import load_config
from ovrs.heads import HGRSOVSSegHead
from ovrs.losses import CrossEntropy
from ovrs.segmenter import OpenVocabSegmenter
from ovrs.structures import TextFeatures, TowerFeatures, TowerSpec
from ovrs.zoo import LAYOUTS, from_any_layout
from ovrs.zoo.state_dict import load_strictly

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "hg_rsovsseg_vitl14"
VITL14 = TowerSpec(width=1024, depth=24, patch_size=14, input_size=512, joint_dim=768)
POTSDAM = ("impervious surface", "building", "low vegetation", "tree", "car")

# Mean, root mean square, first entry and entry numel // 2 + 5 of what the original computes in float64.
STAGES = {
    "t": ((2, 3, 768), -1.12813e-3, 3.608439e-2, 1.080612e-2, -1.858981e-2),
    "e1": ((2, 128, 12, 12), -2.41414e-4, 1.421809, -8.426848e-1, -5.493185e-1),
    "e2": ((2, 64, 24, 24), -1.990275e-3, 9.952722e-1, 3.019283e-1, 4.564936e-1),
    "fa": ((2, 3, 768, 6, 6), -2.09927e-6, 1.305150e-3, -2.278223e-4, 1.907920e-4),
    "hg1": ((6, 128, 12, 12), 1.876113e-1, 5.660299e-1, -7.438591e-2, -9.578251e-2),
    "hd1": ((6, 128, 12, 12), 3.831717e-1, 7.062643e-1, 7.459096e-1, 1.499540e-1),
    "hg2": ((6, 64, 24, 24), 9.269951e-2, 3.343773e-1, 7.510023e-2, -2.918018e-3),
    "hd2": ((6, 64, 24, 24), 3.807792e-1, 6.750837e-1, 0.0, 4.411812e-1),
    "logits": ((2, 3, 24, 24), 9.516391e-2, 4.735026e-1, 3.171830e-1, 6.410171e-1),
}


def manifest() -> dict[str, list[int]]:
    return json.loads(GOLDEN.with_name(GOLDEN.name + "_manifest.json").read_text())


def official_weights(prefixes: tuple[str, ...] = ("",)) -> dict[str, Tensor]:
    shapes = {name: shape for name, shape in manifest().items() if name.startswith(prefixes)}
    return {name: torch.from_numpy(value) for name, value in fill.filled_state_dict(shapes).items()}


def record_stages(head: HGRSOVSSegHead) -> dict[str, Tensor]:
    """Collect the stages of the next passes, with images and classes in one axis where the original has them so."""
    stages: dict[str, Tensor] = {}

    def keep(name: str, flat: bool = True):
        def hook(module, args, output):
            stages[name] = output.flatten(0, 1) if flat else output

        return hook

    head.aggregation.register_forward_hook(keep("fa", flat=False))
    for level in range(2):
        head.guidance[level].register_forward_hook(keep(f"e{level + 1}", flat=False))
        head.decoder[level].register_forward_hook(keep(f"hd{level + 1}"))
        attention, guidance = head.attention[level], head.attention[level].guidance

        def spy(attended, classes, name=f"hg{level + 1}", guidance=guidance):
            stages[name] = guidance(attended, classes).flatten(0, 1)
            return stages[name].unflatten(0, attended.weights[:, classes].shape[:2])

        attention.guidance = spy
    return stages


# ------------------------------------------------------------------ the decoder alone, in float64


def noise(name: str, *shape: int) -> Tensor:
    generator = np.random.Generator(np.random.PCG64([zlib.crc32(name.encode()), 0]))
    return torch.from_numpy(generator.standard_normal(shape).astype(np.float32))


def tokens_as_map(tokens: Tensor) -> Tensor:
    return tokens[:, 1:].transpose(1, 2).unflatten(2, (6, 6))


@pytest.fixture(scope="module")
def golden_head() -> HGRSOVSSegHead:
    ours = LAYOUTS["HG-RSOVSSeg"].to_ours(official_weights(("neck.", "decode_head.")))
    head = configured(HGRSOVSSegHead, {"vlm": VITL14}).eval()
    head.load_state_dict({n.removeprefix("head."): t for n, t in ours.items() if n.startswith("head.")})
    return head


@pytest.fixture(scope="module")
def golden_inputs() -> Inputs:
    blocks = {index: tokens_as_map(noise(f"hg.block{index}", 2, 37, 1024)) for index in (7, 15)}
    prompts = noise("hg.text", 3, 14, 768)
    image = TowerFeatures(tokens_as_map(noise("hg.joint", 2, 37, 768)), blocks)
    return {"vlm": image}, TextFeatures(prompts / prompts.norm(dim=-1, keepdim=True), torch.arange(3), 3)


def test_every_stage_of_the_decoder_has_the_official_values(golden_head, golden_inputs):
    head, (features, text) = configured(HGRSOVSSegHead, {"vlm": VITL14}).double().eval(), golden_inputs
    head.load_state_dict(golden_head.state_dict())
    stages = record_stages(head)
    features = {"vlm": features["vlm"].map(Tensor.double)}
    with torch.no_grad():
        stages["logits"] = head(features, TextFeatures(text.embeddings.double(), text.class_of, text.classes))
    stages["t"] = F.normalize(text.embeddings.double().mean(dim=1), dim=-1).expand(2, -1, -1)

    assert stages.keys() == STAGES.keys()
    for name, (shape, *expected) in STAGES.items():
        values = stages[name]
        assert tuple(values.shape) == shape, name
        flat = values.flatten()
        actual = [flat.mean(), flat.square().mean().sqrt(), flat[0], flat[len(flat) // 2 + 5]]
        largest = max(abs(number) for number in expected)
        for number, reference in zip(actual, expected, strict=True):
            assert abs(number.item() - reference) < 2e-6 * max(largest, abs(reference)), name


def test_loss_has_the_official_value(golden_head, golden_inputs):
    with torch.no_grad():
        logits = golden_head(*golden_inputs)
    rows, columns, images = torch.arange(48)[:, None], torch.arange(48), torch.arange(2)[:, None, None]
    labels = (rows // 7 + columns // 5 + images) % 4
    labels[labels == 3] = 255
    assert abs(CrossEntropy("all_pixels")(logits, labels).item() - 0.8364983) < 1e-6
    assert abs(CrossEntropy("valid_pixels")(logits, labels).item() - 1.111792) < 2e-6


def test_position_embedding_is_adapted_as_in_the_original():
    name = "image_encoder.visual.positional_embedding"
    table = adapt_position_embedding(torch.from_numpy(fill.fill_value(name, (257, 1024))), (36, 36))
    assert table.shape == (1297, 1024)
    assert abs(table.mean().item() - 4.828443e-4) < 1e-8
    assert abs(table.square().mean().sqrt().item() - 0.2603229) < 1e-7
    expected = {(0, 0): -0.266970, (1, 0): -0.105264, (700, 5): -0.102881, (1296, 1023): 0.288858}
    for (row, column), value in expected.items():
        assert abs(table[row, column].item() - value) < 1e-6


# ------------------------------------------------------------------ the whole model, ViT-L/14 at 512


@pytest.fixture(scope="module")
def full_model() -> OpenVocabSegmenter:
    cfg = load_config(ROOT / "configs" / "hg_rsovsseg" / "clip_vitl14_globe230k.yaml")
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.WEIGHTS = "filled below"  # so that nothing is fetched for the towers
    model = OpenVocabSegmenter(cfg).eval()
    load_strictly(model, from_any_layout(official_weights()), "golden weights")
    return model


@pytest.fixture(scope="module")
def full_pass(full_model) -> dict[str, Tensor]:
    """Everything that one pass over the golden image produces."""
    meta = json.loads(str(np.load(GOLDEN.with_suffix(".npz"))["meta"]))
    stages = record_stages(full_model.head)

    def keep(module, args, output):
        stages.update(image=args[0]["vlm"], text=args[1], logits=output)

    full_model.head.register_forward_hook(keep)
    image = torch.from_numpy(fill.image(*meta["hw"], meta["image_seed"]))
    with torch.inference_mode():
        stages["labels"] = full_model([{"image": image, "vocabulary": POTSDAM}])[0]["labels"]
    return stages


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("name", "choose"),
    [
        ("text_prompts", lambda s: s["text"].embeddings[..., ::4]),
        # The original's tokens begin with the class token, which maps do not have.
        ("block7", lambda s: s["image"].blocks[7].flatten(2).transpose(1, 2)[:, 36::37, ::16]),
        ("block15", lambda s: s["image"].blocks[15].flatten(2).transpose(1, 2)[:, 36::37, ::16]),
        ("dense", lambda s: s["image"].dense.flatten(2).transpose(1, 2)[:, 18::19, ::8]),
        ("hg1", lambda s: s["hg1"][:, ::8, ::6, ::6]),
        ("hd1", lambda s: s["hd1"][:, ::8, ::6, ::6]),
        ("hg2", lambda s: s["hg2"][:, ::8, ::12, ::12]),
        ("hd2", lambda s: s["hd2"][:, ::8, ::12, ::12]),
        ("logits", lambda s: s["logits"][:, :, ::2, ::2]),
    ],
)
def test_full_model_reproduces_the_official_arrays(full_pass, name, choose):
    expected = torch.from_numpy(np.load(GOLDEN.with_suffix(".npz"))[name])
    if name.startswith(("block", "dense")):
        expected = expected[:, 1:]
    actual = choose(full_pass)
    assert actual.shape == expected.shape
    error = ((actual - expected).abs().max() / expected.abs().max()).item()
    assert error < 1e-4


@pytest.mark.heavy
def test_full_model_labels_and_loss_are_the_official_ones(full_pass):
    golden = np.load(GOLDEN.with_suffix(".npz"))
    assert (full_pass["labels"].numpy() == golden["argmax"]).mean() >= 0.9995
    rows = torch.arange(512)
    labels = ((rows[:, None] + rows) // 64 % (len(POTSDAM) + 1))[None]
    labels[labels == len(POTSDAM)] = 255
    loss = CrossEntropy()(full_pass["logits"], labels).item()
    assert abs(loss / golden["loss"].item() - 1) < 1e-5


@pytest.mark.heavy
def test_full_model_has_the_published_number_of_parameters(full_model):
    counts = {name: p.numel() for name, p in full_model.named_parameters() if name != "vlm.clip.logit_scale"}
    trained = sum(p.numel() for p in full_model.parameters() if p.requires_grad)
    assert sum(counts.values()) == 434_494_657
    assert trained == 5_813_185
    assert sum(count for name, count in counts.items() if name.startswith("vlm.clip.visual.")) == 305_031_168


@pytest.mark.heavy
def test_full_model_exports_every_official_tensor(full_model):
    exported = LAYOUTS["HG-RSOVSSeg"].to_official(full_model.state_dict())
    assert {name: list(tensor.shape) for name, tensor in exported.items()} == manifest()
