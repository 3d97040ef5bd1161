"""Items planted in training text are found, in shards and in files; others aren't, whatever stands around them."""

import json
import random

from ayllu.cli.main import run as ayllu
from ayllu.data.corpus import Corpus, Source
from ayllu.data.shards import prepare_into
from ayllu.evaluate.contamination import overlaps, trained_on, training_texts
from ayllu.evaluate.task import Item
from ayllu.text.tokenizer import Tokenizer

WORDS = ["fox", "river", "bird", "star", "book", "king", "castle", "moon", "child", "garden", "stone", "winter",
         "bread", "train", "letter", "song"]


def sentence(rng, n=20):
    return " ".join(rng.choice(WORDS) for _ in range(n))


def item(name, prompt, expected=None):
    return Item(name, {}, prompt, expected)


def slow(items, texts, n=13):
    """Every run of n words of every item, looked for in every text."""
    found = set()
    for one in items:
        words = one.prompt.lower().split()
        runs = [" ".join(words[i:i + n]) for i in range(len(words) - n + 1)]
        if any(f" {run} " in f" {text.lower()} " for run in runs for text in texts):
            found.add(one.id)
    return found


def test_planted_items_are_found_and_no_others():
    rng = random.Random(0)
    items = [item(str(i), sentence(rng)) for i in range(40)]
    texts = [sentence(rng, 200) for _ in range(20)]
    for i in (3, 17):
        texts[i] += " " + items[i].prompt
    texts[5] += " " + " ".join(items[5].prompt.split()[:12])               # one word short of a run
    found = overlaps({"t": [*items, item("short", "the fox")]}, texts)["t"]
    assert found.dirty == slow(items, texts) == {"3", "17"}
    assert found.table() == {"checked": 40, "dirty": 2, "too_short": 1}
    assert overlaps({"t": items}, [])["t"].dirty == frozenset()


def test_an_answer_counts_and_chinese_by_characters():
    zh = "从前有一只小狐狸它每天都在河边读书给小鸟听"
    items = [item("zh", zh), item("answer", "Q", [sentence(random.Random(1))])]
    assert overlaps({"t": items}, [f"他说：{zh[4:17]}。"])["t"].dirty == {"zh"}
    assert overlaps({"t": items}, [sentence(random.Random(1))])["t"].dirty == {"answer"}


def test_texts_of_shards_and_of_rows(tmp_path, tiny_checkpoint):
    rng = random.Random(0)
    documents = [sentence(rng, 30) for _ in range(12)]
    file = tmp_path / "texts.jsonl"
    file.write_text("".join(json.dumps({"text": d}) + "\n" for d in documents), encoding="utf-8")
    tokenizer = Tokenizer.load(tiny_checkpoint / "tokenizer.model")
    corpus = Corpus(sources=(Source(path="texts.jsonl", language="en"),), held_out=0.0)
    shards = prepare_into(tmp_path / "shards", corpus, tmp_path, tiny_checkpoint / "tokenizer.model", workers=1)
    assert sorted(training_texts([shards.folder], tokenizer)) == sorted(documents)
    rows = tmp_path / "chats.jsonl"
    rows.write_text(json.dumps({"messages": [{"role": "user", "content": documents[0]}]}) + "\n", encoding="utf-8")
    assert documents[0] in list(training_texts([rows], tokenizer))


def test_the_command_says_what_the_models_own_data_hold(tmp_path, tiny_checkpoint, capsys):
    rng = random.Random(0)
    texts = [sentence(rng) for _ in range(6)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts), encoding="utf-8")
    (tmp_path / "t.toml").write_text('[tasks.t]\nfile = "rows.jsonl"\nkind = "perplexity"\nprompt = "{{ text }}"\n',
                                     encoding="utf-8")
    (tmp_path / "seen.txt").write_text(" ".join([sentence(rng, 60), texts[2], texts[4]]), encoding="utf-8")
    line = ["evaluate", str(tiny_checkpoint), "--task", str(tmp_path / "t.toml"), "--out", str(tmp_path / "out")]
    assert ayllu(line) == 0
    assert "contamination: not checked" in capsys.readouterr().out
    assert ayllu([*line, "--trained-on", str(tmp_path / "seen.txt"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])["tasks"]["t"]["contamination"]
    assert (found["dirty"], found["checked"], found["clean"]["n"]) == (2, 6, 4)
    assert len(json.loads((tmp_path / "out" / "t.dirty.json").read_text(encoding="utf-8"))["dirty"]) == 2
    run = tmp_path / "run"
    (run / "model").mkdir(parents=True)
    recipe = {"folder": str(tmp_path), "data": {"root": "deep", "sources": [{"path": "rows.jsonl"},
                                                                           {"path": "gone.jsonl"}]}}
    (run / "config.json").write_text(json.dumps(recipe), encoding="utf-8")
    (run / "model" / "data.json").write_text(json.dumps({"sources": [{"path": "held_out.jsonl"}]}), encoding="utf-8")
    (tmp_path / "deep").mkdir()
    (tmp_path / "rows.jsonl").rename(tmp_path / "deep" / "rows.jsonl")
    assert trained_on(run / "model") == [tmp_path / "deep" / "rows.jsonl"]
    assert trained_on(tiny_checkpoint) == []
