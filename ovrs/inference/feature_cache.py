"""What frozen towers said about views, kept on disk: a view seen before costs a read instead of a pass."""

from __future__ import annotations

import hashlib
import logging
import os
import zlib
from pathlib import Path

import safetensors.torch
import torch
from detectron2.config import CfgNode
from safetensors import SafetensorError
from torch import Tensor

import ovrs
from ovrs.backbones import Tower
from ovrs.caching import ParameterCache
from ovrs.errors import ConfigError
from ovrs.files import replacing
from ovrs.structures import TowerFeatures, TowerRequest
from ovrs.zoo.state_dict import digest

_SUFFIX = ".features"
_CHECK = 4  # bytes of the checksum that a file ends with
_SWEEP = 20  # the folder is looked through whenever this part of the limit was written

logger = logging.getLogger(__name__)


class FeatureCache:
    """A folder of features, named by what they depend on: the view, the tower, the request and the arithmetic.

    What is read has the bits of what was computed. Where the folder is full, entries leave that were not used for the
    longest time. Several processes may share it.

    Args:
        folder: made at the first write.
        limit: bytes that the folder may hold; each further process may exceed it by a twentieth.
    """

    def __init__(self, folder: str | Path, limit: int) -> None:
        self.folder, self.limit = Path(folder), limit
        self.hits = self.misses = 0
        self._identities: dict[int, ParameterCache[str]] = {}
        self._left = 0  # bytes to write until the next sweep
        self._told: set[str] = set()

    @classmethod
    def of(cls, cfg: CfgNode) -> FeatureCache | None:
        """Return the cache that ``MODEL.FEATURE_CACHE`` asks for.

        Raises:
            ConfigError: a limit that is no size.
        """
        node = cfg.MODEL.FEATURE_CACHE
        if not node.LIMIT_GB > 0:
            raise ConfigError(f"MODEL.FEATURE_CACHE.LIMIT_GB must be above 0, got {node.LIMIT_GB}.")
        return cls(node.DIR, int(node.LIMIT_GB * 1e9)) if node.DIR else None

    @staticmethod
    def takes(request: TowerRequest) -> bool:
        """Whether what is asked for can be kept: not the last block, nor the part that finds concepts."""
        return not (request.last_block or request.concepts or request.pixels)

    def __call__(self, tower: Tower, images: Tensor, request: TowerRequest) -> TowerFeatures:
        """Return ``tower(images, request)``; the tower sees only the views that are not in the folder.

        Args:
            tower: frozen.
            images: normalised [B, 3, H, W].
            request: what the tower is asked for; :meth:`takes` it.
        """
        names = self._names(tower, request, images)
        found = {index: entry for index, name in enumerate(names) if (entry := self._read(name)) is not None}
        missing = [index for index in range(len(images)) if index not in found]
        self.hits, self.misses = self.hits + len(found), self.misses + len(missing)
        if missing:
            computed = _tensors(tower(images if len(missing) == len(images) else images[missing], request))
            for row, index in enumerate(missing):
                found[index] = {key: tensor[row : row + 1] for key, tensor in computed.items()}
                self._write(names[index], found[index])
            if len(missing) == len(images):
                return _features(computed)
        rows = [found[index] for index in range(len(images))]
        return _features({key: torch.cat([row[key].to(images.device) for row in rows]) for key in rows[0]})

    def _names(self, tower: Tower, request: TowerRequest, images: Tensor) -> list[str]:
        parameters = tower.image_parameters()
        identity = self._identities.setdefault(id(tower), ParameterCache(1))
        weights = identity("", parameters, lambda: _identity(tower))
        autocast = torch.get_autocast_dtype(images.device.type) if torch.is_autocast_enabled(images.device.type) else ""
        common = f"{ovrs.__version__} {torch.__version__} {weights} {request} {autocast} {_arithmetic(images.device)}"
        start = hashlib.sha256(f"{common} {images.dtype} {tuple(images.shape[1:])}\n".encode())
        names = []
        for image in images.detach().cpu().contiguous():
            found = start.copy()
            found.update(image.flatten().view(torch.uint8).numpy())
            names.append(found.hexdigest())
        return names

    def _path(self, name: str) -> Path:
        return self.folder / name[:2] / f"{name}{_SUFFIX}"

    def _read(self, name: str) -> dict[str, Tensor] | None:
        try:
            content = self._path(name).read_bytes()
            os.utime(self._path(name))
        except FileNotFoundError:
            return None
        body, check = content[:-_CHECK], content[-_CHECK:]
        try:
            if zlib.crc32(body).to_bytes(_CHECK, "big") == check:
                return safetensors.torch.load(body)
        except SafetensorError:
            pass
        self._tell("%s is damaged; such entries of MODEL.FEATURE_CACHE.DIR are computed anew.", self._path(name))
        return None

    def _write(self, name: str, entry: dict[str, Tensor]) -> None:
        body = safetensors.torch.save({key: tensor.detach().cpu().contiguous() for key, tensor in entry.items()})
        with replacing(self._path(name)) as temporary:
            temporary.write_bytes(body + zlib.crc32(body).to_bytes(_CHECK, "big"))
        self._left -= len(body)
        if self._left < 0:
            self._sweep()

    def _sweep(self) -> None:
        """Remove the entries that were not used for the longest time, until a sweep's share of the limit is free."""
        entries = []
        for path in self.folder.glob(f"*/*{_SUFFIX}"):
            try:
                state = path.stat()
            except FileNotFoundError:  # another process removed it
                continue
            entries.append((state.st_mtime_ns, state.st_size, path))
        self._left = self.limit // _SWEEP
        excess = sum(size for _, size, _ in entries) + self._left - self.limit
        for _, size, path in sorted(entries):
            if excess <= 0:
                break
            path.unlink(missing_ok=True)
            excess -= size
            self._tell(
                "%s is full: entries are replaced, and views that come back late are computed anew. Raise "
                "MODEL.FEATURE_CACHE.LIMIT_GB to hold every view.",
                self.folder,
            )

    def _tell(self, remark: str, where: Path) -> None:
        if remark not in self._told:
            self._told.add(remark)
            logger.warning(f"{remark} (Said once.)", where)


