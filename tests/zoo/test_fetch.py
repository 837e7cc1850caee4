"""Fetching: what breaks off goes on, what is wrong is refused, what no program may fetch is explained."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest
from file_server import CONTENT, SUM, Behaviour

from ovrs.errors import WeightsError
from ovrs.zoo import cache_folder, cached_path, config_of, entry_of, fetch, is_present, resolve

OTHER_SUM = "0" * 64
HALF = len(CONTENT) // 2


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix not in (".pth", ".lock", ".sha256"))


def test_file_is_fetched_checked_and_then_local(cache, server: Behaviour, add_entry):
    name = add_entry(url=f"{server.url}/a/tiny.pth", sha256=SUM, size=len(CONTENT))
    assert not is_present(entry_of(name))
    assert fetch(name) == cache / "tiny.pth" == cached_path(entry_of(name))
    assert (cache / "tiny.pth").read_bytes() == CONTENT
    assert leftovers(cache) == []
    fetch(name)
    assert server.paths == ["/a/tiny.pth"]


def test_download_that_breaks_off_goes_on_by_itself(cache, server: Behaviour, add_entry):
    server.breaks_after = [1000, 5000, 100_000, None]
    assert fetch(add_entry(url=f"{server.url}/tiny.pth", sha256=SUM)).read_bytes() == CONTENT
    assert server.asked == ["", "bytes=1000-", "bytes=6000-", "bytes=106000-"]


@pytest.mark.parametrize("sha256", ["", SUM])
def test_next_call_goes_on_where_the_last_one_gave_up(cache, server: Behaviour, add_entry, sha256):
    name = add_entry(url=f"{server.url}/tiny.pth", sha256=sha256)
    server.breaks_after = [HALF, 0]
    with pytest.raises(WeightsError, match=f"broke off.*{HALF:,} bytes are kept in .*the same command goes on"):
        fetch(name)
    assert not is_present(entry_of(name))
    server.asked.clear()
    server.breaks_after = [None]
    assert fetch(name).read_bytes() == CONTENT
    assert server.asked == [f"bytes={HALF}-"]
    assert leftovers(cache) == []


@pytest.mark.parametrize("if_range", [True, False], ids=["If-Range", "server ignores If-Range"])
def test_halves_of_two_versions_are_never_joined(cache, server: Behaviour, add_entry, if_range):
    name = add_entry(url=f"{server.url}/tiny.pth")
    server.breaks_after = [HALF, 0]
    with pytest.raises(WeightsError, match="broke off"):
        fetch(name)
    server.breaks_after, server.if_range = [None], if_range
    server.content, server.etag = CONTENT[::-1], '"second"'
    assert fetch(name).read_bytes() == CONTENT[::-1]


def test_server_without_parts_sends_all_again(cache, server: Behaviour, add_entry):
    server.ranges, server.breaks_after = False, [HALF, None]
    assert fetch(add_entry(url=f"{server.url}/tiny.pth", sha256=SUM)).read_bytes() == CONTENT


def test_part_without_validator_starts_anew_unless_the_sum_is_known(cache, server: Behaviour, add_entry):
    server.etag, server.breaks_after = "", [HALF, None]
    assert fetch(add_entry("unknown", url=f"{server.url}/tiny.pth")).read_bytes() == CONTENT
    assert server.asked == ["", ""]
    server.asked.clear()
    assert fetch(add_entry("known", url=f"{server.url}/tiny.pth", sha256=SUM)).read_bytes() == CONTENT
    assert server.asked == ["", f"bytes={HALF}-"]


def test_part_that_was_complete_is_taken(cache, server: Behaviour, add_entry):
    name = add_entry(url=f"{server.url}/tiny.pth", sha256=SUM)
    cache.mkdir()
    (cache / "tiny.pth.fetched.part").write_bytes(CONTENT)
    assert fetch(name).read_bytes() == CONTENT
    assert server.asked == [f"bytes={len(CONTENT)}-"]


def test_wrong_sum_is_refused_and_nothing_stays(cache, server: Behaviour, add_entry):
    name = add_entry(url=f"{server.url}/tiny.pth", sha256=OTHER_SUM)
    with pytest.raises(WeightsError, match=f"{SUM}, not {OTHER_SUM}"):
        fetch(name)
    assert not is_present(entry_of(name))
    assert leftovers(cache) == []


def test_wrong_size_is_refused(cache, server: Behaviour, add_entry):
    with pytest.raises(WeightsError, match="512,000 bytes, tiny has 7"):
        fetch(add_entry(url=f"{server.url}/tiny.pth", size=7))
    assert not is_present(entry_of("tiny"))


def test_unknown_sum_is_noted_at_first_use_and_checked_afterwards(cache, server: Behaviour, add_entry):
    name = add_entry(url=f"{server.url}/tiny.pth")
    fetch(name)
    note = cache / "tiny.pth.sha256"
    assert note.read_text() == f"{SUM}  tiny.pth\n"
    (cache / "tiny.pth").write_bytes(b"something else")
    with pytest.raises(WeightsError, match=r"not the file that was first used as tiny.*delete .*tiny\.pth\.sha256"):
        fetch(name)
    note.unlink()
    fetch(name)


def test_damaged_file_in_the_cache_is_named(cache, add_entry):
    name = add_entry(sha256=SUM)
    cache.mkdir()
    (cache / "tiny.pth").write_bytes(CONTENT[:-1])
    with pytest.raises(WeightsError, match=r"tiny\.pth is damaged.*Delete it"):
        fetch(name)


def test_web_page_instead_of_a_file_is_refused(cache, server: Behaviour, add_entry):
    server.kind = "text/html; charset=utf-8"
    with pytest.raises(WeightsError, match="web page instead of the file"):
        fetch(add_entry(url=f"{server.url}/tiny.pth"))
    assert not is_present(entry_of("tiny"))


def test_refusal_of_the_server_says_how_to_get_the_file_otherwise(cache, server: Behaviour, add_entry):
    server.status = 404
    with pytest.raises(WeightsError, match=r"404.*put the file at .*tiny\.pth.*--from FILE"):
        fetch(add_entry(url=f"{server.url}/tiny.pth"))
    assert len(server.asked) == 1


@pytest.mark.parametrize("below", ["", "/"])
def test_mirror_is_a_folder_or_the_file(cache, server: Behaviour, add_entry, below):
    name = add_entry(url="http://127.0.0.1:9/deep/published.pth", published_as="ckpt/published.pth")
    fetch(name, f"{server.url}/mirror{below}")
    assert server.paths == ["/mirror/published.pth"]
    (cache / "tiny.pth").unlink()
    fetch(name, f"{server.url}/other/published.pth?raw=1")
    assert server.paths[-1] == "/other/published.pth?raw=1"


@pytest.mark.parametrize("given", ["folder", "folder with the published name", "file"])
def test_local_folder_or_file_instead(cache, add_entry, tmp_path, given):
    name = add_entry(google_drive="some-id", sha256=SUM, published_as="ckpt/published.pth")
    folder = tmp_path / "from a colleague"
    folder.mkdir()
    file = folder / ("tiny.pth" if given == "folder" else "published.pth")
    file.write_bytes(CONTENT)
    assert fetch(name, str(file if given == "file" else folder)).read_bytes() == CONTENT
    assert file.is_file()


def test_local_file_with_another_sum_is_not_taken(cache, add_entry, tmp_path):
    (tmp_path / "wrong.pth").write_bytes(b"wrong")
    with pytest.raises(WeightsError, match=r"wrong\.pth is damaged"):
        fetch(add_entry(sha256=SUM), str(tmp_path / "wrong.pth"))
    assert not is_present(entry_of("tiny"))


def test_folder_without_the_file_is_named(cache, add_entry, tmp_path):
    with pytest.raises(WeightsError, match=r"holds no file of tiny: looked for .*tiny\.pth"):
        fetch(add_entry(), str(tmp_path))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"google_drive": "an-id"}, r"open https://drive\.google\.com/file/d/an-id/view in a browser"),
        ({"hub": "owner/model", "gated": True}, r"log in at https://huggingface\.co/owner/model, accept"),
        ({"by_hand": "ask the authors"}, "ask the authors"),
    ],
)
def test_what_no_program_may_fetch_is_explained(cache, add_entry, values, words):
    name = add_entry(**values)
    with pytest.raises(WeightsError, match=rf"cannot be downloaded automatically: {words}") as caught:
        fetch(name)
    assert str(cache / "tiny.pth") in str(caught.value)
    assert "ovrs models fetch tiny --from FILE" in str(caught.value)


def test_hub_has_a_plain_address_and_a_mirror(add_entry, monkeypatch):
    entry = entry_of(add_entry(hub="owner/model", published_as="ckpt/file.pt"))
    assert entry.address == "https://huggingface.co/owner/model/resolve/main/ckpt/file.pt"
    monkeypatch.setenv("HF_ENDPOINT", "http://mirror.local/")
    assert entry.address == "http://mirror.local/owner/model/resolve/main/ckpt/file.pt"


def _fetch_in_a_process(name: str) -> None:
    fetch(name)


def test_processes_that_ask_together_download_once(cache, server: Behaviour, add_entry):
    name = add_entry(url=f"{server.url}/tiny.pth", sha256=SUM)
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_fetch_in_a_process, args=(name,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert len(server.asked) == 1
    assert (cache / "tiny.pth").read_bytes() == CONTENT


# ---------------------------------------------------------------------- names and paths


def test_path_is_taken_as_it_is(cache, tmp_path):
    path = tmp_path / "my model.pth"
    path.write_bytes(b"")
    assert resolve(str(path)) == path


def test_home_folder_is_understood(cache, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.pt").touch()
    assert resolve("~/mine.pt") == tmp_path / "mine.pt"


def test_file_put_into_the_cache_by_hand_is_used(cache):
    cache.mkdir()
    (cache / "RSIB.pth").write_bytes(CONTENT)
    assert resolve("rsib/ViT-B-8") == cache / "RSIB.pth"


def test_cache_folder_is_that_of_pytorchs_hub_by_default(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "hub" / "ovrs"


def test_name_is_fetched(cache, server: Behaviour, add_entry):
    name = add_entry(url=f"{server.url}/tiny.pth", aliases=["tiny-alias"])
    assert resolve("tiny-alias") == resolve(name) == cache / "tiny.pth"


def test_neither_name_nor_file_names_the_nearest(cache):
    with pytest.raises(WeightsError, match=r"MODEL\.WEIGHTS: 'gsnet-vitb15' is neither .*gsnet-vitb16"):
        resolve("gsnet-vitb15")


def test_failed_fetch_names_the_key(cache, add_entry):
    with pytest.raises(WeightsError, match=r"MODEL\.PRIOR\.WEIGHTS: 'tiny' cannot be downloaded"):
        resolve(add_entry(by_hand="ask"), "MODEL.PRIOR.WEIGHTS")


def test_released_models_know_their_configuration():
    assert config_of("hg-georsclip-l14-336-openearthmap") == config_of("hg-openearthmap")
    with pytest.raises(WeightsError, match=r"'openai/ViT-B-16' is a tower.*MODEL\.VLM\.WEIGHTS"):
        config_of("openai/ViT-B-16")
