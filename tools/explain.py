#!/usr/bin/env python3
r"""Show what a model's head computes on its way to the scores: the command ``ovrs explain`` as a script.

Example:
    python tools/explain.py town.png --config-file dr_seg/vitb16_dlrsd --weights model_final.pth \
        --classes building road tree --pixel 310,120 --out output/explain
"""

from __future__ import annotations

import sys

from ovrs.cli import main

if __name__ == "__main__":
    main(["explain", *sys.argv[1:]])
