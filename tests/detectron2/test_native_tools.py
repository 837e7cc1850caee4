"""Detectron2's own tools on an OVRS model: nothing of OVRS is used here but its configuration.

The data set is one that a person registered with Detectron2's catalogues: plain dicts, class names, an ignore label.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.data import (
    DatasetCatalog,
    DatasetMapper,
    MetadataCatalog,
    build_detection_test_loader,
    build_detection_train_loader,
)
from detectron2.engine import DefaultPredictor, SimpleTrainer, hooks, launch
from detectron2.evaluation import SemSegEvaluator, inference_on_dataset, verify_results
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from detectron2.utils.visualizer import ColorMode, Visualizer
from PIL import Image

CLASSES = ["building|house", "road", "tree"]


def read_mask(path: str, copy: bool = False, dtype: type | None = None) -> np.ndarray:
    """SemSegEvaluator's own reader of label files breaks under NumPy 2; it takes another one."""
    return np.array(Image.open(path)).astype(dtype or np.uint8)


@pytest.fixture
def mine(tmp_path: Path) -> str:
    """Four images of 40 x 48 with labels, registered as Detectron2's tutorial has it."""
    rng = np.random.default_rng(0)
    records = []
    for index in range(4):
        image, mask = tmp_path / f"{index}.png", tmp_path / f"{index}_mask.png"
        labels = rng.integers(0, 3, (40, 48), np.uint8)
        Image.fromarray((labels[..., None] * 80 + rng.integers(0, 40, (40, 48, 3))).astype(np.uint8)).save(image)
        labels[:2] = 255
        Image.fromarray(labels).save(mask)
        records.append({"file_name": str(image), "sem_seg_file_name": str(mask), "height": 40, "width": 48})
    DatasetCatalog.register("mine", lambda: records)
    MetadataCatalog.get("mine").set(stuff_classes=CLASSES, ignore_label=255, evaluator_type="sem_seg")
    return "mine"


@pytest.fixture
def cfg(tiny_cfg: CfgNode, mine: str) -> CfgNode:
    """The tiny model, to be trained and tested on that data set."""
    tiny_cfg.DATASETS.TRAIN = tiny_cfg.DATASETS.TEST = (mine,)
    tiny_cfg.DATALOADER.ASPECT_RATIO_GROUPING = True  # Detectron2's default
    return tiny_cfg


@pytest.fixture
def weights(cfg: CfgNode, tmp_path: Path) -> str:
    """A checkpoint that Detectron2 wrote."""
    DetectionCheckpointer(build_model(cfg), str(tmp_path)).save("mine")
    return str(tmp_path / "mine.pth")


def test_default_configuration_names_a_device_that_detectron2_knows(cfg: CfgNode):
    from ovrs.config import get_cfg

    assert torch.device(get_cfg().MODEL.DEVICE).type in ("cpu", "cuda")


def test_checkpoint_goes_there_and_back(cfg: CfgNode, weights: str):
    model = build_model(cfg)
    for parameter in model.parameters():
        parameter.data.zero_()
    DetectionCheckpointer(model).load(weights)
    stored = torch.load(weights, weights_only=True)["model"]
    assert set(stored) == set(model.state_dict())
    assert all(torch.equal(tensor, stored[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("flip", ["none", "horizontal", "vertical"])
def test_training_with_detectron2s_mapper_loader_and_hooks(cfg: CfgNode, flip: str):
    cfg.INPUT.RANDOM_FLIP, cfg.INPUT.RANDOM_FLIP_VERTICAL = flip, True
    model = build_model(cfg).train()
    loader = build_detection_train_loader(cfg, mapper=DatasetMapper(cfg, is_train=True))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    before = model.head.decoder.predictor.weight.clone()
    trainer = SimpleTrainer(model, loader, optimizer)
    seen = []
    trainer.register_hooks(
        [
            hooks.IterationTimer(),
            hooks.LRScheduler(optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer)),
            hooks.EvalHook(2, lambda: seen.append(trainer.storage.latest()["total_loss"][0]) or {}),
        ]
    )
    trainer.train(0, 2)
    assert all(np.isfinite(seen))
    assert len(seen) >= 1
    assert not torch.equal(model.head.decoder.predictor.weight, before)


def test_evaluation_with_detectron2s_loader_and_evaluator(cfg: CfgNode, mine: str):
    model = build_model(cfg)
    loader = build_detection_test_loader(cfg, mine, mapper=DatasetMapper(cfg, is_train=False))
    evaluator = SemSegEvaluator(mine, distributed=False, sem_seg_loading_fn=read_mask)
    results = inference_on_dataset(model, loader, evaluator)

    # The same figures by hand, from the labels that the model gives by itself.
    right = total = 0
    with torch.no_grad():
        for (sample,) in loader:
            (record,) = [r for r in DatasetCatalog.get(mine) if r["file_name"] == sample["file_name"]]
            truth = read_mask(record["sem_seg_file_name"])
            labels = model.eval()([sample])[0]["labels"].numpy()
            right += int((labels == truth).sum())
            total += int((truth != 255).sum())
    assert results["sem_seg"]["pACC"] == pytest.approx(100 * right / total)
    assert set(results["sem_seg"]) >= {"mIoU", "fwIoU", "IoU-road"}

    cfg.TEST.EXPECTED_RESULTS = [["sem_seg", "pACC", 100 * right / total, 0.01]]
    assert verify_results(cfg, results)


@pytest.mark.parametrize("source", ["configuration", "test set"])
def test_default_predictor_takes_a_bgr_array(cfg: CfgNode, weights: str, source: str):
    cfg.MODEL.WEIGHTS = weights
    if source == "configuration":
        cfg.VOCABULARY.CLASSES = ["water", *CLASSES]
    rgb = np.random.default_rng(1).integers(0, 256, (33, 47, 3), np.uint8)
    found = DefaultPredictor(cfg)(np.ascontiguousarray(rgb[..., ::-1]))
    assert found["sem_seg"].shape == (4 if source == "configuration" else 3, 33, 47)
    assert torch.equal(found["sem_seg"].argmax(dim=0), found["labels"].long())

    model = build_model(cfg)
    DetectionCheckpointer(model).load(weights)
    with torch.no_grad():
        image = torch.as_tensor(np.ascontiguousarray(rgb.transpose(2, 0, 1)))
        expected = model.eval()([{"image": image}])[0]
    torch.testing.assert_close(found["sem_seg"], expected["sem_seg"])


def test_visualizer_draws_the_result(cfg: CfgNode, mine: str, weights: str):
    cfg.MODEL.WEIGHTS = weights
    image = np.full((33, 47, 3), 128, np.uint8)
    found = DefaultPredictor(cfg)(image)
    drawn = Visualizer(image, MetadataCatalog.get(mine), instance_mode=ColorMode.SEGMENTATION)
    picture = drawn.draw_sem_seg(found["sem_seg"].argmax(dim=0), area_threshold=1).get_image()
    assert picture.shape == image.shape
    assert not np.array_equal(picture, image)


def _train_one_step(cfg: CfgNode, folder: str) -> None:
    with EventStorage():
        model = build_model(cfg).train()
        batch = next(iter(build_detection_train_loader(cfg, mapper=DatasetMapper(cfg, is_train=True))))
        loss = sum(model(batch).values())
        loss.backward()
    Path(folder, "loss").write_text(str(loss.item()), encoding="utf-8")


def test_launch_runs_any_entry_point(cfg: CfgNode, tmp_path: Path):
    launch(_train_one_step, 1, args=(cfg, str(tmp_path)))
    assert np.isfinite(float((tmp_path / "loss").read_text(encoding="utf-8")))
