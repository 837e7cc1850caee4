"""Every configuration key of OVRS, its default and its meaning.

The defaults describe GSNet as published (ViT-B/16 at 384, LandDiscover50K recipe); a YAML file says
what differs. Keys that Detectron2 has already keep their names and meanings.
"""

from __future__ import annotations

import importlib

import torch
from detectron2.config import CfgNode
from detectron2.config import get_cfg as _detectron2_cfg

from ovrs.config.options import OPTION_GROUPS, options_node

# Values that may name a file; looked up beside the YAML that sets them before the working directory. Options say so
# themselves.
PATH_KEYS = ("MODEL.VLM.ARCH", "MODEL.COMPANION.ARCH")
# Modules whose import registers option groups; they enter as those of other packages do.
BUILT_IN = ("ovrs.heads", "ovrs.inference.refine")

# CLIP's image statistics on the 0..255 scale, RGB.
CLIP_PIXEL_MEAN = [122.7709383, 116.7460125, 104.09373615]
CLIP_PIXEL_STD = [68.5005327, 66.6321579, 70.3231630]


def add_ovrs_config(cfg: CfgNode) -> None:
    """Add all OVRS keys to a Detectron2 configuration, in place."""
    # Modules to import before the keys are read (names, or .py files beside the YAML): they register heads, options and
    # data sets of your own. The lists of base files add up.
    cfg.IMPORTS = []
    _add_model(cfg)
    _add_option_groups(cfg)
    _add_ensemble(cfg)
    _add_vocabulary(cfg)
    _add_input(cfg)
    _add_solver(cfg)
    _add_test(cfg)


