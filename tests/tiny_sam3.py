"""A SAM 3 of 1.8 million random weights, which differ enough for words and images to matter.

Tests of it skip where Transformers is older than SAM 3; run them after ``pip install 'ovrs[sam3]'``.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode
from torch import nn

from ovrs.config import load_config

_BLOCKS = {"hidden_size": 32, "num_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
_TOWER = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
TINY_SAM3 = {
    "vision_config": {
        "fpn_hidden_size": 32,
        "backbone_config": {
            **_TOWER,
            "model_type": "sam3_vit_model",
            "image_size": 112,
            "patch_size": 14,
            "window_size": 4,
            "global_attn_indexes": [1],
            "pretrain_image_size": 56,
        },
    },
    "text_config": {**_TOWER, "vocab_size": 49408, "projection_dim": 16, "max_position_embeddings": 32},
    "geometry_encoder_config": _BLOCKS,
    "detr_encoder_config": _BLOCKS,
    "detr_decoder_config": {**_BLOCKS, "num_queries": 7},
    "mask_decoder_config": {"hidden_size": 32, "num_upsampling_stages": 3, "num_attention_heads": 2},
}


def require_sam3() -> None:
    """Skip the test without a Transformers that has SAM 3."""
    transformers = pytest.importorskip("transformers", reason="needs transformers >= 5: pip install 'ovrs[sam3]'")
    if not hasattr(transformers, "Sam3Model"):
        pytest.skip(f"transformers {transformers.__version__} has no SAM 3: pip install 'ovrs[sam3]'")


def tiny_sam3_cfg(folder: Path, *overrides: str) -> CfgNode:
    """The shipped configuration with the tiny model."""
    require_sam3()
    path = folder / "tiny_sam3.json"
    path.write_text(json.dumps(TINY_SAM3), encoding="utf-8")
    model = ["MODEL.DEVICE", "cpu", "MODEL.VLM.ARCH", str(path), "MODEL.VLM.WEIGHTS", "", "MODEL.VLM.INPUT_SIZE", "112"]
    return load_config("training_free/sam3.yaml", [*model, *overrides])


def spread(module: nn.Module, scale: float = 0.25) -> None:
    """Draw all matrices anew, far enough from zero that presence and confidence differ from word to word."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
