"""train_net.py as a program: what it leaves, what it says, how it ends."""

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.utils import comm
from PIL import Image
from same_state import assert_same

from ovrs.engine import CheckpointStore, Trainer, argument_parser, begin_run, build_model, launch_processes, prepare_run

TIME_LIMIT = 180  # seconds; a run takes a few on a quiet machine
TWO_PROCESSES = ("--num-gpus", "2", "--dist-url", "auto")


@pytest.fixture
def own_scenes(scenes, tmp_path, run_cfg):
    """A copy of the scenes that a test may damage; the configuration trains on it."""
    folder = shutil.copytree(scenes, tmp_path / "own scenes")
    run_cfg.DATASETS.TRAIN = (f"{folder / 'scenes.yaml'}:train",)
    return folder


@pytest.fixture
def one_thread() -> Iterator[None]:
    """The arithmetic of processes that share the machine: sums depend on the number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def figures(folder) -> dict:
    report = json.loads((folder / "report.json").read_text())
    return {name: {**entry["figures"], **entry["classes"]} for name, entry in report["datasets"].items()}


def finish(process) -> str:
    """Wait for a process that must succeed and return what it printed."""
    output, errors = process.communicate(timeout=TIME_LIMIT)
    assert process.returncode == 0, output + errors
    return output + errors


# ---------------------------------------------------------------------- whole runs


def test_training_ends_with_weights_config_and_report(train_net, run_cfg, write_config, tmp_path):
    folder = tmp_path / "output"
    assert train_net("--config-file", write_config(run_cfg), "SOLVER.MAX_ITER", 2) == ""
    assert {"model_final.pth", "config.yaml", "report.json", "report.md", "metrics.json", "log.txt"} <= {
        path.name for path in folder.iterdir()
    }
    trained = figures(folder)
    weights = folder / "model_final.pth"
    # the written configuration is enough to come to the same figures
    arguments = ("--eval-only", "MODEL.WEIGHTS", weights, "OUTPUT_DIR", tmp_path / "again")
    assert train_net("--config-file", folder / "config.yaml", *arguments) == ""
    assert figures(tmp_path / "again") == trained


def test_a_process_killed_at_any_moment_resumes_to_the_same_state(
    start_train_net, train_net, one_thread, run_cfg, write_config, tmp_path
):
    run_cfg.SEED = -1
    run_cfg.SOLVER.MAX_ITER, run_cfg.SOLVER.CHECKPOINT_PERIOD = 1000, 5
    run_cfg.SOLVER.LR_SCHEDULER_NAME = "constant"  # so that the end can be put closer later
    run_cfg.DATASETS.TEST = ()
    config = write_config(run_cfg)
    killed = ("--config-file", config, "OUTPUT_DIR", tmp_path / "killed")
    process = start_train_net(*killed)
    limit = time.monotonic() + TIME_LIMIT
    while not (tmp_path / "killed" / "last_checkpoint").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < limit
        time.sleep(0.01)
    time.sleep(random.SystemRandom().uniform(0, 0.5))
    process.kill()
    process.communicate()
    store = CheckpointStore(tmp_path / "killed")
    reached = store.load(store.last())
    assert 0 < reached["iteration"] < 1000, "the run was over before it could be killed"

    end = ("SOLVER.MAX_ITER", reached["iteration"] + 7)
    finish(start_train_net("--resume", *killed, *end))
    seed = ("SEED", reached["seed"])
    assert train_net("--config-file", config, "OUTPUT_DIR", tmp_path / "straight", *seed, *end) == ""
    resumed, straight = (
        CheckpointStore(tmp_path / name).load(tmp_path / name / "model_final.pth") for name in ("killed", "straight")
    )
    assert_same(resumed, straight)
    iterations = [json.loads(line)["iteration"] for line in (tmp_path / "killed" / "metrics.json").open()]
    assert iterations == sorted(set(iterations))
    assert iterations[-1] == reached["iteration"] + 6


def test_a_command_that_fails_leaves_the_folder_as_it_was(train_net, run_cfg, write_config, tmp_path):
    folder = tmp_path / "output"
    run_cfg.DATASETS.TEST = ()
    config = write_config(run_cfg)
    assert train_net("--config-file", config, "SOLVER.MAX_ITER", 2) == ""

    def content() -> dict:
        # The first run's log is still open: it was in this process.
        return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "log.txt"}

    before = content()
    own = ("MODEL.WEIGHTS", folder / "model_final.pth", "DATASETS.TEST", f"['{run_cfg.DATASETS.TRAIN[0]}']")
    other_model = (*own, "MODEL.GSNET.DECODER_DIMS", "[48, 16]")
    assert "do not fit" in train_net("--config-file", config, "--eval-only", *other_model)
    assert "holds a run already" in train_net("--config-file", config)
    assert "DATASETS.TRAIN is empty" in train_net("--config-file", config, "--overwrite", "DATASETS.TRAIN", "[]")
    assert "SOLVER.BASE_LR" in train_net("--config-file", config, "--resume", "SOLVER.BASE_LR", 0.5)
    assert content() == before


def test_results_are_written_set_by_set(train_net, run_cfg, write_config, own_scenes, scenes, tmp_path):
    torch.save({"model": build_model(run_cfg).state_dict()}, tmp_path / "weights.pth")
    damaged = own_scenes / "images" / "val" / "0002.png"
    damaged.write_bytes(damaged.read_bytes()[:-200])
    sets = [f"{folder / 'scenes.yaml'}:val" for folder in (scenes, own_scenes)]
    arguments = ("--config-file", write_config(run_cfg), "--eval-only", "MODEL.WEIGHTS", tmp_path / "weights.pth")
    assert f"{damaged} cannot be read" in train_net(*arguments, "DATASETS.TEST", sets)
    (finished,) = figures(tmp_path / "output")
    assert finished.split("@")[0] == "scenes_val"

    (own_scenes / "images" / "val" / "0001.png").write_bytes(b"no picture")
    elsewhere = ("OUTPUT_DIR", tmp_path / "elsewhere")
    assert "0001.png" in train_net(*arguments, "DATASETS.TEST", sets, *elsewhere)
    assert "more than once" in train_net(*arguments, "DATASETS.TEST", [sets[0]] * 2, *elsewhere)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("options", [(), TWO_PROCESSES])
def test_ctrl_c_saves_a_checkpoint_and_ends_without_a_traceback(
    start_train_net, run_cfg, write_config, tmp_path, options
):
    run_cfg.SOLVER.MAX_ITER, run_cfg.SOLVER.CHECKPOINT_PERIOD, run_cfg.DATASETS.TEST = 100_000, 0, ()
    process = start_train_net("--config-file", write_config(run_cfg), *options)
    log = tmp_path / "output" / "log.txt"
    limit = time.monotonic() + TIME_LIMIT
    while not (log.exists() and "iteration 1 of" in log.read_text()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < limit
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does it
    output, errors = process.communicate(timeout=TIME_LIMIT)
    assert process.returncode == 130, output + errors
    assert "Traceback" not in output + errors
    assert "go on with --resume" in errors
    store = CheckpointStore(tmp_path / "output")
    assert store.load(store.last())["iteration"] > 0


# ---------------------------------------------------------------------- several processes


def test_two_processes_evaluate_to_the_figures_of_one(
    start_train_net, train_net, one_thread, run_cfg, write_config, tmp_path
):
    torch.save({"model": build_model(run_cfg).state_dict()}, tmp_path / "weights.pth")
    run_cfg.MODEL.WEIGHTS = str(tmp_path / "weights.pth")
    arguments = ("--config-file", write_config(run_cfg), "--eval-only")
    finish(start_train_net(*arguments, *TWO_PROCESSES, "OUTPUT_DIR", tmp_path / "two"))
    assert train_net(*arguments, "OUTPUT_DIR", tmp_path / "one") == ""
    assert figures(tmp_path / "two") == figures(tmp_path / "one")


def train_and_keep_weights(args) -> None:
    """Train in this process and write the weights that it ended with."""
    cfg = prepare_run(args)
    trainer = Trainer(cfg)
    begin_run(cfg, args)
    trainer.train()
    torch.save(trainer.model.state_dict(), Path(cfg.OUTPUT_DIR, f"rank_{comm.get_rank()}.pth"))


def test_two_processes_train_to_the_same_weights_and_to_those_of_one(run_cfg, write_config, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    # without AdamW's division, which blows rounding errors of tiny gradients up
    run_cfg.SOLVER.OPTIMIZER, run_cfg.SOLVER.BASE_LR, run_cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = "SGD", 0.1, 1.0
    arguments = ["--config-file", str(write_config(run_cfg))]
    weights = []
    for options in (TWO_PROCESSES, ("--overwrite",)):
        args = argument_parser().parse_args([*arguments, *options])
        launch_processes(train_and_keep_weights, args)
        weights.append(torch.load(tmp_path / "output" / "rank_0.pth", weights_only=True))
        if options is TWO_PROCESSES:
            weights.append(torch.load(tmp_path / "output" / "rank_1.pth", weights_only=True))
    first, second, alone = weights
    assert_same(first, second)
    start = build_model(run_cfg).state_dict()
    moved = [name for name in alone if not torch.equal(alone[name], start[name])]
    assert any(name.startswith("vlm.") for name in moved)
    for name in alone:
        assert first[name].isfinite().all()
        torch.testing.assert_close(first[name], alone[name], rtol=1e-4, atol=1e-6, msg=name)


# ---------------------------------------------------------------------- errors


def test_a_missing_configuration_is_named(train_net, tmp_path):
    assert "config file absent.yaml does not exist" in train_net("--config-file", "absent.yaml")


def test_no_configuration_asks_for_one(train_net):
    assert "use --config-file" in train_net()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("DATASETS.TRAIN", "[]"), "DATASETS.TRAIN is empty"),
        (("--eval-only",), "an evaluation needs MODEL.WEIGHTS"),
        (("MODEL.WEIGHTS", "absent.pth"), "absent.pth does not exist"),
        (("--eval-only", "MODEL.WEIGHTS", "absent.pth"), "absent.pth does not exist"),
        (("DATASETS.TRAIN", "[unknown_set]"), "unknown data set 'unknown_set'"),
        (("DATASETS.TEST", "[unknown_set]"), "unknown data set 'unknown_set'"),
        (("SOLVER.OPTIMISER", "SGD"), "The nearest valid key is SOLVER.OPTIMIZER"),
        (("SOLVER.OPTIMIZER", "LBFGS"), "known optimizers are"),
        (("MODEL.SEM_SEG_HEAD.NAME", "Unknown"), "MODEL.SEM_SEG_HEAD.NAME must be one of"),
        (("SOLVER.BASE_LR", "1e30", "SOLVER.LR_SCHEDULER_NAME", "constant"), "nothing was updated"),
        (("SOLVER.BASE_LR", "-1"), "SOLVER.BASE_LR must be above 0, got -1.0"),
        (("SOLVER.MAX_ITER", "0"), "SOLVER.MAX_ITER must be at least 1, got 0"),
        (("--num-gpus", "0"), "--num-gpus must be at least 1"),
        (("MODEL.DEVICE", "cuda"), "MODEL.DEVICE is 'cuda', but PyTorch sees no GPU"),
    ],
)
def test_a_mistake_ends_in_a_message_and_no_traceback(
    train_net, run_cfg, write_config, monkeypatch, arguments, message
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    # the options of the program come before keys and values
    first = next((i for i, word in enumerate(arguments) if word.isupper() or "." in word), len(arguments))
    options, keys = arguments[:first], arguments[first:]
    assert message in train_net("--config-file", write_config(run_cfg), *options, *keys)


def test_evaluation_without_test_sets_is_an_error(train_net, run_cfg, write_config, tmp_path):
    torch.save({"model": build_model(run_cfg).state_dict()}, tmp_path / "weights.pth")
    keys = ("MODEL.WEIGHTS", tmp_path / "weights.pth", "DATASETS.TEST", "[]")
    assert "DATASETS.TEST is empty" in train_net("--config-file", write_config(run_cfg), "--eval-only", *keys)


def test_a_damaged_checkpoint_without_one_before_it_stops_the_resume(train_net, run_cfg, write_config, tmp_path):
    run_cfg.DATASETS.TEST, run_cfg.SOLVER.CHECKPOINT_PERIOD = (), 0
    config = write_config(run_cfg)
    assert train_net("--config-file", config) == ""
    checkpoint = tmp_path / "output" / "model_final.pth"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    message = train_net("--config-file", config, "--resume")
    assert f"{checkpoint} cannot be read" in message
    assert "last_checkpoint" in message


def test_an_empty_image_folder_is_named(train_net, run_cfg, write_config, own_scenes):
    for path in (own_scenes / "images" / "train").iterdir():
        path.unlink()
    assert f"no file in {own_scenes / 'images' / 'train'}" in train_net("--config-file", write_config(run_cfg))


def test_a_truncated_image_is_named(train_net, run_cfg, write_config, own_scenes):
    truncate_all(own_scenes / "images" / "train")
    message = train_net("--config-file", write_config(run_cfg))
    assert str(own_scenes / "images" / "train") in message
    assert "cannot be read, it is probably damaged" in message


def test_an_unknown_mask_value_is_named_with_its_file(train_net, run_cfg, write_config, own_scenes):
    paint_all(own_scenes / "labels" / "train", 77)
    message = train_net("--config-file", write_config(run_cfg))
    assert str(own_scenes / "labels" / "train") in message
    assert "77 (4096 pixels)" in message


@pytest.mark.parametrize("options", [(), TWO_PROCESSES])
def test_an_error_in_another_process_ends_the_program_with_its_message(
    start_train_net, run_cfg, write_config, own_scenes, options
):
    truncate_all(own_scenes / "images" / "train")
    run_cfg.DATALOADER.NUM_WORKERS = 0 if options else 1
    process = start_train_net("--config-file", write_config(run_cfg), *options)
    output, errors = process.communicate(timeout=TIME_LIMIT)
    assert process.returncode == 1
    message = next(line for line in errors.splitlines() if line.startswith("train_net.py: "))
    assert str(own_scenes / "images" / "train") in message
    assert "cannot be read" in message
    assert "Traceback" not in output + errors


def truncate_all(folder: Path) -> None:
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes()[:-200])


def paint_all(folder: Path, value: int) -> None:
    for path in folder.iterdir():
        shape = np.asarray(Image.open(path)).shape
        Image.fromarray(np.full(shape, value, np.uint8)).save(path)
