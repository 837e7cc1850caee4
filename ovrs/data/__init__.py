"""Data sets as cards: what they are called, how their files become samples, and in which order.

A card (:func:`load_card`) describes a data set, :func:`resolve_datasets` turns names into registered data
sets, and the two loaders yield what the segmenter takes.
"""

from ovrs.data.card import DatasetCard, Split, load_card
from ovrs.data.catalog import DatasetSummary, built_in_cards, data_root, list_datasets, resolve_datasets
from ovrs.data.encodings import CocoEncoding, ColourEncoding, IdEncoding
from ovrs.data.loader import TrainingBatches, build_test_loader, build_train_loader
from ovrs.data.mapper import SegmentationMapper
from ovrs.data.order import TrainingOrder
from ovrs.data.pairing import Record
from ovrs.data.reading import read_image, read_labels, read_pair
from ovrs.errors import DataError

__all__ = [
    "CocoEncoding",
    "ColourEncoding",
    "DataError",
    "DatasetCard",
    "DatasetSummary",
    "IdEncoding",
    "Record",
    "SegmentationMapper",
    "Split",
    "TrainingBatches",
    "TrainingOrder",
    "build_test_loader",
    "build_train_loader",
    "built_in_cards",
    "data_root",
    "list_datasets",
    "load_card",
    "read_image",
    "read_labels",
    "read_pair",
    "resolve_datasets",
]
