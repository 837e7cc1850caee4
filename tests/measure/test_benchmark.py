import pytest

from ovrs.config import ConfigError
from ovrs.measure import benchmark
from ovrs.measure.benchmark import measure, table
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


def test_nothing_to_measure_is_an_error(tiny_cfg):
    with pytest.raises(ConfigError, match="0 images"):
        measure(tiny_cfg, ["fp32"], **{**SETTING, "images": 0})
