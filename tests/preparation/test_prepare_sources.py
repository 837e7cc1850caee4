"""Folders and archives as one list of members, and the archives that nobody should open."""

import hashlib
import io
import os
import stat
import tarfile
import zipfile
from types import SimpleNamespace

import pytest

from ovrs.data import DataError
from ovrs.preparation import Member, Source, archives, paired

FILES = {f"{part}/{number}.png": f"{part} {number}".encode() * 50 for part in ("images", "masks") for number in (1, 2)}
PATTERN = r"images/(\d+)\.png"


@pytest.fixture
def opened(out):
    """Open sources that are closed at the end of the test."""
    kept = []

    def enter(*paths):
        kept.append(Source(paths, out))
        return kept[-1].__enter__()

    yield enter
    for source in kept:
        source.__exit__(None, None, None)


def contents(source):
    return {member.name.split("town/")[1]: member.read() for member in source.members}


@pytest.mark.parametrize("name", ["town", "town.zip", "town.tar", "town.tar.gz", "town.tgz"])
def test_all_kinds_of_sources_give_the_same_members(make, opened, name):
    path = make.archive(name, FILES) if "." in name else make.tree(name, FILES)
    assert contents(opened(path)) == FILES


def test_archives_and_folders_inside_a_folder_are_looked_into(make, opened):
    make.archive("all/deep down/town.zip", {key: FILES[key] for key in list(FILES)[:2]})
    make.tree("all/other", {"town/" + key: FILES[key] for key in list(FILES)[2:]})
    assert contents(opened(make.folder / "all")) == FILES


def test_pattern_matches_the_last_parts_of_paths_only(make, opened):
    source = opened(make.tree("town", {"a/b/images/1.png": b"1", "a/more_images/2.png": b"2", "images/3.png/x": b"3"}))
    assert {key: member.read() for key, member in source.find(PATTERN, "images/1.png").items()} == {"1": b"1"}


def test_folder_given_itself_counts_in_patterns(make, opened):
    source = opened(make.tree("town", FILES) / "images")
    assert sorted(source.find(PATTERN, "images/1.png")) == ["1", "2"]


def test_several_groups_make_a_tuple(make, opened):
    source = opened(make.archive("town.zip", FILES))
    assert next(iter(source.find(r"(images|masks)/(\d)\.png", "images/1.png"))) == ("images", "1")


def test_clutter_of_systems_is_not_seen(make, opened):
    clutter = {"__MACOSX/images/._1.png": b"x", "images/.DS_Store": b"x", ".git/images/9.png": b"x"}
    assert contents(opened(make.archive("town.zip", {**FILES, **clutter}))) == FILES
    assert contents(opened(make.tree("town", {**FILES, **clutter}))) == FILES


def test_linked_folders_are_followed_but_not_in_circles(make, opened):
    real = make.tree("elsewhere", FILES)
    folder = make.tree("given/town", {})
    folder.mkdir(parents=True)
    (folder / "linked").symlink_to(real)
    (folder / "circle").symlink_to(make.folder / "given")
    found = opened(make.folder / "given").find(r"linked/images/(\d+)\.png", "images/1.png")
    assert sorted(found) == ["1", "2"]


def test_nothing_found_names_source_example_and_packed_archives(make, opened):
    source = opened(make.archive("town.zip", {"inner/Images.zip": b"packed"}))
    with pytest.raises(
        DataError, match=r"town\.zip holds no file like 'images/1\.png' .*Images\.zip.* unpack the outer"
    ):
        source.find(PATTERN, "images/1.png")
    assert source.find(PATTERN, "images/1.png", optional=True) == {}


def test_same_thing_twice_is_refused(make, opened):
    source = opened(make.archive("town.zip", FILES), make.tree("town", {**FILES, "images/1.png": b"another"}))
    with pytest.raises(DataError, match=r"town\.zip: images/1\.png and .*1\.png are the same thing twice"):
        source.find(PATTERN, "images/1.png")
    source = opened(make.tree("a/town", FILES), make.tree("b/town", FILES))
    with pytest.raises(DataError, match=r"1\.png and .*1\.png are the same thing twice"):
        source.find(PATTERN, "images/1.png")


