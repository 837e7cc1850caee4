from __future__ import annotations

import pytest

from ovrs.config import ConfigError, get_cfg, load_config


@pytest.fixture
def write(tmp_path):
    """Write a YAML file into a folder with a space and return its path."""

    def write_yaml(text: str, name: str = "model.yaml"):
        path = tmp_path / "my configs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write_yaml


# ---------------------------------------------------------------------- defaults and values


def test_empty_file_gives_the_defaults(write):
    cfg = load_config(write(""))
    assert cfg == get_cfg()
    assert cfg.MODEL.META_ARCHITECTURE == "OpenVocabSegmenter"
    assert cfg.MODEL.GSNET.DECODER_DIMS == [64, 32]


def test_loading_leaves_the_defaults_of_the_next_load_alone(write):
    load_config(write("MODEL: {GSNET: {DECODER_DIMS: [16]}}")).MODEL.GSNET.TAP_DIMS.append(7)
    assert load_config(write("")) == get_cfg()


def test_file_changes_only_what_it_names(write):
    cfg = load_config(write("MODEL: {GSNET: {HIDDEN_DIM: 64}}"))
    expected = get_cfg()
    expected.MODEL.GSNET.HIDDEN_DIM = 64
    assert cfg == expected


@pytest.mark.parametrize("text", ["1e-4", "1.0e-4", "0.0001", "'1e-4'"])
def test_exponents_are_numbers_in_files_and_on_the_command_line(write, text):
    assert load_config(write(f"SOLVER: {{BASE_LR: {text}}}")).SOLVER.BASE_LR == 1e-4
    assert load_config(write(""), ["SOLVER.BASE_LR", text]).SOLVER.BASE_LR == 1e-4


def test_whole_numbers_and_exponents_become_floats_inside_lists_of_floats(write):
    mean = load_config(write("MODEL: {PIXEL_MEAN: [1e2, 128, 0.5]}")).MODEL.PIXEL_MEAN
    assert mean == [100.0, 128.0, 0.5]
    assert all(type(value) is float for value in mean)


def test_lists_take_the_sequence_type_of_the_default(write):
    cfg = load_config(write("INPUT: {MIN_SIZE_TRAIN: [256, 512]}\nDATASETS: {TRAIN: [a, b]}"))
    assert cfg.INPUT.MIN_SIZE_TRAIN == (256, 512)
    assert cfg.DATASETS.TRAIN == ("a", "b")


# ---------------------------------------------------------------------- bases


def test_file_overrides_its_base_and_the_base_its_own(write):
    write("SOLVER: {MAX_ITER: 1, IMS_PER_BATCH: 1, POLY_POWER: 0.1}", "grand.yaml")
    write("_BASE_: grand.yaml\nSOLVER: {IMS_PER_BATCH: 2, POLY_POWER: 0.2}", "parent.yaml")
    solver = load_config(write("_BASE_: parent.yaml\nSOLVER: {POLY_POWER: 0.3}")).SOLVER
    assert (solver.MAX_ITER, solver.IMS_PER_BATCH, solver.POLY_POWER) == (1, 2, 0.3)


def test_base_is_looked_up_beside_the_file_that_names_it(write, tmp_path, monkeypatch):
    write("SOLVER: {MAX_ITER: 7}", "common.yaml")
    nested = write("_BASE_: ../common.yaml", "gsnet/small.yaml")
    monkeypatch.chdir(tmp_path)
    assert load_config(nested).SOLVER.MAX_ITER == 7
    absolute = write(f"_BASE_: '{nested}'", "absolute.yaml")
    assert load_config(absolute).SOLVER.MAX_ITER == 7


@pytest.mark.parametrize("bases", [["a.yaml"], ["b.yaml", "a.yaml"]], ids=["itself", "two files"])
def test_base_that_leads_back_is_refused(write, bases):
    for name, base in zip(["a.yaml", "b.yaml"], bases, strict=False):
        first = write(f"_BASE_: {base}", name)
    with pytest.raises(ConfigError, match="_BASE_ leads back to the file itself"):
        load_config(first)


