"""Preparing: nothing twice, nothing in part, nothing without room, and a full account of it."""

import hashlib
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from miniatures import card_of, written
from PIL import Image

from ovrs import preparation
from ovrs.data import DataError, load_card
from ovrs.preparation import PairJob, check, find_card, prepare, recipe_for
from ovrs.preparation.manifest import DECIDING
from ovrs.preparation.parallel import in_processes

CARD = card_of("hg_loveda_6", counts={"train": 8, "val": 8})
MANIFEST = "LoveDA_512/manifest-hg_loveda_6.json"


class Killed(BaseException):
    """Ends a run as a signal does: nothing catches it."""


def test_second_run_writes_nothing_and_says_so(rural, prepared, out):
    first = prepared(CARD, rural)
    before = written(out)
    second = prepared(CARD, rural)
    assert written(out) == before
    assert len(before) == 2 * 16 + 1  # pairs and the manifest
    assert (first.done, second.done, second.jobs) == (0, 4, 4)
    assert "Nothing to write" in str(second)
    assert "Nothing to write" not in str(first)


def test_run_after_a_kill_does_only_what_is_missing(rural, prepared, out, monkeypatch):
    write, calls = Path.write_bytes, []

    def dying(path, content):
        calls.append(path)
        if len(calls) == 2 * 4 * 2 + 3:  # in the third original: its second image
            write(path, content[: len(content) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", dying)
        process = multiprocessing.get_context("fork").Process(target=prepared, args=(CARD, rural))
        process.start()
        process.join()
    assert process.exitcode == -signal.SIGKILL
    finished = written(out / "LoveDA_512/img_dir")
    assert len(finished) == 8 + 1 + 1  # two originals, one window, half a window under another name
    finished = {path: entry for path, entry in finished.items() if "/2_" not in path and "/." not in path}
    assert not (out / MANIFEST).exists()

    summary = prepared(CARD, rural)
    after = written(out / "LoveDA_512/img_dir")
    assert {path: after[path] for path in finished} == finished
    assert len(after) == 16  # and nothing half-written
    assert summary.done == 2
    assert not list(out.rglob("*.journal"))
    assert json.loads((out / MANIFEST).read_text())["counts"] == {"train": 8, "val": 8}


@pytest.mark.parametrize("ending", ["img_dir", "ann_dir"])
def test_kill_while_a_file_is_written_leaves_no_half_file(rural, prepared, out, monkeypatch, ending):
    write = Path.write_bytes

    def dying(path, content):
        if ending in str(path):
            write(path, content[: len(content) // 2])
            raise Killed
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", dying)
    with pytest.raises(Killed):
        prepared(CARD, rural)
    assert not [path for path in written(out) if ending in path]


def test_line_of_the_journal_that_a_kill_cut_off_is_done_again(rural, prepared, out):
    prepared(CARD, rural)
    content = json.loads((out / MANIFEST).read_text())
    lines = [json.dumps({"facts": content["facts"]}), *map(json.dumps, content["jobs"])]
    (out / MANIFEST).unlink()
    (out / MANIFEST).with_suffix(".journal").write_text("\n".join(lines)[:-40])
    summary = prepared(CARD, rural)
    assert summary.done == 3
    assert json.loads((out / MANIFEST).read_text())["jobs"] == content["jobs"]


def test_manifest_is_finished_where_only_that_was_missing(rural, prepared, out):
    prepared(CARD, rural)
    content = json.loads((out / MANIFEST).read_text())
    (out / MANIFEST).unlink()
    lines = [json.dumps({"facts": content["facts"]}), *map(json.dumps, content["jobs"])]
    (out / MANIFEST).with_suffix(".journal").write_text("\n".join(lines) + "\n")
    assert prepared(CARD, rural).done == 4
    assert json.loads((out / MANIFEST).read_text())["jobs"] == content["jobs"]


def test_what_killed_processes_left_half_written_is_removed(rural, prepared, out):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    folder = out / "LoveDA_512/img_dir/train"
    folder.mkdir(parents=True)
    dead, alive = (folder / f".0_0_512_0_512.{number}.tmp.png" for number in (process.pid, os.getppid()))
    scratch = out / f".ovrs-unpacked-{process.pid}-abc"
    scratch.mkdir()
    for path in (dead, alive, scratch / "0.png"):
        path.write_bytes(b"half")
    prepared(CARD, rural)
    assert (dead.exists(), scratch.exists(), alive.exists()) == (False, False, True)


def test_missing_and_shortened_outputs_are_made_again(rural, prepared, out):
    prepared(CARD, rural)
    before = written(out)
    gone, short = (out / f"LoveDA_512/img_dir/{path}" for path in ("train/0_0_512_0_512.png", "val/3_0_512_0_512.png"))
    gone.unlink()
    short.write_bytes(b"")
    assert prepared(CARD, rural).done == 2
    after = written(out)
    assert {path: entry[2] for path, entry in after.items()} == {path: entry[2] for path, entry in before.items()}
    assert after["LoveDA_512/img_dir/val/2_0_512_0_512.png"] == before["LoveDA_512/img_dir/val/2_0_512_0_512.png"]


def test_changed_original_is_done_again(rural, prepared, make, out):
    prepared(CARD, rural)
    make.tree("LoveDA/Train/Rural", {"masks_png/1.png": make.encoded(np.full((1024, 1024), 3, np.uint8), "PNG")})
    assert prepared(CARD, rural).done == 3
    assert np.unique(np.asarray(Image.open(out / "LoveDA_512/ann_dir/train/1_0_512_0_512.png"))).tolist() == [2]


def test_parts_of_a_set_can_be_prepared_one_after_the_other(rural, prepared, out, caplog):
    first = prepared(CARD, rural / "Train")
    assert first.counts == {"train": 8, "val": 0}
    assert "hg_loveda_6_val: 0 pairs, but 8 were expected" in caplog.text
    assert prepared(CARD, rural / "Val").counts == {"train": 8, "val": 8}
    assert len(json.loads((out / MANIFEST).read_text())["jobs"]) == 4


def test_strict_refuses_an_incomplete_set_and_keeps_what_is_done(rural, prepared, out):
    with pytest.raises(DataError, match=r"hg_loveda_6_val: 0 pairs, but 8 were expected"):
        prepared(CARD, rural / "Train", strict=True)
    assert prepared(CARD, rural, strict=True).done == 2


def test_dry_run_tells_counts_and_bytes_and_writes_nothing(rural, prepared, out):
    summary = prepared(CARD, rural, dry_run=True)
    assert not out.exists()
    assert summary.counts == {"train": 8, "val": 8}
    assert summary.bytes > 16 * 512 * 512
    assert "4 of 4 originals to do" in str(summary)
    assert "Nothing was written" in str(summary)


def test_dry_run_counts_what_is_done_again_once(rural, prepared, out):
    prepared(CARD, rural)
    (out / "LoveDA_512/img_dir/train/0_0_512_0_512.png").unlink()
    summary = prepared(CARD, rural, dry_run=True)
    assert summary.counts == {"train": 8, "val": 8}
    assert "1 of 4 originals to do" in str(summary)


def test_number_of_originals_is_compared_with_the_card(rural, prepared):
    card = card_of("hg_loveda_6", counts={"train_originals": 2, "val_originals": 3})
    expected = ("hg_loveda_6_val: 2 original images, but 3 were expected",)
    assert prepared(card, rural, dry_run=True).surprises == expected
    assert prepared(card, rural).surprises == expected
    with pytest.raises(DataError, match="2 original images, but 3 were expected"):
        prepared(card, rural, strict=True)


def test_share_of_ignored_pixels_is_told(rural, prepared, out):
    summary = prepared(CARD, rural)
    paths = (out / "LoveDA_512/ann_dir/val").iterdir()
    share = np.mean([np.asarray(Image.open(path)) == 0 for path in paths])
    assert summary.ignored["val"] == pytest.approx(share)
    assert 0.1 < share < 0.9
    assert f"hg_loveda_6_val: 8 pairs are in {out} ({share:.1%} of their pixels are ignored)" in str(summary)
    assert "pixels are ignored" not in str(prepared(CARD, rural, dry_run=True))


def test_source_with_nothing_for_the_set_is_refused(rural, prepared, monkeypatch):
    monkeypatch.setattr(type(recipe_for(CARD)), "jobs", lambda *given: [])
    with pytest.raises(DataError, match=r"holds nothing that belongs to hg_loveda_6; fetch Train\.zip and Val\.zip"):
        prepared(CARD, rural)


def test_full_disk_is_noticed_before_the_start(rural, prepared, out, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=3_000_000))
    with pytest.raises(
        DataError, match=r"preparing hg_loveda_6 needs about \d+\.\d MB, but the disk of .* has 3\.0 MB left"
    ):
        prepared(CARD, rural)
    assert not out.exists()


def test_estimate_is_no_less_than_what_is_written(make, prepared, out):
    image = np.random.default_rng(0).integers(0, 256, (1024, 1024, 3), np.uint8)  # noise: the worst case
    ids = make.classes(1024, 1024, 8, block=7)
    files = {"images_png/0.png": make.encoded(image, "PNG"), "masks_png/0.png": make.encoded(ids, "PNG")}
    make.tree("LoveDA/Train/Urban", files)
    summary = prepared(CARD, make.folder)
    on_disk = sum(size for _, _, size in written(out / "LoveDA_512/img_dir").values())
    assert 0.75 * on_disk < summary.bytes  # photographs take two thirds of what noise takes


def test_manifest_accounts_for_every_file_and_pixel(rural, prepared, out):
    prepared(CARD, rural)
    content = json.loads((out / MANIFEST).read_text())
    files = {path: entry for job in content["jobs"] for path, entry in job["files"].items()}
    on_disk = {path: size for path, (_, _, size) in written(out).items() if path != MANIFEST}
    assert {path: size for path, (size, _) in files.items()} == on_disk
    for path, (_, digest) in files.items():
        assert hashlib.sha256((out / path).read_bytes()).hexdigest() == digest

    pixels = Counter()
    for path in (out / "LoveDA_512/ann_dir/train").iterdir():
        pixels.update(np.asarray(Image.open(path)).ravel().tolist())
    names = ["(ignored)", *CARD.display_names]
    assert content["pixels"]["train"] == {names[value]: count for value, count in pixels.items()}
    assert content["counts"] == content["expected_counts"] == {"train": 8, "val": 8}
    assert content["facts"]["tiling"]["size"] == 512
    assert content["licence"] == CARD.licence


def test_error_leaves_finished_originals_in_place(rural, prepared, make, out):
    ids = make.classes(1024, 1024, 8, 3)
    ids[5, 9] = 77
    make.tree("LoveDA/Val/Rural", {"masks_png/3.png": make.encoded(ids, "PNG")})
    with pytest.raises(DataError, match=r"masks_png/3\.png hold .*: 77 \(1 pixels, the first at row 5, column 9\)"):
        prepared(CARD, rural)
    assert len(written(out / "LoveDA_512/img_dir")) == 12
    assert not any("/3_" in path for path in written(out))
    ids[5, 9] = 7
    make.tree("LoveDA/Val/Rural", {"masks_png/3.png": make.encoded(ids, "PNG")})
    assert prepared(CARD, rural).done == 3


def test_sizes_that_disagree_name_both_files(rural, prepared, make):
    make.tree("LoveDA/Val/Rural", {"masks_png/3.png": make.encoded(make.classes(512, 1024, 8), "PNG")})
    with pytest.raises(DataError, match=r"images_png/3\.png is 1024 x 1024 .*masks_png/3\.png are 1024 x 512"):
        prepared(CARD, rural)


def test_truncated_image_is_named(rural, prepared):
    path = rural / "Train/Rural/images_png/1.png"
    path.write_bytes(path.read_bytes()[:-1500])
    with pytest.raises(DataError, match=r"images_png/1\.png cannot be read"):
        prepared(CARD, rural)


def test_missing_partner_is_named_before_anything_is_written(rural, prepared, out):
    (rural / "Val/Rural/masks_png/2.png").unlink()
    with pytest.raises(DataError, match=r"1 images without labels: .*images_png/2\.png"):
        prepared(CARD, rural)
    assert not out.exists()


def test_folder_prepared_by_other_facts_is_refused(rural, prepared, out):
    prepared(CARD, rural)
    before = written(out)
    other = card_of("hg_loveda_6", tiling={"size": 256, "stride": 256, "edge": "exact"})
    with pytest.raises(DataError, match=r"LoveDA_512 was prepared by other facts .*\(they differ in tiling\)"):
        prepared(other, rural)
    assert written(out) == before


def test_prose_in_a_card_makes_no_other_files(rural, prepared, out):
    prepared(CARD, rural)
    tiling = {**CARD.source["tiling"], "provenance": "the paper, p. 3"}
    prose = {"counts": {"train": 9}, "original_encoding": "bytes", "protocols": ["mine"], "anything": "else"}
    noted = card_of("hg_loveda_6", tiling=tiling, **prose)
    assert prepared(noted, rural).done == 4
    assert check(noted, out, workers=1).problems == []


def test_manifest_that_holds_prose_is_still_good(rural, prepared, out):
    prepared(CARD, rural)
    content = json.loads((out / MANIFEST).read_text())
    content["facts"].update(original_encoding="bytes", tiling={**content["facts"]["tiling"], "provenance": "paper"})
    (out / MANIFEST).write_text(json.dumps(content))
    assert prepared(CARD, rural).done == 4


def test_every_fact_that_the_room_reads_decides_or_is_known_not_to():
    folder = Path(preparation.__file__).parent
    code = "".join(path.read_text(encoding="utf-8") for path in folder.rglob("*.py"))
    read = set(re.findall(r'(?:fact\(card, |source\.get\(|" in card\.source|key = )"(\w+)"', code))
    assert {"tiling", "draw", "merge_map", "side", "original_to_index", "source_colours", "colour_threshold"} <= read
    assert read - DECIDING.keys() == {"counts", "expected_share", "md5"}


def test_damaged_manifest_is_named(rural, prepared, out):
    prepared(CARD, rural)
    (out / MANIFEST).write_text("{")
    with pytest.raises(DataError, match=r"manifest-hg_loveda_6\.json is damaged .*delete it"):
        prepared(CARD, rural)


def test_processes_write_what_one_process_writes(rural, out, tmp_path):
    prepare(CARD, [rural], out, workers=1)
    prepare(CARD, [rural], tmp_path / "two", workers=2)
    contents = [{path: (folder / path).read_bytes() for path in written(folder)} for folder in (out, tmp_path / "two")]
    assert contents[0] == contents[1]
    assert len(contents[0]) == 33


def _half(number):
    if number == 2:
        raise DataError("no two")
    if number == 99:
        os._exit(1)
    return number / 2


@pytest.mark.parametrize("workers", [1, 2])
def test_failure_is_raised_after_what_was_running_is_handed_over(workers, monkeypatch):
    monkeypatch.setattr("ovrs.preparation.parallel._context", lambda: multiprocessing.get_context("fork"))
    found = []
    with pytest.raises(DataError, match="no two"):  # noqa: PT012 - what came before the error is looked at
        for result in in_processes(_half, range(1000), workers):
            found.append(result)
    assert {0.0, 0.5} <= set(found)
    assert len(found) < 999


def test_process_that_is_ended_from_outside_is_explained(monkeypatch):
    monkeypatch.setattr("ovrs.preparation.parallel._context", lambda: multiprocessing.get_context("fork"))
    with pytest.raises(DataError, match=r"ended from outside.*fewer --workers"):
        list(in_processes(_half, [99], 2))


def test_two_originals_of_one_name_are_refused(rural, prepared, monkeypatch):
    monkeypatch.setattr(PairJob, "stem", "same", raising=False)
    recipe = recipe_for(CARD)
    jobs = type(recipe).jobs
    monkeypatch.setattr(type(recipe), "jobs", lambda *given: [*jobs(*given), *jobs(*given)])
    with pytest.raises(DataError, match=r"several originals would be called 0, 1, 2, 3"):
        prepared(CARD, rural)


@pytest.mark.parametrize("name", ["hg_loveda_6", "hg_loveda_6_val", "LoveDA_my_dataset"])
def test_card_is_found_by_name_registered_name_and_alias(name):
    assert find_card(name, [card_of("hg_potsdam_5"), CARD]) is CARD


def test_unknown_name_hears_the_nearest():
    with pytest.raises(DataError, match=r"unknown data set 'hg_loveda'; the nearest names are hg_loveda_6"):
        find_card("hg_loveda", [CARD])


def test_card_without_recipe_or_splits_is_refused(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text("name: own\nclasses: [a, b]\nsplits: {train: {images: i, labels: l}}\nsource: {family: mine}\n")
    with pytest.raises(DataError, match=r"own \(.*own\.yaml\) cannot be prepared: its family is 'mine'"):
        recipe_for(load_card(path))
    with pytest.raises(DataError, match=r"src_loveda_7 .* it only documents names of classes"):
        recipe_for(card_of("src_loveda_7"))
