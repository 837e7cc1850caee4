"""Post-processors of scores, over any head's: ``TEST.REFINE`` names one."""

from ovrs.inference.refine.base import Refiner, build_refiner, register_refiner
from ovrs.inference.refine.coninfer import ConInfer
from ovrs.inference.refine.pamr import PAMR

__all__ = ["PAMR", "ConInfer", "Refiner", "build_refiner", "register_refiner"]