def _add_model(cfg: CfgNode) -> None:
    model = cfg.MODEL
    model.META_ARCHITECTURE = "OpenVocabSegmenter"
    # "auto" is the GPU if there is one, else the CPU; the default says which of both, as Detectron2 wants it.
    model.DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
    model.PIXEL_MEAN = list(CLIP_PIXEL_MEAN)
    model.PIXEL_STD = list(CLIP_PIXEL_STD)

    # Vision-language model (both towers).
    model.VLM = CfgNode()
    model.VLM.NAME = "OpenClipVLM"  # an entry of VLM_REGISTRY
    model.VLM.ARCH = "ViT-B-16"  # an open_clip model name, or the path of a model config (JSON)
    model.VLM.WEIGHTS = "openai/ViT-B-16"  # name in the weights catalogue, local file, or "" for random weights
    model.VLM.ACTIVATION = ""  # "quick_gelu" or "gelu"; "" takes what the weights were trained with
    model.VLM.INPUT_SIZE = 384  # side of the square that images are resized to; 0 keeps their size
    # "adapted": the position embedding is resized to INPUT_SIZE once and for all when the model is built, and trains
    # and is stored so (HG-RSOVSSeg); "runtime": it keeps the size of the weights and is resized for every grid, by
    # the ratio of the sizes; "runtime_dino": by DINO's slightly larger factor (training-free methods).
    model.VLM.POSITION_EMBEDDING = "runtime"
    model.VLM.FINETUNE_IMAGE = "attention"  # see ovrs.backbones.finetune
    model.VLM.FINETUNE_TEXT = "attention"
    model.VLM.RECOMPUTE = False  # training keeps block outputs only: less memory, one more pass of each block

    # Self-supervised remote-sensing prior.
    model.PRIOR = CfgNode()
    model.PRIOR.NAME = "DinoPrior"  # an entry of PRIOR_REGISTRY; "" for none
    model.PRIOR.ARCH = "vit_base_patch8_224.dino"  # a timm model name
    model.PRIOR.WEIGHTS = ""  # name in the weights catalogue, local file, or "" for random weights
    model.PRIOR.INPUT_SIZE = 384
    model.PRIOR.FINETUNE = "frozen"
    model.PRIOR.ARCH_OPTIONS = []  # alternating keyword, value for timm: ["depth", 4, "embed_dim", 96]
    model.PRIOR.PIXEL_MEAN = []  # the prior's own statistics; [] shares MODEL.PIXEL_MEAN/STD
    model.PRIOR.PIXEL_STD = []

    # A second CLIP whose image blocks guide the decoder of heads that ask for it (RSKT-Seg's RemoteCLIP); frozen.
    model.COMPANION = CfgNode()
    model.COMPANION.ARCH = ""  # as MODEL.VLM.ARCH; "" for none
    model.COMPANION.WEIGHTS = ""
    model.COMPANION.ACTIVATION = ""
    model.COMPANION.INPUT_SIZE = 768

    # Arithmetic of towers and head: "fp32", "bf16" or "fp16" (autocast; reductions stay fp32).
    model.PRECISION = CfgNode()
    model.PRECISION.TOWERS = "fp32"
    model.PRECISION.HEAD = "fp32"
    # On a GPU, "fp32" products and convolutions may round their factors to TF32's 10 bits: several times faster, as the
    # published models were trained.
    model.PRECISION.TF32 = True
    # Passes without gradients read short copies of the weights, half their size again, instead of rounding them anew.
    # The digits are the same.
    model.PRECISION.WEIGHT_COPIES = True  # of "bf16" and "fp16"

    # What frozen towers say about views is kept on disk, and read instead of computed where a view comes again: in
    # every evaluation, and in training with INPUT.FIXED_VIEWS. The digits are the same.
    model.FEATURE_CACHE = CfgNode()
    model.FEATURE_CACHE.DIR = ""  # a folder, which several runs may share; "" for none
    model.FEATURE_CACHE.LIMIT_GB = 100.0  # above it, what was not used for the longest time is removed

    model.SEM_SEG_HEAD.NAME = "GSNetHead"  # an entry of SEM_SEG_HEADS_REGISTRY
    model.SEM_SEG_HEAD.CLASS_CHUNK = 0  # classes per pass of the decoder at inference; 0 chooses by memory

    # Every class's probability before training, as the bias of a "bce" head's last layer; 0 keeps PyTorch's own.
    # About 1 / classes avoids a long plateau when towers start from random weights.
    model.SEM_SEG_HEAD.INITIAL_PROBABILITY = 0.0

    model.LOSS = CfgNode()
    model.LOSS.NAME = "bce"  # or "ce": softmax cross-entropy (HG-RSOVSSeg)
    # "negative": ignored pixels are negatives of every class (the official runs); "mask": they do not count.
    model.LOSS.IGNORE_MODE = "negative"  # of "bce"
    # Divisor of the sum over labelled pixels: "all_pixels" of the batch (the official runs) or "valid_pixels".
    model.LOSS.NORMALISE_BY = "all_pixels"  # of "ce"
    model.LOSS.BALANCE = 0.0  # ce: power by which rare classes weigh more, 0 (pixels alike) to 1 (classes alike)


def _add_ensemble(cfg: CfgNode) -> None:
    """Keys of ``MODEL.META_ARCHITECTURE: Ensemble``, whose members bring all else."""
    cfg.MODEL.ENSEMBLE = node = CfgNode()
    node.CONFIGS = []  # names or files of configurations
    node.CHECKPOINTS = []  # one per member, "" for one that needs no training; [] where none does
    node.SHARES = []  # weights of the members' probabilities, in any unit; [] for equal ones


def _add_option_groups(cfg: CfgNode) -> None:
    """Add the groups of the built-in heads, and of all others that are registered by now."""
    for module in BUILT_IN:
        importlib.import_module(module)
    for group, options in OPTION_GROUPS.items():
        cfg.MODEL[group] = options_node(options)


