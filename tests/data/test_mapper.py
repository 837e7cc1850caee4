import pickle

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from ovrs.config import ConfigError
from ovrs.data.catalog import resolve_datasets
from ovrs.data.mapper import SegmentationMapper
from ovrs.errors import DataError


@pytest.fixture
def names(town):
    return resolve_datasets([str(town)])


def test_training_sample_is_augmented_and_aligned(cfg, names):
    cfg.INPUT.CROP.ENABLED, cfg.INPUT.CROP.SIZE, cfg.INPUT.PAD_TO = True, [12, 12], 20
    cfg.INPUT.RANDOM_FLIP_VERTICAL = cfg.INPUT.RANDOM_ROTATE90 = True
    record = DatasetCatalog.get(names[0])[3]
    mapper = SegmentationMapper(cfg, True, dataset_names=names)
    for seed in range(8):
        sample = mapper(record, np.random.default_rng(seed))
        image, labels = sample["image"], sample["sem_seg"]
        assert (image.dtype, labels.dtype) == (torch.uint8, torch.int64)
        assert (image.shape, labels.shape) == ((3, 20, 20), (20, 20))
        assert all(tensor.is_contiguous() for tensor in (image, labels))
        np.testing.assert_array_equal(image[0][labels != 255], labels[labels != 255] * 100)
        assert (labels != 255).sum() == 144
        assert (sample["height"], sample["width"]) == (24, 16)
        assert (sample["dataset"], sample["file_name"]) == ("town_train", record["file_name"])


def test_test_sample_keeps_labels_at_the_original_size(cfg, names):
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = 40, 50
    sample = SegmentationMapper(cfg, False, dataset_names=names)(DatasetCatalog.get(names[0])[0])
    assert sample["image"].shape == (3, 50, 33)
    assert (sample["height"], sample["width"]) == (24, 16)
    stored = np.array(Image.open(DatasetCatalog.get(names[0])[0]["sem_seg_file_name"]))
    np.testing.assert_array_equal(sample["sem_seg"], stored)


def test_test_image_is_untouched_without_a_size(cfg, names):
    record = DatasetCatalog.get(names[0])[1]
    sample = SegmentationMapper(cfg, False, dataset_names=names)(record)
    np.testing.assert_array_equal(sample["image"].permute(1, 2, 0), np.array(Image.open(record["file_name"])))


def test_records_without_labels_map_for_the_test(cfg, write_card, town):
    names = resolve_datasets(
        [str(write_card("bare.yaml", name="bare", splits={"t": {"images": "images", "labels": None}}))]
    )
    sample = SegmentationMapper(cfg, False, dataset_names=names)(DatasetCatalog.get("bare_t")[0])
    assert "sem_seg" not in sample
    assert sample["image"].shape == (3, 24, 16)


def test_mapper_works_where_the_catalogues_are_unknown(cfg, names):
    """As in a worker process that was spawned, not forked."""
    record = DatasetCatalog.get(names[0])[0]
    mapper = pickle.loads(pickle.dumps(SegmentationMapper(cfg, False, dataset_names=names)))
    DatasetCatalog.data.clear()
    MetadataCatalog.data.clear()
    assert mapper(record)["sem_seg"].shape == (24, 16)


def test_bad_label_reaches_the_user_as_data_error(cfg, names, town):
    Image.fromarray(np.full((24, 16), 7, np.uint8)).save(town.parent / "labels" / "000.png")
    with pytest.raises(DataError, match=r"000\.png hold values .* 7 \(384 pixels\)"):
        SegmentationMapper(cfg, False, dataset_names=names)(DatasetCatalog.get(names[0])[0])


def test_other_channel_orders_are_refused(cfg, names):
    cfg.INPUT.FORMAT = "BGR"
    with pytest.raises(ConfigError, match=r"INPUT\.FORMAT must be 'RGB'"):
        SegmentationMapper(cfg, True, dataset_names=names)