def test_missing_base_names_both_files(write):
    path = write("_BASE_: nowhere.yaml")
    with pytest.raises(ConfigError, match=r"_BASE_ names .*nowhere.yaml, which does not exist") as error:
        load_config(path)
    assert str(error.value).startswith(str(path))


def test_base_must_be_one_path(write):
    with pytest.raises(ConfigError, match=r"_BASE_ must be the path of one file, got \['a.yaml'\]"):
        load_config(write("_BASE_: [a.yaml]"))


# ---------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("text", "key", "nearest"),
    [
        ("MODEL: {GSNET: {HIDEN_DIM: 64}}", "MODEL.GSNET.HIDEN_DIM", "MODEL.GSNET.HIDDEN_DIM"),
        ("SOLVR: {BASE_LR: 1}", "SOLVR", "SOLVER"),
        ("HIDDEN_DIMENSION: 1", "HIDDEN_DIMENSION", "MODEL.GSNET.HIDDEN_DIM"),
    ],
)
def test_unknown_key_names_file_and_nearest_key(write, text, key, nearest):
    path = write(text)
    with pytest.raises(ConfigError) as error:
        load_config(path)
    assert str(error.value) == f"{path}: unknown key {key}. The nearest valid key is {nearest}."


def test_key_below_a_value_is_unknown_on_the_command_line(write):
    with pytest.raises(ConfigError, match=r"command line: unknown key SOLVER.BASE_LR.X. The nearest .* SOLVER.BASE_LR"):
        load_config(write(""), ["SOLVER.BASE_LR.X", "1"])


@pytest.mark.parametrize(
    ("text", "key", "kind"),
    [
        ("SOLVER: {MAX_ITER: many}", "SOLVER.MAX_ITER", "int"),
        ("SOLVER: {MAX_ITER: 10.5}", "SOLVER.MAX_ITER", "int"),
        ("SOLVER: {MAX_ITER: True}", "SOLVER.MAX_ITER", "int"),
        ("SOLVER: {BASE_LR: fast}", "SOLVER.BASE_LR", "float"),
        ("SOLVER: {BASE_LR: True}", "SOLVER.BASE_LR", "float"),
        ("SOLVER: {BASE_LR: [1]}", "SOLVER.BASE_LR", "float"),
        ("SOLVER: {BASE_LR: {X: 1}}", "SOLVER.BASE_LR", "float"),
        ("MODEL: {GSNET: {USE_VLM_COST: 1}}", "MODEL.GSNET.USE_VLM_COST", "bool"),
        ("MODEL: {VLM: {WEIGHTS: }}", "MODEL.VLM.WEIGHTS", "str"),
        ("MODEL: {PIXEL_MEAN: [1, x, 3]}", "MODEL.PIXEL_MEAN, item 1", "float"),
        ("DATASETS: {TRAIN: one}", "DATASETS.TRAIN", "tuple"),
    ],
)
def test_wrong_type_names_file_key_and_both_types(write, text, key, kind):
    path = write(text)
    with pytest.raises(ConfigError) as error:
        load_config(path)
    assert str(error.value).startswith(f"{path}: {key} must be of type {kind} ")


def test_single_word_for_a_list_says_how_to_write_one(write):
    with pytest.raises(ConfigError, match=r"Write a list: \[a, b\]"):
        load_config(write(""), ["DATASETS.TEST", "one"])


def test_value_for_a_group_lists_the_keys_of_the_group(write):
    with pytest.raises(
        ConfigError, match=r"MODEL.LOSS is a group of keys, not a value; the group has NAME, IGNORE_MODE"
    ):
        load_config(write("MODEL: {LOSS: bce}"))


def test_unsafe_tag_is_refused_and_not_run(write, tmp_path):
    victim = tmp_path / "created"
    path = write(f"OUTPUT_DIR: !!python/object/apply:os.system ['touch \"{victim}\"']")
    with pytest.raises(ConfigError, match="only plain YAML is read") as error:
        load_config(path)
    assert str(path) in str(error.value)
    assert not victim.exists()


