"""The training loop, on Detectron2's hooks."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import hooks
from detectron2.engine.train_loop import HookBase, TrainerBase
from detectron2.utils import comm
from detectron2.utils.events import CommonMetricPrinter, JSONWriter, TensorboardXWriter
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ovrs.data import build_train_loader
from ovrs.engine.checkpoint import CheckpointStore, load_weights
from ovrs.engine.optimizer import build_optimizer, gradient_clipper, learning_rate_factor
from ovrs.engine.setup import build_model
from ovrs.engine.testing import evaluate
from ovrs.files import replacing

logger = logging.getLogger(__name__)

_METRICS = "metrics.json"


class TrainingDiverged(FloatingPointError):
    """The loss is no longer a finite number."""


class Trainer(TrainerBase):
    """Trains the model of a configuration.

    Everything that an iteration does is a function of the weights, the optimizer state, the seed and the
    iteration's number: data order and augmentation (see ovrs.data.loader), learning rate, and the random
    numbers of the network, which are seeded anew for every iteration and process. A run that was
    killed and resumed therefore ends with the same weights, bit for bit on a CPU.

    Args:
        cfg: frozen configuration.
        resume: continue from the newest checkpoint of ``OUTPUT_DIR``, if there is one.
    """

    def __init__(self, cfg: CfgNode, resume: bool = False) -> None:
        super().__init__()
        self.cfg = cfg
        self.store = CheckpointStore(cfg.OUTPUT_DIR)
        last = self.store.last() if resume else None
        self.seed = _common_seed(cfg)
        torch.manual_seed(self.seed)
        self.model = build_model(_without_tower_weights(cfg) if last else cfg)
        self.optimizer = build_optimizer(self.model, cfg)
        self.scaler = torch.amp.GradScaler("cuda", enabled=_needs_scaling(cfg))
        self.factor, self.clip = learning_rate_factor(cfg), gradient_clipper(cfg)
        self.start_iter, self.max_iter = 0, cfg.SOLVER.MAX_ITER
        if last:
            self._restore(last)
        elif cfg.MODEL.WEIGHTS:
            load_weights(self.model, cfg.MODEL.WEIGHTS)
        if resume and not last:
            logger.info("--resume: no checkpoint in %s yet, starting at iteration 0.", cfg.OUTPUT_DIR)

        self._replica = _distributed(self.model)
        self._base_rates = [group["base_lr"] for group in self.optimizer.param_groups]
        self.register_hooks(self._build_hooks())

    def train(self) -> None:
        """Train up to ``SOLVER.MAX_ITER`` and leave ``model_final.pth``."""
        if self.start_iter >= self.max_iter:
            logger.info("Nothing to train: the checkpoint has %d of %d iterations.", self.start_iter, self.max_iter)
            return
        self._batches = iter(build_train_loader(self.cfg, self.start_iter, self.seed))
        self._replica.train()
        super().train(self.start_iter, self.max_iter)

    def run_step(self) -> None:
        """Do one iteration.

        Raises:
            TrainingDiverged: the loss is NaN or infinite; nothing was updated.
        """
        start = time.perf_counter()
        batch = next(self._batches)
        waited = time.perf_counter() - start

        torch.manual_seed(_mix(self.seed, self.iter, comm.get_rank()))
        factor = self.factor(self.iter)
        for group, rate in zip(self.optimizer.param_groups, self._base_rates, strict=True):
            group["lr"] = rate * factor

        losses = self._replica(batch)
        total = sum(losses.values())
        if not torch.isfinite(total):
            raise TrainingDiverged(self._divergence(losses, batch))
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(total).backward()
        self.scaler.unscale_(self.optimizer)
        self.clip(parameter for group in self.optimizer.param_groups for parameter in group["params"])
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self._record(losses, waited)

    def save(self, name: str) -> None:
        """Write a checkpoint of the state after the current iteration (main process only)."""
        if comm.is_main_process():
            self.store.save(
                name,
                {
                    "model": self.model.state_dict(),
                    "optimizer": self.optimizer.state_dict(),
                    "scaler": self.scaler.state_dict(),
                    "iteration": self.iter + 1,
                    "seed": self.seed,
                },
            )

    # ------------------------------------------------------------------ parts

    def _restore(self, path: Path) -> None:
        checkpoint = self.store.load(path)
        self.model.load_state_dict(checkpoint["model"])
        self.optimizer.load_state_dict(checkpoint["optimizer"])
        self.scaler.load_state_dict(checkpoint["scaler"])
        self.start_iter, self.seed = checkpoint["iteration"], checkpoint["seed"]
        if comm.is_main_process():
            _drop_metrics_from(Path(self.cfg.OUTPUT_DIR, _METRICS), self.start_iter)
        logger.info("Resuming from %s at iteration %d of %d.", path, self.start_iter, self.max_iter)

    def _build_hooks(self) -> list[HookBase]:
        cfg = self.cfg
        parts: list[HookBase] = [hooks.IterationTimer(), _SaveCheckpoints(cfg.SOLVER.CHECKPOINT_PERIOD)]
        if cfg.DATASETS.TEST and cfg.TEST.EVAL_PERIOD:
            parts.append(hooks.EvalHook(cfg.TEST.EVAL_PERIOD, self._evaluate, eval_after_train=False))
        if comm.is_main_process():
            writers = [
                CommonMetricPrinter(self.max_iter),
                JSONWriter(str(Path(cfg.OUTPUT_DIR, _METRICS))),
                TensorboardXWriter(cfg.OUTPUT_DIR),
            ]
            parts.append(hooks.PeriodicWriter(writers, period=20))
        return parts

    def _evaluate(self) -> dict[str, float]:
        folder = Path(self.cfg.OUTPUT_DIR, f"evaluation_{self.iter + 1:07d}")
        return evaluate(self.cfg, self.model, folder, weights_sha256=None).results()

    def _record(self, losses: dict[str, Tensor], waited: float) -> None:
        means = comm.reduce_dict({name: loss.detach() for name, loss in losses.items()})
        if comm.is_main_process():
            values = {name: loss.item() for name, loss in means.items()}
            self.storage.put_scalars(total_loss=sum(values.values()), **values)
            self.storage.put_scalar("data_time", waited)
            self.storage.put_scalar("lr", max(g["lr"] for g in self.optimizer.param_groups), smoothing_hint=False)

    def _divergence(self, losses: dict[str, Tensor], batch: list[dict[str, Any]]) -> str:
        last = self.store.last()
        files = ", ".join(str(record.get("file_name", "?")) for record in batch)
        values = {name: loss.item() for name, loss in losses.items()}
        return (
            f"iteration {self.iter}: the loss is {values}; nothing was updated. Images of the batch: {files}. "
            f"Newest checkpoint: {last or 'none'}. Lower SOLVER.BASE_LR, use fp32 (MODEL.PRECISION), or look at these "
            "images; then go on with --resume."
        )


class _SaveCheckpoints(HookBase):
    """Saves every ``period`` iterations and at the end."""

    def __init__(self, period: int) -> None:
        self._period = period

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if done == self.trainer.max_iter:
            self.trainer.save("model_final")
        elif self._period > 0 and done % self._period == 0:
            self.trainer.save(f"model_{self.trainer.iter:07d}")


def _distributed(model: nn.Module) -> nn.Module:
    """Wrap the model where there are several processes; Detectron2's helper needs a GPU for that."""
    if comm.get_world_size() == 1:
        return model
    device = next(model.parameters()).device
    return DistributedDataParallel(
        model,
        device_ids=[device.index if device.index is not None else torch.cuda.current_device()]
        if device.type == "cuda"
        else None,
        broadcast_buffers=False,
        # The value-only last block has a trained query weight that nothing reads.
        find_unused_parameters=True,
    )


