"""Preparation over Ray Data gives the bytes that it gives without, and evaluation texts are taken field by field."""

import builtins
import hashlib
import json
import os
import socket
from pathlib import Path

import pytest

from ayllu import cluster
from ayllu.cli.main import run
from ayllu.data.over_ray import OverRay
from ayllu.data.part import Preparation
from ayllu.data.prepare import Raw, prepare_documents
from ayllu.data.texts import single_texts
from ayllu.errors import ConfigError, DataError, MissingExtra

TEXT = "the fox of river {0} and the star under hill {0} saw that oak with bread {0} or the book near friend {0}. "


def write_sources(folder):
    """Rows in one file and many small files, with a double and a broken row."""
    rows = [json.dumps({"text": TEXT.format(i) * 6}) for i in range(120)]
    rows[50] = "{broken"
    rows[70] = rows[3]
    (folder / "rows.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (folder / "many").mkdir()
    for i in range(40):
        (folder / "many" / f"{i:03d}.txt").write_text(TEXT.format(1000 + i) * 6, encoding="utf-8")
    return [Raw(folder / "rows.jsonl", "rows.jsonl", ("text",)), Raw(folder / "many", "many", ("text",))]


def digests(folder):
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest()
            for f in sorted(folder.rglob("*")) if f.is_file()}


@pytest.mark.slow
def test_two_workers_of_ray_give_the_same_bytes(tmp_path, monkeypatch):
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    found = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(found))
    sources = write_sources(tmp_path)
    settings = {"part_bytes": 4000, "quality": "off"}
    plain = prepare_documents(sources, [], Preparation.model_validate(settings), tmp_path / "plain", workers=1)
    over = prepare_documents(sources, [], Preparation.model_validate({**settings, "ray": "local"}), tmp_path / "ray",
                             workers=2)
    assert plain["total"]["kept"] > 100
    assert plain["total"] == over["total"]
    assert digests(tmp_path / "plain") == digests(tmp_path / "ray")


def test_without_ray_it_says_what_to_install(monkeypatch):
    found = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.split(".")[0] == "ray":
            raise ImportError(name)
        return found(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingExtra, match=r"ayllu\[ray\]"):
        OverRay("local", 1, Preparation(), None)


def test_each_field_is_a_text_of_its_own(tmp_path):
    file = tmp_path / "e.jsonl"
    file.write_text('{"question": "what is it", "answer": "a fox", "n": 3}\n', encoding="utf-8")
    assert list(single_texts(file)) == ["what is it", "a fox"]
    assert list(single_texts(file, ("answer",))) == ["a fox"]
    with pytest.raises(DataError, match="no text in n"):
        list(single_texts(file, ("n",)))
    file.write_text('{"n": 3}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"e\.jsonl:1: no text in any field; the row has n"):
        list(single_texts(file))


def test_against_drops_what_an_evaluation_text_shares(tmp_path, capsys):
    write_sources(tmp_path)
    planted = "in the middle " + TEXT.format(7) + "of something else"
    (tmp_path / "eval.jsonl").write_text(json.dumps({"question": "q", "context": planted}) + "\n", encoding="utf-8")
    words = ["data", "prepare", str(tmp_path / "rows.jsonl"), "--out", str(tmp_path / "out"), "--against",
             str(tmp_path / "eval.jsonl"), "--json", "data.prepare.quality=off", "--workers", "1"]
    assert run(words) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert report["total"]["dropped"]["overlap"] == 1
    kept = report["sources"][0]["kept"]
    assert kept == report["sources"][0]["documents"] - 2   # the double and the shared one


def test_a_cluster_that_is_not_there():
    """Said at once: Ray itself tries for minutes."""
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    with pytest.raises(ConfigError, match=r"no Ray cluster answers at '127\.0\.0\.1:9'"):
        OverRay("127.0.0.1:9", 1, Preparation(), None)


def test_something_else_that_never_answers():
    """`ray.init` would wait for ever."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        with pytest.raises(ConfigError, match="no answer within 1 s"):
            cluster.probe(address, answer_s=1)
    with pytest.raises(ConfigError, match=r"no Ray cluster answers at 'nowhere://x' \(.*nowhere.*: start one with"):
        cluster.probe("nowhere://x")