def test_unsafe_tag_in_a_base_or_on_the_command_line_is_not_run(write, tmp_path):
    victim = tmp_path / "created"
    tag = f"!!python/object/apply:os.system ['touch \"{victim}\"']"
    write(f"OUTPUT_DIR: {tag}", "base.yaml")
    with pytest.raises(ConfigError, match=r"base.yaml: only plain YAML"):
        load_config(write("_BASE_: base.yaml"))
    folder = load_config(write(""), ["OUTPUT_DIR", tag]).OUTPUT_DIR
    assert folder == tag
    assert not victim.exists()


def test_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"config file .*absent.yaml does not exist"):
        load_config(tmp_path / "absent.yaml")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"MODEL: [1, 2", "not valid YAML"),
        (b"- a\n- b", "expected 'KEY: value' pairs, found a list"),
        (b"\xff\xfe\x00\x81", "cannot be read as text"),
    ],
)
def test_file_that_is_no_configuration_is_named(write, content, reason):
    path = write("")
    path.write_bytes(content)
    with pytest.raises(ConfigError) as error:
        load_config(path)
    assert str(path) in str(error.value)
    assert reason in str(error.value)


def test_folder_in_place_of_a_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read as text"):
        load_config(tmp_path)


# ---------------------------------------------------------------------- command line


def test_overrides_come_after_the_file(write):
    words = ["SOLVER.MAX_ITER", "5", "DATASETS.TEST", "[a, b]", "MODEL.GSNET.USE_VLM_COST", "False"]
    cfg = load_config(write("SOLVER: {MAX_ITER: 9}"), words)
    assert cfg.SOLVER.MAX_ITER == 5
    assert cfg.DATASETS.TEST == ("a", "b")
    assert cfg.MODEL.GSNET.USE_VLM_COST is False


@pytest.mark.parametrize("text", ["", "2024", "1e5", "run: two", "@home", "C:\\data sets", "[a"])
def test_text_stays_text_where_the_key_holds_text(write, text):
    folder = load_config(write(""), ["OUTPUT_DIR", text]).OUTPUT_DIR
    assert folder == text


def test_overrides_without_a_value_are_refused(write):
    with pytest.raises(ConfigError, match="come in pairs KEY VALUE, got 3 words"):
        load_config(write(""), ["SOLVER.MAX_ITER", "5", "SEED"])


def test_unknown_override_names_the_nearest_key(write):
    with pytest.raises(ConfigError, match=r"command line: unknown key SOLVER.BASE_LRR. .* SOLVER.BASE_LR\."):
        load_config(write(""), ["SOLVER.BASE_LRR", "1"])


# ---------------------------------------------------------------------- paths


@pytest.mark.parametrize("value", ["arch.json", "models/arch.json", "../arch.json"])
def test_model_config_beside_the_file_is_found_from_anywhere(write, tmp_path, monkeypatch, value):
    path = write(f"MODEL: {{VLM: {{ARCH: '{value}'}}}}", "inner/model.yaml")
    target = path.parent / value
    target.parent.mkdir(exist_ok=True)
    target.write_text("{}")
    monkeypatch.chdir(tmp_path)
    # Absolute even where the file was named by a relative path: a run's config.yaml is used from other folders.
    arch = load_config(path.relative_to(tmp_path)).MODEL.VLM.ARCH
    assert arch == str(target.resolve())


@pytest.mark.parametrize("value", ["ViT-L-14", "models/absent.json", ""])
def test_model_name_or_path_elsewhere_is_kept(write, value):
    arch = load_config(write(f"MODEL: {{VLM: {{ARCH: '{value}'}}}}")).MODEL.VLM.ARCH
    assert arch == value


def test_model_config_of_a_base_is_looked_up_beside_the_base(write):
    (write("MODEL: {VLM: {ARCH: arch.json}}", "base.yaml").parent / "arch.json").write_text("{}")
    path = write("_BASE_: ../base.yaml", "inner/model.yaml")
    arch = load_config(path).MODEL.VLM.ARCH
    assert arch == str((path.parent / ".." / "arch.json").resolve())
