"""Two runs over the same items: planted differences are found, others not, and other items are refused."""

import json

import numpy as np
import pytest

from ayllu.cli.main import run as ayllu
from ayllu.errors import ConfigError, DataError
from ayllu.evaluate.compare import compare_runs, sentence, sentence_zh
from ayllu.evaluate.intervals import Interval, Paired
from ayllu.evaluate.task import Task

TASKS = {
    "fox": Task(file="f", kind="choice", prompt="p", options="o", answer="a"),
    "text": Task(file="f", kind="perplexity", prompt="p"),
    "qa": Task(file="f", kind="qa", prompt="p", answer="a"),
    "words": Task(file="f", kind="translate", prompt="p", answer="a")}


def write(folder, name, records):
    folder.mkdir()
    table = {name: {**TASKS[name].model_dump(mode="json"), "folder": "/", "sha256": {}}}
    (folder / "run.json").write_text(json.dumps({"subject": {"model": folder.name}, "how": {}, "tasks": table}),
                                     encoding="utf-8")
    (folder / "scores.json").write_text("{}", encoding="utf-8")
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    return folder


def right_with(share, n=400, seed=0, **more):
    rng = np.random.default_rng(seed)
    hard = np.random.default_rng(99).uniform(size=n)     # what is hard for one is hard for the other
    right = hard + rng.normal(scale=0.05, size=n) < share
    return [{"item": str(i), "ids": [1], "expected": 0, "output": int(not r), "confidence": 0.5,
             "scores": {"accuracy": float(r)}, **more} for i, r in enumerate(right)]


def test_a_planted_difference_is_found_and_another_seed_is_none(tmp_path):
    a, b, c = (write(tmp_path / name, "fox", right_with(share, seed=i))
               for i, (name, share) in enumerate((("a", 0.5), ("b", 0.56), ("c", 0.5))))
    better = compare_runs(a, b)["tasks"]["fox"]["metrics"]["accuracy"]
    assert better["is_shown"]
    assert better["en"].startswith("accuracy: B is better by ")
    assert better["difference"]["low"] < 0.06 < better["difference"]["high"]
    assert better["mcnemar"] < 0.05
    assert 0 < better["effect"] < 1
    worse = compare_runs(b, a)["tasks"]["fox"]["metrics"]["accuracy"]
    assert worse["en"].startswith("accuracy: A is better by ")
    assert worse["zh"].startswith("accuracy：A 更好，高 ")
    level = compare_runs(a, c)["tasks"]["fox"]["metrics"]["accuracy"]
    assert not level["is_shown"]
    assert "no difference shown" in level["en"]
    assert "未显示出差异" in level["zh"]


def test_the_same_runs_in_another_order_of_items_are_equal(tmp_path):
    records = right_with(0.5)
    a, b = write(tmp_path / "a", "fox", records), write(tmp_path / "b", "fox", records[::-1])
    found = compare_runs(a, b)["tasks"]["fox"]["metrics"]["accuracy"]
    assert (found["difference"]["low"], found["difference"]["value"], found["difference"]["high"]) == (0, 0, 0)
    assert not found["is_shown"]


def test_fewer_bits_are_better(tmp_path):
    rng = np.random.default_rng(0)
    bits = rng.uniform(80, 120, size=60)
    a, b = (write(tmp_path / name, "text", [{"item": str(i), "ids": [1], "expected": None, "output": None, "scores": {
        "logprob": -x * factor, "tokens": 20, "bytes": 90}} for i, x in enumerate(bits)])
        for name, factor in (("a", 1.0), ("b", 0.97)))
    found = compare_runs(a, b)["tasks"]["text"]["metrics"]["bits_per_byte"]
    assert found["is_shown"]
    assert found["difference"]["value"] < 0
    assert found["en"].startswith("bits_per_byte: B is better by 0.0")
    assert found["zh"].startswith("bits_per_byte：B 更好，低 0.0")


