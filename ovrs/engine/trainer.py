"""The training loop, on Detectron2's hooks."""

from __future__ import annotations

import logging
import math
import time
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import hooks
from detectron2.engine.train_loop import HookBase, TrainerBase
from detectron2.utils import comm
from torch import Tensor

from ovrs.data import build_train_loader
from ovrs.engine.checkpoint import OTHER_CONFIG, CheckpointStore, load_weights, needs_checkpoint
from ovrs.engine.distributed import distributed
from ovrs.engine.hooks import SaveCheckpoints, WriteMetrics
from ovrs.engine.interrupt import StopRequest
from ovrs.engine.optimizer import build_optimizer, check_solver, gradient_clipper, learning_rate_factor
from ovrs.engine.progress import PrintProgress
from ovrs.engine.setup import build_model
from ovrs.engine.slim import FROZEN, completed, frozen_names, identity
from ovrs.engine.testing import evaluate
from ovrs.errors import ConfigError, TrainingDiverged, WeightsError
from ovrs.heads import head_class
from ovrs.zoo.state_dict import load_strictly

logger = logging.getLogger(__name__)


class Trainer(TrainerBase):
    """Trains the model of a configuration.

    Everything that an iteration does is a function of the weights, the optimizer state, the seed and the
    iteration's number: data order and augmentation (see ovrs.data.loader), learning rate, and the random
    numbers of the network, which are seeded anew for every iteration and process. A run that was
    killed and resumed therefore ends with the same weights, bit for bit on a CPU.

    Building it checks everything and writes nothing.

    Args:
        cfg: frozen configuration.
        resume: continue from the newest checkpoint of ``OUTPUT_DIR``, if there is one.
    """

    def __init__(self, cfg: CfgNode, resume: bool = False) -> None:
        super().__init__()
        check_solver(cfg)
        if not needs_checkpoint(cfg):
            raise ConfigError(f"{cfg.MODEL.SEM_SEG_HEAD.NAME} has nothing to train; evaluate it (ovrs eval).")
        self.cfg = cfg
        self.store = CheckpointStore(cfg.OUTPUT_DIR)
        last = self.store.load_last() if resume else None
        self.best = -math.inf
        if not last and not cfg.MODEL.WEIGHTS:
            _check_artefacts(cfg)
        self.seed = _common_seed(cfg)
        torch.manual_seed(self.seed)
        self.model = build_model(cfg, load_towers=not last)
        self.optimizer = build_optimizer(self.model, cfg)
        self.scaler = torch.amp.GradScaler("cuda", enabled=_needs_scaling(cfg))
        self.factor, self.clip = learning_rate_factor(cfg), gradient_clipper(cfg)
        self.start_iter, self.max_iter = 0, cfg.SOLVER.MAX_ITER
        if last:
            self._restore(*last)
        elif cfg.MODEL.WEIGHTS:
            load_weights(self.model, cfg.MODEL.WEIGHTS)
        if resume and not last:
            logger.info("--resume: no checkpoint in %s yet, starting at iteration 0.", cfg.OUTPUT_DIR)
        towers = getattr(self.model, "towers", {})
        self._frozen_names = {} if cfg.SOLVER.CHECKPOINT_FULL else frozen_names(self.model, towers, cfg)
        self._frozen: dict[str, Any] | None = None
        if self.start_iter < self.max_iter:
            self._loader = build_train_loader(cfg, self.start_iter, self.seed)

        side = cfg.INPUT.PAD_TO or cfg.INPUT.CROP.SIZE[0]
        self._replica, self._unread = distributed(self.model, side)
        self._base_rates = [group["base_lr"] for group in self.optimizer.param_groups]
        self.register_hooks(self._build_hooks())

    def train(self) -> None:
        """Train up to ``SOLVER.MAX_ITER`` and leave ``model_final.pth``.

        Raises:
            Interrupted: the process was asked to stop; the state is saved.
            TrainingDiverged: see :meth:`run_step`.
        """
        if self.start_iter >= self.max_iter:
            logger.info("Nothing to train: the checkpoint has %d of %d iterations.", self.start_iter, self.max_iter)
            return
        self._batches = iter(self._loader)
        self._replica.train()
        with StopRequest() as self.stop:
            super().train(self.start_iter, self.max_iter)

    def run_step(self) -> None:
        """Do one iteration.

        Raises:
            TrainingDiverged: the loss or the gradient is NaN or infinite; nothing was updated.
        """
        start = time.perf_counter()
        batch = next(self._batches)
        waited = time.perf_counter() - start

        torch.manual_seed(step_seed(self.seed, self.iter, comm.get_rank()))
        factor = self.factor(self.iter)
        for group, rate in zip(self.optimizer.param_groups, self._base_rates, strict=True):
            group["lr"] = rate * factor

        losses = self._replica(batch)
        total = sum(losses.values())
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(total).backward()
        self.scaler.unscale_(self.optimizer)
        norm = self.clip(parameter for group in self.optimizer.param_groups for parameter in group["params"])
        assert all(parameter.grad is None for parameter in self._unread)
        # Asked for when all work is under way: a GPU would stand still at an answer between the passes.
        if not torch.isfinite(total):
            raise self._divergence("loss", total, batch)
        # The scaler of fp16 expects infinite gradients now and then, and skips their step.
        if norm is not None and not self.scaler.is_enabled() and not torch.isfinite(norm):
            raise self._divergence("norm of the gradient", norm, batch)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self._record(losses, waited)

    def save(self, name: str, *, last: bool = True) -> None:
        """Write a checkpoint of the state after the current iteration; all processes call it together.

        Args:
            name: of the file, without ending.
            last: whether a later run goes on from it.
        """
        if comm.is_main_process():
            state = self.model.state_dict()
            left_out = {name for names in self._frozen_names.values() for name in names}
            if self._frozen is None:  # once: it never changes
                self._frozen = identity(state, self._frozen_names, self.cfg)
            content = {
                "model": {name: tensor for name, tensor in state.items() if name not in left_out},
                FROZEN: self._frozen,
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "iteration": self.iter + 1,
                "seed": self.seed,
                "best": self.best,
            }
            self.store.save(name, content, last=last)
            self.store.prune(self.cfg.SOLVER.CHECKPOINT_KEEP)
        comm.synchronize()  # no process looks for the file before it is there

    # ------------------------------------------------------------------ parts

    def _restore(self, path: Path, checkpoint: dict[str, Any]) -> None:
        frozen = checkpoint.get(FROZEN, {})
        for tower, entry in frozen.items():
            if (weights := self.cfg.MODEL[tower.upper()].WEIGHTS) != entry["config"]["WEIGHTS"]:
                raise WeightsError(
                    f"{path} was trained with the {tower} {entry['config']['WEIGHTS']!r}, not {weights!r}; set "
                    f"MODEL.{tower.upper()}.WEIGHTS back."
                )
        state = completed(checkpoint["model"], frozen, path)
        load_strictly(self.model, state, str(path), remedy=OTHER_CONFIG, refuse_surplus=True)
        # Rates and decays are the configuration's, so that changing them on the way has an effect.
        settings = [{k: v for k, v in group.items() if k != "params"} for group in self.optimizer.param_groups]
        try:
            self.optimizer.load_state_dict(checkpoint["optimizer"])
        except (KeyError, ValueError) as error:
            raise WeightsError(f"{path}: its optimizer state does not fit ({error}). {OTHER_CONFIG}") from error
        for group, setting in zip(self.optimizer.param_groups, settings, strict=True):
            group.update(setting)
        self.scaler.load_state_dict(checkpoint["scaler"])
        self.start_iter, self.seed = checkpoint["iteration"], checkpoint["seed"]
        self.best = checkpoint.get("best", self.best)
        logger.info("Resuming from %s at iteration %d of %d.", path, self.start_iter, self.max_iter)

    def _build_hooks(self) -> list[HookBase]:
        cfg = self.cfg
        parts: list[HookBase] = [hooks.IterationTimer()]
        if (cfg.DATASETS.VAL or cfg.DATASETS.TEST) and cfg.TEST.EVAL_PERIOD:
            parts.append(hooks.EvalHook(cfg.TEST.EVAL_PERIOD, self._evaluate, eval_after_train=False))
        if comm.is_main_process():
            parts += [PrintProgress(), WriteMetrics(cfg.OUTPUT_DIR)]
        # Last: a checkpoint vouches for everything before it, so that a run killed while it evaluates or writes
        # does this again.
        return [*parts, SaveCheckpoints(cfg.SOLVER.CHECKPOINT_PERIOD)]

    def _evaluate(self) -> dict[str, float]:
        cfg = self.cfg.clone()
        cfg.defrost()
        cfg.DATASETS.TEST = cfg.DATASETS.VAL or cfg.DATASETS.TEST
        folder = Path(cfg.OUTPUT_DIR, f"evaluation_{self.iter + 1:07d}")
        report = evaluate(cfg, self.model, folder, weights_sha256=None)
        figure = report.average().get(cfg.SOLVER.CHECKPOINT_BEST, -math.inf)
        if figure > self.best:
            self.best = figure
            self.save("model_best", last=False)
        return report.results()

    def _record(self, losses: dict[str, Tensor], waited: float) -> None:
        means = comm.reduce_dict({name: loss.detach() for name, loss in losses.items()})
        if comm.is_main_process():
            values = {name: loss.item() for name, loss in means.items()}
            self.storage.put_scalars(total_loss=sum(values.values()), **values)
            self.storage.put_scalar("data_time", waited)
            self.storage.put_scalar("lr", max(g["lr"] for g in self.optimizer.param_groups), smoothing_hint=False)

    def _divergence(self, quantity: str, value: Tensor, batch: list[dict[str, Any]]) -> TrainingDiverged:
        files = ", ".join(str(record["file_name"]) for record in batch)
        return TrainingDiverged(
            f"iteration {self.iter}: the {quantity} is {value.item()}; nothing was updated. Images of the batch: "
            f"{files}. Newest checkpoint: {self.store.last() or 'none'}. Lower SOLVER.BASE_LR, use fp32 "
            "(MODEL.PRECISION), or look at these images; then go on with --resume."
        )


