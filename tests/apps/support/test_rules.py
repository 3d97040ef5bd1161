"""Rules: which message goes where, what no answer may say, and that no message takes long."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ayllu.apps.support.pages import RULES, sample
from ayllu.apps.support.phrases import first_match, language_of, pattern_of, plain
from ayllu.apps.support.rules import load_rules
from ayllu.apps.support.talk import follows, small_talk
from ayllu.errors import ConfigError

SHOP = load_rules(sample() / RULES)


@pytest.mark.parametrize(("phrase", "fits", "fits_not"), [
    ("talk * person", ["I want to talk to a real person!", "talk person"], ["a person talked", "talk to personnel",
                                                                         "talk of one two three four five person"]),
    ("(my|this) order", ["My ORDER", "this  order?"], ["order", "tommy order", "my orders"]),
    ("pregnan*", ["pregnant?", "pregnancy"], ["impregnate"]),
    ("don't know", ["I don’t know"], ["dont know"]),     # a curly apostrophe is an apostrophe
    ("包裹*丢", ["我的包裹好像丢了"], ["丢包裹", "包裹一二三四五六七八九丢"]),
    ("扣了?(两|2)次", ["扣两次", "扣了2次", "扣了２次"], ["扣了次"]),
    ("c++ (yes|no)", ["C++ no"], ["c no"]),              # signs stand for themselves
])
def test_phrases(phrase, fits, fits_not):
    for text in fits:
        assert first_match((phrase,), plain(text)), text
    for text in fits_not:
        assert not first_match((phrase,), plain(text)), text


def test_a_phrase_that_cannot_be_read_is_named():
    with pytest.raises(ConfigError, match=r"\(a\|"):
        pattern_of("(a|b")


@pytest.mark.parametrize(("text", "topic"), [
    ("Please let me speak with a human", "person"), ("转人工", "person"), ("my card was charged twice", "money"),
    ("Where is my parcel?", "order"), ("我要投诉你们", "complaint"), ("the lantern caught fire", "safety"),
    ("delete my account and data", "data"), ("Does it cure headaches?", "health"),
    ("I burned my hand, will this tea heal it? Let me talk to a person", "person"),     # people before a refusal
    ("How long is the warranty?", None), ("怎么退货", None)])
def test_topics(text, topic):
    found = SHOP.topic_of(text)
    assert (found.name if found else None) == topic


@pytest.mark.parametrize(("answer", "is_forbidden"), [
    ("We guarantee that it arrives tomorrow.", True), ("我们保证明天到", True), ("Enjoy 90% off!", True),
    ("Lamps have a warranty of 3 years.", False), ("We refund you within 5 working days.", False)])
def test_forbidden_promises(answer, is_forbidden):
    assert bool(SHOP.forbidden_in(answer)) == is_forbidden


def test_the_shops_own_pages_hold_nothing_forbidden():
    for path in (*sample().glob("en/*"), *sample().glob("zh/*")):
        for line in path.read_text(encoding="utf-8").splitlines():
            assert SHOP.forbidden_in(line) is None, line


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=300), st.sampled_from(list(SHOP.topics)), st.data())
def test_a_phrase_is_found_whatever_stands_around_it(around, topic, data):
    """Also what a rule says of a message doesn't depend on its capitals or width."""
    sample_of = {"person": "connect me to an agent", "money": "you overcharged me", "order": "where is my order",
                 "complaint": "我要投诉", "safety": "触电", "data": "gdpr", "exception": "make an exception",
                 "health": "怀孕", "politics": "选举", "instructions": "system prompt"}[topic.name]
    cut = data.draw(st.integers(0, len(around)))
    text = f"{around[:cut]} {sample_of} {around[cut:]}"
    assert first_match(topic.phrases, plain(text))
    assert first_match(topic.phrases, plain(text.upper())) or not text.upper().isascii()


@pytest.mark.parametrize("text", ["my " * 1000, "(" * 2000, "order order " * 160, "退" * 2000, "ａ" * 2000,
                                  "a!" * 1000])
def test_no_message_takes_long(text):
    begun = time.process_time()
    SHOP.topic_of(text)
    SHOP.forbidden_in(text)
    assert time.process_time() - begun < 2               # 0.1 s on a quiet machine


@pytest.mark.parametrize(("text", "language"), [("Hello", "en"), ("你好", "zh"), ("请问 iPhone 保修吗", "zh"),
                                                ("what does 退货 mean, please?", "en"), ("42?", None)])
def test_language(text, language):
    assert language_of(text) == language


@pytest.mark.parametrize(("text", "kind"), [
    ("Hi!", "greeting"), ("您好！", "greeting"), ("thank you so much :)", "thanks"),
    ("谢谢啦", "thanks"), ("Bye", "goodbye"),
    ("Yes please", "yes"), ("好的", "yes"), ("Hi, where is my order?", None),
    ("好的，谢谢！", "thanks"), ("ok, thanks", "thanks"), ("yes, thank you", "yes"), ("需要，谢谢", "yes"),
    ("No.", "no"), ("no, thanks", "no"), ("不用了，谢谢", "no"), ("不需要", "no"), ("no refund?", None),
    ("thanks but it broke", None), ("", None)])
def test_small_talk(text, kind):
    assert small_talk(text) == kind


def test_follow_ups():
    assert follows("and for mugs?")
    assert follows("How long does it take?")
    assert follows("那运费呢？")
    assert not follows("How long is the warranty?")
