"""Sections, and which one answers a question."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ayllu.apps.support.match import Matcher, edits, stem
from ayllu.apps.support.sections import sections_of

PAGE = """# Returns

## How long you have
You may return a mug within 30 days.

## Costs
Returns are free.   

### Abroad
You pay the postage."""
TABLE = "item | price | care\nCrane mug: x; price: 16\nitem: Travel cup; price: 27; care: wash the lid: by hand"


def test_markdown_by_headings():
    found = sections_of("returns.md", "markdown", "Returns", PAGE)
    assert [s.heading for s in found] == ["How long you have", "Costs", "Abroad"]
    assert [s.text for s in found][1] == "Returns are free."
    assert all(PAGE[s.start:s.end] == s.text for s in found)
    assert found[0].language == "en"


def test_tables_by_rows():
    found = sections_of("goods.csv", "csv", "", TABLE)
    assert [s.heading for s in found] == ["x", "Travel cup"]
    assert all(TABLE[s.start:s.end] == s.text for s in found)


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="ab#: ;\n|", max_size=80), st.sampled_from(["markdown", "csv", "text"]))
def test_every_section_stands_where_it_says(text, kind):
    for section in sections_of("x", kind, "", text):
        assert text[section.start:section.end] == section.text
        assert section.text.strip()


@pytest.fixture(scope="module")
def matcher():
    texts = {"returns.md": "# Returns\n## Time\nYou have 30 days.\n## Costs\nReturns from Austria are free.",
             "lamps.md": "# Lamps\n## Care\nWipe the lamp with a dry cloth.\n## Warranty\nLamps have three years.",
             "退货.md": "# 退货\n## 期限\n收到后三十天内可以退货。\n## 费用\n退货免费。"}
    sections = [s for name, text in texts.items() for s in sections_of(name, "markdown", text[2:].split("\n")[0], text)]
    return Matcher(sections, [["return", "returns", "send back"], ["guarantee", "warranty"], ["退货", "寄回"]])


@pytest.mark.parametrize(("question", "language", "heading"), [
    ("what do returns cost from Austria", "en", "Costs"),
    ("can I send this lamp thing back from austria", "en", "Costs"),
    ("is there a guarantee on lamps", "en", "Warranty"), ("how do I wipe a lmap", "en", "Care"),
    ("寄回要费用吗", "zh", "费用"), ("退货期限", "zh", "期限")])
def test_the_best_section(matcher, question, language, heading):
    best = matcher.best(question, language)
    assert best[0].section.heading == heading
    assert all(0 <= match.confidence <= 1 for match in best)
    assert all(match.section.language == language for match in best)


def test_what_the_pages_do_not_hold_lowers_the_confidence(matcher):
    sure = matcher.best("are returns from Austria free", "en")[0].confidence
    less = matcher.best("are bicycles from Austria free", "en")[0].confidence
    assert sure == 1
    assert less < 0.75
    assert matcher.best("xylophone", "en") == []
    assert matcher.best("", "en") == []
    assert matcher.best("how do you do this", "en") == []                    # nothing but small words


def naive(a, b):
    """By definition, in exponential time: adding, dropping, replacing, swapping neighbours."""
    if not a or not b:
        return len(a) + len(b)
    costs = [naive(a[1:], b) + 1, naive(a, b[1:]) + 1, naive(a[1:], b[1:]) + (a[0] != b[0])]
    if len(a) > 1 and len(b) > 1 and a[0] == b[1] and a[1] == b[0]:
        costs.append(naive(a[2:], b[2:]) + 1)
    return min(costs)


@settings(max_examples=100, deadline=None)
@given(st.text("abc", max_size=5), st.text("abc", max_size=5))
def test_edits_agree_with_their_definition(a, b):
    assert edits(a, b) == naive(a, b) == edits(b, a)


def test_stems():
    assert {stem(w) for w in ("ship", "ships", "shiped")} == {"ship"}
    assert [stem(w) for w in ("glass", "is", "batteries", "mug's")] == ["glass", "is", "battery", "mug"]


def test_words_that_stand_for_what_is_asked_about_decide_nothing():
    """The only section with such a word isn't the one that is meant."""
    page = ("# Returns\n## How to return\nUse the label.\n## Damage\nIf something breaks, or an item or anything "
            "is wrong, you don't return it.")
    matcher = Matcher(sections_of("returns.md", "markdown", "Returns", page))
    for question in ("How do I return something?", "How can I return an item?", "can I return anything"):
        assert matcher.best(question, "en")[0].section.heading == "How to return", question
