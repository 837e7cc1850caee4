#!/usr/bin/env python3
r"""Train or evaluate a segmenter, with the arguments of Detectron2's scripts; "ovrs train" and "ovrs eval" do it too.

Examples:
    # the demo model on the demo scenes, on a CPU or a GPU
    python train_net.py --config-file configs/demo/gsnet.yaml

    # a row of a paper's table
    python train_net.py --config-file configs/papers/dr_seg.yaml:table6/k_20

    # go on after an interruption
    python train_net.py --config-file configs/demo/gsnet.yaml --resume

    # evaluate a checkpoint, with a key changed on the command line
    python train_net.py --config-file configs/gsnet/vitb16_landdiscover50k.yaml --eval-only \
        MODEL.WEIGHTS output/model_final.pth DATASETS.TEST "['gsnet_potsdam_5_all']"

    # four GPUs (or four CPU processes, where there is no GPU)
    python train_net.py --config-file configs/gsnet/vitb16_landdiscover50k.yaml --num-gpus 4
"""

from __future__ import annotations

from ovrs.engine import argument_parser, launch_processes, train_or_evaluate

if __name__ == "__main__":
    parser = argument_parser(epilog=__doc__[__doc__.index("Examples:") :])
    launch_processes(train_or_evaluate, parser.parse_args())
