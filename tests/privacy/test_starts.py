"""Searching only where a form can begin finds what searching everywhere finds."""

import json
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from ayllu.privacy.pii import RULES, Span, find
from ayllu.privacy.starts import Starts

SHARED = Path(__file__).parents[3] / "shared" / "data"
PIECES = st.sampled_from([
    *"0123456789+()-. :/@%'_ xé（０１）－", "10", "138", "2001:db8", "::", "fe80", "身份证号", "110105", "19491231",
    "password", "PWD", "api_key=", "a1b2c3d4e5f6", "sk-", "ghp_", "eyJ", "://", "DE89", "3704", "4111 1111 1111 1111",
    "219-09-9998", "call me on ", "电话", "user@example.org", "İ", "ſecret", "+1 ", "+(", "(0", "400-", "12345678"])
HARD = st.lists(PIECES, max_size=25).map("".join)


def find_everywhere(text):
    """The slow twin: each pattern is searched for from each place."""
    text = text.translate(str.maketrans("０１２３４５６７８９（）＋－", "0123456789()+-")) if any(
        w in text for w in "０１２３４５６７８９") or "（0" in text else text
    taken, marks = [], bytearray(len(text))
    for rule in RULES:
        place = 0
        while match := rule.pattern.search(text, place):
            start, end = match.span("it")
            place = end
            if any(marks[start:end]):
                continue
            if rule.check(match["it"]) and (rule.cue is None or rule.cue(text, start, end)):
                marks[start:end] = b"\1" * (end - start)
                taken.append(Span(start, end, rule.kind))
            else:
                place = start + 1
    return sorted(taken)


@given(HARD)
def test_made_up_texts(text):
    assert find(text) == find_everywhere(text)


@given(HARD)
def test_starts_are_in_order_and_hold_every_match(text):
    for rule in RULES:
        places = list(rule.starts(Starts(text)))
        assert places == sorted(places)
        assert {m for m in range(len(text)) if rule.pattern.match(text, m)} <= set(places), rule.kind


@pytest.mark.parametrize("name", ["presidio_pii/test", "classic_books_en/train", "vernacular_zh/train",
                                  "tech_docs_zh/train", "python_docs_en_zh/train", "tatoeba_en_zh/train"])
def test_real_texts(name):
    """The first 300,000 characters of each; addresses and numbers stand in the first one and in the documentation."""
    path = SHARED / f"{name}.jsonl.zst"
    if not path.exists():
        pytest.skip(f"shared/data/{name} is missing")
    left = 300_000
    with zstandard.open(path, "rt", encoding="utf-8") as stream:
        for line in stream:
            text = "\n".join(value for value in json.loads(line).values() if isinstance(value, str))[:left]
            assert find(text) == find_everywhere(text)
            left -= len(text)
            if not left:
                break