def test_missing_partner_is_named(make, opened):
    source = opened(make.archive("town.zip", {**FILES, "images/3.png": b"", "masks/4.png": b""}))
    images, labels = (source.find(rf"{part}/(\d+)\.png", "1.png") for part in ("images", "masks"))
    with pytest.raises(DataError, match=r"1 images without labels: .*town\.zip: images/3\.png"):
        list(paired(images, labels, spare_labels=True))
    del images["3"]
    with pytest.raises(DataError, match=r"1 labels without image: .*town\.zip: masks/4\.png"):
        list(paired(images, labels))
    assert [key for key, _, _ in paired(images, labels, spare_labels=True)] == ["1", "2"]


HOSTILE = [
    "../evil.png",
    "images/../../evil.png",
    "/etc/evil.png",
    "C:/evil.png",
    "C:evil.png",
    "images\\..\\..\\evil.png",
]


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("archive", ["town.zip", "town.tar", "town.tar.gz"])
def test_member_that_points_out_of_the_archive_is_refused(make, opened, archive, name, tmp_path):
    path = make.archive(archive, {"images/1.png": b"1", name: b"evil"})
    with pytest.raises(DataError, match=r"town\.\S+: the member '.*evil\.png' points out of its folder"):
        opened(path)
    assert not list(tmp_path.rglob("evil.png"))


def test_link_in_a_tar_is_refused(make, opened):
    path = make.archive("town.tar", FILES)
    with tarfile.open(path, "a") as archive:
        info = tarfile.TarInfo("images/3.png")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(info)
    with pytest.raises(DataError, match=r"town\.tar: images/3\.png is a link"):
        opened(path)


def test_link_in_a_zip_is_refused(make, opened):
    path = make.archive("town.zip", FILES)
    with zipfile.ZipFile(path, "a") as archive:
        info = zipfile.ZipInfo("images/3.png")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(DataError, match=r"town\.zip: images/3\.png is a link"):
        opened(path)


@pytest.mark.parametrize("archive", ["town.zip", "town.tar", "town.tar.gz"])
def test_member_of_impossible_size_is_refused(make, opened, archive, monkeypatch):
    monkeypatch.setattr(archives, "MAX_MEMBER_BYTES", 1000)
    path = make.archive(archive, {**FILES, "images/bomb.png": bytes(1001)})
    with pytest.raises(DataError, match=r"town\.\S+: images/bomb\.png claims 1001 bytes"):
        opened(path)


def test_compressed_tar_larger_than_the_disk_is_refused_before_unpacking(make, opened, monkeypatch):
    path = make.archive("town.tar.gz", FILES)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=100))
    with pytest.raises(DataError, match=r"unpacking .*town\.tar\.gz needs about 2 KB, but .* has 100 bytes left"):
        opened(path)


def patched(path, **changes):
    """Change what a zip file says about its first member."""
    with zipfile.ZipFile(path, "a") as archive:
        info = archive.infolist()[0]
        for key, value in changes.items():
            setattr(info, key, value)
        archive.writestr("added.txt", "so that the directory is written anew")
    return path


def test_zip_with_overlapping_members_is_refused(make, opened):
    path = patched(make.archive("town.zip", FILES), compress_size=1_000_000)
    with pytest.raises(DataError, match=r"town\.zip: its members overlap"):
        opened(path)


def test_encrypted_zip_is_refused(make, opened):
    path = patched(make.archive("town.zip", FILES), flag_bits=1)
    with pytest.raises(DataError, match=r"town\.zip: images/1\.png is encrypted; unpack it"):
        opened(path)


@pytest.mark.parametrize("archive", ["town.zip", "town.tar", "town.tar.gz"])
@pytest.mark.parametrize("kept", [0.98, 0.5])
def test_truncated_archive_is_named(make, opened, archive, kept):
    path = make.archive(archive, {name: os.urandom(20_000) for name in FILES})
    content = path.read_bytes()
    end = len(content) if archive != "town.tar" else content.rstrip(b"\0").__len__()
    path.write_bytes(content[: int(end * kept)])
    with pytest.raises(DataError, match=r"the download/town\.\S+ "):
        opened(path)


