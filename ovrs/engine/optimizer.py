"""Parameter groups, learning-rate schedules and gradient clipping."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from detectron2.config import CfgNode
from torch import Tensor, nn

from ovrs.config import ConfigError
from ovrs.errors import choose
from ovrs.evaluation.confusion import FIGURES

_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._NormBase)


def check_solver(cfg: CfgNode) -> None:
    """Refuse numbers of ``SOLVER`` with which nothing can be trained.

    Raises:
        ConfigError: one is out of range.
    """
    at_least = {"MAX_ITER": 1, "IMS_PER_BATCH": 1, "WARMUP_ITERS": 0, "WEIGHT_DECAY": 0, "WEIGHT_DECAY_NORM": 0}
    at_least |= {"VLM_MULTIPLIER": 0, "PRIOR_MULTIPLIER": 0, "CHECKPOINT_PERIOD": 0, "CHECKPOINT_KEEP": 0}
    for name, least in at_least.items():
        if cfg.SOLVER[name] < least:
            raise ConfigError(f"SOLVER.{name} must be at least {least}, got {cfg.SOLVER[name]}.")
    choose("SOLVER.CHECKPOINT_BEST", cfg.SOLVER.CHECKPOINT_BEST, ("", *FIGURES))
    clipping = cfg.SOLVER.CLIP_GRADIENTS
    positive = {"BASE_LR": cfg.SOLVER.BASE_LR}
    if clipping.ENABLED:
        positive["CLIP_GRADIENTS.CLIP_VALUE"] = clipping.CLIP_VALUE
    for name, value in positive.items():
        if not 0 < value < math.inf:
            raise ConfigError(f"SOLVER.{name} must be above 0, got {value}.")


def parameter_groups(model: nn.Module, cfg: CfgNode) -> list[dict]:
    """Sort the trained parameters by learning rate and weight decay.

    Parameters of the VLM learn at ``BASE_LR * VLM_MULTIPLIER``, of the prior at ``BASE_LR *
    PRIOR_MULTIPLIER``; norm layers decay by ``WEIGHT_DECAY_NORM``, the rest by ``WEIGHT_DECAY`` (biases by
    ``WEIGHT_DECAY_BIAS`` where it is set).
    """
    solver = cfg.SOLVER
    factors = {"vlm": solver.VLM_MULTIPLIER, "prior": solver.PRIOR_MULTIPLIER}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for module_name, module in model.named_modules():
        rate = solver.BASE_LR * factors.get(module_name.split(".")[0], 1.0)
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad:
                continue
            decay = solver.WEIGHT_DECAY
            if isinstance(module, _NORMS):
                decay = solver.WEIGHT_DECAY_NORM
            elif name == "bias" and solver.WEIGHT_DECAY_BIAS is not None:
                decay = solver.WEIGHT_DECAY_BIAS
            groups.setdefault((rate, decay), []).append(parameter)
    return [
        {"params": members, "lr": rate, "base_lr": rate, "weight_decay": decay}
        for (rate, decay), members in groups.items()
    ]


def build_optimizer(model: nn.Module, cfg: CfgNode) -> torch.optim.Optimizer:
    """Build ``SOLVER.OPTIMIZER`` over :func:`parameter_groups`.

    Raises:
        ConfigError: unknown optimizer, or nothing to train.
    """
    groups = parameter_groups(model, cfg)
    if not groups:
        raise ConfigError("every parameter is frozen: set MODEL.VLM.FINETUNE_*, MODEL.PRIOR.FINETUNE, or train a head.")
    name = cfg.SOLVER.OPTIMIZER
    if name == "AdamW":
        return torch.optim.AdamW(groups, lr=cfg.SOLVER.BASE_LR, betas=tuple(cfg.SOLVER.BETAS))
    if name == "SGD":
        return torch.optim.SGD(groups, lr=cfg.SOLVER.BASE_LR, momentum=cfg.SOLVER.MOMENTUM)
    raise ConfigError(f"SOLVER.OPTIMIZER is {name!r}; known optimizers are AdamW, SGD.")


def learning_rate_factor(cfg: CfgNode) -> Callable[[int], float]:
    """Return the schedule: iteration -> factor of every group's learning rate.

    A pure function of the iteration, so a resumed run needs no scheduler state.

    Raises:
        ConfigError: unknown schedule.
    """
    solver = cfg.SOLVER
    last = solver.MAX_ITER
    shapes: dict[str, Callable[[int], float]] = {
        "cosine": lambda i: 0.5 * (1.0 + math.cos(math.pi * i / last)),
        "poly": lambda i: (1.0 - i / max(last - 1, 1)) ** solver.POLY_POWER,
        "constant": lambda i: 1.0,
    }
    if solver.LR_SCHEDULER_NAME not in shapes:
        raise ConfigError(f"SOLVER.LR_SCHEDULER_NAME is {solver.LR_SCHEDULER_NAME!r}; known are {', '.join(shapes)}.")
    shape = shapes[solver.LR_SCHEDULER_NAME]

    def factor(iteration: int) -> float:
        if iteration < solver.WARMUP_ITERS:
            done = iteration / solver.WARMUP_ITERS
            return shape(iteration) * (solver.WARMUP_FACTOR * (1 - done) + done)
        return shape(iteration)

    return factor


def gradient_clipper(cfg: CfgNode) -> Callable[[Iterable[nn.Parameter]], Tensor | None]:
    """Return the function that clips gradients in place.

    Raises:
        ConfigError: unknown clip type.
    """
    node = cfg.SOLVER.CLIP_GRADIENTS
    if not node.ENABLED:
        return lambda parameters: None
    if node.CLIP_TYPE == "full_model":
        return lambda parameters: nn.utils.clip_grad_norm_(parameters, node.CLIP_VALUE, node.NORM_TYPE)
    if node.CLIP_TYPE == "value":
        return lambda parameters: nn.utils.clip_grad_value_(parameters, node.CLIP_VALUE)
    raise ConfigError(f"SOLVER.CLIP_GRADIENTS.CLIP_TYPE is {node.CLIP_TYPE!r}; known types are full_model, value.")
