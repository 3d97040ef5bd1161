"""The checks: each finds what it should and nothing else, with its place."""

import gzip
import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ayllu.apps.write.brief import Brief
from ayllu.apps.write.checks import check, claims, covered, repetition
from ayllu.apps.write.copies import K, Sources, W, read_sources
from ayllu.apps.write.measure import units
from ayllu.errors import DataError

WORDS = [f"w{i}" for i in range(400)]


def report(text, **fields):
    return check(text, Brief(topic=fields.pop("topic", "x"), **fields))


def test_length_counts_words_or_characters_without_headings():
    found = report("# Title here\n\n" + "word " * 50, length=50)
    assert (found.length, found.target, found.unit, found.faults) == (50, 50, "words", ["repetition"])
    assert report("字" * 30, topic="字", length=100).faults[0] == "length"
    assert report("字" * 30, topic="字", length=100).unit == "characters"


def test_keywords_are_said_or_told():
    found = report("# Nest\n\nThe birds of the sea.", keywords=("bird", "the sea", "nest"))
    assert found.missing == ["nest"]                     # a heading is no sentence
    assert "keywords" in found.faults
    assert "keywords" not in report("海上有鸟。", topic="海", keywords=("海上", "鸟")).faults


def test_points_are_covered_by_words():
    text = "Solar panels are cheaper now, and batteries store their power at night. 政府应当保护个人隐私和数据。"
    assert covered("cheap solar panel", text) > 0.6
    assert covered("storing power in batteries", text) >= 0.6
    assert covered("wind turbines at sea", text) < 0.6
    assert covered("保护隐私", text) >= 0.6
    assert covered("空气污染", text) < 0.6
    assert covered("the", text) == 1
    found = report(text, points=("cheaper panels", "wind turbines"))
    assert [p["covered"] for p in found.points] == [True, False]
    assert "points" in found.faults


def test_forbidden_words_are_whole_words_in_english_and_anywhere_in_chinese():
    text = "Start the art of ART. 我们的科技时代。"
    found = report(text, forbidden=("art", "科技"))
    assert [(s.text, text[s.start:s.end]) for s in found.forbidden] == [
        ("art", "art"), ("ART", "ART"), ("科技", "科技")]


def test_repetition_of_runs_and_sentences():
    assert repetition(list("abcdabcd")) == pytest.approx(0.2)
    assert repetition(["a", "b"]) == 0
    text = "The sea is cold today. We go home. We go home. The sea is cold today."
    found = report(text)
    assert [text[s.start:s.end] for s in found.repeated] == ["The sea is cold today."]
    assert "repetition" in found.faults


def test_claims_are_sentences_with_numbers():
    text = ("# 10 tips\n\n1. Be kind.\n2. In 1999 it grew by 3.5%.\n\nNo number here. 超过三百万人受益。一起走吧。"
            "人口增长了百分之五。")
    wanted = ["In 1999 it grew by 3.5%.", "超过三百万人受益。", "人口增长了百分之五。"]
    assert [text[s.start:s.end] for s in claims(text)][1:] == wanted
    assert [s.text for s in report(text).claims] == wanted


@pytest.mark.parametrize("told", [
    "Two million people live here.", "Half of all users left.", "In the nineteenth century it began.",
    "About two thirds agreed.", "三分之二的人同意。", "一半的用户离开了。", "有两千名员工。", "十几个国家加入了。",
    "增长了二十％。"])
def test_claims_may_spell_their_numbers(told):
    assert claims(told)


@pytest.mark.parametrize("told", ["He has one cat.", "One must go on.", "全世界第一。", "一个人走了。", "十分美丽。"])
def test_one_and_the_like_claim_nothing(told):
    assert not claims(told)


def longest_common(a, b):
    """The slow twin: the longest run of equal units, by trying all."""
    return max((n for i in range(len(a)) for j in range(len(b))
                for n in [next((k for k in range(min(len(a) - i, len(b) - j)) if a[i + k] != b[j + k]),
                               min(len(a) - i, len(b) - j))]), default=0)


