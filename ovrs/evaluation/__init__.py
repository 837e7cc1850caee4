"""Scoring: exact pixel counts, the figures of each protocol, and reports that say how they were measured."""

from ovrs.evaluation.confusion import ConfusionMatrix, EvaluationError, SegmentationMetrics
from ovrs.evaluation.evaluator import SegmentationEvaluator, evaluate_dataset
from ovrs.evaluation.protocol import describe_protocol, protocol_key, protocol_values
from ovrs.evaluation.report import Report
from ovrs.evaluation.store import Result, ResultStore

__all__ = [
    "ConfusionMatrix",
    "EvaluationError",
    "Report",
    "Result",
    "ResultStore",
    "SegmentationEvaluator",
    "SegmentationMetrics",
    "describe_protocol",
    "evaluate_dataset",
    "protocol_key",
    "protocol_values",
]
