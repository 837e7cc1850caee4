"""Speed, memory and agreement of a model's precisions and ways to run, measured side by side."""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from typing import Any

import torch
from detectron2.config import CfgNode
from tabulate import tabulate
from torch import Tensor
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from ovrs.config import ConfigError
from ovrs.engine.checkpoint import load_weights
from ovrs.engine.setup import build_model
from ovrs.errors import choose
from ovrs.evaluation import ConfusionMatrix
from ovrs.inference import apply_precision, resolve_device
from ovrs.measure.analysis import analyze
from ovrs.measure.stages import REST, STAGES, TEXT, around_stages, example_records, use_stand_ins
from ovrs.segmenter import OpenVocabSegmenter
from ovrs.vocabulary import TextBank

MIB = 2**20
# What can follow a precision, as in "bf16:graphs": the configuration keys that it sets.
MODES: dict[str, dict[str, Any]] = {
    "": {},
    "exact": {"MODEL.PRECISION.TF32": False},
    "plain": {"MODEL.PRECISION.WEIGHT_COPIES": False},  # weights are rounded anew in every pass
    "channels_last": {},  # all weights of all convolutions, see _build
    "towers": {"TEST.COMPILE": "towers"},
    "compiled": {"TEST.COMPILE": "all"},
    "graphs": {"TEST.CUDA_GRAPHS": True},
}
_PRODUCT = {"cuda": 8192, "cpu": 1024}  # side of the matrices whose product tells a device's peak


