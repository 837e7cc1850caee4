"""What decides a pre-training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ovrs.config import Options, option, options_node, read_options
from ovrs.config.loader import load_options
from ovrs.errors import ConfigError

# What may change on the way: the run stays the same, step by step.
FREE = ("CHECKPOINT_EPOCHS", "CHECKPOINT_KEEP", "DEVICE", "WORKERS")


@dataclass(frozen=True)
class Recipe(Options):
    """RSIB's recipe.

    Architecture, epochs, batch, teacher temperature and its warm-up are GSNet's (appendix B.1). The paper says no more;
    everything else is the default of DINO's published code, with the temperature from which the warm-up starts.
    """

    arch: str = option("vit_base_patch8_224.dino", "timm ViT with one class token; MODEL.PRIOR.ARCH of what comes out")
    arch_options: tuple[Any, ...] = option((), "keyword and value, alternating, that timm builds it with")
    weights: str = option("", "what it starts from: a catalogue name or a file; empty: random numbers")
    epochs: int = option(300, "how often every image is shown", minimum=1)
    batch_size: int = option(8, "images per step, of all processes together", minimum=1)
    seed: int = option(0, "of order, crops, drop path and first weights", minimum=0)

    global_size: int = option(224, "side of the two large crops, in pixels", minimum=1)
    global_scale: tuple[float, ...] = option((0.4, 1.0), "least and greatest share of the image in them", above=0)
    local_crops: int = option(8, "number of small crops", minimum=0)
    local_size: int = option(96, "their side", minimum=1)
    local_scale: tuple[float, ...] = option((0.05, 0.4), "least and greatest share of the image in them", above=0)

    out_dim: int = option(65536, "outputs of the head", minimum=2)
    hidden_dim: int = option(2048, "width of the head's two hidden layers", minimum=1)
    bottleneck_dim: int = option(256, "width before the head's last layer", minimum=1)
    drop_path: float = option(0.1, "share of the student's residual branches that are skipped", minimum=0, maximum=0.99)

    student_temperature: float = option(0.1, "of the student's softmax", above=0)
    teacher_temperature: float = option(0.07, "of the teacher's softmax, after the warm-up", above=0)
    teacher_temperature_start: float = option(0.04, "at the beginning of the warm-up", above=0)
    teacher_temperature_epochs: int = option(30, "epochs of that warm-up", minimum=0)
    teacher_momentum: float = option(0.996, "share of the teacher that stays; 1 at the end", minimum=0, maximum=1)
    centre_momentum: float = option(0.9, "share of the centre that stays", minimum=0, maximum=1)

    lr: float = option(5e-4, "greatest learning rate for 256 images per step; in proportion for others", above=0)
    lr_end: float = option(1e-6, "learning rate of the last step", minimum=0)
    lr_warmup_epochs: int = option(10, "epochs in which it rises from 0", minimum=0)
    weight_decay: float = option(0.04, "at first; none for biases and norms", minimum=0)
    weight_decay_end: float = option(0.4, "at the end", minimum=0)
    clip_gradient: float = option(3.0, "greatest norm of each tensor's gradient; 0: none", minimum=0)
    freeze_last_layer_epochs: int = option(1, "epochs in which the head's last layer stays as it is", minimum=0)

    bands: tuple[int, ...] = option((1, 2, 3), "of rasters with three or more: red, green, blue, from 1", minimum=1)
    value_range: tuple[float, ...] = option(
        (), "of TIFF and JPEG 2000 files of more than 8 bits: LOW and HIGH, black and white, or three such pairs"
    )
    bad_images: Literal["stop", "skip"] = option("stop", "on a file that cannot be read; skipped ones are named once")

    precision: Literal["fp32", "bf16"] = option("fp32", "of the networks; loss, centre and weights are always fp32")
    device: str = option("auto", "auto, cpu, cuda")
    workers: int = option(8, "processes that read images, for each process that trains", minimum=0)
    checkpoint_epochs: int = option(5, "epochs between checkpoints; 0: the last one only", minimum=0)
    checkpoint_keep: int = option(2, "how many of them are kept; 0: all", minimum=0)

    def check(self, key: str) -> None:  # noqa: D102
        for name in ("global_scale", "local_scale"):
            limits = getattr(self, name)
            if len(limits) != 2 or not limits[0] <= limits[1] <= 1:
                raise ConfigError(f"{key}.{name.upper()} must be [LEAST, GREATEST], at most 1, got {list(limits)}.")
        if len(self.bands) != 3:
            raise ConfigError(f"{key}.BANDS must be three numbers, got {list(self.bands)}.")
        pairs = zip(self.value_range[::2], self.value_range[1::2], strict=False)
        if len(self.value_range) not in (0, 2, 6) or not all(low < high for low, high in pairs):
            raise ConfigError(
                f"{key}.VALUE_RANGE must be [LOW, HIGH] or three such pairs, LOW below HIGH, got "
                f"{list(self.value_range)}."
            )


def load_recipe(file: str | Path = "", overrides: Sequence[str] = ()) -> Recipe:
    """Return RSIB's recipe with what a YAML file and the words of a command line change.

    Raises:
        ConfigError: an unknown key, or a value that is not allowed.
    """
    return read_options(Recipe, load_options(options_node(Recipe), file, overrides), "recipe")
