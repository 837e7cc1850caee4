"""The small models of ``configs/demo`` with random weights."""

from __future__ import annotations

import torch

from ovrs.config import load_config
from ovrs.engine import build_model
from ovrs.segmenter import OpenVocabSegmenter

DEMO = ["cat_seg", "dr_seg", "gsnet", "hg_rsovsseg", "rskt_seg"]
CLASSES = ["water", "tree", "field", "road", "roof"]


def demo_model(name: str, device: str = "cpu", precision: str = "fp32", **keys: object) -> OpenVocabSegmenter:
    """A model in evaluation mode, always with the same weights; ``keys`` such as ``TEST__COMPILE`` are set."""
    changes = {"MODEL.DEVICE": device, "MODEL.DR_SEG.SPSD.SELECT": "random", "MODEL.PRECISION.TF32": False}
    changes |= {"MODEL.PRECISION.TOWERS": precision, "MODEL.PRECISION.HEAD": precision}
    changes |= {key.replace("__", "."): value for key, value in keys.items()}
    cfg = load_config(f"demo/{name}")
    cfg.defrost()
    cfg.merge_from_list([part for change in changes.items() for part in change])
    torch.manual_seed(0)
    return build_model(cfg, load_towers=False).eval()
