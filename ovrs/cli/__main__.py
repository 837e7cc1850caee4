"""``python -m ovrs.cli`` is the command ``ovrs``."""

import sys

from ovrs.cli import main

sys.argv[0] = "ovrs"
main()
