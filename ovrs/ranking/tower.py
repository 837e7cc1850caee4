"""The vision-language model as it was released: frozen, fp32, and nothing of a segmenter around it."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from torch import Tensor

from ovrs.backbones import VLM, build_vlm
from ovrs.inference import ScoreMap, WholeImage, resolve_device
from ovrs.structures import TowerRequest
from ovrs.vocabulary import TEMPLATE_SETS, TextBank, Vocabulary
from ovrs.zoo import resolve
from ovrs.zoo.state_dict import sha256_of_file

logger = logging.getLogger(__name__)

DEFAULT_SIDE = 384  # of the square input, for a tower that takes any size
_REQUEST = TowerRequest(dense="class_residual")  # the dense map that DR-Seg's head asks for


class FrozenTower:
    """Dense features of upright images, and class embeddings, of one vision-language model.

    Args:
        vlm: it is frozen and set to evaluation mode.
        pixel_mean: [3] RGB statistics on the 0..255 scale.
        pixel_std: [3] likewise.
        templates: prompt templates of the classes; their embeddings are averaged.
        synonyms: see :class:`ovrs.vocabulary.TextBank`.
        sha256: of the weights file; "" takes a digest of the parameters, for a tower without one.
        device: where to compute.
    """

    def __init__(
        self,
        vlm: VLM,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        templates: Sequence[str] = TEMPLATE_SETS["scene"],
        synonyms: str = "mean",
        sha256: str = "",
        device: str | torch.device = "cpu",
    ) -> None:
        self.vlm = vlm.to(device).eval().requires_grad_(False)
        self.device = torch.device(device)
        self.side = vlm.spec.input_size or DEFAULT_SIDE
        self.channels = vlm.spec.joint_dim
        self.sha256 = sha256 or _digest(vlm)
        self._mean, self._std = (
            torch.tensor(list(values), dtype=torch.float32, device=self.device).view(3, 1, 1)
            for values in (pixel_mean, pixel_std)
        )
        self.templates, self._text_bank = tuple(templates), TextBank(synonyms)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> FrozenTower:
        """Build ``MODEL.VLM`` with its own weights, whatever ``MODEL.WEIGHTS`` says.

        A tower without weights is drawn from ``SEED`` exactly as training draws it, so a ranking of it is one of the
        tower that training starts from.

        Raises:
            ConfigError: a name that the registry does not know, or a value out of range.
            WeightsError: see :func:`ovrs.zoo.resolve`.
        """
        node = cfg.MODEL.VLM
        if not node.WEIGHTS and cfg.SEED < 0:
            logger.warning("MODEL.VLM.WEIGHTS is empty and SEED negative: training will start from another tower.")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(max(cfg.SEED, 0))
            vlm = build_vlm(cfg)
        return cls(
            vlm,
            cfg.MODEL.PIXEL_MEAN,
            cfg.MODEL.PIXEL_STD,
            templates=Vocabulary.templates_of(cfg),
            synonyms=cfg.VOCABULARY.SYNONYMS,
            sha256=sha256_of_file(resolve(node.WEIGHTS, "MODEL.VLM.WEIGHTS")) if node.WEIGHTS else "",
            device=resolve_device(cfg.MODEL.DEVICE),
        )

    def dense(self, image: Tensor) -> Tensor:
        """Return [C, h, w] features, not normalised, of a uint8 or float [3, H, W] image (RGB, 0..255).

        The image is squashed to the tower's square.
        """
        return self._encode(self._normalise(image)[None])[0]

    def dense_of_padded(self, image: Tensor, size: tuple[int, int], plan: WholeImage) -> ScoreMap:
        """Return features as whole-image inference sees them: the image is padded before it is squashed.

        Args:
            image: [3, h, w] RGB, 0..255.
            size: (height, width) of the wanted result.
            plan: how the image is padded, and whether the padding is cut off the result.

        Returns:
            [C, h', w'] features, not normalised, in the place of scores, and the size to which their scores are
            enlarged.
        """
        images = [self._normalise(image)]
        encoded = ((keys, self._encode(views)) for keys, views in plan.views(images))
        return plan.merge([tuple(image.shape[-2:])], [size], encoded)[0]

    def classes(self, class_strings: Sequence[str]) -> Tensor:
        """Return [T, C] class embeddings, the mean over templates, not normalised."""
        vocabulary = Vocabulary.from_strings(class_strings, self.templates)
        with torch.inference_mode(), _exact_fp32():
            return self._text_bank(self.vlm, vocabulary).per_class.mean(dim=1)

    def _normalise(self, image: Tensor) -> Tensor:
        return (image.to(self.device).float() - self._mean) / self._std

    def _encode(self, images: Tensor) -> Tensor:
        size = (self.side, self.side)
        images = F.interpolate(images, size=size, mode="bilinear", align_corners=False)
        with torch.inference_mode(), _exact_fp32():
            return self.vlm(images, _REQUEST).dense.float()


@contextmanager
def _exact_fp32() -> Iterator[None]:
    """Compute without TF32 and without algorithms that are chosen by a race."""
    # This switch and not torch.set_float32_matmul_precision, which disagrees with it where both are used.
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        with torch.backends.cudnn.flags(enabled=False):  # only the patch embedding is a convolution
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def _digest(vlm: VLM) -> str:
    """Return the SHA-256 of all parameters and buffers with their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(vlm.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
