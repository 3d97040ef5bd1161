"""What a brief takes and refuses, and what it is made of: language, units, sentences, pieces."""

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ayllu.apps.write.brief import Brief
from ayllu.apps.write.measure import language_of, length, pieces, sentences, units

MIXED = st.text(alphabet="ab c1.。！？\n!?，未来科技的#- ”\"", max_size=300)


def test_a_topic_is_enough():
    brief = Brief(topic="  未来 \n 科技 ")
    assert (brief.topic, brief.tongue, brief.target, brief.n_sections) == ("未来 科技", "zh", 900, 3)
    assert Brief(topic="The sea").tongue == "en"
    assert Brief(topic="The sea", language="zh", length=200).target == 200
    assert Brief(topic="The sea", kind="poem").n_sections == 1
    assert Brief(topic="The sea", length=20_000).n_sections == 40


@pytest.mark.parametrize(("fields", "says"), [
    ({"topic": "   "}, "the topic is empty"), ({"topic": ""}, "the topic is empty"), ({}, "or give keywords"),
    ({"topic": "x", "points": ["the Old sea"], "forbidden": ["old"]}, "is in 'the Old sea', which is to occur"),
    ({"topic": "x", "length": 5}, "greater than or equal to 20"), ({"topic": "x", "kind": "novel"}, "'article'"),
    ({"topic": "x", "points": ["y" * 301]}, "more briefly"), ({"topic": "x", "subject": "y"}, "Extra inputs"),
])
def test_a_bad_brief_says_what_is_wrong(fields, says):
    with pytest.raises(ValidationError, match=re.escape(says)):
        Brief.model_validate(fields)


def test_keywords_are_enough_too():
    brief = Brief(keywords=(" 大海 ", "盐", "大海"))
    assert (brief.topic, brief.keywords, brief.tongue) == ("大海、盐、大海", ("大海", "盐"), "zh")
    assert Brief(topic="Waves", keywords=("sea", "salt")).topic == "Waves"
    assert Brief.model_validate({"topic": " ", "keywords": ["sea", "salt"]}).topic == "sea, salt"
    with pytest.raises(ValidationError, match="is in 'Sea salt', which is to occur"):
        Brief(keywords=("Sea salt",), forbidden=("sea",))


def test_units_are_words_and_characters():
    assert [unit.text for unit in units("Don't stop: state-of-the-art GPU上跑3次。")] == [
        "don't", "stop", "state-of-the-art", "gpu", "上", "跑", "3", "次"]
    assert length("# 未来科技\n\n走！") == 5
    assert [language_of(text) for text in ("用GPU训练", "", "123", "the 书 is good", "iPhone 手机")] == [
        "zh", "en", "en", "en", "zh"]


def test_sentences_know_their_places():
    text = "## One more\n\nIt cost 3.5 euros. “Really?” he asked!\n- 好。真的吗？！\n"
    found = sentences(text)
    assert [one.text for one in found] == ["One more", "It cost 3.5 euros.", "“Really?”", "he asked!", "好。",
                                          "真的吗？！"]
    assert all(text[one.start:one.end] == one.text for one in found)


@given(MIXED)
def test_every_sentence_stands_where_it_says(text):
    found = sentences(text)
    assert all(text[one.start:one.end] == one.text for one in found)
    assert all(a.end <= b.start for a, b in pairwise(found))
    assert {u.text for u in units(text)} == {u.text for one in found for u in units(one.text)}


@given(MIXED, st.integers(1, 50))
def test_pieces_joined_are_the_text(text, most):
    found = pieces(text, most)
    assert "".join(found) == text
    assert all(0 < len(piece) <= most for piece in found)
