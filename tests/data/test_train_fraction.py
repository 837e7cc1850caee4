from itertools import islice
from pathlib import Path

import pytest

from ovrs.config import ConfigError
from ovrs.data.loader import build_train_loader, draw_fraction

RECORDS = [{"file_name": f"{i:03d}.png"} for i in range(200)]


def test_share_is_always_the_same_and_in_order():
    drawn = draw_fraction(RECORDS, 0.3)
    assert drawn == draw_fraction(RECORDS, 0.3)
    assert len(drawn) == 60
    names = [record["file_name"] for record in drawn]
    assert names == sorted(names)
    assert names != [record["file_name"] for record in RECORDS[:60]]


def test_larger_share_contains_the_smaller():
    shares = [{record["file_name"] for record in draw_fraction(RECORDS, f)} for f in (0.1, 0.3, 0.5, 1.0)]
    assert [len(share) for share in shares] == [20, 60, 100, 200]
    assert shares[0] < shares[1] < shares[2] < shares[3]


def test_a_tiny_share_keeps_one_image():
    assert len(draw_fraction(RECORDS[:3], 0.1)) == 1


@pytest.mark.parametrize("fraction", [0.0, -0.5, 1.01])
def test_fraction_outside_its_range_names_the_key(fraction):
    with pytest.raises(ConfigError, match=rf"DATASETS\.TRAIN_FRACTION must be above 0 and at most 1, got {fraction}"):
        draw_fraction(RECORDS, fraction)


def test_loader_serves_the_share_for_any_seed_and_lists_it(cfg, tmp_path):
    cfg.DATASETS.TRAIN_FRACTION, cfg.OUTPUT_DIR = 3 / 7, str(tmp_path / "the run")
    served = []
    for seed in (3, 4):
        cfg.SEED = seed
        batches = list(islice(build_train_loader(cfg), 6))
        served.append({sample["file_name"] for batch in batches for sample in batch})
    listed = Path(cfg.OUTPUT_DIR, "training_subset.txt").read_text().splitlines()
    assert served[0] == served[1] == set(listed)
    assert len(listed) == 3


def test_all_images_need_no_list(cfg, tmp_path):
    cfg.OUTPUT_DIR = str(tmp_path)
    build_train_loader(cfg)
    assert not list(tmp_path.glob("*.txt"))
