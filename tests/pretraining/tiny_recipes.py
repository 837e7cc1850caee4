"""A recipe of tiny sizes, as words of a command line."""

from __future__ import annotations

TINY = {
    "ARCH": "vit_tiny_patch16_224",
    "ARCH_OPTIONS": "[patch_size, 4, depth, 4, embed_dim, 24, num_heads, 2, img_size, 32]",
    "EPOCHS": 3,
    "BATCH_SIZE": 4,
    "OUT_DIM": 32,
    "HIDDEN_DIM": 24,
    "BOTTLENECK_DIM": 16,
    "GLOBAL_SIZE": 32,
    "LOCAL_SIZE": 16,
    "LOCAL_CROPS": 2,
    "WORKERS": 0,
    "DEVICE": "cpu",
    "CHECKPOINT_EPOCHS": 1,
    "CHECKPOINT_KEEP": 0,
}


def words_of(changes: dict[str, object]) -> list[str]:
    return [str(word) for item in {**TINY, **changes}.items() for word in item]
