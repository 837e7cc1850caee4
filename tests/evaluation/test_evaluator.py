import json

import pytest
import torch
import torch.multiprocessing
from detectron2.data import MetadataCatalog
from detectron2.data.samplers import InferenceSampler
from detectron2.evaluation import inference_on_dataset
from torch import nn
from torch.utils.data import DataLoader

from ovrs.evaluation import ConfusionMatrix, EvaluationError, SegmentationEvaluator, evaluate_dataset

NAME = "evaluation_test_scenes"
CLASSES = ["road", "low-vegetation", "water"]
NUM_IMAGES = 5


class WrongEveryThirdPixel(nn.Module):
    """Predicts the truth that is hidden in the record, but for every third pixel; notes how it was called."""

    def __init__(self):
        super().__init__()
        self.frozen = nn.Dropout()
        self.trained = nn.Dropout()
        self.train()
        self.frozen.eval()

    def forward(self, records):
        assert not self.training
        assert not self.trained.training
        assert torch.is_inference_mode_enabled() or not torch.is_grad_enabled()
        return [{"labels": predicted(record["sem_seg"])} for record in records]


def predicted(truth):
    labels = torch.where(truth == 255, 0, truth)
    labels.view(-1)[::3] = 2
    return labels


def records():
    generator = torch.Generator().manual_seed(3)
    sizes = [(4 + i, 9 - i) for i in range(NUM_IMAGES)]
    truths = [torch.randint(0, 4, size, generator=generator) for size in sizes]
    return [
        {"file_name": f"image {i}.png", "height": h, "width": w, "sem_seg": torch.where(truth == 3, 255, truth)}
        for i, ((h, w), truth) in enumerate(zip(sizes, truths, strict=True))
    ]


def loader(samples, sampler=None, batch_size=2):
    return DataLoader(samples, batch_size=batch_size, sampler=sampler, collate_fn=list)


def expected_figures(rule="present"):
    matrix = ConfusionMatrix(len(CLASSES))
    for record in records():
        matrix.update(record["sem_seg"], predicted(record["sem_seg"]))
    return matrix.metrics(rule).named(CLASSES)


@pytest.fixture(autouse=True)
def metadata():
    MetadataCatalog.get(NAME).set(stuff_classes=CLASSES)
    yield
    MetadataCatalog.remove(NAME)


@pytest.mark.parametrize("rule", ["present", "union"])
def test_figures_are_those_of_all_pixels_together(rule):
    results = evaluate_dataset(WrongEveryThirdPixel(), loader(records()), SegmentationEvaluator(NAME, rule))
    assert results["sem_seg"] == expected_figures(rule)
    assert 0 < results["sem_seg"]["IoU-low-vegetation"] < 100
    assert results["speed"]["images_per_second"] > 0


def test_works_in_detectron2s_own_loop():
    results = inference_on_dataset(WrongEveryThirdPixel(), loader(records()), SegmentationEvaluator(NAME))
    assert results == {"sem_seg": expected_figures()}


def test_a_second_run_starts_from_zero_and_evaluating_twice_changes_nothing():
    model, evaluator = WrongEveryThirdPixel(), SegmentationEvaluator(NAME)
    for _ in range(2):
        results = evaluate_dataset(model, loader(records()), evaluator)
    assert results["sem_seg"] == expected_figures()
    assert evaluator.evaluate()["sem_seg"] == expected_figures()


def test_every_module_gets_its_own_mode_back():
    model = WrongEveryThirdPixel()
    evaluate_dataset(model, loader(records()), SegmentationEvaluator(NAME))
    assert (model.training, model.trained.training, model.frozen.training) == (True, True, False)


def test_modes_come_back_after_an_error_too():
    model = WrongEveryThirdPixel()
    broken = records()
    broken[1]["sem_seg"] = torch.full((3, 3), 77)
    with pytest.raises(EvaluationError):
        evaluate_dataset(model, loader(broken), SegmentationEvaluator(NAME))
    assert (model.training, model.trained.training, model.frozen.training) == (True, True, False)


