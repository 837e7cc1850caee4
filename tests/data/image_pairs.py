"""Files of miniature data sets."""

from pathlib import Path

import numpy as np
from PIL import Image


def save_pair(folder: Path, stem: str, labels: np.ndarray, number: int = 0) -> None:
    """Write ``images/STEM.png``, where red encodes the label and green is ``number``, and ``labels/STEM.png``."""
    image = np.stack([labels * 100, np.full_like(labels, number), np.zeros_like(labels)], axis=-1)
    for name, array in (("images", image), ("labels", labels)):
        (folder / name).mkdir(exist_ok=True)
        Image.fromarray(array).save(folder / name / f"{stem}.png")
