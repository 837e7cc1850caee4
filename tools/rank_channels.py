#!/usr/bin/env python3
r"""Rank the channels of a vision-language model on a training set, for DR-Seg (MODEL.DR_SEG.SPSD.FILE).

The model is MODEL.VLM with its own, released weights; MODEL.WEIGHTS is not looked at. One pass over the images, no
text and no prior; the same command gives the same file, byte for byte. Beside the file, --verify and --pilot each
leave a table and a plot (.json, .md, .png) of an experiment that shows what the ranking is worth.

Examples:
    # what configs/dr_seg/vitb16_dlrsd.yaml needs, at the place where it looks for it
    python tools/rank_channels.py --config-file configs/dr_seg/vitb16_dlrsd.yaml --dataset DLRSD_train_sem_seg

    # the paper's sampling (1000 prototypes per class)
    python tools/rank_channels.py --config-file configs/dr_seg/vitl14_336_dlrsd.yaml --dataset DLRSD_train_sem_seg \
        --output output/channels/sampled.npz --n-p 1000 --seed 0

    # an existing file: zero-shot segmentation with its first and last channels (Figure 6 of the paper), and without
    # each single one, then without the fifth of them that helps most, and least (Figure 2)
    python tools/rank_channels.py --config-file configs/dr_seg/vitb16_dlrsd.yaml \
        --verify Potsdam_all_sem_seg VDD_all_sem_seg uavid_all_sem_seg UDD5_all_sem_seg --pilot Potsdam_all_sem_seg

    # your own data set, verified on its other split with another lambda
    python tools/rank_channels.py --config-file configs/dr_seg/vitb16_dlrsd.yaml --dataset town.yaml:train \
        --lambda 0.5 --verify town.yaml:val --output output/channels/town.npz
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.utils.logger import setup_logger

from ovrs.config import load_config
from ovrs.engine import readable_errors
from ovrs.heads.dr_seg.ranking_file import WEIGHTINGS, ChannelRanking, RankingError
from ovrs.ranking import (
    FrozenTower,
    RankingOptions,
    describe_ranking,
    rank_channels,
    study_dropped_channels,
    study_single_channels,
    verify_ranking,
)
from ovrs.ranking.collect import LABELLINGS
from ovrs.ranking.dropped import SHARE
from ovrs.ranking.pilot import IMAGES

logger = logging.getLogger("ovrs.tools.rank_channels")


def main() -> None:
    """Parse the command line, rank or read, and run the experiments that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", required=True, metavar="FILE", help="configuration (YAML)")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE.npz",
        help="the channel ranking (default: the configuration's MODEL.DR_SEG.SPSD.FILE)",
    )
    parser.add_argument(
        "--dataset", metavar="NAME", help="rank on this: a registered name, or CARD.yaml:split; else FILE.npz is read"
    )
    parser.add_argument(
        "--lambda", dest="lam", type=float, metavar="L", help="weight of the entropy (default: the configuration's)"
    )
    ranking = parser.add_argument_group("with --dataset (defaults: the configuration's MODEL.DR_SEG.SPSD)")
    ranking.add_argument("--n-p", type=int, metavar="N", help="prototypes drawn per class; 0 for all cells")
    ranking.add_argument("--purity", type=float, metavar="P", help="share of a cell that its class must cover")
    ranking.add_argument("--weighting", choices=WEIGHTINGS, help="of pairs of classes, or of pairs of prototypes")
    ranking.add_argument("--labelling", choices=LABELLINGS, help="of the cells (default: majority)")
    experiments = parser.add_argument_group("experiments")
    experiments.add_argument(
        "--verify", nargs="+", default=[], metavar="NAME", help="data sets for the curves over the ratio of channels"
    )
    experiments.add_argument("--pilot", metavar="NAME", help="data set for the masking of single channels")
    experiments.add_argument(
        "--pilot-images", type=int, default=IMAGES, metavar="N", help="images drawn from it (default: %(default)s)"
    )
    experiments.add_argument(
        "--dropped-share",
        type=float,
        default=SHARE,
        metavar="S",
        help="share of channels, most and least helpful by --pilot, that the maps do without (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of prototypes and of pilot images (default: 0)")
    parser.add_argument(
        "opts",
        nargs=argparse.REMAINDER,
        metavar="KEY VALUE",
        help="changes of configuration keys; last, and not right after --verify",
    )
    args = parser.parse_args()
    _check(parser, args)
    setup_logger(name="ovrs")

    with readable_errors():
        _run(args)


def _check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    if args.dataset:
        return
    if not args.verify and not args.pilot:
        parser.error("nothing to do: give --dataset to rank, --verify or --pilot to test an existing ranking")
    if set(_ranking_options(args)) - {"lam", "seed"}:
        parser.error("--n-p, --purity, --weighting and --labelling need --dataset: an existing file is not made again")


def _ranking_options(args: argparse.Namespace) -> dict[str, object]:
    """Return what the command line says about the ranking itself."""
    names = [field.name for field in dataclasses.fields(RankingOptions)]
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}


def _run(args: argparse.Namespace) -> None:
    cfg = load_config(args.config_file, args.opts)
    args.output = args.output or Path(cfg.MODEL.DR_SEG.SPSD.FILE)
    if args.output.suffix != ".npz":
        raise RankingError(
            f"the ranking's file, {str(args.output)!r} (--output, or MODEL.DR_SEG.SPSD.FILE), must end in .npz."
        )
    options = dataclasses.replace(RankingOptions.from_config(cfg), **_ranking_options(args))
    tower = FrozenTower.from_config(cfg)
    if args.dataset:
        ranking = rank_channels(cfg, args.dataset, options, tower)
        ranking.save(args.output)
    else:
        ranking = _existing(args.output, options.lam, tower)
    print(f"{describe_ranking(ranking)}\n\nRanking: {args.output}")
    _experiment(args, cfg, tower, ranking)


def _existing(path: Path, lam: float, tower: FrozenTower) -> ChannelRanking:
    ranking = ChannelRanking.load(path, tower.channels)
    if ranking.meta.get("vlm_sha256") != tower.sha256:
        logger.warning("%s was made with other weights than those of MODEL.VLM.", path)
    if ranking.meta.get("lambda") != lam:
        logger.info("%s has lambda %s; it is ranked anew with %s, in memory.", path, ranking.meta.get("lambda"), lam)
        ranking = ranking.reranked(lam)
    return ranking


def _experiment(args: argparse.Namespace, cfg: CfgNode, tower: FrozenTower, ranking: ChannelRanking) -> None:
    stem = args.output.with_suffix("")
    if args.verify:
        curves = verify_ranking(cfg, tower, ranking, args.verify)
        written = curves.write(f"{stem}_verify")
        print(f"\n{curves.table()}\n\nVerification: {', '.join(map(str, written))}")
    if args.pilot:
        study = study_single_channels(cfg, tower, ranking, args.pilot, args.pilot_images, args.seed)
        written = study.write(f"{stem}_pilot")
        print(f"\n{study.summary()}\n\nPilot study: {', '.join(map(str, written))}")
        dropped = study_dropped_channels(cfg, tower, study, args.dropped_share)
        written = dropped.write(f"{stem}_dropped")
        print(f"\n{dropped.table()}\n\nWithout a share of the channels: {', '.join(map(str, written))}")


if __name__ == "__main__":
    main()