def test_translations_are_compared_as_a_corpus(tmp_path):
    expected = [[f"the cat number {i} sat on the mat"] for i in range(40)]
    good, bad = [e[0].replace("sat", "sits") for e in expected], [e[0].replace("cat number", "dog") for e in expected]
    a, b = (write(tmp_path / name, "words", [{"item": str(i), "ids": [1], "expected": e, "output": w, "scores": {}}
                                             for i, (e, w) in enumerate(zip(expected, written, strict=True))])
            for name, written in (("a", bad), ("b", good)))
    found = compare_runs(a, b)["tasks"]["words"]["metrics"]
    assert found["bleu"]["is_shown"]
    assert found["chrf"]["is_shown"]
    assert found["bleu"]["effect"] is None


def test_f1_is_no_question_of_right_or_wrong(tmp_path):
    a, b = (write(tmp_path / name, "qa", [{"item": str(i), "ids": [1], "expected": ["x"], "output": "", "scores": {
        "f1": float(i % 2), "em": float(i % 2)}} for i in range(8)]) for name in "ab")
    found = compare_runs(a, b)["tasks"]["qa"]["metrics"]
    assert (found["f1"]["mcnemar"], found["em"]["mcnemar"]) == (None, 1)


def test_other_items_or_answers_are_refused_with_how_they_differ(tmp_path):
    records = right_with(0.5, n=20)
    a = write(tmp_path / "a", "fox", records)
    b = write(tmp_path / "b", "fox", [*records[2:], {**records[0], "item": "x"}])
    with pytest.raises(DataError, match=r"A has 20, of which 2 aren't in B \(first 0\); B has 19, of which 1"):
        compare_runs(a, b)
    c = write(tmp_path / "c", "fox", [{**r, "expected": 1} for r in records])
    with pytest.raises(DataError, match="20 items have other answers in B"):
        compare_runs(a, c)
    with pytest.raises(ConfigError, match="no task in common"):
        compare_runs(a, write(tmp_path / "d", "text", []))


def test_the_words_of_a_sentence():
    shown = Paired(Interval(0.012, 0.003, 0.021, 500), 0.1, 0.01)
    assert sentence("accuracy", shown) == ("accuracy: B is better by 1.2 points, 95 % interval 0.3 to 2.1, n = 500, "
                                           "effect size d = 0.10, McNemar's p = 0.01")
    assert sentence_zh("accuracy", shown) == ("accuracy：B 更好，高 1.2 个点，95 % 区间 0.3 到 2.1，题数 500，"
                                              "效应量 d = 0.10，McNemar 检验 p = 0.01")
    doubted = Paired(Interval(1.0, 1.0, 1.0, 3), None, 0.25)               # resamples alone would be sure
    assert sentence("accuracy", doubted).startswith("accuracy: no difference shown: B minus A is 100.0 points")
    assert "few items" in sentence("accuracy", doubted)


def test_the_command_evaluates_two_models(tiny_checkpoint, tmp_path, capsys):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"text": f"The fox walked {i} times."}) + "\n"
                                                 for i in range(12)), encoding="utf-8")
    (tmp_path / "t.toml").write_text('[tasks.t]\nfile = "rows.jsonl"\nkind = "perplexity"\nprompt = "{{ text }}"\n',
                                     encoding="utf-8")
    line = ["compare", str(tiny_checkpoint), "ayllu-mini", "--task", str(tmp_path / "t.toml"), "--out",
            str(tmp_path / "out"), "--language", "zh"]
    assert ayllu(line) == 0
    out = capsys.readouterr().out
    assert "(12 of 12 items were asked by other prompts)" in out           # another tokenizer has other ids
    assert "bits_per_byte：B 更好" in out
    assert ayllu(["compare", str(tmp_path / "out" / "a"), str(tmp_path / "out" / "b"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["tasks"]["t"]["metrics"]["bits_per_byte"]["is_shown"]
    assert ayllu(["compare", "x", "y"]) == 2
