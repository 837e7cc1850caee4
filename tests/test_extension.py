"""What CONTRIBUTING.md and docs/ promise, done from outside the package: a head, a data set, backbones."""

from __future__ import annotations

import hashlib
import importlib.util
import re
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from ovrs.backbones import PRIOR_REGISTRY, VLM, VLM_REGISTRY, build_vlm
from ovrs.config import OPTION_GROUPS, ConfigError, load_config
from ovrs.data import SegmentationMapper, resolve_datasets
from ovrs.engine import Trainer, build_model
from ovrs.structures import TowerFeatures, TowerSpec

GUIDES = [Path(__file__).parents[1] / name for name in ("CONTRIBUTING.md", "docs/adding_a_head.md")]


@pytest.fixture(autouse=True)
def _own_registries(monkeypatch):
    for registry in (SEM_SEG_HEADS_REGISTRY, VLM_REGISTRY, PRIOR_REGISTRY):
        monkeypatch.setattr(registry, "_obj_map", dict(registry._obj_map))
    before = dict(OPTION_GROUPS)
    yield
    OPTION_GROUPS.clear()
    OPTION_GROUPS.update(before)


@pytest.fixture
def configure(tiny_cfg, scenes, tmp_path):
    """Write a YAML of a few keys on top of the tiny configuration, read it, and return it ready for training."""
    tiny_cfg.DATASETS.TRAIN = (f"{scenes / 'scenes.yaml'}:train",)
    tiny_cfg.DATALOADER.ASPECT_RATIO_GROUPING = False
    tiny_cfg.SOLVER.MAX_ITER = 1
    (tmp_path / "base.yaml").write_text(tiny_cfg.dump(), encoding="utf-8")

    def configure(**model):
        content = {"_BASE_": "base.yaml", "MODEL": model}
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
        return load_config(tmp_path / "mine.yaml")

    return configure


def changed_by_a_step(cfg) -> set[str]:
    """Train for one iteration and return the names of the parameters that it moved."""
    trainer = Trainer(cfg)
    before = {name: parameter.clone() for name, parameter in trainer.model.named_parameters()}
    trainer.train()
    return {name for name, parameter in trainer.model.named_parameters() if not torch.equal(parameter, before[name])}


