#!/usr/bin/env python3
"""Prepare a public data set; the same as ``ovrs datasets prepare``, which ``--help`` explains."""

import sys

from ovrs.cli import main

if __name__ == "__main__":
    main(["datasets", "prepare", *sys.argv[1:]])
