"""The loop of a pre-training, on the hooks of the engine."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.engine import hooks
from detectron2.engine.train_loop import TrainerBase
from detectron2.utils import comm
from torch.nn.parallel import DistributedDataParallel

import ovrs
from ovrs.backbones import build_tower
from ovrs.backbones.dino import DinoPrior
from ovrs.config import get_cfg, options_node
from ovrs.config.loader import plain
from ovrs.engine import CheckpointStore
from ovrs.engine.hooks import SaveCheckpoints, WriteMetrics
from ovrs.engine.interrupt import StopRequest
from ovrs.engine.progress import PrintProgress
from ovrs.engine.trainer import step_seed
from ovrs.errors import ConfigError, TrainingDiverged, WeightsError
from ovrs.files import replacing
from ovrs.inference import resolve_device
from ovrs.pretraining.dino import DistillationLoss, Network, clip_gradients, follow, parameter_groups
from ovrs.pretraining.images import LARGE, PIXEL_MEAN, PIXEL_STD, build_loader, fingerprint
from ovrs.pretraining.recipe import FREE, Recipe
from ovrs.pretraining.schedules import settings_at
from ovrs.zoo.convert import write_weights
from ovrs.zoo.state_dict import load_strictly, sha256_of_file

HOLDS = ("student", "teacher", "centre", "optimizer", "iteration", "images")
PRIOR_NAME = "prior.safetensors"
_OTHER_RECIPE = "The checkpoint belongs to another recipe: use the one that it was trained with."

logger = logging.getLogger(__name__)


class Pretrainer(TrainerBase):
    """Trains student and teacher, and leaves the teacher's ViT as ``prior.safetensors``.

    A step is a function of weights, optimizer state, seed and the step's number, as in :class:`ovrs.engine.Trainer`:
    a run that was killed and resumed ends with the same weights, bit for bit on one CPU process. Checkpoints have
    DINO's layout, so that MODEL.PRIOR.WEIGHTS takes them as well.

    Building it checks everything and writes nothing.

    Args:
        recipe: what decides the run.
        files: its images.
        folder: where checkpoints and the prior go.
        resume: go on from the folder's newest checkpoint, if there is one.

    Raises:
        ConfigError: a batch that the processes cannot share, or that is larger than the folder of images.
        WeightsError: a start, or a checkpoint, that does not fit; or one of a run on other images.
    """

    def __init__(self, recipe: Recipe, files: Sequence[Path], folder: str | Path, resume: bool = False) -> None:
        super().__init__()
        self.recipe, self.folder = recipe, Path(folder)
        world = comm.get_world_size()
        if recipe.batch_size % world:
            raise ConfigError(f"BATCH_SIZE is {recipe.batch_size}; it must be a multiple of the {world} processes.")
        self.steps_per_epoch = len(files) // recipe.batch_size
        if not self.steps_per_epoch:
            raise ConfigError(f"BATCH_SIZE is {recipe.batch_size}, but there are {len(files)} images.")
        self.start_iter, self.max_iter = 0, recipe.epochs * self.steps_per_epoch
        self._images = {"count": len(files), "sha256": fingerprint(files)}
        self.store = CheckpointStore(folder, HOLDS)
        last = self.store.load_last() if resume else None

        self._device = torch.device(resolve_device(recipe.device))
        torch.manual_seed(recipe.seed)
        start = "" if last else recipe.weights
        self.student = Network(_build_tower(recipe, start, recipe.drop_path), recipe).to(self._device)
        self.teacher = Network(_build_tower(recipe), recipe).to(self._device).requires_grad_(False)
        self.teacher.load_state_dict(self.student.state_dict())
        self.loss = DistillationLoss(recipe).to(self._device)
        self.optimizer = torch.optim.AdamW(parameter_groups(self.student))
        if last:
            self._restore(*last)
        elif resume:
            logger.info("--resume: no checkpoint in %s yet, starting at iteration 0.", folder)
        on_gpu = self._device.type == "cuda"
        self._loader = build_loader(files, recipe, self.start_iter, comm.get_rank(), world, pin_memory=on_gpu)
        self._replica: torch.nn.Module = self.student
        if world > 1:
            devices = [torch.cuda.current_device()] if on_gpu else None
            self._replica = DistributedDataParallel(self.student, device_ids=devices, broadcast_buffers=False)
        self.register_hooks([hooks.IterationTimer()])
        if comm.is_main_process():
            self.register_hooks([PrintProgress(), WriteMetrics(str(folder))])
        self.register_hooks([SaveCheckpoints(recipe.checkpoint_epochs * self.steps_per_epoch)])

    def train(self) -> None:
        """Train to the last step and write the prior.

        Raises:
            Interrupted: the process was asked to stop; the state is saved.
            TrainingDiverged: see :meth:`run_step`.
        """
        if self.start_iter < self.max_iter:
            self._batches = iter(self._loader)
            self.student.train()
            with StopRequest() as self.stop:
                super().train(self.start_iter, self.max_iter)
        if comm.is_main_process():
            self.write_prior()

    def run_step(self) -> None:
        """Do one step.

        Raises:
            TrainingDiverged: the loss or the gradient is NaN or infinite; nothing was updated.
        """
        start = time.perf_counter()
        large, small, files = next(self._batches)
        large, small = (crops.to(self._device, non_blocking=True) for crops in (large, small))
        waited = time.perf_counter() - start

        torch.manual_seed(step_seed(self.recipe.seed, self.iter, comm.get_rank()))  # of drop path
        settings = settings_at(self.iter, self.recipe, self.steps_per_epoch)
        for group in self.optimizer.param_groups:
            group["lr"], group["weight_decay"] = settings.rate, settings.decay * group["decays"]

        with torch.autocast(self._device.type, torch.bfloat16, enabled=self.recipe.precision == "bf16"):
            with torch.no_grad():
                teacher = self.teacher(large)
            student = self._replica(large, small)
        loss, entropy = self.loss(student, teacher, LARGE, settings.temperature)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = clip_gradients(self.student, self.recipe.clip_gradient)
        for quantity, value in (("loss", loss), ("norm of the gradient", norm)):
            if not torch.isfinite(value):
                raise TrainingDiverged(
                    f"iteration {self.iter}: the {quantity} is {value.item()}; nothing was updated. Images of the "
                    f"batch: {', '.join(files)}. Newest checkpoint: {self.store.last() or 'none'}. Lower LR or "
                    "CLIP_GRADIENT, use PRECISION fp32, or look at these images, and start again."
                )
        if not settings.last_layer_trains:
            self.student.head.last_layer.weight.grad = None
        self.optimizer.step()
        follow(self.teacher, self.student, settings.momentum)
        self.loss.update_centre(teacher)

        means = comm.reduce_dict({"total_loss": loss.detach(), "teacher_entropy": entropy})
        if comm.is_main_process():
            self.storage.put_scalars(**{name: value.item() for name, value in means.items()})
            self.storage.put_scalar("data_time", waited)
            values = {"lr": settings.rate, "weight_decay": settings.decay, "teacher_momentum": settings.momentum}
            values["teacher_temperature"] = settings.temperature
            self.storage.put_scalars(**values, smoothing_hint=False)

    def save(self, name: str, *, last: bool = True) -> None:
        """Write a checkpoint of the state after the current step; all processes call it together."""
        if comm.is_main_process():
            content = {
                "student": self.student.state_dict(),
                "teacher": self.teacher.state_dict(),
                "centre": self.loss.centre,
                "optimizer": self.optimizer.state_dict(),
                "iteration": self.iter + 1,
                "images": self._images,
            }
            self.store.save(name, content, last=last)
            self.store.prune(self.recipe.checkpoint_keep)
        comm.synchronize()

    def write_prior(self) -> Path:
        """Write the teacher's ViT in timm's names, with the recipe and, beside it, its SHA-256; return the file."""
        path = self.folder / PRIOR_NAME
        metadata: dict[str, Any] = {
            "title": "DINO pre-training, the teacher",
            "arch": self.recipe.arch,
            "recipe": json.dumps({k: v for k, v in plain(options_node(self.recipe)).items() if k not in FREE}),
            "images": json.dumps(self._images),
            "pixels": json.dumps({"mean": PIXEL_MEAN, "std": PIXEL_STD}),
            "version": ovrs.__version__,
        }
        write_weights(self.teacher.backbone.state_dict(), path, metadata)
        digest = sha256_of_file(path)
        with replacing(path.with_name(f"{path.name}.sha256")) as temporary:
            temporary.write_text(f"{digest}  {path.name}\n", encoding="utf-8")
        logger.info("The prior is %s (SHA-256 %s). Use it by MODEL.PRIOR.WEIGHTS.", path, digest)
        return path

    def _restore(self, path: Path, checkpoint: dict[str, Any]) -> None:
        if checkpoint["images"] != self._images:
            raise WeightsError(
                f"{path} was trained on {checkpoint['images']['count']} images, and the {self._images['count']} that "
                "are there now are not the same by name: going on would not be exact. Put them back, or start anew "
                "with --overwrite."
            )
        for name in ("student", "teacher"):
            load_strictly(getattr(self, name), checkpoint[name], str(path), remedy=_OTHER_RECIPE, refuse_surplus=True)
        self.loss.centre.copy_(checkpoint["centre"])
        self.optimizer.load_state_dict(checkpoint["optimizer"])
        self.start_iter = checkpoint["iteration"]
        logger.info("Resuming from %s at iteration %d of %d.", path, self.start_iter, self.max_iter)


def _build_tower(recipe: Recipe, weights: str = "", drop_path: float = 0.0) -> DinoPrior:
    """Build the prior that the recipe describes, as a segmenter would."""
    cfg = get_cfg()
    prior = cfg.MODEL.PRIOR
    prior.NAME, prior.ARCH, prior.FINETUNE, prior.INPUT_SIZE = "DinoPrior", recipe.arch, "full", 0
    prior.ARCH_OPTIONS = [*recipe.arch_options, "drop_path_rate", drop_path]
    prior.WEIGHTS = weights
    return build_tower("prior", cfg, load_weights=bool(weights))