def _add_vocabulary(cfg: CfgNode) -> None:
    cfg.VOCABULARY = CfgNode()
    cfg.VOCABULARY.TEMPLATE_SET = "scene"  # a name in ovrs.vocabulary.TEMPLATE_SETS
    cfg.VOCABULARY.TEMPLATES = []  # sentences with one {}; used instead of the set when not empty
    # Several words of one class, "a|b": the "mean" of their embeddings, only the "first", or in training a
    # "random" one per iteration (the mean in evaluation).
    cfg.VOCABULARY.SYNONYMS = "mean"
    cfg.VOCABULARY.CLASSES = []  # class strings of images that bring neither classes nor a data set


def _add_input(cfg: CfgNode) -> None:
    cfg.INPUT.FORMAT = "RGB"
    cfg.INPUT.MIN_SIZE_TRAIN = (384,)
    cfg.INPUT.MAX_SIZE_TRAIN = 1333
    # Metres per pixel as the model sees them in training, once images are resized; 0: those of the data set's card.
    cfg.INPUT.GSD = 0.0
    cfg.INPUT.MIN_SIZE_TEST = 640  # shortest side before inference; 0 keeps the image as it is
    cfg.INPUT.MAX_SIZE_TEST = 2560
    cfg.INPUT.ANTIALIAS_TEST = True  # low-pass filter where that shrinks images (PIL); False: none (OpenCV)
    cfg.INPUT.CROP.ENABLED = True
    cfg.INPUT.CROP.TYPE = "absolute"
    cfg.INPUT.CROP.SIZE = [384, 384]
    cfg.INPUT.CROP.CLASS_BALANCE = 0.0  # share of crops laid around a pixel of a class, all classes equally likely
    cfg.INPUT.CROP.SINGLE_CATEGORY_MAX_AREA = 1.0  # crops are redrawn while one class covers more than this
    cfg.INPUT.COLOR_AUG_SSD = True
    cfg.INPUT.RANDOM_FLIP = "horizontal"  # or "none", "vertical"
    cfg.INPUT.RANDOM_FLIP_VERTICAL = False  # vertical flips on top of horizontal ones
    cfg.INPUT.RANDOM_ROTATE90 = False  # quarter turns, all four equally likely
    cfg.INPUT.FIXED_VIEWS = 0  # so many augmentations of each image, one per epoch in turn; 0 draws anew every time
    cfg.INPUT.PAD_TO = 384  # training images are padded (right, bottom) to this side ...
    cfg.INPUT.PAD_VALUE = [128, 128, 128]  # ... with this colour, RGB on 0..255
    cfg.INPUT.SIZE_DIVISIBILITY = 32  # inside the model, whole-image inference pads to a multiple of this
    # Several training sets. "own": every image against the classes of its own set; "merged": all against the union of
    # the classes (see ovrs.vocabulary.merging), the first set's string winning.
    cfg.DATASETS.TRAIN_VOCABULARY = "own"
    # Classes that an image's own set does not label: "negative" nowhere in it (GSNet's LandDiscover50K), so what is
    # there all the same is noise; "ignored": they cost nothing there.
    cfg.DATASETS.UNLABELLED_CLASSES = "negative"  # of "merged"
    cfg.DATASETS.TRAIN_WEIGHTS = []  # the sets' shares of the samples, in any unit, one per set; [] is by their size
    cfg.DATASETS.VAL = []  # what TEST.EVAL_PERIOD evaluates during training; [] takes DATASETS.TEST
    cfg.DATASETS.TRAIN_FRACTION = 1.0  # share of the training images that are used, a fixed subset of every set
    cfg.DATASETS.ROOT = ""  # root of prepared data sets; "" reads $DETECTRON2_DATASETS, then "datasets"
    cfg.DATALOADER.PREFETCH_FACTOR = 2


