"""Training in several processes."""

from __future__ import annotations

import torch
from detectron2.utils import comm
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ovrs.segmenter import OpenVocabSegmenter


def distributed(model: OpenVocabSegmenter, side: int) -> tuple[nn.Module, list[nn.Parameter]]:
    """Wrap the model where there are several processes; Detectron2's helper needs a GPU for that.

    Returns:
        The wrapped model, and the parameters that are not exchanged since nothing reads them
        (:func:`unread_parameters`): a search for them in every step is not needed.
    """
    if comm.get_world_size() == 1:
        return model, []
    unread = unread_parameters(model, side)
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, sorted(unread))
    device = model.device
    index = device.index if device.index is not None else torch.cuda.current_device() if device.type == "cuda" else None
    replica = DistributedDataParallel(
        model, device_ids=[index] if device.type == "cuda" else None, broadcast_buffers=False
    )
    return replica, [parameter for name, parameter in model.named_parameters() if name in unread]


def unread_parameters(model: OpenVocabSegmenter, side: int) -> set[str]:
    """Return the names of parameters that would train if the loss depended on them; as configured, it does not.

    Such are the query weight of CLIP's last block, which runs value-only, biases that released checkpoints hold, and
    parts that an option switches off. They stay in the optimizer's groups, where they stay as they are. One backward
    pass of a drawn picture finds them; gradients and random numbers are as before.

    Args:
        model: the segmenter.
        side: of the picture, in pixels.
    """
    was_training = model.training
    with torch.random.fork_rng():
        image = torch.randint(256, (3, side, side), dtype=torch.uint8)
        labels = torch.arange(side).expand(side, -1) % 2
        losses = model.train()([{"image": image, "sem_seg": labels, "vocabulary": ["one", "another"]}])
        trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        gradients = torch.autograd.grad(sum(losses.values()), list(trained.values()), allow_unused=True)
    model.train(was_training)
    return {name for name, gradient in zip(trained, gradients, strict=True) if gradient is None}
