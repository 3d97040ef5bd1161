"""`ayllu translate`, run as a user runs it, with the bundled model."""

import json
import os
import subprocess
import sys

import pytest

from ayllu.cli.main import run


@pytest.fixture
def words(tmp_path):
    page = tmp_path / "page.html"
    page.write_text('<html lang="en"><meta charset="utf-8"><p>I like <b>dogs</b>.</p>')
    return ["translate", str(page), "--to", "zh", "--from", "en", "--memory", str(tmp_path / "memory.sqlite"), "--json"]


def report(capsys):
    return json.loads(capsys.readouterr().out.splitlines()[-1])["files"]


def test_a_page_and_again_from_the_memory(words, tmp_path, capsys):
    assert run(words) == 0
    found, = report(capsys)
    assert (tmp_path / "page.zh.html").read_text() == '<html lang="zh"><meta charset="utf-8"><p>我喜欢<b>狗</b>。</p>'
    assert (found["by"], found["out"]) == ({"model": 1}, str(tmp_path / "page.zh.html"))
    assert run([*words, "--out", str(tmp_path / "other.html")]) == 0
    assert report(capsys)[0]["by"] == {"memory": 1}
    assert (tmp_path / "other.html").read_text() == (tmp_path / "page.zh.html").read_text()


def test_one_bad_file_stops_no_other(words, tmp_path, capsys):
    (tmp_path / "bad.docx").write_bytes(b"none")
    assert run([words[0], str(tmp_path / "bad.docx"), *words[1:]]) == 0
    said = capsys.readouterr()
    bad, good = json.loads(said.out.splitlines()[-1])["files"]
    assert "no readable DOCX" in bad["error"]
    assert good["segments"] == 1
    assert said.err.splitlines()[-2] == "2 files: 1 translated, 1 left out"
    assert said.err.splitlines()[-1].startswith(f"  left out: {tmp_path / 'bad.docx'}: this is no readable DOCX")


def test_one_refused_address_stops_no_file(words, capsys):
    assert run([words[0], "http://127.0.0.1:1/", *words[1:]]) == 0
    refused, good = report(capsys)
    assert "no public address" in refused["error"]
    assert good["segments"] == 1


@pytest.mark.parametrize(("more", "says"), [
    (["x.exe"], "aren't translated"), ([], "nothing to translate"), (["--serve", "none"], "no such folder"),
    (["a.html", "--to", "tlh"], "isn't known"), (["a.html", "--prompt", "x"], "needs {text}"),
    (["http://127.0.0.1:1/"], "no public address")])
def test_what_is_wrong_is_said(more, says, tmp_path, capsys):
    assert run(["translate", "--no-memory", *more]) == 2
    assert says in capsys.readouterr().err


def test_a_text_through_a_pipe(tmp_path):
    done = subprocess.run([sys.executable, "-m", "ayllu", "translate", "-", "--from", "en", "--no-memory"],
                          input="I like dogs.\n", capture_output=True, encoding="utf-8", timeout=120,
                          env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()})
    assert (done.returncode, done.stdout) == (0, "我喜欢狗。\n")
    assert "small model" in done.stderr
