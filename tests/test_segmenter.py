"""The segmenter on tiny towers: records in, losses and label maps out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from peak_memory import PeakMemory
from records import picture, training_record

from ovrs.engine.distributed import unread_parameters
from ovrs.errors import VocabularyError
from ovrs.segmenter import OpenVocabSegmenter

TWO = ["building|house", "road"]
THREE = ["water", "tree", "field"]


@pytest.fixture
def dataset() -> Iterator[str]:
    """A registered name with the classes THREE."""
    MetadataCatalog.get("segmenter_test").class_strings = THREE
    yield "segmenter_test"
    MetadataCatalog.remove("segmenter_test")


def build(cfg: CfgNode, **overrides: object) -> OpenVocabSegmenter:
    """A model in evaluation mode; ``overrides`` such as ``MODEL__PRECISION__HEAD`` go into the configuration."""
    for key, value in overrides.items():
        node, *path = cfg, *key.split("__")
        for name in path[:-1]:
            node = node[name]
        node[path[-1]] = value
    return OpenVocabSegmenter(cfg).eval()


def build_like(model: OpenVocabSegmenter, cfg: CfgNode, **overrides: object) -> OpenVocabSegmenter:
    """Another model with the same weights."""
    other = build(cfg, **overrides)
    other.load_state_dict(model.state_dict())
    return other


@torch.no_grad()
def segment(model: OpenVocabSegmenter, *records: dict) -> list[dict[str, torch.Tensor]]:
    return model(list(records))


def logits_of(model: OpenVocabSegmenter, images: torch.Tensor, classes: list[str]) -> torch.Tensor:
    """Logits of normalised images, by the two steps."""
    return model.classify(model.embed(images), model.vocabulary(classes))


def loss_of(model: OpenVocabSegmenter, *records: dict) -> torch.Tensor:
    losses = model.train()(list(records))
    assert list(losses) == ["loss_sem_seg"]
    return losses["loss_sem_seg"]


# ---------------------------------------------------------------------- results


@pytest.mark.parametrize("sliding", [True, False])
def test_result_has_labels_and_scores_of_the_wanted_size(tiny_cfg: CfgNode, sliding: bool):
    model = build(tiny_cfg, TEST__SLIDING_WINDOW__ENABLED=sliding)
    sized = {"image": picture(40, 50), "vocabulary": THREE, "height": 21, "width": 77}
    own_size = {"image": picture(40, 50), "vocabulary": THREE}
    for result, size in zip(segment(model, sized, own_size), [(21, 77), (40, 50)], strict=True):
        assert set(result) == {"labels", "scores"}
        assert result["labels"].shape == result["scores"].shape == size
        assert result["labels"].dtype == torch.uint8
        assert result["labels"].max() < 3
        assert 0 < result["scores"].min() <= result["scores"].max() < 1


@pytest.mark.parametrize("sliding", [True, False])
@pytest.mark.parametrize("loss", ["bce", "ce"])
def test_kept_scores_lie_in_zero_to_one_and_explain_the_labels(tiny_cfg: CfgNode, sliding: bool, loss: str):
    model = build(tiny_cfg, TEST__OUTPUT="scores", TEST__SLIDING_WINDOW__ENABLED=sliding, MODEL__LOSS__NAME=loss)
    result = segment(model, {"image": picture(40, 50), "vocabulary": THREE, "height": 80, "width": 90})[0]
    scores = result["sem_seg"]
    assert scores.shape == (3, 80, 90)
    assert 0 < scores.min() < scores.max() < 1
    assert torch.equal(scores.argmax(dim=0), result["labels"].long())
    torch.testing.assert_close(scores.amax(dim=0), result["scores"])
    if loss == "ce":
        torch.testing.assert_close(scores.sum(dim=0), torch.ones(80, 90))


@pytest.mark.parametrize("side", [32, 30], ids=["fitting", "padded"])
@pytest.mark.parametrize("loss", ["bce", "ce"])
def test_many_classes_never_exist_at_full_size_all_at_once(tiny_cfg: CfgNode, side: int, loss: str):
    model = build(tiny_cfg, TEST__SLIDING_WINDOW__ENABLED=False, MODEL__LOSS__NAME=loss)
    record = {"image": picture(side, side), "vocabulary": [f"class {t}" for t in range(60)]}
    segment(model, record)  # text is encoded

    def peak(size: int) -> int:
        with PeakMemory() as memory:
            assert segment(model, {**record, "height": size, "width": size})[0]["labels"].shape == (size, size)
        return memory.peak

    assert peak(512) - peak(16) < 60 * 512**2 * 4 / 2
    model.keep_scores = True
    assert peak(512) > 60 * 512**2 * 4, "the measure must see all scores where they are kept"


def test_sliding_averages_probabilities_of_enlarged_logits(tiny_cfg: CfgNode):
    model = build(tiny_cfg, TEST__OUTPUT="scores", TEST__SLIDING_WINDOW__CANVAS=32)
    image = picture(32, 32)
    result = segment(model, {"image": image, "vocabulary": THREE})[0]["sem_seg"]
    # On a canvas of one window, window and global view are the same.
    with torch.no_grad():
        logits = logits_of(model, model.normalise(image)[None], THREE)
    expected = F.interpolate(logits, size=(32, 32), mode="bilinear").sigmoid()[0]
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-6)


def test_records_with_vocabularies_of_their_own_share_a_batch(tiny_cfg: CfgNode, dataset: str):
    model = build(tiny_cfg, TEST__OUTPUT="scores")
    records = [
        {"image": picture(seed=0), "vocabulary": TWO},
        {"image": picture(seed=1), "dataset": dataset},
        {"image": picture(seed=2), "vocabulary": tuple(TWO)},
        {"image": picture(seed=3), "vocabulary": THREE},
    ]
    together = segment(model, *records)
    assert [len(result["sem_seg"]) for result in together] == [2, 3, 2, 3]
    for record, result in zip(records, together, strict=True):
        single = segment(model, record)[0]
        torch.testing.assert_close(result["sem_seg"], single["sem_seg"], rtol=1e-4, atol=1e-5)


def test_data_set_stands_for_its_classes_and_a_vocabulary_overrules_it(tiny_cfg: CfgNode, dataset: str):
    model = build(tiny_cfg, TEST__OUTPUT="scores")
    image = picture()
    by_name, by_words, overruled = segment(
        model,
        {"image": image, "dataset": dataset},
        {"image": image, "vocabulary": THREE},
        {"image": image, "dataset": dataset, "vocabulary": TWO},
    )
    torch.testing.assert_close(by_name["sem_seg"], by_words["sem_seg"])
    assert len(overruled["sem_seg"]) == 2


@pytest.mark.parametrize("sliding", [True, False])
def test_images_of_different_sizes_in_one_batch_equal_single_images(tiny_cfg: CfgNode, sliding: bool):
    model = build(tiny_cfg, TEST__OUTPUT="scores", TEST__SLIDING_WINDOW__ENABLED=sliding)
    records = [{"image": picture(*size), "vocabulary": TWO} for size in ((30, 50), (64, 20), (32, 32))]
    for record, result in zip(records, segment(model, *records), strict=True):
        assert result["labels"].shape == record["image"].shape[-2:]
        torch.testing.assert_close(result["sem_seg"], segment(model, record)[0]["sem_seg"], rtol=1e-4, atol=1e-5)


def test_float_and_uint8_images_give_the_same_result(tiny_cfg: CfgNode):
    model = build(tiny_cfg)
    image = picture()
    whole, real = segment(model, {"image": image, "vocabulary": TWO}, {"image": image.float(), "vocabulary": TWO})
    assert torch.equal(whole["labels"], real["labels"])
    assert torch.equal(whole["scores"], real["scores"])


def test_permuted_classes_permute_the_scores(tiny_cfg: CfgNode):
    model = build(tiny_cfg, TEST__OUTPUT="scores")
    image = picture()
    straight, turned = segment(
        model, {"image": image, "vocabulary": THREE}, {"image": image, "vocabulary": [THREE[i] for i in (2, 0, 1)]}
    )
    assert straight["sem_seg"].std(dim=0).max() > 1e-3
    torch.testing.assert_close(turned["sem_seg"], straight["sem_seg"][[2, 0, 1]], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"vocabulary": ["road"]}, r"at least 2 classes, got 1: \['road'\]"),
        ({"vocabulary": []}, "at least 2 classes, got 0"),
        ({"vocabulary": "road"}, "'vocabulary' must be a list of class strings, got 'road'"),
        ({}, "needs 'vocabulary' .* or 'dataset' .* VOCABULARY.CLASSES"),
        ({"dataset": "no_such_set"}, "'dataset' is 'no_such_set'"),
    ],
)
def test_record_without_usable_classes_is_refused(tiny_cfg: CfgNode, record: dict, message: str):
    model = build(tiny_cfg)
    with pytest.raises(VocabularyError, match=message):
        model([{"image": picture(), **record}])
    assert "no_such_set" not in MetadataCatalog


@pytest.mark.parametrize("key", ["VOCABULARY__CLASSES", "DATASETS__TEST", "DATASETS__TRAIN"])
def test_configuration_stands_in_where_a_sample_says_nothing(tiny_cfg: CfgNode, dataset: str, key: str):
    model = build(tiny_cfg, TEST__OUTPUT="scores", **{key: THREE if key.startswith("VOC") else (dataset,)})
    image = picture()
    silent, by_words, by_own = segment(
        model, {"image": image}, {"image": image, "vocabulary": THREE}, {"image": image, "vocabulary": TWO}
    )
    torch.testing.assert_close(silent["sem_seg"], by_words["sem_seg"])
    assert len(by_own["sem_seg"]) == 2


def test_several_test_sets_stand_for_nothing(tiny_cfg: CfgNode, dataset: str):
    model = build(tiny_cfg, DATASETS__TEST=(dataset, "another"))
    with pytest.raises(VocabularyError, match=r"VOCABULARY\.CLASSES or a single test set"):
        model([{"image": picture()}])


# ---------------------------------------------------------------------- two steps


@pytest.mark.parametrize("sliding", [True, False])
@pytest.mark.parametrize("loss", ["bce", "ce"])
def test_encoded_once_an_image_can_be_asked_often(tiny_cfg: CfgNode, sliding: bool, loss: str):
    model = build(tiny_cfg, TEST__SLIDING_WINDOW__ENABLED=sliding, MODEL__LOSS__NAME=loss)
    samples = [{"image": picture(40, 50), "height": 21, "width": 30}, {"image": picture(33, 32, seed=1)}]
    with torch.no_grad():
        encoded = model.encode(samples, keep=True)
    for tower in model.towers.values():
        tower.forward = None  # calling it would fail
    for classes in (THREE, TWO, THREE):
        with torch.no_grad():
            kept = model.decode(encoded, model.vocabulary(classes))
        fresh = segment(build_like(model, tiny_cfg), *({**sample, "vocabulary": classes} for sample in samples))
        for one, other in zip(kept, fresh, strict=True):
            assert torch.equal(one["labels"], other["labels"])
            torch.testing.assert_close(one["sem_seg"], other["sem_seg"])


def test_all_scores_exist_only_when_they_are_asked_for(tiny_cfg: CfgNode):
    result = segment(build(tiny_cfg), {"image": picture(), "vocabulary": THREE})[0]
    assert "sem_seg" not in result
    torch.testing.assert_close(result["sem_seg"].amax(dim=0), result["scores"])
    assert "sem_seg" in result
    with pytest.raises(KeyError, match="instances"):
        result["instances"]


def test_weak_pixels_get_the_background_class_or_one_label_more(tiny_cfg: CfgNode):
    record = {"image": picture(40, 50), "vocabulary": THREE}
    source = build(tiny_cfg)
    plain = segment(source, record)[0]
    threshold = float(plain["scores"].median())
    weak = plain["scores"] < threshold
    model = build_like(source, tiny_cfg, TEST__THRESHOLD=threshold)
    for background, label in (("", 3), ("no such class", 3), ("tree", 1)):
        model.asking = replace(model.asking, background=background)
        labels = segment(model, record)[0]["labels"]
        assert (labels[weak] == label).all()
        assert torch.equal(labels[~weak], plain["labels"][~weak])


# ---------------------------------------------------------------------- preprocessing


def test_both_towers_see_the_common_statistics_unless_the_prior_has_its_own(tiny_cfg: CfgNode):
    mean, std = torch.tensor([10.0, 20.0, 30.0]), torch.tensor([2.0, 4.0, 8.0])
    overrides = {"MODEL__PRIOR__PIXEL_MEAN": mean.tolist(), "MODEL__PRIOR__PIXEL_STD": std.tolist()}
    image = picture()
    seen: list[torch.Tensor] = []
    for own in (False, True):
        model = build(tiny_cfg, **(overrides if own else {}))
        model.vlm.clip.visual.conv1.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0][0]))
        model.prior.vit.patch_embed.proj.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0][0]))
        with torch.no_grad():
            logits_of(model, model.normalise(image)[None], TWO)
    clip_shared, dino_shared, clip_own, dino_own = seen
    common = (image - torch.tensor(tiny_cfg.MODEL.PIXEL_MEAN)[:, None, None]) / torch.tensor(tiny_cfg.MODEL.PIXEL_STD)[
        :, None, None
    ]
    for tensor in (clip_shared, dino_shared, clip_own):
        torch.testing.assert_close(tensor, common, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(dino_own, (image - mean[:, None, None]) / std[:, None, None], rtol=1e-4, atol=1e-4)


def test_images_are_squashed_to_each_towers_square(tiny_cfg: CfgNode):
    model = build(tiny_cfg)
    images = model.normalise(torch.stack([picture(48, 40), picture(48, 40, seed=1)]))
    with torch.no_grad():
        direct = logits_of(model, images, TWO)
        squashed = F.interpolate(images, size=(32, 32), mode="bilinear", align_corners=False)
        torch.testing.assert_close(direct, logits_of(model, squashed, TWO))
    assert direct.shape == (2, 2, 16, 16)


def test_prior_is_not_run_where_the_head_does_not_ask(tiny_cfg: CfgNode):
    model = build(tiny_cfg, MODEL__GSNET__USE_PRIOR_COST=False, MODEL__GSNET__USE_PRIOR_TAPS=False)
    model.prior.forward = None  # calling it would fail
    segment(model, {"image": picture(), "vocabulary": TWO})
    without = build(tiny_cfg, MODEL__PRIOR__NAME="")
    assert set(without.towers) == {"vlm"}
    segment(without, {"image": picture(), "vocabulary": TWO})


# ---------------------------------------------------------------------- training


def test_loss_is_the_criterion_of_the_padded_batch(tiny_cfg: CfgNode):
    model = build(tiny_cfg)
    records = [training_record(TWO, 0, (32, 32)), training_record(TWO, 1, (20, 28))]
    loss = loss_of(model, *records)

    images, labels = torch.zeros(2, 3, 32, 32), torch.full((2, 32, 32), 255)
    for index, record in enumerate(records):
        height, width = record["sem_seg"].shape
        images[index, :, :height, :width] = model.normalise(record["image"])
        labels[index, :height, :width] = record["sem_seg"]
    expected = model.criterion(logits_of(model, images, TWO), labels)
    assert loss.requires_grad
    torch.testing.assert_close(loss, expected)


def test_loss_of_several_vocabularies_is_the_mean_over_images(tiny_cfg: CfgNode):
    model = build(tiny_cfg)
    records = [training_record(TWO, 0), training_record(THREE, 1), training_record(TWO, 2)]
    two, three = loss_of(model, records[0], records[2]), loss_of(model, records[1])
    assert abs(two - three) > 1e-4
    torch.testing.assert_close(loss_of(model, *records), (2 * two + three) / 3)


def test_gradients_reach_exactly_what_trains(tiny_cfg: CfgNode):
    model = build(tiny_cfg)
    loss_of(model, training_record(TWO)).backward()
    with_gradient = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    # The value-only last block never reads its query weight.
    assert unread_parameters(model, 32) == {"vlm.clip.visual.transformer.resblocks.3.attn.q_proj_weight"}
    assert trained - with_gradient == unread_parameters(model, 32)
    assert with_gradient < trained
    assert any(name.startswith("vlm.clip.transformer.") for name in with_gradient)
    assert not any(name.startswith("prior.") for name in trained)


def test_frozen_towers_get_no_graph(tiny_cfg: CfgNode):
    model = build(tiny_cfg, MODEL__VLM__FINETUNE_IMAGE="frozen", MODEL__VLM__FINETUNE_TEXT="frozen")
    seen = []
    model.head.register_forward_pre_hook(lambda module, inputs: seen.append(inputs))
    loss_of(model, training_record(TWO)).backward()
    towers, text = seen[0]
    features = [text.embeddings, *(t for tower in towers.values() for t in (tower.dense, *tower.blocks.values()))]
    assert len(features) == 7
    assert not any(feature.requires_grad for feature in features)
    assert all(parameter.grad is not None for parameter in model.head.parameters())


def test_evaluation_builds_no_graph_in_towers_that_train(tiny_cfg: CfgNode):
    model = build(tiny_cfg)
    seen = []
    model.head.register_forward_pre_hook(lambda module, inputs: seen.append(inputs))
    segment(model, {"image": picture(), "vocabulary": TWO})
    towers, text = seen[0]
    assert set(towers) == {"vlm", "prior"}
    assert not any(feature.requires_grad for feature in (text.embeddings, *(t.dense for t in towers.values())))


@pytest.mark.parametrize("finetune", ["frozen", "attention"])
def test_training_goes_on_after_an_evaluation(tiny_cfg: CfgNode, finetune: str):
    tiny_cfg.MODEL.VLM.FINETUNE_TEXT = tiny_cfg.MODEL.VLM.FINETUNE_IMAGE = finetune
    tiny_cfg.MODEL.GSNET.NUM_HEADS = 1
    fresh = build(tiny_cfg)
    expected = loss_of(fresh, training_record(TWO)).item()
    fresh.eval()
    with torch.inference_mode():
        before = fresh([{"image": picture(), "vocabulary": TWO}])[0]["scores"].clone()

    optimizer = torch.optim.SGD([p for p in fresh.parameters() if p.requires_grad], lr=0.5)
    loss = loss_of(fresh, training_record(TWO))
    assert loss.item() == pytest.approx(expected)
    loss.backward()
    optimizer.step()
    fresh.eval()
    with torch.inference_mode():
        after = fresh([{"image": picture(), "vocabulary": TWO}])[0]["scores"]
    assert (after - before).abs().max() > 1e-4


def test_evaluation_uses_the_text_tower_of_the_moment(tiny_cfg: CfgNode):
    model = build(tiny_cfg)
    record = {"image": picture(), "vocabulary": TWO}
    before = segment(model, record)[0]["scores"]
    with torch.no_grad():
        value = model.vlm.clip.transformer.resblocks[0].attn.v_proj_weight
        value.add_(torch.randn_like(value))
    assert (segment(model, record)[0]["scores"] - before).abs().max() > 1e-5


# ---------------------------------------------------------------------- precision


@pytest.mark.parametrize("room", ["TOWERS", "HEAD"])
def test_bf16_trains_and_stays_close_to_fp32(tiny_cfg: CfgNode, room: str):
    exact = build(tiny_cfg, TEST__OUTPUT="scores")
    rounded = build(tiny_cfg, **{f"MODEL__PRECISION__{room}": "bf16"})
    rounded.load_state_dict(exact.state_dict())
    record = {"image": picture(), "vocabulary": THREE}
    scores = [segment(model, record)[0]["sem_seg"] for model in (exact, rounded)]
    assert scores[1].dtype == torch.float32
    assert 0 < (scores[0] - scores[1]).abs().max() < 0.02

    losses = [loss_of(model, training_record(TWO)) for model in (exact, rounded)]
    assert losses[1].dtype == torch.float32
    torch.testing.assert_close(losses[1], losses[0], rtol=0.02, atol=0.0)
    losses[1].backward()
    gradients = {name: parameter.grad for name, parameter in rounded.named_parameters() if parameter.grad is not None}
    assert any(name.startswith("vlm.") for name in gradients)
    assert all(gradient.dtype == torch.float32 and gradient.isfinite().all() for gradient in gradients.values())


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"MODEL__PRECISION__TOWERS": "fp8"}, r"MODEL\.PRECISION\.TOWERS must be one of fp32, bf16, fp16, got 'fp8'"),
        ({"MODEL__PRECISION__HEAD": "half"}, r"MODEL\.PRECISION\.HEAD"),
        ({"TEST__OUTPUT": "logits"}, r"TEST\.OUTPUT must be one of labels, scores, got 'logits'"),
    ],
)
def test_unknown_choice_is_refused_with_its_key(tiny_cfg: CfgNode, override: dict, message: str):
    with pytest.raises(ValueError, match=message):
        build(tiny_cfg, **override)


def test_preprocessing_constants_are_not_in_the_checkpoint(tiny_cfg: CfgNode):
    model = build(tiny_cfg)
    assert {name.split(".")[0] for name in model.state_dict()} == {"vlm", "prior", "head"}
