"""What every training leaves on the way: metrics and checkpoints."""

from __future__ import annotations

import json
from pathlib import Path

from detectron2.engine import hooks
from detectron2.engine.train_loop import HookBase
from detectron2.utils.events import JSONWriter, TensorboardXWriter

from ovrs.engine.interrupt import Interrupted
from ovrs.engine.output import METRICS_NAME
from ovrs.engine.progress import PERIOD
from ovrs.files import replacing


class WriteMetrics(HookBase):
    """Writes the metrics every ``PERIOD`` iterations, for programs and for TensorBoard."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def before_train(self) -> None:  # noqa: D102
        path = Path(self._folder, METRICS_NAME)
        path.parent.mkdir(parents=True, exist_ok=True)
        _drop_metrics_from(path, self.trainer.start_iter)
        writers = [JSONWriter(str(path)), TensorboardXWriter(self._folder)]
        self._writer = hooks.PeriodicWriter(writers, period=PERIOD)
        self._writer.trainer = self.trainer

    def after_step(self) -> None:  # noqa: D102
        self._writer.after_step()

    def after_train(self) -> None:  # noqa: D102
        self._writer.after_train()


class SaveCheckpoints(HookBase):
    """Saves every ``period`` iterations, at the end, and when the process is asked to stop."""

    def __init__(self, period: int) -> None:
        self._period = period

    def after_step(self) -> None:  # noqa: D102
        done = self.trainer.iter + 1
        if done == self.trainer.max_iter:
            self.trainer.save("model_final")
            return
        stop = self.trainer.stop()
        if stop or (self._period > 0 and done % self._period == 0):
            self.trainer.save(f"model_{self.trainer.iter:07d}")
        if stop:
            raise Interrupted(
                f"stopped after iteration {done} of {self.trainer.max_iter}; go on with --resume "
                f"(checkpoint {self.trainer.store.last()})."
            )


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