@pytest.mark.parametrize(("order", "seen"), [([0, 1, 2, 3], 4), ([0, 1, 2, 3, 4, 4], 6)])
def test_dropped_or_repeated_images_are_an_error(order, seen):
    with pytest.raises(EvaluationError, match=f"{NAME}: {seen} images were scored but it has {NUM_IMAGES}"):
        evaluate_dataset(WrongEveryThirdPixel(), loader(records(), order), SegmentationEvaluator(NAME))


def test_record_without_labels_names_the_file_and_the_way_to_predict():
    with pytest.raises(EvaluationError, match=r"a b\.png has no labels.*Predictor"):
        SegmentationEvaluator(NAME).process([{"file_name": "a b.png"}], [{"labels": torch.zeros(2, 2).long()}])


def test_other_size_names_the_file_and_both_sizes():
    record = {"file_name": "a.png", "sem_seg": torch.zeros(2, 3, dtype=torch.int64)}
    with pytest.raises(EvaluationError, match=r"a\.png: the labels are 3 x 2 and the prediction is 4 x 2"):
        SegmentationEvaluator(NAME).process([record], [{"labels": torch.zeros(2, 4, dtype=torch.int64)}])


def test_label_out_of_range_names_the_file():
    record = {"file_name": "a.png", "sem_seg": torch.full((2, 2), 9)}
    with pytest.raises(EvaluationError, match=r"a\.png: ground truth.*9 \(4 pixels\)"):
        SegmentationEvaluator(NAME).process([record], [{"labels": torch.zeros(2, 2, dtype=torch.int64)}])


def test_fewer_outputs_than_inputs_is_an_error():
    with pytest.raises(ValueError, match="shorter"):
        SegmentationEvaluator(NAME).process(records(), [])


def test_unlabelled_data_set_is_named():
    unlabelled = records()
    for record in unlabelled:
        record["sem_seg"].fill_(255)
    with pytest.raises(EvaluationError, match=f"data set {NAME}: nothing to score"):
        evaluate_dataset(WrongEveryThirdPixel(), loader(unlabelled), SegmentationEvaluator(NAME))


def test_unknown_rule_is_refused_before_the_run():
    with pytest.raises(EvaluationError, match=r"TEST\.MIOU_RULE"):
        SegmentationEvaluator(NAME, rule="mean")


@pytest.mark.parametrize(
    ("classes", "words"), [([], "names no classes"), (["a", "b", "a"], r"more than once: \['a'\]")]
)
def test_missing_or_repeated_class_names_are_an_error(classes, words):
    MetadataCatalog.remove(NAME)
    MetadataCatalog.get(NAME).set(stuff_classes=classes)
    with pytest.raises(EvaluationError, match=words):
        SegmentationEvaluator(NAME)


def _worker(rank, world_size, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world_size
    )
    MetadataCatalog.get(NAME).set(stuff_classes=CLASSES)
    samples = records()
    sampler = InferenceSampler(len(samples))
    shared = evaluate_dataset(WrongEveryThirdPixel(), loader(samples, sampler), SegmentationEvaluator(NAME))
    own = evaluate_dataset(
        WrongEveryThirdPixel(), loader(samples[: rank + 1]), SegmentationEvaluator(NAME, distributed=False)
    )
    try:
        evaluate_dataset(WrongEveryThirdPixel(), loader(samples), SegmentationEvaluator(NAME))
        unshared = ""
    except EvaluationError as error:
        unshared = str(error)
    (folder / f"{rank}.json").write_text(
        json.dumps({"share": len(sampler), "shared": shared["sem_seg"], "own": own["sem_seg"], "unshared": unshared})
    )
    torch.distributed.destroy_process_group()


def test_two_processes_with_uneven_shares_equal_one_process(tmp_path):
    torch.multiprocessing.spawn(_worker, args=(2, tmp_path), nprocs=2)
    workers = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert [worker["share"] for worker in workers] == [3, 2]
    for worker in workers:
        assert worker["shared"] == expected_figures()  # bit for bit, not approximately
        assert f"{2 * NUM_IMAGES} images were scored but it has {NUM_IMAGES}" in worker["unshared"]
    assert workers[0]["own"] != workers[1]["own"]
