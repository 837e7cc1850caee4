import logging
import sys

import pytest
import torch

from ovrs.config import ConfigError
from ovrs.data import DataError
from ovrs.engine import build_model, readable_errors


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("MODEL.META_ARCHITECTURE", "Unknown", r"MODEL\.META_ARCHITECTURE must be one of .* got 'Unknown'"),
        ("MODEL.SEM_SEG_HEAD.NAME", "Unknown", r"MODEL\.SEM_SEG_HEAD\.NAME must be one of .* got 'Unknown'"),
        ("MODEL.VLM.NAME", "Unknown", r"MODEL\.VLM\.NAME must be one of .* got 'Unknown'"),
        ("MODEL.PRECISION.TOWERS", "fp8", r"MODEL\.PRECISION\.TOWERS must be one of"),
        ("MODEL.VLM.FINETUNE_IMAGE", "some", r"MODEL\.VLM\.FINETUNE_IMAGE must be one of .* got 'some'"),
        ("MODEL.LOSS.NAME", "dice", r"MODEL\.LOSS\.NAME must be one of .* got 'dice'"),
        ("TEST.OUTPUT", "masks", r"TEST\.OUTPUT must be"),
        ("TEST.SLIDING_WINDOW.OVERLAP", 1.0, r"TEST\.SLIDING_WINDOW\.OVERLAP must be"),
    ],
)
def test_settings_that_no_part_can_use_are_config_errors(tiny_cfg, key, value, message):
    tiny_cfg.merge_from_list([key, value])
    with pytest.raises(ConfigError, match=message):
        build_model(tiny_cfg)


def test_towers_stay_random_where_nothing_may_be_fetched(tiny_cfg):
    tiny_cfg.MODEL.VLM.ACTIVATION, tiny_cfg.MODEL.VLM.WEIGHTS = "gelu", "absent.pt"
    model = build_model(tiny_cfg, load_towers=False)
    assert tiny_cfg.MODEL.WEIGHTS == ""
    (gelu,) = {type(block.mlp.gelu) for block in model.vlm.clip.visual.transformer.resblocks}
    assert gelu is torch.nn.GELU


def test_an_error_of_the_user_ends_the_process_with_its_message(monkeypatch, caplog):
    monkeypatch.setattr(sys, "argv", ["/somewhere/train_net.py"])
    with caplog.at_level(logging.ERROR), pytest.raises(SystemExit) as caught, readable_errors():
        raise DataError("a.png is damaged; fetch it again.")
    assert caught.value.code == "train_net.py: a.png is damaged; fetch it again."
    assert caplog.messages == ["a.png is damaged; fetch it again."]


@pytest.fixture
def console_and_file(capsys, tmp_path, monkeypatch):
    """End a process by an error under the given root handlers; return what was printed, and the log file."""
    root = logging.getLogger()

    def run(*handlers):
        file = logging.FileHandler(tmp_path / "log.txt")
        monkeypatch.setattr(root, "handlers", [*handlers, file] if handlers else [])
        with pytest.raises(SystemExit), readable_errors():
            raise DataError("a.png is damaged; fetch it again.")
        file.close()
        printed = capsys.readouterr()
        return printed.out + printed.err, (tmp_path / "log.txt").read_text()

    return run


def test_the_message_is_printed_by_the_end_of_the_process_alone(console_and_file):
    # what SystemExit carries is printed by the interpreter, so nothing else may print it
    assert console_and_file() == ("", "")
    handlers = logging.StreamHandler(sys.stderr), logging.StreamHandler(sys.stdout)
    assert console_and_file(*handlers) == ("", "a.png is damaged; fetch it again.\n")


def test_the_traceback_of_a_worker_process_is_left_out(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train_net.py"])
    text = "Caught DataError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n  File ...\n"
    with pytest.raises(SystemExit) as caught, readable_errors():
        raise DataError(f"{text}ovrs.data.errors.DataError: a.png is damaged; fetch it again.\n")
    assert caught.value.code == "train_net.py: a.png is damaged; fetch it again."


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError), readable_errors():
        _ = 1 / 0


@pytest.mark.parametrize("bug", [KeyError("vocabulary"), ValueError("not enough values to unpack")])
def test_a_bug_in_a_new_head_keeps_its_traceback(tiny_cfg, monkeypatch, bug):
    def fail(*_):
        raise bug

    monkeypatch.setattr("ovrs.segmenter.build_head", fail)
    with pytest.raises(type(bug)) as caught, readable_errors():
        build_model(tiny_cfg)
    assert caught.value is bug


def test_ctrl_c_ends_with_its_exit_code_and_no_traceback(capsys):
    with pytest.raises(SystemExit) as caught, readable_errors():
        raise KeyboardInterrupt
    assert caught.value.code == 130
    assert capsys.readouterr().err.endswith(": stopped.\n")


def test_running_out_of_memory_says_what_to_lower():
    with pytest.raises(SystemExit) as caught, readable_errors():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nmore")
    assert "memory is too small for this (CUDA out of memory. Tried to allocate 20.00 GiB.)" in caught.value.code
    assert "SOLVER.IMS_PER_BATCH" in caught.value.code