@dataclass(frozen=True)
class Measurement:
    """One precision and way to run.

    Attributes:
        precision: ``fp32``, ``bf16`` or ``fp16``, of towers and head; behind a colon one of ``MODES``.
        pass_seconds: of one pass over all images, text cached, without a wait between stages.
        stage_seconds: of one pass over all images by stage (``stages.STAGES``); ``text`` is one vocabulary.
        images: number of images of a pass.
        peak_memory: in bytes. On a GPU: what PyTorch had allocated there; on a CPU: the resident set of a
            process that builds the model and segments one batch.
        agreement: share of pixels, 0..1, with the same label as under the first precision.
        launches: kernels and copies on a GPU, operations of PyTorch on a CPU, per pass over all images, text cached.
        peak_share: multiply-accumulates of a pass by time, as a share of those of a large matrix product of this
            precision on this device, measured in the same run.
        scoring_seconds: of comparing the label maps of a pass with labels that lie in the host's memory.
    """

    precision: str
    pass_seconds: float
    stage_seconds: dict[str, float]
    images: int
    peak_memory: int
    agreement: float
    launches: int
    peak_share: float
    scoring_seconds: float

    @property
    def seconds_per_image(self) -> float:
        """Wall time of one image, text cached."""
        return self.pass_seconds / self.images

    @property
    def images_per_second(self) -> float:
        """Images by wall time, text cached."""
        return 1 / self.seconds_per_image

    def shares(self) -> dict[str, float]:
        """Return each stage's share of a pass, 0..1, encoding the vocabulary once included."""
        total = sum(self.stage_seconds.values())
        return {stage: seconds / total for stage, seconds in self.stage_seconds.items()}

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain values, for JSON."""
        derived = {"seconds_per_image": self.seconds_per_image, "images_per_second": self.images_per_second}
        return asdict(self) | derived | {"shares": self.shares()}


def measure(
    cfg: CfgNode, precisions: Sequence[str], *, classes: int, images: int, size: tuple[int, int], repeats: int
) -> list[Measurement]:
    """Measure the model of a configuration under several precisions.

    Every repeat runs all precisions one after another, so that whatever else the machine does hits all of
    them; the median of the repeats counts. Before that, each runs one batch to warm up. The weights are
    those of ``MODEL.WEIGHTS``, or random: speed and memory do not depend on them, agreement does.

    Args:
        cfg: the configuration; ``MODEL.PRECISION`` is replaced.
        precisions: ``fp32``, ``bf16``, ``fp16``, alone or with one of ``MODES`` as in ``bf16:plain``; the first is
            what the others are compared with.
        classes: number of classes.
        images: number of images of a pass.
        size: (height, width) of the images, each at least 64.
        repeats: number of passes.

    Raises:
        ConfigError: an unknown precision, or no image or repeat.
        WeightsError: ``MODEL.WEIGHTS`` cannot be loaded.
    """
    if images < 1 or repeats < 1 or not precisions:
        raise ConfigError(f"nothing to measure: {images} images, {repeats} repeats, precisions {list(precisions)}.")
    configs = [_with_precision(cfg, precision) for precision in precisions]
    peaks = [_in_new_process(config, classes, size) for config in configs]
    records = example_records(cfg, images, size, classes)
    models = [
        _build(config, precision.endswith(":channels_last"))
        for config, precision in zip(configs, precisions, strict=True)
    ]
    batch = cfg.TEST.IMS_PER_BATCH
    launches, peaks_of_device = [], []
    for config, model in zip(configs, models, strict=True):
        apply_precision(config)
        model(records[:batch])
        launches.append(count_launches(model, records, batch))
        peaks_of_device.append(peak_rate(model.device, model.tower_dtype))
    work = analyze(cfg, classes, tuple(records[0]["image"].shape[-2:])).image_macs * images

    timings: list[list[dict[str, float]]] = [[] for _ in models]
    totals: list[list[float]] = [[] for _ in models]
    scoring: list[list[float]] = [[] for _ in models]
    labels: list[list[Tensor]] = [[] for _ in models]
    for _ in range(repeats):
        for index, (config, model) in enumerate(zip(configs, models, strict=True)):
            apply_precision(config)  # a switch of the process
            seconds, labels[index] = _timed_pass(model, records, batch)
            timings[index].append(seconds)
            totals[index].append(_total(model, records, batch, seconds))
            scoring[index].append(_scoring_seconds(labels[index], classes))
    return [
        Measurement(
            precision=precision,
            pass_seconds=statistics.median(totals[index]),
            stage_seconds={stage: statistics.median(pass_[stage] for pass_ in timings[index]) for stage in STAGES},
            images=images,
            peak_memory=peaks[index],
            agreement=_agreement(labels[0], labels[index]),
            launches=launches[index],
            peak_share=work / statistics.median(totals[index]) / peaks_of_device[index],
            scoring_seconds=statistics.median(scoring[index]),
        )
        for index, precision in enumerate(precisions)
    ]


def table(measurements: Sequence[Measurement]) -> str:
    """Return the measurements as text; ratios are to the first."""
    first = measurements[0]
    rows = [
        [
            m.precision,
            f"{m.seconds_per_image:.3f}",
            f"{m.images_per_second:.2f}",
            f"{m.images_per_second / first.images_per_second:.2f}",
            f"{m.peak_memory / MIB:,.0f}",
            f"{m.peak_memory / first.peak_memory:.2f}",
            f"{100 * m.peak_share:.1f}",
            f"{m.launches:,}",
            f"{100 * m.scoring_seconds / m.pass_seconds:.2f}",
            *(f"{100 * share:.1f}" for share in m.shares().values()),
            f"{100 * m.agreement:.2f}",
        ]
        for m in measurements
    ]
    headers = [
        "precision",
        "s/image",
        "images/s",
        "ratio",
        "peak MiB",
        "ratio",
        "of peak %",
        "launches",
        "scoring: % of a pass",
    ]
    headers += [f"{stage} %" for stage in STAGES]
    headers.append("same labels %")
    return tabulate(rows, headers, disable_numparse=True, colalign=("left", *["right"] * (len(headers) - 1)))


def _with_precision(cfg: CfgNode, variant: str) -> CfgNode:
    precision, _, mode = variant.partition(":")
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.PRECISION.TOWERS = cfg.MODEL.PRECISION.HEAD = precision
    changes = MODES[choose("the way to run", mode, tuple(MODES))]
    cfg.merge_from_list([part for change in changes.items() for part in change])
    cfg.MODEL.DEVICE = resolve_device(cfg.MODEL.DEVICE)
    if not cfg.MODEL.WEIGHTS:
        use_stand_ins(cfg)
    return cfg


def _build(cfg: CfgNode, channels_last: bool = False) -> OpenVocabSegmenter:
    torch.manual_seed(0)  # the same random weights for every precision
    model = build_model(cfg, load_towers=False).eval()
    if cfg.MODEL.WEIGHTS:
        load_weights(model, cfg.MODEL.WEIGHTS)
    return model.to(memory_format=torch.channels_last) if channels_last else model


@torch.inference_mode()
def _timed_pass(
    model: OpenVocabSegmenter, records: Sequence[dict[str, Any]], batch: int
) -> tuple[dict[str, float], list[Tensor]]:
    """Segment all records with an empty text bank; return the seconds by stage, and the label maps."""
    model.text_bank = TextBank()
    seconds: Counter[str] = Counter()

    @contextmanager
    def timing(stage: str) -> Iterator[None]:
        start = _now(model.device)
        yield
        seconds[stage] += _now(model.device) - start

    start = _now(model.device)
    with around_stages(model, timing):
        results = [result for i in range(0, len(records), batch) for result in model(records[i : i + batch])]
    total = _now(model.device) - start
    seconds[REST] = total - sum(seconds.values())
    return {stage: seconds[stage] for stage in STAGES}, [result["labels"] for result in results]


@torch.inference_mode()
def _total(
    model: OpenVocabSegmenter, records: Sequence[dict[str, Any]], batch: int, by_stage: dict[str, float]
) -> float:
    """Return the seconds of a pass, text cached; on a GPU measured anew, since stages wait for each other."""
    if model.device.type != "cuda":
        return sum(by_stage.values()) - by_stage[TEXT]
    start = _now(model.device)
    for first in range(0, len(records), batch):
        model(records[first : first + batch])
    return _now(model.device) - start


def _scoring_seconds(maps: Sequence[Tensor], classes: int) -> float:
    """Return the seconds that evaluation takes for predicted maps beside drawn labels."""
    truths = [torch.randint(classes, found.shape) for found in maps]
    matrix = ConfusionMatrix(classes + 1)  # a model with a threshold has one label more
    start = _now(maps[0].device)
    for truth, found in zip(truths, maps, strict=True):
        matrix.update(truth, found)
    return _now(maps[0].device) - start


@torch.inference_mode()
def count_launches(model: OpenVocabSegmenter, records: Sequence[dict[str, Any]], batch: int) -> int:
    """Count what one pass over the records, text cached, asks of the device."""
    on_gpu = model.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities, acc_events=True) as found:
        for first in range(0, len(records), batch):
            model(records[first : first + batch])
        _now(model.device)
    if on_gpu:
        return sum(event.device_type == DeviceType.CUDA for event in found.events())
    return sum(event.name.startswith("aten::") and not event.cpu_children for event in found.events())


def peak_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Return the multiply-accumulates per second of the best of several products of large square matrices."""
    side = _PRODUCT[device.type]
    left = torch.randn(side, side, device=device, dtype=dtype)
    times = []
    for _ in range(5):
        start = _now(device)
        left @ left
        times.append(_now(device) - start)
    return side**3 / min(times)


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _agreement(first: Sequence[Tensor], second: Sequence[Tensor]) -> float:
    same = sum(int((a == b).sum()) for a, b in zip(first, second, strict=True))
    return same / sum(labels.numel() for labels in first)


def _in_new_process(cfg: CfgNode, classes: int, size: tuple[int, int]) -> int:
    """Return the peak memory of a process that does nothing else: high-water marks cannot be reset."""
    with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_peak_memory, cfg, classes, size).result()


def _peak_memory(cfg: CfgNode, classes: int, size: tuple[int, int]) -> int:
    model = _build(cfg)
    with torch.inference_mode():
        model(example_records(cfg, cfg.TEST.IMS_PER_BATCH, size, classes))
    if model.device.type == "cuda":
        return torch.cuda.max_memory_allocated(model.device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
