"""tools/draw_predictions.py: the pictures that it writes, and how it refuses."""

import pytest


@pytest.fixture
def model(trained):
    """The arguments that name a trained model."""
    return ("--config-file", trained / "config.yaml", "--weights", trained / "model_final.pth")


def test_pictures_of_a_data_set_are_drawn(run_tool, model, scenes, tmp_path):
    dataset = f"{scenes / 'scenes.yaml'}:val"
    run_tool("draw_predictions", *model, "--dataset", dataset, "--output", tmp_path / "drawn", "--limit", 2)
    drawn = sorted(path.relative_to(tmp_path / "drawn").as_posix() for path in (tmp_path / "drawn").rglob("*.png"))
    assert drawn == ["scenes_val/0000.png", "scenes_val/0001.png"]


def test_keys_at_the_end_of_the_line_override_the_configuration(run_tool, model, scenes, tmp_path):
    arguments = ("--dataset", f"{scenes / 'scenes.yaml'}:val", "--output", tmp_path)
    with pytest.raises(SystemExit) as caught:
        run_tool("draw_predictions", *model, *arguments, "MODEL.GSNET.HIDDEN_DIM", 16)
    assert "model_final.pth" in caught.value.code


def test_unknown_data_set_ends_in_a_message(run_tool, model, tmp_path):
    with pytest.raises(SystemExit) as caught:
        run_tool("draw_predictions", *model, "--dataset", tmp_path / "absent.yaml", "--output", tmp_path)
    assert caught.value.code.startswith("draw_predictions.py: ")
    assert "absent.yaml" in caught.value.code
