"""Self-supervised pre-training of the prior by DINO: how RSIB is made.

A student learns to say of small and large crops of an image what its teacher says of the large ones; the teacher is
the running mean of the student (Caron et al., "Emerging Properties in Self-Supervised Vision Transformers", ICCV 2021;
as used by GSNet, AAAI 2025, appendix B.1). No labels are read.
"""

from ovrs.pretraining.recipe import Recipe, load_recipe
from ovrs.pretraining.run import pretrain
from ovrs.pretraining.trainer import Pretrainer

__all__ = ["Pretrainer", "Recipe", "load_recipe", "pretrain"]