@given(st.integers(0, 10**6), st.integers(0, 24), st.booleans())
def test_copies_of_a_guaranteed_length_are_found_and_are_real(seed, n, is_chinese):
    draw = random.Random(seed)
    alphabet = [chr(0x4e00 + i) for i in range(300)] if is_chinese else WORDS
    join = "" if is_chinese else " "
    source = [draw.choice(alphabet) for _ in range(60)]
    at = draw.randrange(60 - n)
    text = join.join([*(draw.choice(alphabet) for _ in range(20)), *source[at:at + n],
                      *(draw.choice(alphabet) for _ in range(20))])
    found = Sources([("other", "nothing of it"), ("book", join.join(source))]).copies(text)
    mine, theirs = [u.text for u in units(text)], [u.text for u in units(join.join(source))]
    k = K["zh" if is_chinese else "en"]
    longest = longest_common(mine, theirs)
    if longest >= k + W - 1:
        assert max(copy.n_units for copy in found) == longest
    for copy in found:
        assert copy.source == "book"
        assert copy.n_units >= k
        assert text[copy.start:copy.end] == copy.text
        assert join.join(source)[copy.source_start:].startswith(copy.text)


def test_a_copy_is_seen_through_case_and_punctuation():
    text = "As he said: IT WAS, the best of times; it was the worst -- of times! And so on."
    sources = Sources([("two cities", "It was the best of times, it was the worst of times, it was the age")])
    found = sources.copies(text)
    assert [(c.n_units, c.source_start) for c in found] == [(12, 0)]
    assert text[found[0].start:found[0].end].startswith("IT WAS")
    assert Sources([]).copies(text) == []


def test_copies_of_texts_too_many_for_an_index(tmp_path):
    """Read through for each text, whatever they are packed in; a place is told once, with file and row."""
    ours = "It was the best of times, it was the worst of times, it was the age of wisdom"
    rows = [{"text": f"row {i} of many"} for i in range(50)] + [{"text": f"He wrote: {ours.upper()}!"}] * 2
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    (tmp_path / "b.txt").write_text("在很久很久以前有一座山山里有一座庙")
    sources = read_sources([], [tmp_path])
    assert [(c.source, c.text, c.n_units) for c in sources.copies(f"So: {ours}. And on.")] == [
        (f"{tmp_path.name}/a.jsonl.gz, row 51", ours, 18)]
    found, = sources.copies("他说：在很久很久以前，有一座山，山里有一座庙。")
    assert (found.source, found.source_start, found.n_units) == (f"{tmp_path.name}/b.txt", 0, 17)
    assert sources.copies("It was the best of times that anybody had in all those years") == []
    assert sources.unread == ""


def test_training_rows_of_any_columns_are_compared_and_what_is_not_is_told(tmp_path):
    """As pretraining reads them by `fields`, and conversations too; whatever can't be compared is counted and named."""
    ours = "It was the best of times, it was the worst of times, it was the age of wisdom"
    rows = [{"prompt": "Go on", "answer": ours}, {"messages": [{"role": "user", "content": f"Say: {ours}"}]},
            {"title": "It was the best of times, it was", "body": "the worst of times, it was the age of wisdom"}]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(row) for row in [*rows, {"id": 4}, {"id": 5}]))
    (tmp_path / "b.csv").write_text(f'story,when\n"{ours}",2026\n')
    (tmp_path / "c.pdf").write_bytes(b"%PDF")
    for number in (1, 2, 3):
        (tmp_path / "one.jsonl").write_text(json.dumps(rows[number - 1]))
        one = read_sources([], [tmp_path / "one.jsonl"])
        assert [(c.source, c.n_units) for c in one.copies(ours)] == [("one.jsonl, row 1", 18)]
    (tmp_path / "one.jsonl").unlink()
    sources = read_sources([], [tmp_path])
    assert [c.n_units for c in sources.copies(ours)] == [18]
    assert read_sources([], [tmp_path / "b.csv"]).copies(ours)[0].source == "b.csv, row 2"
    assert sources.unread == ("files of the training text that aren't read: 1 .pdf; 2 rows of the training text can't "
                              f"be read, the first {tmp_path.name}/a.jsonl, row 4: no text in its columns id")
    report = check(ours, Brief(topic="x"), sources)
    assert (report.faults.count("copies"), report.unread, report.as_json()["unread"]) == (1, *[sources.unread] * 2)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no file to read"):
        read_sources([], [tmp_path / "empty"])
