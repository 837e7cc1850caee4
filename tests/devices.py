"""Devices that tests run on: the CPU always, a GPU with ``pytest -m gpu``."""

from __future__ import annotations

import pytest
import torch

_CARD = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]
DEVICES = ["cpu", pytest.param("cuda", marks=_CARD)]
ON_A_CARD = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