def _common_seed(cfg: CfgNode) -> int:
    """Return ``cfg.SEED``, or one random seed for all processes."""
    return cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed()


def _mix(seed: int, iteration: int, rank: int) -> int:
    """Return a 63-bit seed that differs for every (iteration, rank); multipliers are odd 64-bit constants."""
    value = seed * 0x9E3779B97F4A7C15 + iteration * 0xBF58476D1CE4E5B9 + rank * 0x94D049BB133111EB
    value ^= (value & (2**64 - 1)) >> 31
    return value & (2**63 - 1)


def _needs_scaling(cfg: CfgNode) -> bool:
    precision = cfg.MODEL.PRECISION
    return "fp16" in (precision.TOWERS, precision.HEAD) and cfg.MODEL.DEVICE.startswith("cuda")


def _without_tower_weights(cfg: CfgNode) -> CfgNode:
    """A checkpoint will fill the towers, so nothing has to be fetched for them."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.WEIGHTS = "checkpoint"
    cfg.freeze()
    return cfg


def _drop_metrics_from(path: Path, iteration: int) -> None:
    """Remove what the killed run logged after the checkpoint, since it will be logged again."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["iteration"] < iteration:
                kept.append(line + "\n")
        except json.JSONDecodeError:  # the line that was being written when the run was killed
            continue
    with replacing(path) as temporary:
        temporary.write_text("".join(kept), encoding="utf-8")
