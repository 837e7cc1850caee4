"""README.md, CONTRIBUTING.md and the pages of docs/ say what is there."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from ovrs.config import get_cfg
from ovrs.data import SegmentationMapper, load_card, resolve_datasets

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted(f"docs/{page.name}" for page in ROOT.glob("docs/*.md"))
DOCUMENTS = {name: (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "CONTRIBUTING.md", *PAGES)}

LINK = re.compile(r"\]\((?!https?://|#)([^)#\s]+)")
CODE = re.compile(r"```\w*\n(.*?)```|`([^`\n]+)`", re.DOTALL)
# A file or folder of this repository; what runs leave in output/ and what users bring is not.
PATH = re.compile(
    r"(?<![\w/.-])((?:\.ci|configs|docs|ovrs|tests|tools)/[\w./-]*|(?:train_net|setup)\.py|[\w-]+\.(?:txt|toml))"
)
KEY = re.compile(r"(?<![\w.])(?:DATASETS|DATALOADER|INPUT|MODEL|SOLVER|TEST|VOCABULARY)(?:\.[A-Z0-9_]+)+")
CONFIG_FILE = re.compile(r"configs/[\w./-]+\.(?:yaml|json)")
DOTTED = re.compile(r"(?<![\w.])ovrs(?:\.\w+)+")


def code_of(text: str) -> list[str]:
    """Return the contents of all code blocks and of everything in backticks."""
    return [block or inline for block, inline in CODE.findall(text)]


def mentioned(pattern: re.Pattern[str]) -> list[tuple[str, str]]:
    """Return pairs (document, what the pattern finds in its code), each once."""
    found = {
        (name, match) for name, text in DOCUMENTS.items() for code in code_of(text) for match in pattern.findall(code)
    }
    assert found
    return sorted(found)


# A page's bare names are of files that its readers bring, or that runs leave.
@pytest.mark.parametrize(
    ("document", "path"), [(name, path) for name, path in mentioned(PATH) if "/" in path or name not in PAGES]
)
def test_path_in_a_document_exists(document, path):
    assert (ROOT / path).exists(), f"{document} mentions {path}"


@pytest.mark.parametrize(
    ("document", "target"), sorted((name, target) for name, text in DOCUMENTS.items() for target in LINK.findall(text))
)
def test_link_in_a_document_leads_somewhere(document, target):
    assert (ROOT / document).parent.joinpath(target).exists(), f"{document} links to {target}"


@pytest.mark.parametrize("page", PAGES)
def test_every_page_is_linked_from_the_readme(page):
    assert page in LINK.findall(README)


@pytest.mark.parametrize(("document", "key"), mentioned(KEY))
def test_configuration_key_in_a_document_exists(document, key):
    node = get_cfg()
    for part in key.split("."):
        assert part in node, f"{document} mentions {key}"
        node = node[part]


@pytest.mark.parametrize(("document", "name"), mentioned(DOTTED))
def test_dotted_name_in_a_document_can_be_imported(document, name):
    module, _, attribute = name.rpartition(".")
    found = hasattr(importlib.import_module(module), attribute) or importlib.util.find_spec(name)
    assert found, f"{document} mentions {name}"


def test_configuration_files_named_in_code_exist():
    files = [file for pattern in ("*.py", "ovrs/**/*.py", "tools/*.py") for file in ROOT.glob(pattern)]
    named = [(file, path) for file in files for path in CONFIG_FILE.findall(file.read_text(encoding="utf-8"))]
    assert named
    assert [(file, path) for file, path in named if not (ROOT / path).is_file()] == []


# ---------------------------------------------------------------------- "Your own data set"


@pytest.fixture
def section() -> str:
    return README.partition("### Your own data set")[2].partition("\n## ")[0]


@pytest.fixture
def town(section, tmp_path) -> Path:
    """The card of the README in a folder with the files that it speaks of, five classes and the ignored colour each."""
    folder = tmp_path / "my town"
    folder.mkdir()
    (text,) = re.findall(r"```yaml\n(.*?)```", section, re.DOTALL)
    (folder / "town.yaml").write_text(text, encoding="utf-8")
    colours = ["3C1098", "8429F6", "6EC1E4", "FEDD3A", "E2A929", "9B9B9B"]
    mask = np.array([list(bytes.fromhex(colour)) for colour in colours], np.uint8).reshape(2, 3, 3)
    for stem in ("001", "004", "005"):
        Image.fromarray(mask).save(folder / f"{stem}.png")
        Image.fromarray(np.full_like(mask, int(stem))).save(folder / f"{stem}.jpg")
    return folder / "town.yaml"


def test_card_of_the_readme_registers_and_maps(town):
    names = resolve_datasets([f"{town}:train", f"{town}:val"])
    assert names == ["town_train", "town_val"]
    assert MetadataCatalog.get("town_train").class_strings == ("building", "land", "road", "vegetation", "water")
    assert [record["stem"] for record in DatasetCatalog.get("town_train")] == ["001", "004"]
    (record,) = DatasetCatalog.get("town_val")
    sample = SegmentationMapper(get_cfg(), False, dataset_names=names)(record)
    assert Path(sample["file_name"]).name == "005.jpg"
    assert sample["sem_seg"].tolist() == [[0, 1, 2], [3, 4, 255]]


def test_integer_labels_of_the_readme_are_understood(section, tmp_path):
    (labels,) = re.findall(r"`(labels: \{ids: .*?)`", section)
    path = tmp_path / "town.yaml"
    path.write_text(f"name: town\nclasses: [building, road]\n{labels}\n", encoding="utf-8")
    assert dict(load_card(path).labels.table) == {0: 255, 1: 0, 2: 1}
