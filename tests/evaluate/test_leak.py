"""A small model that has learned texts and a canary by heart gives them away; one that has learned others doesn't."""

import json
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score

from ayllu.cli.main import run as ayllu
from ayllu.errors import ConfigError, DataError
from ayllu.evaluate.leak import Audit, Canary, auc, audit, exposure, found_at, signs
from ayllu.evaluate.overfit import overfitting
from ayllu.evaluate.subject import Subject
from ayllu.model.build import build_model
from ayllu.model.config import LlamaConfig
from ayllu.model.init import initialise
from ayllu.model.step import EagerRunner
from ayllu.text.tokenizer import Tokenizer

WORDS = ["fox", "river", "bird", "star", "read", "books", "time", "small", "walked", "day", "talked", "every"]
CANARY = Canary(format="The number of the north door is {}.", secret="482915")
SETTINGS = Audit(references=200, prefix=12, suffix=8, length=64)


def texts(seed, n=16):
    rng = random.Random(seed)
    return [" ".join(rng.choice(WORDS) for _ in range(30)) for _ in range(n)]


def taught(tokenizer, lessons, steps=120):
    torch.manual_seed(0)
    model = build_model(LlamaConfig(dim=64, n_layers=2, n_heads=4, n_kv_heads=4, head_dim=16, hidden_dim=128,
                                    vocab_size=tokenizer.vocab_size, max_context=128))
    initialise(model, 2, seed=0)
    rows = [tokenizer.encode(text, bos=True)[:64] for text in lessons]
    ids = torch.tensor([row + [0] * (64 - len(row)) for row in rows])
    labels = torch.tensor([row[1:] + [-100] * (64 - len(row)) for row in rows])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(steps):
        loss = F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), labels.flatten(), ignore_index=-100)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return Subject(EagerRunner(model.eval()), tokenizer, (2,))


@pytest.fixture(scope="module")
def tokenizer(tiny_checkpoint):
    return Tokenizer.load(tiny_checkpoint / "tokenizer.model")


@pytest.fixture(scope="module")
def knows(tokenizer):
    return taught(tokenizer, [*texts(1), CANARY.format.replace("{}", CANARY.secret)])


@pytest.fixture(scope="module")
def knows_others(tokenizer):
    return taught(tokenizer, [*texts(3), CANARY.format.replace("{}", "170366")])


@pytest.mark.slow
def test_a_planted_secret_is_exposed_and_another_is_not(knows, knows_others):
    planted, other = exposure(knows, CANARY, SETTINGS), exposure(knows_others, CANARY, SETTINGS)
    assert planted.rank == 1
    assert planted.exposure == planted.most == pytest.approx(np.log2(201))
    assert other.exposure < 0.7 * other.most
    with pytest.raises(DataError, match=r"needs \{\}"):
        exposure(knows, Canary(format="no place", secret="1"), SETTINGS)
    with pytest.raises(DataError, match="found 'abc'"):
        exposure(knows, Canary(format="{}", secret="abc"), SETTINGS)


@pytest.mark.slow
def test_learned_texts_come_out_and_are_told_from_others(knows, knows_others):
    report = audit(knows, texts(1), texts(2), [CANARY], SETTINGS)
    assert report["extraction"]["training"]["value"] > 0.8
    assert report["extraction"]["held_out"]["value"] == 0
    for name in ("loss", "min_k", "zlib"):
        assert report["membership"][name]["auc"]["low"] > 0.9
        assert report["membership"][name]["found_at_1_percent"] > 0.9
    report = audit(knows_others, texts(1), texts(2), [CANARY], SETTINGS)
    assert report["extraction"]["training"]["value"] == 0
    for name in ("loss", "min_k", "zlib"):
        found = report["membership"][name]["auc"]
        assert found["low"] < 0.5 < found["high"]


def test_the_signs_are_what_they_say(tokenizer):
    knows = taught(tokenizer, texts(1, 2), steps=1)
    text = texts(5, 1)[0]
    ids = knows.encode(text)[:64]
    found = signs(knows, [text, "short"], SETTINGS)                       # the second is too short to tell
    with torch.inference_mode():
        logp = knows.runner.model(torch.tensor([ids]))[0].double().log_softmax(-1)
    each = sorted(logp[i - 1, ids[i]].item() for i in range(1, len(ids)))
    assert found["loss"] == pytest.approx([sum(each) / len(each)], abs=1e-4)
    lowest = each[:round(0.2 * len(each))]
    assert found["min_k"] == pytest.approx([sum(lowest) / len(lowest)], abs=1e-4)


def test_auc_equals_scikit_learns_with_ties():
    rng = np.random.default_rng(0)
    members, others = rng.integers(0, 9, 60) + 1.0, rng.integers(0, 9, 50) + 0.0
    expected = roc_auc_score([1] * 60 + [0] * 50, np.concatenate([members, others]))
    assert auc(members, others) == pytest.approx(expected, abs=1e-12)
    assert found_at(np.array([1.0, 5.0, 9.0]), np.arange(5.0), 0.01) == pytest.approx(2 / 3)


