"""The published models at full size, one table: ``tools/benchmark.py --table``."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from detectron2.config import CfgNode
from tabulate import tabulate

from ovrs.config import load_config
from ovrs.engine.optimizer import build_optimizer
from ovrs.engine.setup import build_model
from ovrs.inference import resolve_device
from ovrs.measure.benchmark import MIB, measure
from ovrs.measure.stages import example_records

VARIANTS = ("fp32:exact", "fp32", "bf16:plain", "bf16", "bf16:channels_last", "bf16:towers", "bf16:compiled")
VARIANTS += ("bf16:graphs",)
HEADERS = ("model", "run", "ms/image", "of peak %", "launches", "peak MiB", "same labels %")


@dataclass(frozen=True)
class Case:
    """One model and size.

    Attributes:
        config: name of a configuration.
        classes: ``T``.
        images: per batch.
        side: of the images in pixels.
    """

    config: str
    classes: int
    images: int
    side: int = 640

    @property
    def name(self) -> str:
        """What the table calls it."""
        return f"{self.config}, T={self.classes}, batch {self.images}"


GSNET = "gsnet/vitb16_landdiscover50k"
CASES = (
    Case(GSNET, 5, 8),
    Case(GSNET, 40, 8),
    Case(GSNET, 150, 8),
    Case(GSNET, 5, 1),
    Case("hg_rsovsseg/clip_vitl14_globe230k", 10, 16, 512),
    Case("rskt_seg/vitb16_dlrsd", 17, 8),
    Case("dr_seg/vitb16_dlrsd", 17, 8),
)
TRAINING = Case(GSNET, 40, 4, 384)


def suite(cases: tuple[Case, ...] = CASES, variants: tuple[str, ...] = VARIANTS, repeats: int = 8) -> str:
    """Measure every case in every way to run, and training steps; return a table in Markdown.

    A way to run that fails has its error in the table: the others are worth having without it.
    """
    rows = []
    for case in cases:
        # Each way beside the first, so that memory holds two models at a time.
        for variant in variants:
            rows += _row(case, variant, lambda c=case, v=variant: _inference(c, variants[0], v, repeats))
    for variant in ("fp32:exact", "fp32", "bf16"):
        rows += _row(TRAINING, f"training step, {variant}", lambda v=variant: _training(TRAINING, v, repeats))
    return tabulate(rows, HEADERS, tablefmt="github", disable_numparse=True)


def _row(case: Case, name: str, run: Callable[[], list[str]]) -> list[list[str]]:
    try:
        return [[case.name, name, *run()]]
    except Exception as error:  # whatever a compiler or a driver raises
        return [[case.name, name, f"{type(error).__name__}: {str(error).splitlines()[0][:60]}", "", "", "", ""]]


def _config(case: Case) -> CfgNode:
    cfg = load_config(case.config)
    cfg.defrost()
    cfg.MODEL.DEVICE = resolve_device("auto")
    cfg.TEST.IMS_PER_BATCH = case.images
    cfg.TEST.SLIDING_WINDOW.BATCH_SIZE = 5 * case.images  # four windows and the whole: one shape
    cfg.MODEL.DR_SEG.SPSD.SELECT, cfg.MODEL.DR_SEG.SPSD.FILE = "random", ""  # which channels, changes no time
    return cfg


def _inference(case: Case, reference: str, variant: str, repeats: int) -> list[str]:
    size = case.side, case.side
    found = measure(
        _config(case), [reference, variant], classes=case.classes, images=case.images, size=size, repeats=repeats
    )[1]
    return [
        f"{1000 * found.seconds_per_image:.2f}",
        f"{100 * found.peak_share:.1f}",
        f"{found.launches:,}",
        f"{found.peak_memory / MIB:,.0f}",
        f"{100 * found.agreement:.2f}",
    ]


def _training(case: Case, variant: str, repeats: int) -> list[str]:
    cfg = _config(case)
    cfg.MODEL.PRECISION.TF32 = variant != "fp32:exact"
    cfg.MODEL.PRECISION.TOWERS = cfg.MODEL.PRECISION.HEAD = variant.partition(":")[0]
    model = build_model(cfg, load_towers=False).train()
    optimizer, device = build_optimizer(model, cfg), model.device
    records = example_records(cfg, case.images, (case.side, case.side), case.classes)
    for record in records:
        record["image"] = record["image"][:, : case.side, : case.side]
        record["sem_seg"] = torch.randint(case.classes, record["image"].shape[-2:])
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    times = []
    for _ in range(repeats + 2):
        wait()
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        sum(model(records).values()).backward()
        optimizer.step()
        wait()
        times.append(time.perf_counter() - start)
    memory = f"{torch.cuda.max_memory_allocated() / MIB:,.0f}" if device.type == "cuda" else ""
    return [f"{1000 * statistics.median(times[2:]):.1f} a step", "", "", memory, ""]
