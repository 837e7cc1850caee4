"""Student, teacher and loss of DINO (Caron et al., 2021, section 3.1)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from detectron2.utils import comm
from torch import Tensor, nn

from ovrs.backbones.dino import DinoPrior
from ovrs.pretraining.recipe import Recipe


class ProjectionHead(nn.Module):
    """From class tokens to scores of ``out_dim`` outputs: an MLP, unit length, and rows of unit length.

    DINO's last layer has a length of its own for every row; for ViT-B it is kept at one, which is what is built here.
    """

    def __init__(self, width: int, recipe: Recipe) -> None:
        super().__init__()
        hidden, bottleneck = recipe.hidden_dim, recipe.bottleneck_dim
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, bottleneck)
        )
        self.last_layer = nn.Linear(bottleneck, recipe.out_dim, bias=False)
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)

    def forward(self, token: Tensor) -> Tensor:
        """Return [N, out_dim] cosines of [N, W] class tokens."""
        return F.linear(F.normalize(self.mlp(token), dim=-1), F.normalize(self.last_layer.weight, dim=-1))


class Network(nn.Module):
    """The ViT of a prior with the head of the pretext task; student and teacher are one each.

    Its state has the names of DINO's own checkpoints: ``backbone.`` and timm's, ``head.``.

    Args:
        tower: the prior, which trains or is a copy of one that does.
        recipe: reads the sizes of the head.
    """

    def __init__(self, tower: DinoPrior, recipe: Recipe) -> None:
        super().__init__()
        self.backbone = tower.vit
        self.head = ProjectionHead(tower.spec.width, recipe)
        # The tower computes as it will for a segmenter, positions of other sizes included.
        self._run_blocks, self._last = tower.run_blocks, tower.spec.depth - 1

    def forward(self, *groups: Tensor) -> Tensor:
        """Return the scores [N, out_dim] of normalised crops, those of one size in one group [N_i, 3, s, s]."""
        tokens = [self._run_blocks(crops, [self._last], True)[0][1] for crops in groups if len(crops)]
        return self.head(torch.cat(tokens))


class DistillationLoss(nn.Module):
    """Cross-entropy between what the teacher says of a large crop and what the student says of every other crop.

    The teacher's scores are centred and sharpened: the centre, a running mean of its scores, keeps it from saying the
    same of everything, the low temperature from saying nothing (equations 1 to 4).

    Attributes:
        centre: [1, out_dim].
    """

    centre: Tensor

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self._student_temperature, self._momentum = recipe.student_temperature, recipe.centre_momentum
        self.register_buffer("centre", torch.zeros(1, recipe.out_dim))

    def forward(self, student: Tensor, teacher: Tensor, large: int, temperature: float) -> tuple[Tensor, Tensor]:
        """Return the loss and the mean entropy of the teacher's answers; both are scalars, in nats.

        An entropy that falls to 0, or stays at ln(out_dim), says that the teacher has collapsed (section 5.3).

        Args:
            student: [V * B, out_dim] scores of V crops of B images, the first crop of all images first.
            teacher: [large * B, out_dim] scores of the first ``large`` crops.
            large: how many of the crops the teacher saw.
            temperature: of the teacher.
        """
        targets = F.softmax((teacher.float() - self.centre) / temperature, dim=-1)
        answers = F.log_softmax(student.float() / self._student_temperature, dim=-1)
        batch = len(targets) // large
        terms = [
            -(target * answer).sum(-1).mean()
            for i, target in enumerate(targets.split(batch))
            for j, answer in enumerate(answers.split(batch))
            if i != j
        ]
        return torch.stack(terms).mean(), torch.special.entr(targets).sum(-1).mean()

    @torch.no_grad()
    def update_centre(self, teacher: Tensor) -> None:
        """Move the centre towards the mean of the teacher's scores over all processes (equation 4)."""
        mean = teacher.float().mean(dim=0, keepdim=True)
        if comm.get_world_size() > 1:
            torch.distributed.all_reduce(mean)
            mean /= comm.get_world_size()
        self.centre.lerp_(mean, 1 - self._momentum)


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """Move every weight of the teacher: ``momentum * teacher + (1 - momentum) * student``."""
    for old, new in zip(teacher.parameters(), student.parameters(), strict=True):
        old.mul_(momentum).add_(new, alpha=1 - momentum)


def parameter_groups(network: nn.Module) -> list[dict]:
    """Return the parameters that decay, and biases and norms, which do not."""
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    decaying = [parameter for parameter in parameters if parameter.ndim > 1]
    return [
        {"params": decaying, "decays": True},
        {"params": [parameter for parameter in parameters if parameter.ndim <= 1], "decays": False},
    ]


def clip_gradients(network: nn.Module, greatest: float) -> Tensor:
    """Shorten the gradient of every tensor by itself to a norm of at most ``greatest``, as DINO's code does.

    Args:
        network: every parameter of it has a gradient.
        greatest: 0 leaves all gradients as they are.

    Returns:
        The norm of the whole gradient before.
    """
    limit = greatest or math.inf
    norms = [nn.utils.clip_grad_norm_([parameter], limit) for parameter in network.parameters()]
    return torch.stack(norms).norm()
