"""`ayllu walk` on a trained model of 260 thousand parameters."""

import json
from pathlib import Path

import pytest

from ayllu.cli.main import run

STORIES = Path(__file__).parents[3] / "shared/data/llama2c/stories260K.bin"
IDS = "1,403,261,378,455,473"

pytestmark = pytest.mark.skipif(not STORIES.exists(), reason="needs ../shared/data/llama2c/stories260K.bin")


def test_json(capsys):
    assert run(["walk", "--ids", IDS, "--model", str(STORIES), "--layer", "-1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["agrees"]
    assert (found["layer"], found["ids"]) == (4, [1, 403, 261, 378, 455, 473])
    assert len(found["steps"]) == 17


def test_greedy_choice_equals_llama2c(capsys):
    """llama2.c's own program continues BOS with 461 461 401 401 (../shared/data/llama2c/README.md)."""
    for ids, follows in (("1", 461), ("1,461", 461), ("1,461,461", 401), ("1,461,461,401", 401)):
        assert run(["walk", "--ids", ids, "--model", str(STORIES), "--json"]) == 0
        assert json.loads(capsys.readouterr().out.splitlines()[-1])["next"][0]["id"] == follows


def test_terminal_in_both_languages(capsys):
    assert run(["walk", "--ids", IDS, "--model", str(STORIES)]) == 0
    out = capsys.readouterr().out
    assert "7. Who looks at whom  (layer 0)" in out
    assert "q (T, H, E) = 6 × 8 × 8" in out
    assert "✗" not in out
    assert "\x1b" not in out                             # piped: no colours
    assert run(["walk", "--ids", IDS, "--model", str(STORIES), "--zh"]) == 0
    assert "谁在看谁" in capsys.readouterr().out


def test_page(tmp_path: Path, capsys):
    assert run(["walk", "--ids", IDS, "--model", str(STORIES), "--out", str(tmp_path / "walk.html")]) == 0
    assert capsys.readouterr().out == ""
    assert (tmp_path / "walk.html").read_text(encoding="utf-8").startswith("<!doctype html>")


@pytest.mark.parametrize(("words", "says"), [
    (["--ids", "1,x"], "should be numbers"), (["--ids", "1", "--layer", "9"], "layers 0 to 4"),
    (["--ids", ",".join("1" * 49)], "at most 48"), (["--ids", "9999"], "9999"), ([], "--ids")])
def test_bad_input(words: list[str], says: str, capsys):
    assert run(["walk", *words, "--model", str(STORIES)]) == 2
    assert says in capsys.readouterr().err
