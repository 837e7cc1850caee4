"""The demonstration: labelled scenes, training from class names, scores with known and with unseen words."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from detectron2.data import DatasetCatalog, MetadataCatalog

from ovrs.config import load_config
from ovrs.data import read_labels, resolve_datasets
from ovrs.data.work import usable_cores
from ovrs.demo.dataset import write_scenes
from ovrs.errors import UserError
from ovrs.evaluation.chance import chance_miou
from ovrs.evaluation.report import JSON_NAME
from ovrs.heads import head_class

TRAIN = (sys.executable, "-m", "ovrs.cli", "train")


class DemoFailed(UserError):
    """A training process ended with an error, which it has printed."""


@dataclass(frozen=True)
class DemoScenes:
    """The generated data.

    Attributes:
        train: the training split.
        seen: the validation split under the words of the training.
        renamed: the same images, every class renamed to a word that training never used.
    """

    train: str
    seen: str
    renamed: str

    @classmethod
    def written(cls, folder: str | Path, train: int, val: int) -> DemoScenes:
        """Write ``train`` and ``val`` scenes into ``folder``, unless they are there."""
        folder = write_scenes(folder, train=train, val=val)
        return cls(
            f"{folder / 'scenes.yaml'}:train", f"{folder / 'scenes.yaml'}:val", f"{folder / 'scenes_renamed.yaml'}:val"
        )

    def names(self) -> tuple[str, str]:
        """Return the registered names of ``seen`` and ``renamed``."""
        seen, renamed = resolve_datasets([self.seen, self.renamed])
        return seen, renamed

    def chance(self) -> float:
        """Return the mIoU in percent of labels drawn at the frequencies of the classes."""
        name, _ = self.names()
        metadata = MetadataCatalog.get(name)
        truth = (read_labels(record["sem_seg_file_name"], metadata.card) for record in DatasetCatalog.get(name))
        return chance_miou(truth, len(metadata.stuff_classes))


def spare_processes() -> int:
    """Return in how many processes a small model trains fastest here: two share the cores of a CPU, a GPU needs one."""
    return 1 if torch.cuda.is_available() else min(usable_cores(), 2)


def train_on_scenes(
    config_file: str | Path, scenes: DemoScenes, run: Path, overrides: Sequence[str] = (), processes: int = 1
) -> Path:
    """Train and evaluate a configuration on the scenes by ``ovrs train``; go on where an earlier call stopped.

    Files that its head needs first are made from the training split.

    Returns:
        ``run``, with ``config.yaml``, ``model_final.pth`` and ``report.json`` in it.

    Raises:
        DemoFailed: the training failed.
    """
    data = ["DATASETS.TRAIN", json.dumps([scenes.train]), "DATASETS.TEST", json.dumps([scenes.seen, scenes.renamed])]
    words = [*data, "OUTPUT_DIR", str(run), *overrides]
    cfg = load_config(config_file, words)
    for artefact in head_class(cfg).artefacts(cfg):
        file = run / artefact.name
        if not file.exists():
            artefact.make(cfg, scenes.train, file)
        words = [artefact.key, str(file), *words]

    command = [*TRAIN, str(config_file), "--resume", "--num-gpus", str(processes), *words]
    if subprocess.run(command).returncode:
        raise DemoFailed(f"training {config_file} failed; the message is above.")
    return run


def report_of(run: Path) -> dict:
    """Return the ``datasets`` part of a run's report."""
    return json.loads((run / JSON_NAME).read_text(encoding="utf-8"))["datasets"]
