"""Features of frozen towers from disk: the same bits, and nothing that was not asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from demo_models import CLASSES, demo_model
from records import picture, training_record

from ovrs.config import load_config
from ovrs.errors import ConfigError
from ovrs.inference import FeatureCache
from ovrs.segmenter import OpenVocabSegmenter
from ovrs.structures import TowerRequest

# ViTs, which compute an image alone as in a batch, to the bit; convolutions may not.
VIT = {
    "MODEL__PRIOR__NAME": "DinoPrior",
    "MODEL__PRIOR__ARCH": "vit_tiny_patch16_224",
    "MODEL__PRIOR__ARCH_OPTIONS": ["patch_size", 8, "depth", 4, "embed_dim", 96, "num_heads", 3, "img_size", 128],
}
FROZEN = {"MODEL__VLM__FINETUNE_IMAGE": "frozen", "MODEL__PRIOR__FINETUNE": "frozen"}
SIZE = (64, 64)


def model_with(cache: FeatureCache | None, name: str = "hg_rsovsseg", precision: str = "fp32") -> OpenVocabSegmenter:
    model = demo_model(name, "cpu", precision, **FROZEN, **(VIT if name != "hg_rsovsseg" else {}))
    model.feature_cache = cache
    return model


def entries(cache: FeatureCache) -> list[Path]:
    return sorted(cache.folder.glob("*/*"))


def step(model: OpenVocabSegmenter, seeds: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """The loss and all gradients of a training step."""
    torch.manual_seed(0)  # of dropout
    model.train().zero_grad()
    loss = model([training_record(CLASSES, seed, SIZE) for seed in seeds])["loss_sem_seg"]
    loss.backward()
    return {"loss": loss.detach()} | {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    return FeatureCache(tmp_path / "features", 10**9)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["hg_rsovsseg", "gsnet", "rskt_seg"])  # blocks, two towers, rotations
def test_losses_and_gradients_are_those_without_it_to_the_bit(cache: FeatureCache, name: str, precision: str):
    plain, cached = model_with(None, name, precision), model_with(cache, name, precision)
    towers = len(cached.towers)
    for seeds, hits in (((0, 1), 0), ((1, 0), 2), ((2, 1), 1)):  # nothing, everything and half of it is known
        before = cache.hits
        expected, found = step(plain, seeds), step(cached, seeds)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], expected[key]) for key in expected)
        assert cache.hits - before == hits * towers
    assert len(entries(cache)) == 3 * towers


@torch.inference_mode()
def test_evaluation_reads_what_an_earlier_one_kept(cache: FeatureCache):
    records = [{"image": picture(80, 70, seed), "vocabulary": CLASSES} for seed in range(3)]
    expected = [result["sem_seg"] for result in model_with(None)(records)]
    for hits in (0, 3):
        model = model_with(FeatureCache(cache.folder, cache.limit))
        if hits:
            model.vlm.encode = None  # not needed
        assert all(map(torch.equal, [result["sem_seg"] for result in model(records)], expected))
        assert model.feature_cache.hits == hits


@torch.no_grad()
def test_other_weights_images_requests_and_precisions_are_misses(cache: FeatureCache):
    model, image = model_with(cache), torch.randn(1, 3, *SIZE)
    model.embed(image)
    darker = image.clone()
    darker[0, 0, 5, 5] -= 1e-5
    asks_less = model_with(cache)
    asks_less.requests = {"vlm": TowerRequest(dense="token_residual")}
    weight = model.vlm.image_parameters()[0]
    weight.add_(1e-3)
    for misses, (asked, view) in enumerate(
        ((model, image), (model_with(cache), darker), (asks_less, image), (model_with(cache, precision="bf16"), image)),
        start=2,
    ):
        asked.embed(view)
        assert (cache.misses, cache.hits) == (misses, 0)
    model_with(cache).embed(image)
    assert (cache.misses, cache.hits) == (misses, 1)


@pytest.mark.parametrize("damage", ["cut", "one bit", "empty"])
@torch.inference_mode()
def test_a_damaged_entry_is_computed_anew_and_said_once(cache: FeatureCache, caplog, damage: str):
    model, images = model_with(cache), torch.randn(2, 3, *SIZE)
    expected = model.embed(images)["vlm"]
    for path in entries(cache):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes({"cut": content[:-100], "one bit": content, "empty": b""}[damage])
    found = model.embed(images)["vlm"]
    assert torch.equal(found.dense, expected.dense)
    assert caplog.text.count("is damaged") == 1
    assert cache.hits == 0
    model.embed(images)
    assert cache.hits == 2


@torch.inference_mode()
def test_what_was_not_used_for_the_longest_time_leaves_first(tmp_path: Path, caplog):
    images = torch.randn(12, 3, *SIZE)
    size = 0
    for limit in (10**9, 0):
        cache = FeatureCache(tmp_path / str(limit), limit or 5 * size)
        model = model_with(cache)
        for image in images:
            model.embed(image[None])
            model.embed(images[:1])  # always in use
        kept = sum(path.stat().st_size for path in entries(cache))
        size = kept // len(images)
        assert kept <= cache.limit
    assert 2 <= len(entries(cache)) <= 5
    hits = cache.hits
    for known in (images[:1], images[-1:]):
        model.embed(known)
    assert cache.hits == hits + 2
    model.embed(images[3:4])
    assert cache.hits == hits + 2
    assert caplog.text.count("is full") == 1


def test_towers_that_train_are_not_kept(cache: FeatureCache):
    model = demo_model("hg_rsovsseg", MODEL__VLM__FINETUNE_IMAGE="full")
    model.feature_cache = cache
    step(model, (0, 1))
    assert not cache.folder.exists()


def test_configuration_says_where_and_how_much(tmp_path: Path):
    cfg = load_config("demo/hg_rsovsseg")
    cfg.defrost()
    assert FeatureCache.of(cfg) is None
    cfg.MODEL.FEATURE_CACHE.DIR, cfg.MODEL.FEATURE_CACHE.LIMIT_GB = str(tmp_path), 0.5
    found = FeatureCache.of(cfg)
    assert (found.folder, found.limit) == (tmp_path, 5 * 10**8)
    cfg.MODEL.FEATURE_CACHE.LIMIT_GB = 0.0
    with pytest.raises(ConfigError, match=r"FEATURE_CACHE\.LIMIT_GB must be above 0, got 0\.0"):
        FeatureCache.of(cfg)