def segment(model: nn.Module, classes: list[str]) -> torch.Tensor:
    """Return [T, 48, 40], the scores of a random image."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (3, 48, 40), dtype=torch.uint8, generator=generator)
    model.eval().keep_scores = True
    with torch.inference_mode():
        return model([{"image": image, "vocabulary": classes}])[0]["sem_seg"]


def blocks_of_guide(language: str) -> list[str]:
    """Return the examples of the guides in a language."""
    text = "\n".join(guide.read_text(encoding="utf-8") for guide in GUIDES)
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


# ---------------------------------------------------------------------- a head


@pytest.fixture
def from_guide(tmp_path):
    """Import a class of the guides from a module outside the package."""

    def from_guide(name: str) -> type:
        (code,) = [block for block in blocks_of_guide("python") if f"class {name}(" in block]
        path = tmp_path / "contributed.py"
        path.write_text(code, encoding="utf-8")
        spec = importlib.util.spec_from_file_location("contributed", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return getattr(module, name)

    return from_guide


@pytest.fixture
def cosine(tmp_path, configure):
    """Configure the head of the guide: its file outside the package and the YAML beside it, word for word."""
    (code,) = [block for block in blocks_of_guide("python") if "class CosineHead(" in block]
    (recipe,) = [block for block in blocks_of_guide("yaml") if "CosineHead" in block]
    (tmp_path / "contributed.py").write_text(code, encoding="utf-8")
    configure()  # writes base.yaml
    (tmp_path / "cosine.yaml").write_text(recipe, encoding="utf-8")
    return lambda *overrides: load_config(tmp_path / "cosine.yaml", overrides)


def test_head_of_the_guide_is_found_by_its_name(cosine):
    assert type(build_model(cosine()).head).__name__ == "CosineHead"


def test_options_of_the_guides_head_come_from_defaults_yaml_and_command_line(cosine):
    cfg = cosine()
    assert cfg.MODEL.COSINE == {"SCALE": 50.0, "ADAPT": "linear"}
    assert OPTION_GROUPS["COSINE"]().scale == 100.0
    head = build_model(cosine("MODEL.COSINE.SCALE", "7", "MODEL.COSINE.ADAPT", "none")).head
    assert (head.scale, type(head.adapt)) == (7.0, nn.Identity)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("MODEL.COSINE.SCALE", "0"), r"MODEL\.COSINE\.SCALE must be above 0, got 0"),
        (
            ("MODEL.COSINE.ADAPT", "liner"),
            r"MODEL\.COSINE\.ADAPT must be one of linear, none, got 'liner'\. Did you mean 'linear'\?",
        ),
        (("MODEL.COSINE.SCALE", "much"), r"MODEL\.COSINE\.SCALE must be of type float .*'much'"),
        (("MODEL.COSINE.SCAL", "3"), r"unknown key MODEL\.COSINE\.SCAL.*MODEL\.COSINE\.SCALE"),
    ],
)
def test_wrong_option_of_the_guides_head_is_refused_with_its_key(cosine, words, message):
    with pytest.raises(ConfigError, match=message):
        build_model(cosine(*words))


def test_head_of_the_guide_trains(cosine):
    changed = changed_by_a_step(cosine())
    assert {"head.adapt.weight", "head.adapt.bias"} <= changed
    assert any(name.startswith("vlm.clip.visual.") for name in changed)
    assert any(name.startswith("vlm.clip.transformer.") for name in changed)


def test_head_of_the_guide_segments_into_any_classes(cosine):
    model = build_model(cosine())
    scores = segment(model, ["road", "tree", "house"])
    assert scores.shape == (3, 48, 40)
    assert scores.std() > 0
    torch.testing.assert_close(segment(model, ["house", "road", "tree"]), scores[[2, 0, 1]])


# ---------------------------------------------------------------------- a data set


def test_data_set_needs_one_card_and_no_python(tmp_path, tiny_cfg):
    folder = tmp_path / "my data"
    stored = np.array([[1, 1, 7], [7, 0, 0]], np.uint8)
    for name, array in (("images", np.dstack([stored] * 3)), ("masks", stored)):
        (folder / name).mkdir(parents=True)
        Image.fromarray(array).save(folder / name / "a_1.png")
    card = """
        name: harbour
        classes: [ship|boat, quay]
        labels: {ids: {1: ship, 7: quay}, ignore: [0]}
        splits: {all: {images: images, labels: masks}}
    """
    (folder / "harbour.yaml").write_text(card, encoding="utf-8")

    (name,) = resolve_datasets([str(folder / "harbour.yaml")])
    assert name == "harbour_all"
    assert MetadataCatalog.get(name).class_strings == ("ship|boat", "quay")
    (record,) = DatasetCatalog.get(name)
    sample = SegmentationMapper(tiny_cfg, False, dataset_names=[name])(record)
    assert sample["sem_seg"].tolist() == [[0, 0, 1], [1, 255, 255]]
    np.testing.assert_array_equal(sample["image"].numpy(), np.stack([stored] * 3))

    tiny_cfg.DATASETS.TRAIN = (str(folder / "harbour.yaml"),)
    tiny_cfg.SOLVER.MAX_ITER, tiny_cfg.SOLVER.IMS_PER_BATCH = 1, 1
    assert changed_by_a_step(tiny_cfg)


# ---------------------------------------------------------------------- backbones


def test_weights_of_a_known_family_need_one_catalogue_entry(tiny_cfg, tmp_path, monkeypatch, add_entry):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch home"))
    cache = tmp_path / "torch home" / "hub" / "ovrs"
    cache.mkdir(parents=True)
    expected = build_vlm(tiny_cfg).clip.state_dict()
    save_file(expected, cache / "TinyCLIP.safetensors")
    add_entry(
        "test/tiny",
        arch=tiny_cfg.MODEL.VLM.ARCH,
        file="TinyCLIP.safetensors",
        sha256=hashlib.sha256((cache / "TinyCLIP.safetensors").read_bytes()).hexdigest(),
        activation="quick_gelu",
    )

    torch.manual_seed(1)
    random = build_vlm(tiny_cfg).clip.state_dict()
    assert any(not torch.equal(tensor, expected[name]) for name, tensor in random.items())
    tiny_cfg.MODEL.VLM.WEIGHTS = "test/tiny"
    loaded = build_vlm(tiny_cfg).clip.state_dict()
    assert set(loaded) == set(expected)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in loaded.items())


class LinearVLM(VLM):
    """Patches through one linear layer, words as fixed random vectors through another; four equal "blocks"."""

    def __init__(self, cfg, *, load_weights=True):
        super().__init__()
        self.patches, self.words = nn.Conv2d(3, 16, 8, stride=8), nn.Linear(16, 16)
        self.spec = TowerSpec(width=16, depth=4, patch_size=8, input_size=cfg.MODEL.VLM.INPUT_SIZE, joint_dim=16)

    def encode(self, image, request):
        dense = self.patches(image)
        return TowerFeatures(dense, dict.fromkeys(request.blocks, dense))

    def encode_text(self, sentences):
        generators = [torch.Generator().manual_seed(zlib.crc32(sentence.encode())) for sentence in sentences]
        return self.words(torch.stack([torch.randn(16, generator=generator) for generator in generators]))

    def image_parameters(self):
        return list(self.patches.parameters())

    def text_parameters(self):
        return list(self.words.parameters())


def test_towers_of_new_families_train_and_segment_under_a_published_head(from_guide, configure):
    VLM_REGISTRY.register(LinearVLM)
    prior = from_guide("MyPrior")
    cfg = configure(VLM={"NAME": "LinearVLM"}, PRIOR={"NAME": "MyPrior"})
    changed = changed_by_a_step(cfg)
    assert {"vlm.patches.weight", "vlm.words.weight"} <= changed
    assert any(name.startswith("head.") for name in changed)
    assert not any(name.startswith("prior.") for name in changed)

    model = build_model(cfg)
    assert (type(model.vlm), type(model.prior)) == (LinearVLM, prior)
    scores = segment(model, ["road", "tree", "house"])
    assert scores.shape == (3, 48, 40)
    torch.testing.assert_close(segment(model, ["house", "road", "tree"]), scores[[2, 0, 1]], atol=1e-5, rtol=1e-4)
