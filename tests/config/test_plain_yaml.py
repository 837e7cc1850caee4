import pytest

from ovrs.plain_yaml import read_plain_yaml


class RoomError(ValueError):
    pass


def test_plain_values_are_read_as_utf8_and_an_empty_file_as_nothing(tmp_path):
    path = tmp_path / "a file.yaml"
    path.write_bytes("name: Zürich\nsizes: [1, 2.5]\n".encode())
    assert read_plain_yaml(path, "data card", RoomError) == {"name": "Zürich", "sizes": [1, 2.5]}
    path.write_text("")
    assert read_plain_yaml(path, "data card", RoomError) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "data card {path} does not exist"),
        (b"\xff\xfe\x00\x81", "data card {path} cannot be read as text"),
        (b"a: [1, 2", "{path}: not valid YAML"),
        (b"!!python/object/apply:os.getcwd []", "{path}: only plain YAML is read"),
    ],
)
def test_failure_is_the_callers_error_and_names_the_file(tmp_path, content, message):
    path = tmp_path / "a file.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RoomError) as error:
        read_plain_yaml(path, "data card", RoomError)
    assert str(error.value).startswith(message.format(path=path))


def test_folder_in_place_of_a_file_is_named(tmp_path):
    with pytest.raises(RoomError, match=r"data card .* cannot be read as text"):
        read_plain_yaml(tmp_path, "data card", RoomError)


def test_tag_is_not_run(tmp_path):
    victim, path = tmp_path / "created", tmp_path / "card.yaml"
    path.write_text(f"a: !!python/object/apply:os.system ['touch \"{victim}\"']")
    with pytest.raises(RoomError):
        read_plain_yaml(path, "data card", RoomError)
    assert not victim.exists()
