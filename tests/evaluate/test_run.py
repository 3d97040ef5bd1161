"""A whole evaluation by the command: scores, files, going on after a stop, repeating, refusing."""

import json

import pytest

from ayllu.cli.main import run as ayllu
from ayllu.errors import ConfigError
from ayllu.evaluate import run as room
from ayllu.evaluate.intervals import bootstrap_mean
from ayllu.evaluate.run import read_records

TASKS = """
[tasks.fox]
file = "rows.jsonl"
kind = "choice"
prompt = "{{ q }}"
options = "o"
answer = "a"

[tasks.said]
file = "rows.jsonl"
kind = "qa"
prompt = "{{ q }}"
answer = "said"
group = "g"
max_tokens = 6
temperature = 1.0

[tasks.text]
file = "rows.jsonl"
kind = "perplexity"
prompt = "{{ q }} {{ said }}"
"""


@pytest.fixture
def tasks(tmp_path):
    rows = [{"q": f"The fox number {i} walked", "o": ["river", "书", "x y"], "a": i % 3, "said": "the river",
             "g": i // 2} for i in range(40)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    (tmp_path / "tasks.toml").write_text(TASKS, encoding="utf-8")
    return tmp_path / "tasks.toml"


def words(model, tasks, out, *more):
    return ["evaluate", str(model), "--task", str(tasks), "--out", str(out), "--batch", "4", "--seed", "7", *more]


def test_scores_are_those_of_the_records(tasks, tiny_checkpoint, tmp_path, capsys):
    out = tmp_path / "out"
    assert ayllu(words(tiny_checkpoint, tasks, out, "--json")) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    fox = read_records(out, "fox")
    assert [r["expected"] for r in fox] == [i % 3 for i in range(40)]
    values = [float(r["output"] == r["expected"]) for r in fox]
    interval = bootstrap_mean(values, seed=7)
    accuracy = found["tasks"]["fox"]["metrics"]["accuracy"]
    assert accuracy == {"value": interval.value, "low": interval.low, "high": interval.high, "n": 40, "level": 0.95}
    assert found["tasks"]["said"]["groups"] == 20
    assert found["tasks"]["text"]["metrics"]["bits_per_byte"]["value"] > 0
    said = read_records(out, "said")
    assert [r["seed"] for r in said] == list(range(7, 47))
    assert len({r["output"] for r in said}) > 20
    assert all(r["ids"] and r["output_ids"] for r in said)
    assert json.loads((out / "scores.json").read_text(encoding="utf-8"))["tasks"] == found["tasks"]
    assert ayllu(words(tiny_checkpoint, tasks, out)) == 0                  # all is done: the scores are shown again
    assert "n = 40" in capsys.readouterr().out


def test_a_stopped_run_goes_on_and_equals_an_unbroken_one(tasks, tiny_checkpoint, tmp_path, monkeypatch, capsys):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert ayllu(words(tiny_checkpoint, tasks, whole)) == 0
    answer, calls = room.answer, []

    def stopping(subject, task, prompts, seed):
        calls.append(seed)
        if len(calls) == 5:                              # of 3 blocks for each task: the second of the second task
            raise KeyboardInterrupt
        return answer(subject, task, prompts, seed)

    monkeypatch.setattr(room, "answer", stopping)
    assert ayllu(words(tiny_checkpoint, tasks, broken)) == 130
    assert "said: 16 of 40 items are done and kept" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="isn't finished"):
        read_records(broken, "said")
    with open(broken / "said.jsonl", "a", encoding="utf-8") as file:
        file.write('{"item": "half a li')                # as a killed process leaves it
    assert ayllu(words(tiny_checkpoint, tasks, broken)) == 0
    assert len(calls) == 5 + 2 + 3
    for name in ("fox.jsonl", "said.jsonl", "text.jsonl", "scores.json"):
        assert (whole / name).read_bytes() == (broken / name).read_bytes()


def test_repeat_says_whether_it_is_equal(tasks, tiny_checkpoint, tmp_path, capsys):
    out = tmp_path / "out"
    assert ayllu(words(tiny_checkpoint, tasks, out, "--limit", "10")) == 0
    assert ayllu(["evaluate", "--repeat", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["equal"]
    assert found["tasks"]["said"] == {"n": 10, "different": 0, "first": None}
    records = read_records(out, "said")
    records[3]["output"] += "!"
    (out / "said.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    assert ayllu(["evaluate", "--repeat", str(out), "--out", str(tmp_path / "again")]) == 1
    assert f"said: 1 of 10 records differ, first {records[3]['item']}" in capsys.readouterr().out
    rows = tmp_path / "rows.jsonl"
    rows.write_text(rows.read_text(encoding="utf-8") + rows.read_text(encoding="utf-8"), encoding="utf-8")
    assert ayllu(["evaluate", "--repeat", str(out), "--out", str(tmp_path / "third")]) == 2
    assert "are others than those" in capsys.readouterr().err


def test_another_run_in_the_folder_is_refused(tasks, tiny_checkpoint, tmp_path, capsys):
    out = tmp_path / "out"
    assert ayllu(words(tiny_checkpoint, tasks, out, "--limit", "4")) == 0
    assert ayllu(words(tiny_checkpoint, tasks, out, "--limit", "5")) == 2
    assert "holds another evaluation (another how)" in capsys.readouterr().err
    assert ayllu(["evaluate", "--task", str(tasks)]) == 2
    assert ayllu(["evaluate", "--repeat", str(tmp_path)]) == 2
    assert "run.json is missing" in capsys.readouterr().err


def test_the_list_of_tasks(capsys):
    assert ayllu(["evaluate", "--task", "list", "--json"]) == 0
    tasks = json.loads(capsys.readouterr().out.splitlines()[-1])["tasks"]
    assert tasks["cmrc2018.span"] == {"kind": "span", "file": "cmrc2018/trial.jsonl.zst"}
