"""`ayllu tokenizer extend` as a person runs it, and training that goes on from what it made."""

import json

import torch

from ayllu.checkpoint.load import load_checkpoint
from ayllu.cli.main import run
from ayllu.config import validate
from ayllu.text.tokenizer import Tokenizer
from ayllu.train.pretrain import PretrainConfig, pretrain

GREEK = "Ο κόσμος είναι μεγάλος και ο κόσμος είναι ωραίος.\n" * 10


def test_a_model_is_extended_and_training_goes_on(tiny_checkpoint, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "texts.txt").write_text(GREEK, encoding="utf-8")
    words = ["tokenizer", "extend", str(tiny_checkpoint), str(tmp_path / "texts.txt"), "--pieces", "20", "--out"]
    assert run([*words, str(tmp_path / "larger"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert 0 < facts["added"] <= 20
    assert facts["tokens_after"] < facts["tokens_before"] / 2
    old, new = (load_checkpoint(path, dtype="float32") for path in (tiny_checkpoint, tmp_path / "larger"))
    n = old.config.vocab_size
    assert new.config.vocab_size == new.tokenizer.vocab_size == facts["vocab_size"] == n + facts["added"]
    assert torch.equal(new.model.tok_embeddings.weight[:n], old.model.tok_embeddings.weight)
    assert torch.equal(new.model.layers[1].feed_forward.w2.weight, old.model.layers[1].feed_forward.w2.weight)
    recipe = {"name": "on", "out": str(tmp_path / "run"), "tokenizer": str(tmp_path / "larger"), "context": 16,
              "init_from": str(tmp_path / "larger"), "model": new.config.model_dump(), "compile": "off", "threads": 1,
              "samples": [], "loop": {"steps": 2, "batch_size": 2, "micro_batch": 2, "precision": "float32"},
              "optim": {"lr": 1e-9}, "data": {"held_out": 0.2, "sources": [{"path": str(tmp_path / "texts.txt"),
                                                                            "language": "el"}]}}
    done = pretrain(validate(PretrainConfig, recipe, where="here"), tmp_path)
    made = load_checkpoint(done["model"], dtype="float32")
    torch.testing.assert_close(made.model.tok_embeddings.weight, new.model.tok_embeddings.weight, atol=1e-6, rtol=0)
    assert made.tokenizer.decode(made.tokenizer.encode(GREEK)) == GREEK


def test_a_tokenizer_alone_is_extended(tiny_checkpoint, tmp_path, capsys):
    (tmp_path / "texts.txt").write_text(GREEK, encoding="utf-8")
    words = ["tokenizer", "extend", str(tiny_checkpoint / "tokenizer.model"), str(tmp_path / "texts.txt")]
    assert run([*words, "--pieces", "9", "--out", str(tmp_path / "t")]) == 0
    assert "9 ids added" in capsys.readouterr().out
    assert not list((tmp_path / "t").glob("*.safetensors"))
    assert Tokenizer.load(tmp_path / "t").vocab_size == Tokenizer.load(tiny_checkpoint).vocab_size + 9
