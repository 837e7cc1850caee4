import hashlib
import json
import os
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from ovrs.config import get_cfg
from ovrs.evaluation import describe_protocol, protocol_key
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
    }
    assert "255" in protocol["scoring"]["ignore_rule"]
    config = protocol["config"]
    assert config["VOCABULARY"]["SYNONYMS"] == "first"
    assert config["TEST"]["MIOU_RULE"] == "union"
    assert config["TEST"]["CROP_PADDING"] is True
    assert config["TEST"]["SLIDING_WINDOW"] == dict(cfg.TEST.SLIDING_WINDOW)
    assert config["INPUT"]["MIN_SIZE_TEST"] == 640
    assert config["MODEL"]["PRECISION"] == dict(cfg.MODEL.PRECISION)
    assert config["MODEL"]["SEM_SEG_HEAD"]["NAME"] == "GSNetHead"
    assert config["MODEL"]["GSNET"]["POOLING_TEST"] == 1
    assert config["MODEL"]["VLM"] == dict(cfg.MODEL.VLM)
    assert config["MODEL"]["PRIOR"] == dict(cfg.MODEL.PRIOR)
    assert config["MODEL"]["COMPANION"] == dict(cfg.MODEL.COMPANION)
    assert protocol["weights"] == {"file": "runs/model final.pth", "sha256": "ab12"}
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
    assert protocol["config"]["MODEL"]["PRIOR"]["NAME"] == ""
    assert protocol["weights"]["sha256"] is None
    assert [protocol["dataset"][key] for key in ("card", "card_sha256", "split")] == [None, None, None]


@pytest.mark.usefixtures("metadata")
def test_a_new_key_is_written_down_without_being_listed_anywhere():
    before = describe_protocol(get_cfg(), NAME, VOCABULARY, None)
    cfg = get_cfg()
    cfg.MODEL.NEW = CfgNode({"KEY": 3})
    cfg.TEST.NEW_KEY, cfg.NEW_GROUP = "new", CfgNode({"KEY": [1.5]})
    config = describe_protocol(cfg, NAME, VOCABULARY, None)["config"]
    assert (config["MODEL"]["NEW"], config["TEST"]["NEW_KEY"], config["NEW_GROUP"]) == (
        {"KEY": 3},
        "new",
        {"KEY": [1.5]},
    )
    assert protocol_key(before) != protocol_key(describe_protocol(cfg, NAME, VOCABULARY, None))


@pytest.mark.usefixtures("metadata")
def test_a_key_of_detectron2_is_written_down_once_it_is_changed():
    cfg = get_cfg()
    assert "NUM_CLASSES" not in describe_protocol(cfg, NAME, VOCABULARY, None)["config"]["MODEL"]["SEM_SEG_HEAD"]
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 7
    assert describe_protocol(cfg, NAME, VOCABULARY, None)["config"]["MODEL"]["SEM_SEG_HEAD"]["NUM_CLASSES"] == 7


@pytest.mark.usefixtures("metadata")
def test_every_file_that_a_key_names_counts_by_its_content(tmp_path):
    keys = []
    for folder, text in (("a", "same"), ("b", "same"), ("c", "other")):
        path = tmp_path / folder / "a file.json"
        path.parent.mkdir()
        path.write_text(text, encoding="utf-8")
        cfg = get_cfg()
        cfg.MODEL.COMPANION.ARCH = str(path)
        cfg.MODEL.NEW_FILES = ["no file", str(path)]
        protocol = describe_protocol(cfg, NAME, VOCABULARY, None)
        digest = hashlib.sha256(text.encode()).hexdigest()
        assert {k: v for k, v in protocol["files"].items() if k != "MODEL.VLM.WEIGHTS"} == {
            "MODEL.COMPANION.ARCH": digest,
            "MODEL.NEW_FILES[1]": digest,
        }
        keys.append(protocol_key(protocol))
    assert keys[0] == keys[1] != keys[2]


@pytest.mark.usefixtures("metadata")
def test_a_file_that_changes_between_two_evaluations_has_another_sum(tmp_path):
    cfg = get_cfg()
    cfg.MODEL.COMPANION.ARCH = str(tmp_path / "arch.json")
    sums = set()
    for number in range(2):
        (tmp_path / "arch.json").write_text(str(number), encoding="utf-8")
        os.utime(tmp_path / "arch.json", ns=(number, number))
        sums.add(describe_protocol(cfg, NAME, VOCABULARY, None)["files"]["MODEL.COMPANION.ARCH"])
    assert len(sums) == 2


def digest(weights="ab12", **changes) -> str:
    cfg = get_cfg()
    for key, value in changes.items():
        *groups, name = key.split("__")
        node = cfg
        for group in groups:
            node = node[group]
        node[name] = value
    return protocol_key(json.loads(json.dumps(describe_protocol(cfg, NAME, VOCABULARY, weights))))


@pytest.mark.usefixtures("metadata")
def test_the_key_of_a_protocol_tells_apart_what_changes_figures_and_nothing_else():
    assert digest() == digest()
    assert digest() == digest(
        MODEL__DEVICE="cpu", MODEL__WEIGHTS="elsewhere.pth", OUTPUT_DIR="x", SOLVER__BASE_LR=1.0, DATASETS__ROOT="/data"
    )
    others = [digest("cd34"), digest(TEST__CROP_PADDING=False), digest(MODEL__PRIOR__PIXEL_MEAN=[1.0, 2.0, 3.0])]
    assert len({digest(), *others}) == 4
