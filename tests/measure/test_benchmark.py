import pytest

from ovrs.config import ConfigError
from ovrs.measure import benchmark, suite
from ovrs.measure.benchmark import measure, table
from ovrs.measure.loading import measure_loading
from ovrs.measure.loading import table as loading_table
from ovrs.measure.stages import COMPANION, STAGES, TEXT

SETTING = {"classes": 3, "images": 3, "size": (64, 64), "repeats": 2}


@pytest.fixture
def _known_memory(monkeypatch):
    monkeypatch.setattr(benchmark, "_in_new_process", lambda cfg, classes, size: 3 * benchmark.MIB)


@pytest.mark.usefixtures("_known_memory")
def test_precisions_are_measured_side_by_side(tiny_cfg):
    first, second = measure(tiny_cfg, ["fp32", "bf16"], **SETTING)
    assert (first.precision, second.precision) == ("fp32", "bf16")
    assert first.agreement == 1
    assert 0 <= second.agreement < 1  # random weights: many near ties
    for measurement in (first, second):
        assert tuple(measurement.stage_seconds) == STAGES
        used = {stage for stage, seconds in measurement.stage_seconds.items() if seconds > 0}
        assert used == set(STAGES) - {COMPANION}  # the tiny model has none
        assert sum(measurement.shares().values()) == pytest.approx(1)
        without_text = sum(measurement.stage_seconds.values()) - measurement.stage_seconds[TEXT]
        assert measurement.seconds_per_image == pytest.approx(without_text / 3)
        assert measurement.images_per_second == pytest.approx(1 / measurement.seconds_per_image)
        assert 0 < measurement.scoring_seconds < measurement.pass_seconds
    ratio = second.images_per_second / first.images_per_second
    row = table([first, second]).splitlines()[-1].split()
    assert row[:5] == [
        "bf16",
        f"{second.seconds_per_image:.3f}",
        f"{second.images_per_second:.2f}",
        f"{ratio:.2f}",
        "3",
    ]


@pytest.mark.usefixtures("_known_memory")
def test_equal_precisions_agree_everywhere(tiny_cfg):
    assert [m.agreement for m in measure(tiny_cfg, ["fp32", "fp32"], **SETTING)] == [1, 1]


def test_peak_memory_is_that_of_a_process_of_its_own(tiny_cfg):
    (measurement,) = measure(tiny_cfg, ["fp32"], classes=3, images=1, size=(64, 64), repeats=1)
    assert 50 * benchmark.MIB < measurement.peak_memory < 4000 * benchmark.MIB


@pytest.mark.usefixtures("_known_memory")
def test_ways_to_run_are_compared_by_labels_launches_and_share_of_the_peak(tiny_cfg):
    tiny_cfg.TEST.IMS_PER_BATCH = 3
    plain, copies, last = measure(tiny_cfg, ["bf16:plain", "bf16", "bf16:channels_last"], **SETTING)
    assert copies.agreement == 1  # to the bit
    assert last.agreement > 0.9
    assert 0 < copies.launches < plain.launches
    assert 0 < copies.peak_share < 1
    assert f"{copies.launches:,}" in table([plain, copies])
    with pytest.raises(ConfigError, match=r"way to run must be one of .*, got 'quick'"):
        measure(tiny_cfg, ["bf16:quick"], **SETTING)


def test_a_way_to_run_that_fails_does_not_spoil_the_table(tiny_cfg, tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "_in_new_process", lambda cfg, classes, size: 3 * benchmark.MIB)
    monkeypatch.setattr(suite, "load_config", lambda name: tiny_cfg.clone())
    monkeypatch.setattr(suite, "TRAINING", suite.Case("tiny", 3, 2, 32))
    rows = suite.suite((suite.Case("tiny", 3, 1, 64),), ("fp32", "bf16:no such"), repeats=1).splitlines()
    assert len(rows) == 2 + 2 + 3
    assert "100.00" in rows[2]
    assert "ConfigError: the way to run" in rows[3]
    assert all("a step" in row for row in rows[4:])


def test_loading_is_measured_by_step(tiny_cfg):
    png, jpeg = measure_loading(tiny_cfg, side=64, images=2)
    assert (png.format, jpeg.format) == ("PNG", "JPEG")
    assert list(png.seconds) == [
        "decode",
        "ResizeShortestEdge",
        "RandomCrop",
        "ColourJitter",
        "RandomFlip",
        "Pad",
        "to tensors",
    ]
    assert png.images_per_second == pytest.approx(1 / sum(png.seconds.values()))
    assert loading_table([png, jpeg]).count("\n") == 3


def test_nothing_to_measure_is_an_error(tiny_cfg):
    with pytest.raises(ConfigError, match="0 images"):
        measure(tiny_cfg, ["fp32"], **{**SETTING, "images": 0})