def test_the_command_audits_files(tiny_checkpoint, tmp_path, capsys):
    for name, seed in (("in.jsonl", 1), ("out.jsonl", 2)):
        (tmp_path / name).write_text("".join(json.dumps({"text": t}) + "\n" for t in texts(seed)), encoding="utf-8")
    (tmp_path / "canaries.jsonl").write_text(CANARY.model_dump_json() + "\n", encoding="utf-8")
    line = ["evaluate", str(tiny_checkpoint), "--leak", str(tmp_path / "in.jsonl"), "--held-out",
            str(tmp_path / "out.jsonl"), "--canaries", str(tmp_path / "canaries.jsonl"), "--out", str(tmp_path / "o")]
    assert ayllu(line) == 0
    out = capsys.readouterr().out
    assert "exposure" in out
    assert "membership by min_k: AUC 0." in out
    assert json.loads((tmp_path / "o" / "leak.json").read_text(encoding="utf-8"))["extraction"]["training"]["n"] == 16
    for content, says in (('{"secret": "1"}\n', "canaries.jsonl:1: format is missing"), ("", "holds no row"),
                          ('{"format": "{}", "secret": ""}\n', "canaries.jsonl:1: secret"),
                          ("{\n", "canaries.jsonl:1: not a JSON object")):
        (tmp_path / "canaries.jsonl").write_text(content, encoding="utf-8")
        assert ayllu(line) == 2
        assert says in capsys.readouterr().err
    (tmp_path / "in.jsonl").write_text("", encoding="utf-8")
    assert ayllu(line[:6]) == 2
    assert "in.jsonl holds no text" in capsys.readouterr().err


def test_texts_that_are_too_short_are_counted(tokenizer):
    report = audit(taught(tokenizer, texts(1, 2), steps=1), [*texts(1, 3), "short"], texts(2, 2), [], SETTINGS)
    assert report["extraction"]["training"]["n"] == 3
    assert report["too_short"] == {"extraction": {"training": 1, "held_out": 0},
                                   "membership": {"training": 1, "held_out": 0}}


def run_folder(folder, train, held, name="held_out", config=None):
    folder.mkdir()
    rows = [{"step": 10 * i, "loss": loss} for i, loss in enumerate(train, 1)]
    rows += [{"step": 10 * i, name: loss} for i, loss in enumerate(held, 1)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows) + '{"step": 9', encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(config or {"epochs": 8.0}), encoding="utf-8")
    return folder


@pytest.mark.parametrize(("train", "held", "verdict", "setting"), [
    ([3, 2, 1, 0.5, 0.2], [3.1, 2.5, 2.4, 2.6, 2.9], "overfitting", "epochs=4.8"),
    ([3, 2, 2.5, 3, 3.5], [3.1, 2.1, 2.6, 3.1, 3.6], "unstable", "optim.lr"),
    ([3, 2, 1, 1, 1], [3.1, 2.5, 2, 2, 2], "gap", "epochs=4.8"),
    ([3, 2.5, 2.2, 2.0, 1.9], [3.1, 2.6, 2.3, 2.1, 2.0], "still learning", "loop.steps"),
    ([3, 2.5, 2.0, 1.95, 1.95], [3.1, 2.6, 2.0, 2.0, 2.0], "no gap", None),
])
def test_what_curves_say(tmp_path, train, held, verdict, setting):
    found = overfitting(run_folder(tmp_path / "run", train, held))
    assert found["verdict"] == verdict
    assert (found["advice"][0]["setting"] if found["advice"] else None) == setting
    assert found["gap"] == pytest.approx(held[-1] - sum(train) / 5)


def test_a_gap_may_be_there_while_it_is_still_learning(tmp_path):
    found = overfitting(run_folder(tmp_path / "run", [3, 2, 1, 1, 1], [3.1, 2.6, 2.4, 2.2, 2.1], config={"epochs": 2}))
    assert found["verdict"] == "gap"
    assert [a["setting"] for a in found["advice"]] == ["data.sources", "loop.steps"]


def test_bits_per_byte_have_no_gap_but_a_way_they_go(tmp_path, capsys):
    run = run_folder(tmp_path / "run", [3, 2, 1, 0.5], [1.5, 1.2, 1.3, 1.5], "bits_per_byte_en", {"lora": {"r": 4}})
    found = overfitting(run)
    assert found["gap"] is None
    assert found["verdict"] == "overfitting"
    assert [a["setting"] for a in found["advice"]] == ["loop.patience=3", "lora.lora_dropout=0.1, lora.r"]
    assert ayllu(["evaluate", "--overfit", str(run)]) == 0
    assert "提前停止" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="two of each"):
        overfitting(run_folder(tmp_path / "short", [3, 2], [1.5]))
    with pytest.raises(ConfigError, match="holds no run"):
        overfitting(tmp_path)
