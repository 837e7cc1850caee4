"""Reading weight files without running anything in them, and loading them strictly."""

from __future__ import annotations

import argparse
import hashlib
import logging
import pickle
import shutil
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ovrs.errors import WeightsError, shortened

logger = logging.getLogger(__name__)

_WRAPPERS = ("state_dict", "model", "teacher", "model_state_dict")
_PREFIXES = ("module.", "backbone.")
_ENDINGS = (".pt", ".pth", ".bin", ".ckpt", ".safetensors")
_SHOWN = 8


def sha256_of_file(path: str | Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits, reading it in pieces."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while piece := stream.read(1 << 22):
            digest.update(piece)
    return digest.hexdigest()


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a weights file, whatever it wraps them in.

    Understood: safetensors; PyTorch files (a plain state dict, or one under ``state_dict``, ``model`` or
    ``teacher``, as training scripts and DINO write them); TorchScript archives (OpenAI's CLIP files); mmengine
    checkpoints; a zip archive with one such file inside.
    Prefixes ``module.`` and ``backbone.`` are removed. No pickled code is ever run: PyTorch files are
    read with ``weights_only``, and of all classes only ``argparse.Namespace`` (plain data that DINO
    stores) is let in; the log buffers of mmengine checkpoints are replaced by objects that do nothing.

    Raises:
        WeightsError: the file does not exist, is damaged, contains code, or holds no tensors.
    """
    path = Path(path)
    content = read_checkpoint(path)
    for wrapper in _WRAPPERS:
        if isinstance(content.get(wrapper), dict):
            content = content[wrapper]
            break
    state = {}
    for name, tensor in content.items():
        if isinstance(tensor, Tensor):
            for prefix in _PREFIXES:
                name = name.removeprefix(prefix)
            state[name] = tensor
    if not state:
        raise WeightsError(f"{path} holds no tensors; its entries are {sorted(map(str, content))[:_SHOWN]}.")
    return state


def read_checkpoint(path: Path) -> dict:
    """Return the dictionary that a weights file holds, unchanged, with tensors on the CPU."""
    if not path.is_file():
        raise WeightsError(f"weights file {path} does not exist; give the path of a local file or a catalogue name.")
    _refuse_stand_ins(path)
    try:
        content = _read(path)
    except WeightsError:
        raise
    except Exception as error:  # the libraries raise a dozen kinds, from EOFError to SafetensorError
        # PyTorch's own words about code in a file advise to run it.
        reason = (
            "" if isinstance(error, pickle.UnpicklingError) else f" ({type(error).__name__}: {error})".splitlines()[0]
        )
        raise WeightsError(
            f"{path} cannot be read as safetensors, PyTorch or TorchScript weights: it is damaged, or it contains "
            f"code, which is never run{reason}."
        ) from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path} holds a {type(content).__name__}, not a dictionary of tensors.")
    return content


def _refuse_stand_ins(path: Path) -> None:
    """Refuse what a download leaves in the place of a file: a web page, or a pointer of git-lfs."""
    with open(path, "rb") as stream:
        start = stream.read(512).lstrip()
    if start[:9].lower() == b"<!doctype" or start[:5].lower() in (b"<html", b"<?xml"):
        raise WeightsError(
            f"{path} cannot be read: it is a web page, not weights. The server asked for a login, a "
            "confirmation or patience; fetch the file in a browser and put it there."
        )
    if start.startswith(b"version https://git-lfs"):
        raise WeightsError(
            f"{path} cannot be read: it is a pointer of git-lfs, not the weights. Run 'git lfs pull' where it "
            "was cloned, or download the file itself."
        )


def _read(path: Path) -> Any:
    """Read a file by what is in it, whatever it is called."""
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    members = _members(path)
    if any(name.endswith("/constants.pkl") for name in members):  # TorchScript
        return dict(torch.jit.load(path, map_location="cpu").state_dict())
    pickled = next((name for name in members if name.endswith("/data.pkl")), None)
    if members and pickled is None:
        return _read_packed(path, members)
    known = [argparse.Namespace, *(_mmengine_objects(path, pickled) if pickled else ())]
    with torch.serialization.safe_globals(known):
        return torch.load(path, map_location="cpu", weights_only=True)


def _members(path: Path) -> list[str]:
    if not zipfile.is_zipfile(path):
        return []
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


class _Inert:
    """Stands for an object that is not wanted: takes any arguments and any state, and does nothing."""

    def __init__(self, *args: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def _mmengine_objects(path: Path, pickled: str) -> list[tuple[type, str]]:
    """Return what to put in the place of the live objects (log buffers) that mmengine stores beside the weights.

    Because of them PyTorch refuses the checkpoint as a whole; the tensors need none of them.
    """
    with zipfile.ZipFile(path) as archive:
        if b"mmengine." not in archive.read(pickled):
            return []
    return [(_Inert, name) for name in torch.serialization.get_unsafe_globals_in_checkpoint(str(path))]


def _read_packed(path: Path, members: list[str]) -> Any:
    """Read the one weights file inside an ordinary zip archive."""
    inner = [name for name in members if name.endswith(_ENDINGS) and not name.startswith("__MACOSX/")]
    if len(inner) != 1:
        found = f"holds {len(inner)} weights files, {inner[:_SHOWN]}" if inner else "is a zip without a weights file"
        raise WeightsError(f"{path} {found}; unpack it and give the path of the one you want.")
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(path) as archive:
        unpacked = Path(folder, "weights").with_suffix(Path(inner[0]).suffix)
        with archive.open(inner[0]) as source, open(unpacked, "wb") as target:
            shutil.copyfileobj(source, target, 1 << 22)
        return _read(unpacked)


def load_strictly(
    module: nn.Module,
    state: dict[str, Tensor],
    source: str,
    ignore: Sequence[str] = (),
    remedy: str = "",
    refuse_surplus: bool = False,
) -> None:
    """Fill every parameter and persistent buffer of ``module`` from ``state``.

    Args:
        module: the network.
        state: tensors by name.
        source: what to call ``state`` in messages, usually the file.
        ignore: name prefixes of surplus entries that are known and expected.
        remedy: last sentence of an error message.
        refuse_surplus: whether other surplus entries are an error: a model of fewer layers than its checkpoint would
            run without a word, and give other results. ``False`` reports them as a warning.

    Raises:
        WeightsError: a tensor is missing, has another shape, or is surplus where that is refused.
    """
    own = module.state_dict()
    missing = [name for name in own if name not in state]
    if missing:
        raise WeightsError(
            f"{source}: {len(missing)} of {len(own)} tensors are missing, for example {missing[:_SHOWN]}; the file "
            f"has {len(state)}, for example {list(state)[:3]}. {remedy}".strip()
        )
    wrong = [
        f"{name} is {tuple(state[name].shape)}, the model's is {tuple(tensor.shape)}"
        for name, tensor in own.items()
        if state[name].shape != tensor.shape
    ]
    if wrong:
        raise WeightsError(f"{source}: {len(wrong)} tensors do not fit: {'; '.join(wrong[:3])}. {remedy}".strip())
    broken = [name for name in own if state[name].is_floating_point() and not state[name].isfinite().all()]
    if broken:
        raise WeightsError(
            f"{source}: {len(broken)} tensors hold NaN or infinity: {shortened(broken, _SHOWN)}. Its training "
            "diverged, or the file is damaged; use an earlier checkpoint."
        )
    surplus = [name for name in state if name not in own and not name.startswith(tuple(ignore))]
    if surplus and refuse_surplus:
        found = f"{len(surplus)} tensors have no place in the model, for example {surplus[:_SHOWN]}"
        raise WeightsError(f"{source}: {found}. {remedy}".strip())
    if surplus:
        logger.warning("%s: %d tensors are not used, for example %s", source, len(surplus), surplus[:_SHOWN])
    module.load_state_dict({name: state[name] for name in own})


def digest(state: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of tensors: names, types, shapes and bits."""
    found = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        found.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