def step_seed(seed: int, iteration: int, rank: int) -> int:
    """Return a 63-bit seed that differs for every (iteration, rank); multipliers are odd 64-bit constants."""
    value = seed * 0x9E3779B97F4A7C15 + iteration * 0xBF58476D1CE4E5B9 + rank * 0x94D049BB133111EB
    value ^= (value & (2**64 - 1)) >> 31
    return value & (2**63 - 1)


def _check_artefacts(cfg: CfgNode) -> None:
    """Refuse to train a head without the files that it needs first."""
    for artefact in head_class(cfg).artefacts(cfg):
        if not artefact.exists:
            found = f"{artefact.path} does not exist" if artefact.path else "it names no file"
            raise ConfigError(
                f"{artefact.key}: {found}, but {cfg.MODEL.SEM_SEG_HEAD.NAME} as configured needs one before it is "
                f"trained. Make it with {artefact.command} and set the key to it."
            )


def _common_seed(cfg: CfgNode) -> int:
    """Return ``cfg.SEED``, or one random seed for all processes."""
    return cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed()


def _needs_scaling(cfg: CfgNode) -> bool:
    precision = cfg.MODEL.PRECISION
    return "fp16" in (precision.TOWERS, precision.HEAD) and cfg.MODEL.DEVICE.startswith("cuda")
