"""`ayllu tokenizer train` and `report`, as a person runs them."""

import gzip
import json

import pytest

from ayllu.cli.main import run
from ayllu.text.tokenizer import Tokenizer

TEXT = "The quick brown fox jumps over the lazy dog. " \
       "我喜欢阅读和编程，今天天气很好。 Привет, мир! def f(x): return x + 1\n"


@pytest.fixture
def trained(tmp_path, capsys):
    (tmp_path / "a.txt").write_text(TEXT * 5, encoding="utf-8")
    with gzip.open(tmp_path / "b.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": line}) + "\n" for line in TEXT.split(". "))
    words = ["tokenizer", "train", str(tmp_path / "a.txt"), str(tmp_path / "b.jsonl.gz"), "--vocab-size", "540",
             "--out", str(tmp_path / "t"), "--threads", "1", "--json"]
    assert run(words) == 0
    return tmp_path, json.loads(capsys.readouterr().out.splitlines()[-1])


def test_train(trained):
    folder, facts = trained
    assert facts["vocab_size"] == 540
    assert facts["read_bytes"][str(folder / "a.txt")] == len(TEXT.encode()) * 5
    assert facts["texts_compared"] > 40
    assert {p.name for p in (folder / "t").iterdir()} == {
        "tokenizer.model", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"}
    tokenizer = Tokenizer.load(folder / "t")
    assert tokenizer.fingerprint == facts["fingerprint"]
    assert tokenizer.decode(tokenizer.encode(TEXT)) == TEXT


def test_report(trained, capsys):
    folder, _ = trained
    files = [str(folder / "t"), str(folder / "t" / "tokenizer.json")]
    assert run(["tokenizer", "report", *files]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["bytes", "per", "token", "t", "tokenizer.json"]
    assert {line.split()[0] for line in lines[1:4]} == {"en", "zh", "de"}
    own = ["--text", f"own={folder / 'a.txt'}", "--text", f"rows={folder / 'b.jsonl.gz'}#text"]
    assert run(["tokenizer", "report", *files, *own, "--out", str(folder / "r.json"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert facts == json.loads((folder / "r.json").read_text())
    assert set(facts["languages"]) == {"own", "rows"}
    assert facts["languages"]["own"]["t"] == facts["languages"]["own"]["tokenizer.json"]
    assert facts["languages"]["own"]["t"]["bytes"] == len(TEXT.encode()) * 5


@pytest.mark.parametrize(("words", "says"), [
    (["report", "no-such-tokenizer"], "no-such-tokenizer"), (["report", "{t}", "--text", "zh"], "LANGUAGE=FILE"),
    (["report", "{t}", "--text", "zh=absent.txt"], "absent.txt"),
    (["train", "absent.txt", "--out", "{t}"], "absent.txt")])
def test_bad_input(trained, capsys, words, says):
    folder, _ = trained
    assert run(["tokenizer", *(w.format(t=folder / "t") for w in words)]) == 2
    assert says in capsys.readouterr().err
