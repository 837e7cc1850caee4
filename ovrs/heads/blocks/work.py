"""What the original implementations multiply on top of ours: every block that computes less says how much less.

Papers print the cost of their original code. CAT-Seg's and GSNet's compute the padding of the class axis anew at every
position, and with RSKT-Seg they repeat the guidance of an image for every class; HG-RSOVSSeg's forms the text
attention of every class in full and upsamples before it convolves. With these terms added, our count can be compared
with theirs.

A block says so with a method ``extra_work(*inputs)``, which takes what its ``forward`` takes and returns {reason:
multiply-accumulates}. ``ovrs.measure`` calls it, and refuses blocks that neither consist of PyTorch's own layers nor
have the method.
"""

from __future__ import annotations

from typing import Any

PADDING, GUIDANCE, ATTENTION, UPSAMPLING, LAST_CONVOLUTION = (
    "padding of the class attention",
    "guidance repeated per class",
    "text attention not factored",
    "upsampling apart from its convolution",
    "last convolution of SimFeatUp at full resolution",
)
# Not products, but fvcore, with which HG-RSOVSSeg was counted, has normalisation in its sum, by element.
NORMS = "normalisation"
NORM_OPERATIONS = {True: 5, False: 4}  # fvcore's price of a norm with and without its own scale and shift
KNOWN_NORM_OPERATIONS = {True: 2, False: 1}  # the same where mean and deviation are known beforehand


def as_published(module: Any, *inputs: Any) -> dict[str, int]:
    """The ``extra_work`` of a block that multiplies what the original multiplies."""
    return {}
