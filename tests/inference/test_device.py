import pytest
import torch

from ovrs.config import get_cfg
from ovrs.errors import ConfigError
from ovrs.inference import apply_precision, resolve_device


@pytest.fixture
def cards(monkeypatch):
    def pretend(count: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    return pretend


@pytest.mark.parametrize(
    ("count", "name", "device"),
    [(0, "auto", "cpu"), (1, "auto", "cuda"), (2, "cuda:1", "cuda:1"), (1, "cpu", "cpu"), (0, "cpu", "cpu")],
)
def test_a_device_that_is_there_is_taken(cards, count, name, device):
    cards(count)
    assert resolve_device(name) == resolve_device(name, fall_back=True) == device


@pytest.mark.parametrize(
    ("count", "name", "said", "instead"),
    [(0, "cuda", "'cuda', but PyTorch sees no GPU", "cpu"), (1, "cuda:3", "'cuda:3', but PyTorch sees 1 GPU", "cuda")],
)
def test_a_card_that_is_not_there_is_an_error_or_replaced_where_that_is_wanted(cards, count, name, said, instead):
    cards(count)
    with pytest.raises(ConfigError, match=said):
        resolve_device(name)
    assert resolve_device(name, fall_back=True) == instead


def test_a_word_that_is_no_device_is_an_error():
    with pytest.raises(ConfigError, match=r"MODEL\.DEVICE must be auto, cpu.*'gpu'"):
        resolve_device("gpu")


@pytest.mark.parametrize("wanted", [True, False])
def test_one_key_decides_about_tf32_and_one_about_the_search_for_kernels(wanted):
    switches = [(torch.backends.cuda.matmul, "allow_tf32"), (torch.backends.cudnn, "allow_tf32")]
    switches.append((torch.backends.cudnn, "benchmark"))
    before = [getattr(owner, name) for owner, name in switches]
    cfg = get_cfg()
    cfg.MODEL.PRECISION.TF32 = cfg.CUDNN_BENCHMARK = wanted
    try:
        apply_precision(cfg)
        assert [getattr(owner, name) for owner, name in switches] == [wanted] * 3
    finally:
        for (owner, name), value in zip(switches, before, strict=True):
            setattr(owner, name, value)
