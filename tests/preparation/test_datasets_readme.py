"""datasets/README.md tells of every data set that can be prepared, and tells what the cards tell."""

import re
from pathlib import Path

import pytest

from ovrs.data import built_in_cards
from ovrs.preparation import RECIPES, find_card

ROOT = Path(__file__).parents[2]
README = (ROOT / "datasets/README.md").read_text(encoding="utf-8")
SECTIONS = README.split("\n### ")[1:]
CARDS = [card for card in built_in_cards() if card.splits and card.source.get("family") in RECIPES]

ROW = re.compile(r"^\| `(\w+)` \| (.+) \|$", re.MULTILINE)
NUMBER = re.compile(r"`(\w+)` (not known|[\d,]+)(?: \(([\d,]+) original images\))?")
COMMAND = re.compile(r"^ovrs datasets prepare (\w+) --source \S", re.MULTILINE)
LINK = re.compile(r"\]\((?!https?://)([^)#]+)")


def section_of(name):
    """Return the only section that has a command for a card."""
    (section,) = (text for text in SECTIONS if name in COMMAND.findall(text))
    return section


def as_number(text):
    return int(text.replace(",", "")) if text and text != "not known" else None


def test_every_set_that_can_be_prepared_is_in_one_table_and_has_one_command():
    names = sorted(card.name for card in CARDS)
    assert names
    assert sorted(name for name, _ in ROW.findall(README)) == names
    assert sorted(COMMAND.findall(README)) == sorted([*names, "hg_potsdam_5"])  # which the introduction shows, too


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_numbers_are_those_of_the_card(card):
    (row,) = (row for name, row in ROW.findall(section_of(card.name)) if name == card.name)
    found = {split: (as_number(pairs), as_number(originals)) for split, pairs, originals in NUMBER.findall(row)}
    counts = card.source["counts"]
    assert found == {split: (counts.get(split), counts.get(f"{split}_originals")) for split in card.splits}
    assert NUMBER.sub("", row).strip(", ") == ""  # no number that was not looked at


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_section_says_where_to_get_the_set_its_licence_its_size_and_its_traps(card):
    section = section_of(card.name)
    for part in ("Get it", "Licence", "Size", "Traps"):
        assert f"**{part}:**" in section
    if card.source["family"] != "landdiscover50k_part":  # made from a prepared set
        assert card.homepage in section or "as Potsdam" in section
    for archive in card.source.get("md5", {}) if card.source["family"] != "landdiscover50k" else ():
        assert f"`{archive}`" in section
        assert "MD5" in section


def test_every_name_in_a_command_is_one_that_the_command_knows():
    names = re.findall(r"datasets prepare (?:--check )?(\w+)", README)
    assert len(names) > len(CARDS)
    for name in names:
        find_card(name, built_in_cards())


def test_options_are_those_of_the_command():
    script = (ROOT / "ovrs/cli/datasets/prepare.py").read_text(encoding="utf-8")
    options = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", README))
    assert {"--source", "--check", "--list", "--dry-run", "--strict", "--out", "--workers"} <= options
    for option in options:
        assert f'"{option}"' in script, option


def test_links_lead_somewhere():
    links = LINK.findall(README)
    assert links
    for link in links:
        assert (ROOT / "datasets" / link).exists(), link
