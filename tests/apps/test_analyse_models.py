"""Heads, few labelled rows and ranked labels in an analysis, with the bundled model."""

import csv
import json

import pytest
import torch

from ayllu.apps.analyse.config import Analysis
from ayllu.apps.analyse.posts import Post
from ayllu.apps.analyse.reading import Reader
from ayllu.apps.analyse.run import SAMPLE, analyse
from ayllu.apps.analyse.scorers import Scorers
from ayllu.checkpoint.head_file import HeadFacts, write_weights
from ayllu.checkpoint.load import load_checkpoint
from ayllu.errors import CheckpointError, ConfigError, DataError
from ayllu.model.heads import Classifier, HeadConfig

POSTS = [Post("1", "I love the sound"), Post("2", "太差了，退货")]


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """A head of random weights on the bundled body."""
    folder = tmp_path_factory.mktemp("head")
    loaded = load_checkpoint("ayllu-mini", dtype="float32")
    config = HeadConfig(n_outputs=2)
    model = Classifier(loaded.model, config)
    torch.nn.init.normal_(model.score.weight, std=0.5, generator=torch.Generator().manual_seed(0))
    write_weights(folder, model, HeadFacts(head=config, body=model.config, names=("negative", "positive"), context=64,
                                           too_long="begin"))
    loaded.tokenizer.save(folder)
    return folder


def labelled(path, rows):
    lines = (json.dumps({"text": text, "label": label}) + "\n" for text, label in rows)
    path.write_text("".join(lines), encoding="utf-8")
    return str(path)


def test_a_head_takes_the_lexicons_place_and_explains_by_leaving_words_out(head, tmp_path):
    few = tmp_path / "few.csv"
    with open(SAMPLE, encoding="utf-8") as rows, open(few, "w", encoding="utf-8") as out:
        out.writelines([next(rows) for _ in range(5)])
    summary = analyse(few, tmp_path / "out", Analysis(heads={"sentiment": str(head)}))
    assert summary["told"]["sentiment"].startswith("the head")
    shown = [row for rows in summary["examples"].values() for row in rows]
    assert shown
    assert all(row["why"] for row in shown)
    rows = [json.loads(line) for line in (tmp_path / "out/posts.jsonl").read_text(encoding="utf-8").splitlines()]
    assert not any("why" in row for row in rows)         # reading each post a word shorter, again and again, costs
    reader = Reader(Analysis(heads={"sentiment": str(head)}))
    row, = reader(POSTS[:1])
    whole, without = reader.scorers.sentiment([row["text"], "I the sound"])
    reader.explain(row)
    effect, = (effect for start, end, effect in row["why"] if row["text"][start:end] == "love")
    assert effect == pytest.approx(whole - without, abs=2e-3)    # rounded, and in batches of other sizes


def test_other_heads_add_labels(head):
    rows = Reader(Analysis(heads={"mood": str(head)}))(POSTS)
    assert all(row["labels"]["mood"][0] in ("negative", "positive") for row in rows)
    assert rows[0]["sentiment"] == "positive"            # still the lexicon's


def test_few_rows_are_learned_beside_the_lexicon(tmp_path):
    rows = [(f"{word} earbuds number {i}", label) for i in range(12)
            for word, label in (("great", "positive"), ("terrible", "negative"))]
    file = labelled(tmp_path / "rows.jsonl", rows)
    reader = Reader(Analysis(examples={"sentiment": file}))
    assert reader.scorers.sentiment(["great earbuds number 40"])[0] > 0.8
    assert reader.scorers.sentiment(["terrible earbuds number 40"])[0] < 0.2
    assert "24 rows" in reader.scorers.by_name["sentiment"].told
    with pytest.raises(DataError, match="two or more"):
        Reader(Analysis(examples={"x": labelled(tmp_path / "one.jsonl", [("a", "b")])}))


def test_ranked_labels_are_probabilities():
    row, _ = Reader(Analysis(zero_shot={"kind": ("question", "praise")}))(POSTS)
    label, p = row["labels"]["kind"]
    assert label in ("question", "praise")
    assert 0.5 <= p <= 1


def test_a_small_model_that_guesses_labels_says_so(caplog):
    Scorers(Analysis(zero_shot={"tone": ("good", "bad")}))
    assert "labels without examples are a guess" in caplog.text


def test_what_does_not_fit_is_said(head, tmp_path):
    with pytest.raises(ConfigError, match="two ways"):
        Reader(Analysis(heads={"x": str(head)}, zero_shot={"x": ("a", "b")}))
    with pytest.raises(CheckpointError):
        Reader(Analysis(heads={"x": str(tmp_path)}))


def test_a_folder_of_tables_with_other_columns_each(tmp_path):
    for name, column in (("a.csv", "content"), ("b.csv", "评论")):
        with open(tmp_path / name, "w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([[column], ["很好"], ["bad"]])
    assert analyse(tmp_path, tmp_path / "out")["posts"] == 4
