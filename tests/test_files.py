from __future__ import annotations

import pytest

from ovrs.files import replacing


def test_block_that_ends_well_replaces_the_file_and_leaves_no_other(tmp_path):
    path = tmp_path / "new folder" / "a.txt"
    for text in ("first", "second"):
        with replacing(path) as temporary:
            assert temporary.suffix == ".txt"
            temporary.write_text(text)
        assert path.read_text() == text
    assert list(path.parent.iterdir()) == [path]


def test_block_that_fails_keeps_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write_half():
        with replacing(path) as temporary:
            temporary.write_text("ne")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
