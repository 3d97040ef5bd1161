"""Labelled rows: every form is read, nothing is skipped, and errors name file, row and what to do."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ayllu.data.label_loader import IGNORED, LabelLoader, Texts
from ayllu.data.labelled import Labelled, check_known, names_of, read_labelled, read_texts, split
from ayllu.errors import DataError


def write(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


def jsonl(path, *rows):
    return write(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def test_forms(tmp_path):
    table = write(tmp_path / "a.csv", 'id,text,label\n1,"one, two",good\n2,三四,5\n')
    assert [(r.text, r.label, r.line) for r in read_labelled(table)] == [("one, two", "good", 2), ("三四", "5", 3)]
    lines = jsonl(tmp_path / "a.jsonl", {"review": "x", "stars": 4}, {"review": "y", "stars": 3.0})
    assert [r.label for r in read_labelled(lines, text="review", label="stars")] == ["4", "3"]
    many = jsonl(tmp_path / "m.jsonl", {"text": "x", "label": ["b", "a", "b"]}, {"text": "y", "label": []},
                 {"text": "z", "label": "a|c"}, {"text": "z", "label": '["d"]'})
    assert [r.label for r in read_labelled(many, "multi")] == [("b", "a"), (), ("a", "c"), ("d",)]
    words = jsonl(tmp_path / "w.jsonl", {"text": ["New", "York"], "label": ["B-LOC", "I-LOC"]},
                  {"text": "a b", "label": "O O"})
    assert [r.text for r in read_labelled(words, "tokens")] == [("New", "York"), ("a", "b")]
    number = write(tmp_path / "n.csv", "text,label\nx,1.5\ny,-2\n")
    assert [r.label for r in read_labelled(number, "regression")] == [1.5, -2.0]


def test_parquet_and_gb18030(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    arrow = pytest.importorskip("pyarrow")
    parquet.write_table(arrow.table({"text": ["x", "y"], "label": [1.0, 0.0]}), tmp_path / "a.parquet")
    assert [r.label for r in read_labelled(tmp_path / "a.parquet")] == ["1", "0"]
    chinese = "text,label\n" + "这个酒店很好我们都很喜欢,好\n这个房间不好,坏\n"
    assert read_labelled(write(tmp_path / "gb.csv", chinese, "gb18030"))[0].label == "好"


@pytest.mark.parametrize(("kind", "text", "message"), [
    ("single", "text,label\nx,\ny,a\n", r"1 of 2 rows.*a\.csv, row 2: nothing in column 'label'"),
    ("single", "text,label\n ,a\n", r"row 2: nothing but space in column 'text'"),
    ("single", "body,label\nx,a\n", r"no column 'text'; there are body, label: name it with --text"),
    ("single", "text,mark\nx,a\n", r"no column 'label'; there are text, mark: name it with --label"),
    ("single", "text,label\n", r"holds no row: expected the columns text and label"),
    ("single", "", r"holds no row"),
    ("single", "text,label\nx,a,b\ny,a\n", r"row 2: 3 cells, the header has 2"),
    ("tokens", "text,label\na b,O\n", r"2 words and 1 labels"),
    ("regression", "text,label\nx,much\n", r"should hold a number, found 'much'"),
    ("regression", "text,label\nx,nan\n", r"no number to learn"),
])
def test_faults_are_named(tmp_path, kind, text, message):
    with pytest.raises(DataError, match=message):
        read_labelled(write(tmp_path / "a.csv", text), kind)


def test_a_list_is_no_single_label_and_broken_bytes_are_told(tmp_path):
    with pytest.raises(DataError, match=r"row 1: column 'label' holds a list, not one label: --kind multi"):
        read_labelled(jsonl(tmp_path / "a.jsonl", {"text": "x", "label": ["a"]}))
    (tmp_path / "b.csv").write_bytes(b"text,label\nx\xff\xfe,a\ny,b\n")
    with pytest.raises(DataError, match=r"1 of 2 rows.*b\.csv, row 2: not UTF-8"):
        read_labelled(tmp_path / "b.csv")
    with pytest.raises(DataError, match=r"found \.txt"):
        read_labelled(write(tmp_path / "a.txt", "x"))


def test_unknown_labels_of_a_test_file(tmp_path):
    rows = read_labelled(write(tmp_path / "t.csv", "text,label\nx,a\ny,q\n"))
    with pytest.raises(DataError, match=r"1 labels that the training data doesn't have: .*t\.csv, row 3: 'q'"):
        check_known(rows, ("a", "b"))


def test_names_in_order():
    rows = [Labelled("f", 1, "x", name) for name in ("10", "9", "-1")]
    assert names_of(rows) == ("-1", "9", "10")
    assert names_of([*rows, Labelled("f", 1, "x", "b")]) == ("-1", "10", "9", "b")


@given(st.lists(st.text(min_size=1), max_size=50))
def test_a_split_is_by_content_alone(texts):
    rows = [Labelled("f", i, text, "a") for i, text in enumerate(texts)]
    parts = split(rows, [0.3, 0.2])
    assert sorted(r.line for part in parts for r in part) == list(range(len(rows)))
    sides = {}
    for i, part in enumerate(split(rows[::-1], [0.3, 0.2])):
        for row in part:
            assert sides.setdefault(row.text, i) == i
    assert all(sides[row.text] == i for i, part in enumerate(parts) for row in part)


def test_texts_to_label(tmp_path):
    assert read_texts(write(tmp_path / "a.txt", "one\n\ntwo\n")) == ["one", "two"]
    assert read_texts(jsonl(tmp_path / "a.jsonl", {"t": "x"}), "t") == ["x"]
    with pytest.raises(DataError, match="row 1: no column 'text'"):
        read_texts(jsonl(tmp_path / "b.jsonl", {"t": "x"}))


def test_batches_hold_each_row_once_an_epoch_and_split_by_length():
    texts = Texts([[1] * n for n in (5, 1, 3, 2, 4)], [0, 1, 2, 3, 4])
    loader = LabelLoader(texts, batch_size=5, seed=3)
    batch = loader.batch(7)
    assert sorted(batch.labels.tolist()) == [0, 1, 2, 3, 4]
    parts = list(batch.split(2))
    assert [part.ids.shape for part in parts] == [(2, 2), (2, 4), (1, 5)]
    assert sorted(n for part in parts for n in part.labels.tolist()) == [0, 1, 2, 3, 4]
    for part in parts:
        for ids, label in zip(part.is_token, part.labels, strict=True):
            assert ids.sum() == (5, 1, 3, 2, 4)[label]
    assert torch.equal(loader.batch(7).ids, batch.ids)


def test_labels_of_words_are_padded_with_what_is_ignored():
    batch = Texts([[1, 2, 3], [4]], [[0, IGNORED, 1], [1]]).batch([0, 1])
    assert batch.labels.tolist() == [[0, IGNORED, 1], [1, IGNORED, IGNORED]]
    assert [part.labels.tolist() for part in batch.split(1)] == [[[1]], [[0, IGNORED, 1]]]
