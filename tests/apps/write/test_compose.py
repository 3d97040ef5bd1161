"""Outlines and sections by a scripted model, within its context; and a text written anew."""

import re

import pytest
from apps.scripted import ScriptedSpeaker
from hypothesis import given
from hypothesis import strategies as st

from ayllu.apps.speaker import LocalSpeaker
from ayllu.apps.write.brief import Brief
from ayllu.apps.write.compose import compose, headings_in, plan, share_points, write
from ayllu.apps.write.measure import length
from ayllu.apps.write.revise import revise
from ayllu.errors import ContextTooLong, RequestError

SEA = Brief(topic="The sea", length=120, sections=3, points=("Cold water", "salt"), forbidden=("shark",))
WORDS = " ".join(f"w{i}" for i in range(10, 100)) + " "


def author(messages):
    """Gives an outline, and 40 words for each section that name it."""
    text = messages[0]["content"]
    if "headings" in text:
        return "Here you are:\n1. Waves\n2) **Cold water**\n- Ships of old\n- A shark\n"
    heading = re.search("section “(.*?)”", text)[1]
    return f"{heading} " + " ".join(f"w{i}" for i in range(39)) + "."


def test_an_outline_then_its_sections():
    speaker = ScriptedSpeaker(author)
    events = list(compose(SEA, speaker))
    assert events[0].outline == ("Waves", "Cold water", "Ships of old")
    assert [e.text for e in events if e.kind == "section"] == ["Waves", "Cold water", "Ships of old"]
    text = events[-1].text
    assert text.startswith("# The sea\n\n## Waves\n\nWaves w0")
    assert length(text) == 2 + 2 * (1 + 2 + 3) + 3 * 39
    prompts = [messages[0]["content"] for messages, _ in speaker.asked[1:]]
    assert ["Cold water" in p.split("Must be covered:")[1].split("\n")[0] if "Must be" in p else False
            for p in prompts] == [False, True, False]
    assert "The text so far ends with" not in prompts[0]
    assert "w38." in prompts[1].split("The text so far ends with: ")[1]
    assert "".join(e.text for e in events if e.kind == "text").count("w38") == 3


def test_without_an_outline_a_plain_one_serves():
    assert plan(SEA, ScriptedSpeaker(lambda m: "I can't do that. I am small.")) == (
        "Introduction", "Background", "What matters")
    assert plan(SEA, ScriptedSpeaker(lambda m: "")) == ("Introduction", "Background", "What matters")
    long = Brief(topic="未来科技", sections=8)
    assert plan(long, ScriptedSpeaker(lambda m: "\n".join(f"第{i}节" for i in "一二三四五"))) == (
        "第一节", "第二节", "第三节", "第四节", "第五节", "第1部分", "第2部分", "第3部分")


@pytest.mark.parametrize("round_", ["集", "非洲人，", "I like grass. ", "我很喜欢在水里玩，也很喜欢吃草。\n"])
def test_a_section_that_goes_round_in_circles_is_ended(round_):
    speaker = ScriptedSpeaker(lambda m: "It began well. " + round_ * 1000)
    text = write(Brief(topic="x", kind="post", length=2000), speaker)
    assert len(text) < 350
    assert len(speaker.asked) == 1
    varied = " ".join(f"{n} is a number." for n in range(500))
    assert length(write(Brief(topic="x", kind="post", length=2000), ScriptedSpeaker(lambda m: varied))) > 700


def test_a_short_section_is_taken_up_again_and_not_for_ever():
    brief = Brief(topic="x", kind="post", length=100)
    said = iter(f"{n} " + WORDS[:30 * 4] for n in ("one", "two", "three", "four"))
    speaker = ScriptedSpeaker(lambda m: next(said))
    assert length(write(brief, speaker)) == 3 * 31 + 1
    assert [("Go on with" in m[0]["content"]) for m, _ in speaker.asked] == [False, True, True]
    echo = ScriptedSpeaker(lambda m: "the same")
    write(brief, echo)
    assert len(echo.asked) == 2