def test_tar_without_its_end_is_refused(make, opened):
    path = make.archive("town.tar", FILES)
    content = path.read_bytes()
    path.write_bytes(content[: len(content.rstrip(b"\0")) // 512 * 512 + 512])
    with pytest.raises(DataError, match=r"town\.tar is cut off"):
        opened(path)


def test_damaged_member_of_a_zip_is_named(make, opened):
    path = make.archive("town.zip", {"images/1.png": os.urandom(5000)})
    content = bytearray(path.read_bytes())
    content[2500] ^= 255
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"town\.zip: images/1\.png cannot be read"):
        opened(path).members[0].read()


@pytest.mark.parametrize("announced", [4, 6])
def test_member_of_another_size_than_announced_is_named(make, announced):
    path = make.tree("town", {"1.png": b"12345"}) / "1.png"
    with pytest.raises(DataError, match=rf"1\.png has .* bytes instead of {announced}"):
        Member("town/1.png", announced, path).read()


def test_unpacked_folder_is_gone_afterwards(make, out):
    path = make.archive("town.tar.gz", FILES)
    with Source([path], out) as source:
        (member, *_) = source.members
        assert member.file.is_file()
        assert str(member) == f"{path}: images/1.png"
    assert not list(out.parent.glob(".*"))


def test_unpacked_folder_is_gone_after_an_error(make, out):
    path = make.archive("town.tar.gz", FILES)
    with pytest.raises(DataError, match="does not exist"):
        Source([path, out / "absent"], out).__enter__()
    assert not list(out.parent.glob(".*"))


def test_source_that_is_neither_folder_nor_archive_is_refused(make, opened):
    folder = make.tree("town", {"all.rar": b"Rar!"})
    with pytest.raises(DataError, match=r"all\.rar is neither a folder nor an archive .*\.zip.*unpack it"):
        opened(folder / "all.rar")
    with pytest.raises(DataError, match="no source is given"):
        Source([], folder)


def test_md5_sum_is_compared_by_the_name_of_the_archive(make, opened):
    path = make.archive("Train.tar", FILES)
    source = opened(path)
    right = hashlib.md5(path.read_bytes()).hexdigest()
    source.verify({"Train.tar": right, "Val.tar": "0" * 32})
    with pytest.raises(DataError, match=rf"Train\.tar has the MD5 sum {right}, but the authors' file has 0000"):
        source.verify({"Train.tar": "0" * 32})


@pytest.mark.parametrize("archive", ["town.zip", "town.tar"])
def test_headers_can_be_read_without_the_rest(make, opened, archive):
    member = opened(make.archive(archive, FILES)).members[0]
    with member.open() as stream:
        assert stream.read(6) == b"images"
        stream.seek(0, io.SEEK_END)
        assert stream.tell() == member.size


@pytest.mark.parametrize("name", ["town.zip", "town.tar", "town.tar.gz"])
@pytest.mark.parametrize("inside", ["town", ""])
def test_archive_beside_its_unpacked_contents_is_no_repetition(make, opened, name, inside, caplog):
    make.archive(f"all/{name}", FILES)
    make.tree("all" + f"/{inside}" * bool(inside), FILES)
    with caplog.at_level("INFO"):
        found = opened(make.folder / "all").find(PATTERN, "images/1.png")
    assert sorted(found) == ["1", "2"]
    assert not any(member.is_packed for member in found.values())
    assert caplog.text.count("beside its unpacked contents") == 1


@pytest.mark.parametrize("content", [b"another one", FILES["images/1.png"][::-1]])
def test_archive_beside_other_files_of_its_names_is_a_repetition(make, opened, content):
    make.archive("all/town.zip", FILES)
    make.tree("all/town", {**FILES, "images/1.png": content})
    with pytest.raises(DataError, match="the same thing twice"):
        opened(make.folder / "all").find(PATTERN, "images/1.png")