def _add_solver(cfg: CfgNode) -> None:
    solver = cfg.SOLVER
    solver.OPTIMIZER = "AdamW"
    solver.BETAS = [0.9, 0.999]
    solver.BASE_LR = 2e-4
    solver.IMS_PER_BATCH = 4
    solver.MAX_ITER = 30000
    solver.LR_SCHEDULER_NAME = "cosine"  # or "poly", "constant"
    solver.POLY_POWER = 0.9
    solver.WARMUP_ITERS = 0
    solver.WEIGHT_DECAY = 1e-4
    solver.WEIGHT_DECAY_NORM = 0.0
    solver.VLM_MULTIPLIER = 0.01  # learning-rate factor of VLM parameters
    solver.PRIOR_MULTIPLIER = 1.0  # learning-rate factor of prior parameters, where they train
    solver.CHECKPOINT_PERIOD = 5000
    solver.CHECKPOINT_FULL = False  # frozen parts of towers are stored too, not just named with their checksum
    solver.CHECKPOINT_KEEP = 0  # the newest so many of the periodic checkpoints are kept; 0 keeps all
    solver.CHECKPOINT_BEST = (
        ""  # "mIoU" or another main figure: its best average on DATASETS.VAL goes to model_best.pth
    )
    solver.CLIP_GRADIENTS.ENABLED = True
    solver.CLIP_GRADIENTS.CLIP_TYPE = "full_model"  # global norm over all trained parameters
    solver.CLIP_GRADIENTS.CLIP_VALUE = 0.01
    solver.CLIP_GRADIENTS.NORM_TYPE = 2.0


def _add_test(cfg: CfgNode) -> None:
    cfg.TEST.IMS_PER_BATCH = 1
    cfg.TEST.MIOU_RULE = "present"  # classes in the mean: "present" in the labels, or "union" (HG-RSOVSSeg)
    # The average over data sets: of "all", or of those "unseen" in training, that is, of other cards (HG-RSOVSSeg).
    cfg.TEST.AVERAGE = "all"
    # Whole-image inference pads to a multiple of INPUT.SIZE_DIVISIBILITY. True cuts the padding off again; False
    # stretches it into the result, as the published figures of the CAT-Seg family were made.
    cfg.TEST.CROP_PADDING = True
    # What torch.compile compiles at inference, once per shape: "none", "towers" (their blocks), "all" (the head too).
    cfg.TEST.COMPILE = "none"
    # On a GPU, passes are recorded once per shape and vocabulary, and replayed by one launch: same digits, more memory.
    cfg.TEST.CUDA_GRAPHS = False
    cfg.TEST.OUTPUT = "labels"  # "labels": class index and score per pixel; "scores": [T, H, W] in "sem_seg" too
    cfg.TEST.THRESHOLD = 0.0  # pixels whose best probability is below it become ...
    cfg.TEST.THRESHOLDS = []  # other thresholds by data set: [name, value, name, value, ...]
    cfg.TEST.BACKGROUND = (
        ""  # ... this class, by one of its words ("a|b": or another); without it one label more, "other"
    )
    cfg.TEST.REFINE = ""  # post-processor of scores: "coninfer" (MODEL.CONINFER), "pamr" (MODEL.PAMR), or "" for none
    cfg.TEST.SLIDING_WINDOW = node = CfgNode()
    node.ENABLED = True
    node.CANVAS = 640  # images are squashed to this square first; 0 tiles them at their own size
    node.KERNEL = 384
    node.OVERLAP = 0.333  # fraction of the kernel that neighbouring windows share
    node.GLOBAL_VIEW = True  # average with one view of the whole image, at equal weight
    node.BATCH_SIZE = 8  # windows, of one or many images, in one pass
    # Images smaller than a window (with CANVAS 0): 0 pads them to one; n shrinks the window to the image, padded evenly
    # to a multiple of n.
    node.FIT = 0


def get_cfg() -> CfgNode:
    """Return a configuration with all Detectron2 and OVRS defaults."""
    cfg = _detectron2_cfg()
    add_ovrs_config(cfg)
    return cfg