def test_a_model_that_never_ends_is_stopped_at_a_sentence():
    brief = Brief(topic="x", kind="post", length=40)
    text = write(brief, ScriptedSpeaker(lambda m: " ".join(f"It is {n}." for n in range(300))))
    assert 40 < length(text) < 60
    assert re.search(r"It is \d+\.\n$", text)


def test_a_model_that_never_ends_a_sentence_is_stopped_too():
    for word, most in (("no end ", 80), ("没完没了", 100)):
        brief = Brief(topic=word, kind="post", length=40)
        assert length(write(brief, ScriptedSpeaker(lambda m, w=word: w * 300))) < most


def test_a_section_with_a_forbidden_word_is_written_once_more():
    said = iter(["A shark. " + WORDS, "A fish. " + WORDS])
    brief = Brief(topic="x", kind="post", length=90, forbidden=("shark",))
    events = list(compose(brief, ScriptedSpeaker(lambda m: next(said)), seed=3))
    assert [e.kind for e in events].count("section") == 2
    assert "shark" not in events[-1].text
    assert "fish" in events[-1].text


def test_your_own_outline_is_taken():
    speaker = ScriptedSpeaker(author)
    assert next(compose(SEA, speaker, outline=("A", "B"))).outline == ("A", "B")
    assert speaker.asked == []


def test_the_context_is_never_passed():
    brief = SEA.model_copy(update={"audience": "a" * 150, "points": ("p" * 100,)})
    for context in (700, 1000, 3000):
        speaker = ScriptedSpeaker(author, context=context)
        write(brief, speaker)
        assert all(sum(len(m["content"]) for m in messages) + options["max_tokens"] <= context
                   for messages, options in speaker.asked)
    with pytest.raises(ContextTooLong, match="give fewer points"):
        write(brief, ScriptedSpeaker(author, context=400), outline=("A", "B"))


@given(st.lists(st.text(alphabet="ab 水", max_size=8), max_size=6),
       st.lists(st.text(alphabet="ab 水", max_size=8), min_size=1, max_size=4))
def test_each_point_goes_to_one_section(points, headings):
    shares = share_points(points, headings)
    assert len(shares) == len(headings)
    assert sorted(point for share in shares for point in share) == sorted(points)


@given(st.text(max_size=200))
def test_whatever_a_model_says_gives_headings_or_none(text):
    found = headings_in(text, SEA)
    assert len(found) == len(set(found))
    assert all(heading and "\n" not in heading and "shark" not in heading.lower() for heading in found)


def test_a_text_written_anew_piece_by_piece():
    text = "\n\n".join(f"Paragraph {i} " + "of many words " * 10 for i in range(6)).strip()

    def shouts(messages):
        return messages[0]["content"].split("Text: ")[1].upper()

    for context in (500, 5000):
        speaker = ScriptedSpeaker(shouts, context=context)
        new = "".join(revise(text, "rewrite", speaker, wish="briefly"))
        assert new.split() == text.upper().split()
        assert all("Wish: briefly" in messages[0]["content"] for messages, _ in speaker.asked)
    assert len(speaker.asked) == 1
    speaker = ScriptedSpeaker(shouts, context=500)
    assert "".join(revise(text, "continue", speaker)).strip().endswith(text.upper()[-20:])
    speaker = ScriptedSpeaker(lambda messages: "好")
    assert list(revise("未来科技", "tone", speaker, tone="正式")) == ["好"]
    assert "用“正式”的语气" in speaker.asked[0][0][0]["content"]


@pytest.mark.parametrize(("text", "options", "says"), [
    ("  ", {}, "no text"), ("x", {"action": "tone"}, "which tone"), ("x", {"wish": "w" * 900}, "more briefly")])
def test_what_cannot_be_written_anew(text, options, says):
    with pytest.raises((RequestError, ContextTooLong), match=says):
        list(revise(text, options.pop("action", "rewrite"), ScriptedSpeaker(context=800), **options))


def test_the_bundled_model_writes_something():
    speaker = LocalSpeaker.load("ayllu-mini-chat")
    brief = Brief(topic="A fox and a river", kind="story", length=60, sections=2)
    first = write(brief, speaker, seed=1)
    assert first.startswith("# A fox and a river\n\n## ")
    assert length(first) > 20
    assert write(brief, speaker, seed=1) == first
