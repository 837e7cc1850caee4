import hashlib
import json
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog

from ovrs.config import get_cfg
from ovrs.evaluation import describe_protocol
from ovrs.vocabulary import Vocabulary

NAME = "evaluation_test_protocol"
VOCABULARY = Vocabulary.from_strings(["building|house", "road"], ["a photo of a {}.", "{}"])


@pytest.fixture
def metadata(tmp_path):
    card = tmp_path / "my card.yaml"
    card.write_text("name: scenes\n")
    DatasetCatalog.register(NAME, lambda: [{}, {}, {}])
    metadata = MetadataCatalog.get(NAME)
    metadata.set(stuff_classes=["Building", "Road"], card=SimpleNamespace(name="scenes", path=card), split="val")
    yield metadata
    DatasetCatalog.remove(NAME)
    MetadataCatalog.remove(NAME)


def test_protocol_survives_json_and_tells_what_the_figures_depend_on(metadata):
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.WEIGHTS = "runs/model final.pth"
    cfg.TEST.MIOU_RULE = "union"
    cfg.VOCABULARY.SYNONYMS = "first"
    protocol = describe_protocol(cfg, NAME, VOCABULARY, "ab12")

    assert json.loads(json.dumps(protocol)) == protocol
    assert protocol["dataset"] == {
        "name": NAME,
        "card": "scenes",
        "card_sha256": hashlib.sha256(b"name: scenes\n").hexdigest(),
        "split": "val",
        "images": 3,
        "class_names": ["Building", "Road"],
    }
    assert protocol["vocabulary"] == {
        "classes": ["building|house", "road"],
        "templates": ["a photo of a {}.", "{}"],
        "synonyms": "first",
    }
    assert protocol["scoring"]["miou_rule"] == "union"
    assert "255" in protocol["scoring"]["ignore_rule"]
    assert protocol["inference"]["sliding_window"]["kernel"] == cfg.TEST.SLIDING_WINDOW.KERNEL
    assert len(protocol["inference"]["sliding_window"]) == len(cfg.TEST.SLIDING_WINDOW)
    assert protocol["inference"]["min_size_test"] == 640
    assert protocol["inference"]["precision"] == {"towers": "fp32", "head": "fp32"}
    assert protocol["model"]["head"] == "GSNetHead"
    assert protocol["model"]["vlm"]["arch"] == "ViT-B-16"
    assert protocol["model"]["prior"]["arch"] == "vit_base_patch8_224.dino"
    assert (protocol["model"]["weights"], protocol["model"]["weights_sha256"]) == ("runs/model final.pth", "ab12")
    assert protocol["environment"]["device"] == "cpu"
    assert protocol["environment"]["torch"] == torch.__version__
    assert {"ovrs", "detectron2", "open_clip", "timm", "numpy", "python"} <= set(protocol["environment"])
    age = datetime.now(timezone.utc) - datetime.fromisoformat(protocol["date"])
    assert timedelta(0) <= age < timedelta(minutes=5)


def test_model_without_prior_weights_or_card_is_described_with_nulls(metadata):
    DatasetCatalog.remove(NAME)
    MetadataCatalog.remove(NAME)
    DatasetCatalog.register(NAME, lambda: [{}])
    MetadataCatalog.get(NAME).set(stuff_classes=["a", "b"])
    cfg = get_cfg()
    cfg.MODEL.PRIOR.NAME = ""
    protocol = describe_protocol(cfg, NAME, VOCABULARY, None)
    assert protocol["model"]["prior"] is None
    assert protocol["model"]["weights_sha256"] is None
    assert [protocol["dataset"][key] for key in ("card", "card_sha256", "split")] == [None, None, None]
