"""Where a model computes, and how exactly."""

from __future__ import annotations

import torch
from detectron2.config import CfgNode

from ovrs.errors import ConfigError


def resolve_device(name: str, *, fall_back: bool = False) -> str:
    """Return the device that ``MODEL.DEVICE`` means: ``auto`` is the GPU if there is one, else the CPU.

    Args:
        name: ``auto``, or what PyTorch calls a device: ``cpu``, ``cuda``, ``cuda:1``.
        fall_back: whether the CPU takes the place of a GPU that is not there. A configuration that was written down
            where there was one is then usable anywhere.

    Raises:
        ConfigError: no such device.
    """
    cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return "cuda" if cards else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"MODEL.DEVICE must be auto, cpu, cuda or cuda:NUMBER, got {name!r}.") from None
    if device.type == "cuda" and (device.index or 0) >= cards:
        if fall_back:
            return "cuda" if cards else "cpu"
        raise ConfigError(
            f"MODEL.DEVICE is {name!r}, but PyTorch sees {cards or 'no'} GPU(s) here. Set it to auto, which takes what "
            "there is, or check the driver and that PyTorch was installed with CUDA."
        )
    return str(device)


def apply_precision(cfg: CfgNode) -> None:
    """Make PyTorch compute as ``MODEL.PRECISION.TF32`` and ``CUDNN_BENCHMARK`` say; both matter on a GPU only.

    They are switches of the whole process, so this is called wherever a model is built.
    """
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = cfg.MODEL.PRECISION.TF32
    torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK
