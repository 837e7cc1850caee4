"""The catalogue of pre-trained weights: where each file comes from and what must be known to use it.

A name of the catalogue in ``MODEL.VLM.WEIGHTS`` or ``MODEL.PRIOR.WEIGHTS`` fetches the file; a path
takes a local one; an empty string leaves the tower random. Files that cannot be downloaded automatically are put
into the cache folder by hand, or given by path and recognised by their name. The catalogue also decides the
activation: OpenAI's CLIP computes QuickGELU, and the same weights under exact GELU run without an error and
give worse features.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from ovrs.backbones.state_dict import sha256_of_file
from ovrs.errors import WeightsError, choose

Activation = Literal["quick_gelu", "gelu"]
_OPENAI = "https://openaipublic.azureedge.net/clip/models"
_IMAGENET_STATISTICS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class WeightsEntry:
    """One file of pre-trained weights.

    Attributes:
        arch: the tower it fits: an open_clip or timm model name.
        source: where it comes from, for people.
        licence: of the weights.
        file: its name as published; empty for what timm fetches.
        format: of the file (:func:`ovrs.backbones.state_dict.read_state_dict` reads them all).
        keys: how its tensors are called.
        url: direct address, if there is one.
        sha256: of the file, if known; a file with another sum is refused.
        timm: whether timm itself fetches it, by ``arch``.
        activation: what the family's own code computes (VLMs only).
        published_with: another activation under which published figures were measured; it can be configured.
        mean, std: pixel statistics of its training, on the 0..1 scale (informative: the published
            segmenters feed CLIP's statistics to priors too; see ``MODEL.PRIOR.PIXEL_MEAN``).
    """

    arch: str
    source: str
    licence: str
    file: str = ""
    format: str = "safetensors"
    keys: str = "timm"
    url: str = ""
    sha256: str = ""
    timm: bool = False
    activation: Activation | None = None
    published_with: Activation | None = None
    mean: tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711)


def _openai(arch: str, file: str, sha256: str) -> WeightsEntry:
    return WeightsEntry(
        arch=arch,
        source="OpenAI CLIP",
        licence="MIT",
        file=file,
        format="TorchScript archive, float16",
        keys="open_clip; and three scalars, which are ignored",
        url=f"{_OPENAI}/{sha256}/{file}",
        sha256=sha256,
        activation="quick_gelu",
    )


def _remote_sensing(
    arch: str,
    file: str,
    source: str,
    format: str,
    activation: Activation = "quick_gelu",
    published_with: Activation | None = None,
) -> WeightsEntry:
    """CLIPs tuned on remote-sensing images. HG-RSOVSSeg's Table 5 ran all of them with QuickGELU."""
    return WeightsEntry(
        arch=arch,
        source=source,
        licence="not recorded here; see the source",
        file=file,
        format=format,
        keys="open_clip, with the prefix 'module.'" if file.endswith(".zip") else "open_clip",
        activation=activation,
        published_with=published_with,
    )


_REMOTECLIP = "RemoteCLIP: chendelong/RemoteCLIP on the Hugging Face hub"
_GEORSCLIP = "GeoRSCLIP: folder ckpt of Zilun/GeoRSCLIP on the Hugging Face hub"
_SKYCLIP = "SkyCLIP: model checkpoints in the README of wangzhecheng/SkyScript on GitHub"
_PLAIN = "plain PyTorch state dict"
_PACKED = "zip archive with one open_clip training checkpoint ('state_dict')"

CATALOGUE: dict[str, WeightsEntry] = {
    "openai/ViT-B-32": _openai(
        "ViT-B-32", "ViT-B-32.pt", "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af"
    ),
    "openai/ViT-B-16": _openai(
        "ViT-B-16", "ViT-B-16.pt", "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f"
    ),
    "openai/ViT-L-14": _openai(
        "ViT-L-14", "ViT-L-14.pt", "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836"
    ),
    "openai/ViT-L-14-336": _openai(
        "ViT-L-14-336", "ViT-L-14-336px.pt", "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02"
    ),
    # RemoteCLIP's own instructions build open_clip models with exact GELU.
    "remoteclip/ViT-B-32": _remote_sensing(
        "ViT-B-32", "RemoteCLIP-ViT-B-32.pt", _REMOTECLIP, _PLAIN, "gelu", published_with="quick_gelu"
    ),
    "remoteclip/ViT-L-14": _remote_sensing(
        "ViT-L-14", "RemoteCLIP-ViT-L-14.pt", _REMOTECLIP, _PLAIN, "gelu", published_with="quick_gelu"
    ),
    "georsclip/ViT-B-32": _remote_sensing("ViT-B-32", "RS5M_ViT-B-32.pt", _GEORSCLIP, _PLAIN),
    "georsclip/ViT-L-14": _remote_sensing("ViT-L-14", "RS5M_ViT-L-14.pt", _GEORSCLIP, _PLAIN),
    "georsclip/ViT-L-14-336": _remote_sensing("ViT-L-14-336", "RS5M_ViT-L-14-336.pt", _GEORSCLIP, _PLAIN),
    # SkyCLIP's B/32 started from LAION's CLIP (exact GELU), its L/14 from OpenAI's.
    "skyclip/ViT-B-32": _remote_sensing(
        "ViT-B-32", "SkyCLIP_ViT_B32_top50pct.zip", _SKYCLIP, _PACKED, "gelu", published_with="quick_gelu"
    ),
    "skyclip/ViT-L-14": _remote_sensing("ViT-L-14", "SkyCLIP_ViT_L14_top30pct.zip", _SKYCLIP, _PACKED),
    "dino/ViT-B-8": WeightsEntry(
        arch="vit_base_patch8_224.dino",
        source="DINO, ImageNet (timm on the Hugging Face hub)",
        licence="Apache-2.0",
        timm=True,
        mean=_IMAGENET_STATISTICS[0],
        std=_IMAGENET_STATISTICS[1],
    ),
    "dinov3/ViT-L-16-sat493m": WeightsEntry(
        arch="vit_large_patch16_dinov3.sat493m",
        source="DINOv3, 493 million satellite images (timm on the Hugging Face hub)",
        licence="DINOv3 licence",
        timm=True,
        mean=(0.43, 0.411, 0.296),
        std=(0.213, 0.156, 0.143),
    ),
    "rsib/ViT-B-8": WeightsEntry(
        arch="vit_base_patch8_224.dino",
        source="RSIB, DINO on LandDiscover50K: RSIB.pth, linked from the GSNet repository's README (Google Drive)",
        licence="none stated",
        file="RSIB.pth",
        format="PyTorch state dict under 'teacher'",
        keys="timm, with the prefix 'backbone.'",
        mean=_IMAGENET_STATISTICS[0],
        std=_IMAGENET_STATISTICS[1],
    ),
}


_BY_FILE = {entry.file: entry for entry in CATALOGUE.values() if entry.activation and not entry.url}


def find_entry(name: str, arch: str, key: str) -> WeightsEntry | None:
    """Return the catalogue entry of ``name``, or of the file that it is the path of; ``None`` without one.

    Paths count by file name, and only where the catalogue cannot fetch the file itself.

    Raises:
        WeightsError: the entry is made for another architecture than ``arch``.
    """
    entry = CATALOGUE.get(name) or _BY_FILE.get(Path(name).name)
    if entry is not None and entry.arch != arch:
        raise WeightsError(
            f"{key}.WEIGHTS {name!r} fits {key}.ARCH {entry.arch!r}, but {arch!r} is configured; change one of them."
        )
    return entry


def fetch(name: str, key: str) -> Path:
    """Return the local file behind a catalogue name or a path, downloading and checking it if need be.

    Args:
        name: catalogue name or path of a local file.
        key: configuration group, ``MODEL.VLM`` or ``MODEL.PRIOR``, for messages.

    Raises:
        WeightsError: neither a known name nor a file, no address, failed download, wrong SHA-256.
    """
    entry = CATALOGUE.get(name)
    if entry is None:
        path = Path(name).expanduser()
        if not path.is_file():
            raise WeightsError(
                f"{key}.WEIGHTS: {name!r} is neither a file nor a name of the catalogue ({', '.join(CATALOGUE)})."
            )
        return path
    import torch

    folder = Path(torch.hub.get_dir()) / "ovrs"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / entry.file
    if not path.is_file():
        if not entry.url:
            raise WeightsError(
                f"{key}.WEIGHTS: {name!r} cannot be downloaded automatically. Get {entry.file} ({entry.format}) from: "
                f"{entry.source}; then put it at {path}, or set {key}.WEIGHTS to its path."
            )
        try:  # checks the sum and renames a finished temporary file
            torch.hub.download_url_to_file(entry.url, str(path), hash_prefix=entry.sha256 or None)
        except (OSError, RuntimeError) as error:
            raise WeightsError(
                f"{key}.WEIGHTS: downloading {name!r} from {entry.url} failed ({error}). Fetch the file elsewhere and "
                f"put it at {path}, or set {key}.WEIGHTS to its path."
            ) from error
    elif entry.sha256 and sha256_of_file(path) != entry.sha256:
        raise WeightsError(f"{path} is damaged: its SHA-256 is not {entry.sha256}. Delete it and run again.")
    return path


def choose_activation(
    configured: str, weights: str, entry: WeightsEntry | None, default: Activation, key: str = "MODEL.VLM"
) -> Activation:
    """Decide between QuickGELU and exact GELU, or refuse to guess.

    Args:
        configured: ``ACTIVATION`` of ``key``.
        weights: ``WEIGHTS`` of ``key``.
        entry: its catalogue entry, if it has one.
        default: what the architecture's own configuration says; used for random weights.
        key: configuration group, ``MODEL.VLM`` or ``MODEL.COMPANION``, for messages.

    Raises:
        ConfigError: an unknown activation.
        WeightsError: the configuration contradicts the catalogue (which may know two, see ``published_with``), or
            a local file comes without a word about its activation.
    """
    if configured:
        choose(f"{key}.ACTIVATION", configured, get_args(Activation))
    if entry is not None and entry.activation is not None:
        if configured not in ("", entry.activation, entry.published_with):
            raise WeightsError(
                f"{key}.ACTIVATION is {configured!r}, but {weights!r} was trained with {entry.activation!r}; "
                "leave the key empty."
            )
        return configured or entry.activation
    if configured:
        return configured
    if weights:
        raise WeightsError(
            f"{key}.WEIGHTS {weights!r} is not in the catalogue, so its activation is unknown: set "
            f"{key}.ACTIVATION to 'quick_gelu' (OpenAI's CLIP and what was fine-tuned from it) or 'gelu'."
        )
    return default