def _identity(tower: Tower) -> str:
    """Return a checksum of the kind of a tower and of all numbers that its features depend on."""
    read = {id(parameter) for parameter in tower.image_parameters()}
    state = {name: tensor for name, tensor in tower.named_parameters() if id(tensor) in read}
    return f"{type(tower).__qualname__} {tower.spec} {digest(state | dict(tower.named_buffers()))}"


def _arithmetic(device: torch.device) -> str:
    """Return what else decides about the last digits."""
    if device.type != "cuda":
        return device.type
    tf32 = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    return f"{torch.cuda.get_device_name(device)} {tf32}"


def _tensors(features: TowerFeatures) -> dict[str, Tensor]:
    """Return the features under the names that files give them."""
    dense = features.dense if features.rotated is None else None  # else it is the first of the rotated maps
    found = {"dense": dense, "token": features.token, "rotated": features.rotated}
    found |= {f"block {index}": block for index, block in features.blocks.items()}
    for index, (queries, keys) in features.attention.items():
        found |= {f"queries {index}": queries, f"keys {index}": keys}
    return {name: tensor for name, tensor in found.items() if tensor is not None}


def _features(tensors: dict[str, Tensor]) -> TowerFeatures:
    """Undo :func:`_tensors`."""

    def numbered(kind: str) -> dict[int, Tensor]:
        return {int(name.split()[1]): tensor for name, tensor in tensors.items() if name.startswith(f"{kind} ")}

    keys, rotated = numbered("keys"), tensors.get("rotated")
    return TowerFeatures(
        dense=tensors.get("dense") if rotated is None else rotated[:, 0],
        token=tensors.get("token"),
        rotated=rotated,
        blocks=numbered("block"),
        attention={index: (queries, keys[index]) for index, queries in numbered("queries").items()},
    )
