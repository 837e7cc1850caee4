"""Training runs that end in the middle, as when their process is killed."""

from detectron2.engine.train_loop import HookBase


class Killed(BaseException):
    """Not an Exception, like the end of a process: nothing in the loop may handle it."""


class KillAfter(HookBase):
    """Ends the run before the next iteration; ``done`` are finished, with everything that belongs to them."""

    def __init__(self, done: int) -> None:
        self._done = done

    def before_step(self) -> None:
        if self.trainer.iter == self._done:
            raise Killed
