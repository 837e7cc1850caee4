"""What a release is: one safetensors file that says everything about itself, and a model card beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tabulate import tabulate
from torch import Tensor

from ovrs.errors import WeightsError
from ovrs.files import replacing
from ovrs.zoo.convert import write_weights
from ovrs.zoo.identify import read_metadata
from ovrs.zoo.state_dict import sha256_of_file

FORMAT = "ovrs release 1"
CARD_NAME = "README.md"


@dataclass(frozen=True)
class Release:
    """What a released file says about itself.

    Attributes:
        name: of the model, as a file name.
        title: one line.
        licence: of the weights; an SPDX identifier where there is one.
        config: the whole configuration as YAML.
        vocabulary: class strings that it was trained on.
        version: of OVRS that wrote the file.
        source_sha256: of the checkpoint that it was made from.
        results: records of evaluations: data set, figures, protocol.
        notes: sentences that a user must know.
    """

    name: str
    title: str
    licence: str
    config: str
    vocabulary: Sequence[str]
    version: str
    source_sha256: str
    results: Sequence[Mapping[str, Any]] = field(default_factory=tuple)
    notes: Sequence[str] = ()

    def metadata(self) -> dict[str, str]:
        """Return everything as the texts that safetensors keeps."""
        protocols = [{key: result[key] for key in ("dataset", "figures", "protocol")} for result in self.results]
        return {
            "format": FORMAT,
            "name": self.name,
            "title": self.title,
            "licence": self.licence,
            "version": self.version,
            "source_sha256": self.source_sha256,
            "vocabulary": json.dumps(list(self.vocabulary), ensure_ascii=False),
            "notes": json.dumps(list(self.notes), ensure_ascii=False),
            "results": json.dumps(protocols, ensure_ascii=False),
            "config": self.config,
        }


def write_release(release: Release, state: Mapping[str, Tensor], folder: Path) -> Path:
    """Write ``NAME.safetensors`` and its card into ``folder``; return the file."""
    path = folder / f"{release.name}.safetensors"
    write_weights(state, path, release.metadata())
    with replacing(folder / CARD_NAME) as temporary:
        temporary.write_text(model_card(release, path), encoding="utf-8")
    return path


def read_release(path: Path) -> Release:
    """Return what a released file says about itself.

    Raises:
        WeightsError: it is no release.
    """
    found = read_metadata(path)
    if found.get("format") != FORMAT:
        raise WeightsError(
            f"{path} is no release of this project, so it does not say its configuration; give the configuration too."
        )
    lists = {key: tuple(json.loads(found[key])) for key in ("vocabulary", "notes", "results")}
    texts = ("name", "title", "licence", "config", "version", "source_sha256")
    return Release(**{key: found[key] for key in texts}, **lists)


def model_card(release: Release, path: Path) -> str:
    """Return the Markdown page of a release; ``path`` is its finished file."""
    rows = [
        (result["dataset"], *(f"{result['figures'][figure]:.2f}" for figure in ("mIoU", "fwIoU", "mACC", "aACC")))
        for result in release.results
    ]
    table = tabulate(
        rows,
        ["data set", "mIoU", "fwIoU", "mACC", "aACC"],
        tablefmt="github",
        disable_numparse=True,
        colalign=("left", *["right"] * 4) if rows else None,
    )
    front = {"license": release.licence, "library_name": "ovrs", "pipeline_tag": "image-segmentation"}
    parts = [
        "---\n" + "".join(f"{key}: {json.dumps(value)}\n" for key, value in front.items()) + "---",
        f"# {release.title}",
        f"Open-vocabulary segmentation of remote-sensing images. Licence of the weights: {release.licence}.",
        f"```python\nfrom ovrs import Predictor\n\npredictor = Predictor.from_pretrained({path.name!r})\n"
        'found = predictor("image.png", ["building|house|roof", "road", "tree"])\n```',
        "## Figures\n\n"
        + (f"{table}\n\nIn percent; protocols are in the file's metadata." if rows else "None stored."),
        "## Trained on the classes\n\n" + ", ".join(f"`{text}`" for text in release.vocabulary),
        "## Notes\n\n" + "\n".join(f"- {note}" for note in release.notes) if release.notes else "",
        f"## File\n\n`{path.name}`, {path.stat().st_size:,} bytes, SHA-256 `{sha256_of_file(path)}`, written by OVRS "
        f"{release.version} from a checkpoint with SHA-256 `{release.source_sha256}`. Tensors have OVRS's names; "
        "`ovrs weights export` gives those of the original project.",
        f"## Configuration\n\n```yaml\n{release.config.strip()}\n```",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"
