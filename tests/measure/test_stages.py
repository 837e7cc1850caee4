from contextlib import contextmanager

import torch

from ovrs.engine import build_model
from ovrs.measure.stages import HEAD, PRIOR, TEXT, VLM_IMAGE, around_stages, example_records
from ovrs.vocabulary import TextBank


def test_every_stage_of_a_pass_is_seen_and_the_model_is_left_as_it_was(tiny_cfg):
    model = build_model(tiny_cfg).eval()
    records = example_records(tiny_cfg, 1, (64, 64), 3)
    seen = []

    @contextmanager
    def note(stage):
        seen.append(f"{stage} begins")
        yield
        seen.append(f"{stage} ends")

    with torch.no_grad():
        plain = model(records)[0]["labels"]
        model.text_bank = TextBank()  # has encoded nothing yet
        with around_stages(model, note):
            watched = model(records)[0]["labels"]
        expected = [f"{stage} {event}" for stage in (TEXT, VLM_IMAGE, PRIOR, HEAD) for event in ("begins", "ends")]
        assert seen == expected
        model(records)
    assert seen == expected
    assert torch.equal(plain, watched)


def test_a_model_without_prior_has_no_such_stage(tiny_cfg):
    tiny_cfg.MODEL.PRIOR.NAME = ""
    tiny_cfg.MODEL.GSNET.USE_PRIOR_COST = tiny_cfg.MODEL.GSNET.USE_PRIOR_TAPS = False
    seen = set()

    @contextmanager
    def note(stage):
        seen.add(stage)
        yield

    model = build_model(tiny_cfg).eval()
    with torch.no_grad(), around_stages(model, note):
        model(example_records(tiny_cfg, 1, (64, 64), 3))
    assert seen == {TEXT, VLM_IMAGE, HEAD}


def test_records_are_drawn_alike_and_prepared_as_for_evaluation(tiny_cfg):
    tiny_cfg.INPUT.MIN_SIZE_TEST = 32
    (first, second), (again, _) = (example_records(tiny_cfg, 2, (64, 96), 4) for _ in range(2))
    assert first["image"].shape == (3, 32, 48)
    assert first["image"].dtype == torch.uint8
    assert (first["height"], first["width"], len(set(first["vocabulary"]))) == (64, 96, 4)
    assert torch.equal(first["image"], again["image"])
    assert not torch.equal(first["image"], second["image"])
