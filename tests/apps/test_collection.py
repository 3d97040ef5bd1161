"""Collections: what is added is found at its place, changes are followed, and only changes cost work."""

import json
import random
import sys
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ayllu.apps.collection import Collection
from ayllu.apps.docqa.overlap import telling
from ayllu.apps.index.cut import columns, cut, page_of, sentences
from ayllu.apps.index.ranking import fused, mixed
from ayllu.apps.index.words import words
from ayllu.cli.main import run
from ayllu.errors import DataError, MissingExtra

TEXT = st.text(st.sampled_from("ab .!?\n。，退货3#— 政策"), max_size=400)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "returns.md").write_text("# Returns\n\nYou may return shoes within 30 days.\n", encoding="utf-8")
    (folder / "退货.txt").write_text("鞋子在三十天之内可以退货。运费由我们承担。", encoding="utf-8")
    (folder / "prices.csv").write_text("item,price\nblue lamp,40\nred chair,90\n", encoding="utf-8")
    return folder


@pytest.fixture
def collection(tmp_path):
    with Collection(tmp_path / "c.sqlite") as found:
        yield found


@given(TEXT, st.lists(st.integers(0, 400), max_size=5), st.integers(8, 60))
def test_chunks_cover_a_text_without_gaps(text, pages, most):
    spans = cut(text, pages, most)
    assert "".join(text[a:b] for a, b in spans) == text
    assert all(a < b for a, b in spans)
    assert all(a == b for (_, a), (b, _) in pairwise(spans))
    longest = max((columns(piece) for piece in text.split()), default=0)
    assert all(columns(text[a:b].strip()) <= most + most // 8 + min(longest, 130) for a, b in spans)
    for page in pages:
        assert not any(a < page < b for a, b in spans if page < len(text))


@given(TEXT)
def test_sentences_are_places_in_the_text_in_order(text):
    spans = sentences(text)
    assert all(text[a:b] == text[a:b].strip() != "" for a, b in spans)
    assert all(b <= c for (_, b), (c, _) in pairwise(spans))
    assert "".join("".join(text[a:b] for a, b in spans).split()) == "".join(text.split())


def test_a_full_stop_within_a_number_ends_no_sentence():
    text = "It costs 3.5 dollars. 很好。Yes"
    assert [text[a:b] for a, b in sentences(text)] == ["It costs 3.5 dollars.", "很好。", "Yes"]


def test_a_page_is_the_last_one_that_has_begun():
    assert [page_of(i, (0, 10, 10, 20)) for i in (0, 9, 10, 19, 25)] == [1, 1, 3, 3, 4]
    assert page_of(5, ()) is None


def test_chinese_is_found_by_words_pairs_and_characters():
    assert {"退货", "政策", "货", "货政"} <= set(words("退货政策"))
    assert words("ＡＢＣ don't") == ["abc", "dont"]


def test_what_is_added_is_found_at_its_place(folder, collection):
    summary = collection.add([folder], workers=2)
    assert (summary.added, summary.left_out) == (3, {})
    for question, name in (("return shoes", "returns.md"), ("退货", "退货.txt"), ("货", "退货.txt"),
                           ("What does the lamp cost?", "prices.csv")):
        first = collection.search(question)[0]
        assert first.source == str(folder / name), question
        assert collection.text(first.document)[first.start:first.end] == first.text
        assert collection.text(first.document, first.start, first.end) == first.text
    assert collection.search("") == collection.search("...") == collection.search("zebra") == []
    for where, name in (({"kind": "csv"}, "prices.csv"), ({"source": "*退货*"}, "退货.txt")):
        assert {p.source for p in collection.search("shoes 退货 lamp", where=where)} == {str(folder / name)}


def test_only_changes_are_read(folder, collection):
    collection.add([folder], {"shop": "north"}, workers=1)
    again = collection.add([folder], {"shop": "north"}, workers=1)
    assert (again.added, again.updated, again.unchanged, again.removed) == (0, 0, 3, 0)
    (folder / "returns.md").write_text("You may return hats within 14 days.", encoding="utf-8")
    (folder / "prices.csv").unlink()
    (folder / "new.txt").write_text("The moon shop opens at nine.", encoding="utf-8")
    summary = collection.update(workers=1)
    assert (summary.added, summary.updated, summary.unchanged, summary.removed) == (1, 1, 1, 1)
    assert collection.search("lamp") == collection.search("shoes") == []
    assert "hats" in collection.search("hats")[0].text
    assert collection.search("moon", where={"shop": "north"})
    assert not collection.search("moon", where={"shop": "south"})
    assert collection.remove([str(folder)]) == 3
    assert len(collection) == 0
    for table in ("chunks", "found", "bands", "left_out"):
        assert collection.store.one(f"SELECT count(*) FROM {table}") == 0
    with pytest.raises(DataError, match="no document"):
        collection.remove(["nothing"])


def test_any_order_of_changes_ends_as_a_fresh_reading(folder, tmp_path):
    """A random walk of writes and removals, followed step by step, against one that reads only the end."""
    rng = random.Random(5)
    with Collection(tmp_path / "steps.sqlite") as steps, Collection(tmp_path / "fresh.sqlite") as fresh:
        for i in range(6):
            for name in rng.sample(["a.txt", "b.txt", "c.md", "returns.md"], 2):
                file = folder / name
                if file.exists() and rng.random() < 0.4:
                    file.unlink()
                else:
                    file.write_text(f"note {rng.randrange(4)} of step {i} 退货 {name}\n\n" * rng.randrange(1, 40))
            steps.add([folder], workers=1)
        fresh.add([folder], workers=1)
        content = "SELECT d.source, c.start, c.text, f.words FROM chunks c JOIN documents d ON d.id = c.document " \
                  "JOIN found f ON f.rowid = c.id ORDER BY 1, 2"
        assert [tuple(r) for r in steps.store.rows(content)] == [tuple(r) for r in fresh.store.rows(content)]
        assert {p.text for p in steps.search("note 退货", k=20)} == {p.text for p in fresh.search("note 退货", k=20)}


def test_a_stopped_reading_goes_on(folder, collection):
    def stop(done, of, name):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collection.add([folder], progress=stop, workers=1)
    assert len(collection) == 2
    summary = collection.add([folder], workers=1)
    assert (summary.added, summary.unchanged) == (1, 2)


def test_doubles_are_recognised(folder, collection):
    text = " ".join(f"word{i} of the long terms of this shop" for i in range(60))
    (folder / "terms-1.txt").write_text(text)
    (folder / "terms-2.txt").write_text(text + " and one more")
    (folder / "terms-3.txt").write_text(text.upper() + "!")
    summary = collection.add([folder], workers=1)
    assert summary.alike == {str(folder / "terms-2.txt"): str(folder / "terms-1.txt"),
                             str(folder / "terms-3.txt"): str(folder / "terms-1.txt")}
    (folder / "copy.txt").write_bytes((folder / "terms-1.txt").read_bytes())
    collection.add([folder], workers=1)
    first = collection.search("word7")[0]
    assert {first.source, *first.also} >= {str(folder / "terms-1.txt"), str(folder / "copy.txt")}


def test_another_programs_file_is_left_alone(tmp_path):
    import sqlite3
    other = tmp_path / "other.sqlite"
    with sqlite3.connect(other) as db:
        db.execute("CREATE TABLE things (a)")
    (tmp_path / "text.txt").write_text("no database " * 100)
    before = other.read_bytes()
    for name in ("other.sqlite", "text.txt"):
        with pytest.raises(DataError, match="no collection"):
            Collection(tmp_path / name)
    assert other.read_bytes() == before


@given(st.permutations(range(8)), st.permutations(range(8)))
def test_fusion_with_one_weight_is_that_ranking(a, b):
    assert [i for i, _ in fused([(1.0, a), (0.0, b)])] == list(a)
    assert [i for i, _ in fused([(0.0, a), (0.3, b)])] == list(b)
    both = fused([(0.5, a), (0.5, b)])
    assert sorted(i for i, _ in both) == sorted(a)
    slow = {i: 0.5 / (61 + a.index(i)) + 0.5 / (61 + b.index(i)) for i in range(8)}
    assert all(score == pytest.approx(slow[i]) for i, score in both)


@given(st.lists(st.floats(0.1, 9), min_size=1, max_size=8, unique=True), st.integers(1, 8),
       st.floats(0.01, 0.99))
def test_mixed_scores_are_the_sum_of_both_scaled(scores, deep, weight):
    said = [(i, score) for i, score in enumerate(sorted(scores, reverse=True))][:deep]
    near = [(i, i / 9 - 0.5) for i in range(8, 2, -1)]
    assert [i for i, _ in mixed(said, near, 0, deep)] == [i for i, _ in said]
    assert [i for i, _ in mixed(said, near, 1, deep)] == [i for i, _ in near]
    floor = said[-1][1] if len(said) == deep else 0      # what few share a word with: the others score 0 by BM25
    low = near[-1][1] if len(near) == deep else -1       # and a cosine is never below -1
    slow = {i: (1 - weight) * (s - floor) / ((said[0][1] - floor) or 1) for i, s in said}
    for i, s in near:
        slow[i] = slow.get(i, 0) + weight * (s - low) / (near[0][1] - low)
    found = mixed(said, near, weight, deep)
    assert dict(found) == pytest.approx(slow)
    assert [s for _, s in found] == sorted(dict(found).values(), reverse=True)


def test_the_only_chunk_with_a_word_of_the_question_leads_where_words_count_for_more():
    assert mixed([(7, 2.5)], [(1, 0.9), (7, 0.1)], 0.45, 100)[0][0] == 7


def test_a_summary_speaks_to_people(folder, collection):
    (folder / "empty.txt").write_text("")
    (folder / "picture.png").write_bytes(b"x")
    lines = "\n".join(collection.add([folder], workers=1).lines())
    assert "3 added, 1 left out" in lines
    assert "empty.txt: the file is empty" in lines
    assert "1 .png" in lines
    assert json.dumps(collection.left_out())


def test_only_chinese_needs_the_package_that_cuts_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "rjieba", None)
    assert words("Kettles can be RETURNED.") == ["kettles", "can", "be", "returned"]
    with pytest.raises(MissingExtra, match="documents"):
        words("退货")
    assert telling("Can the kettles be returned?") == ["kettl", "return"]     # their stems


def test_a_collection_is_kept_in_step_from_any_folder(tmp_path, monkeypatch, capsys):
    """A relative path would mean another folder there, and all documents would be forgotten."""
    for name in ("文档", "elsewhere"):
        (tmp_path / name).mkdir()
    (tmp_path / "文档" / "帽子 一.txt").write_text("Hats cost 4 coins.")
    monkeypatch.chdir(tmp_path)
    assert run(["documents", "add", "c.sqlite", "文档"]) == 0
    monkeypatch.chdir("elsewhere")
    assert run(["documents", "update", "../c.sqlite"]) == 0
    assert "1 unchanged" in capsys.readouterr().out
    monkeypatch.chdir(tmp_path)
    assert run(["documents", "remove", "c.sqlite", "文档/帽子 一.txt"]) == 0
    assert run(["ask", "c.sqlite", "What do hats cost?"]) == 2
    assert "holds no documents" in capsys.readouterr().err
    with Collection("old.sqlite") as old:
        old.add(["文档"])
        monkeypatch.chdir("elsewhere")
        with pytest.raises(DataError, match="文档 is no file or folder here"):
            old.update()
        assert len(old) == 1
