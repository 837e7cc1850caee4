"""Small pictures and training records for a segmenter."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def picture(height: int = 32, width: int = 32, seed: int = 0) -> torch.Tensor:
    """A smooth uint8 picture [3, height, width]."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 4, 5, generator=generator) * 255
    return F.interpolate(coarse, size=(height, width), mode="bicubic")[0].clamp(0, 255).to(torch.uint8)


def training_record(classes: list[str], seed: int = 0, size: tuple[int, int] = (32, 32)) -> dict[str, object]:
    """A picture with random labels, three ignored rows and its classes."""
    labels = torch.randint(0, len(classes), size, generator=torch.Generator().manual_seed(seed))
    labels[:3] = 255
    return {"image": picture(*size, seed), "sem_seg": labels, "vocabulary": classes}
