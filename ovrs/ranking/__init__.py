"""Making DR-Seg's channel ranking, and the two experiments that show what it is worth."""

from ovrs.ranking.collect import ClassStatistics, RankingOptions, collect, grid_labels
from ovrs.ranking.dropped import DroppedStudy, study_dropped_channels
from ovrs.ranking.pilot import PilotStudy, study_single_channels
from ovrs.ranking.rank import describe_ranking, rank_channels, save_ranking
from ovrs.ranking.tower import FrozenTower
from ovrs.ranking.verify import RATIOS, RatioCurves, verify_ranking

__all__ = [
    "RATIOS",
    "ClassStatistics",
    "DroppedStudy",
    "FrozenTower",
    "PilotStudy",
    "RankingOptions",
    "RatioCurves",
    "collect",
    "describe_ranking",
    "grid_labels",
    "rank_channels",
    "save_ranking",
    "study_dropped_channels",
    "study_single_channels",
    "verify_ranking",
]
