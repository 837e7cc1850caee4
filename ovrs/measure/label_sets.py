"""How alike the class lists of data sets are to a text tower."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from ovrs.backbones import build_vlm
from ovrs.vocabulary import Vocabulary
from ovrs.vocabulary.similarity import LabelSetSimilarity, label_set_similarity


def compare_label_sets(cfg: CfgNode, names: Sequence[str], other: str) -> dict[str, LabelSetSimilarity]:
    """Compare the classes of data sets with those of one other, by the bare first words of their classes.

    Args:
        cfg: its ``MODEL.VLM`` encodes the words.
        names: registered data sets; their files need not be there.
        other: another one, usually a training set.

    Raises:
        WeightsError: the tower's weights cannot be had.
    """
    vlm = build_vlm(cfg).eval()

    def embeddings(name: str) -> torch.Tensor:
        return vlm.encode_text(list(Vocabulary.from_strings(MetadataCatalog.get(name).class_strings).names))

    with torch.inference_mode():
        theirs = embeddings(other)
        return {name: label_set_similarity(embeddings(name), theirs) for name in names}
