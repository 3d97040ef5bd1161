"""The sample shop: what its questions expect is there, in both languages."""

from collections import Counter
from pathlib import Path

from ayllu.apps.support.pages import QUESTIONS, RULES, copy_sample, sample
from ayllu.apps.support.questions import Given, Question, measure, read_questions
from ayllu.apps.support.rules import load_rules

ALL = read_questions(sample() / QUESTIONS)


def test_enough_questions_in_both_languages():
    counts = Counter((q.language, q.kind) for q in ALL)
    for language in ("en", "zh"):
        assert sum(n for (lang, _), n in counts.items() if lang == language) >= 200
        assert counts[language, "hand_over"] >= 25
        assert counts[language, "unknown"] >= 20
    assert len({q.text for q in ALL}) == len(ALL)
    assert 0.4 < sum(q.part == "dev" for q in ALL) / len(ALL) < 0.6


def test_every_expected_section_and_topic_exists():
    topics = {f"{topic.do}: {topic.name}" for topic in load_rules(sample() / RULES).topics}
    for question in ALL:
        if question.kind == "answer":
            document, _, heading = question.expected.partition(": ")
            text = (sample() / question.language / document).read_text(encoding="utf-8")
            assert f"\n## {heading}\n" in text or f"\n{heading}," in text, question
        elif question.kind in ("hand_over", "decline"):
            assert question.expected.replace(":", ": ") in topics, question


def test_both_languages_have_the_same_pages():
    pages = {lang: {p.name: p.read_text(encoding="utf-8") for p in (sample() / lang).iterdir()}
             for lang in ("en", "zh")}
    assert pages["en"].keys() == pages["zh"].keys()
    for name in pages["en"]:
        mark = "\n## " if name.endswith(".md") else "\n"
        assert pages["en"][name].count(mark) == pages["zh"][name].count(mark), name


def test_a_copy_to_begin_with(tmp_path):
    copy_sample(tmp_path / "mine")
    assert load_rules(tmp_path / "mine" / RULES).persona["zh"].shop == "纸鹤小铺"
    assert (tmp_path / "mine" / "en" / "returns.md").exists()


def test_the_sample_is_named_in_the_package_data():
    text = (Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8")
    assert '"apps/shop/**/*"' in text


def test_measure_counts_as_defined():
    questions = [Question("en", "a.md: A", "1"), Question("en", "a.md: A", "2"), Question("en", "hand_over: x", "3"),
                 Question("en", "unknown", "4"), Question("en", "greeting", "5")]
    said = {"1": Given("answer", "a.md: A"), "2": Given("answer", "b.md: B"), "3": Given("unknown"),
            "4": Given("hand_over"), "5": Given("greeting")}
    found = measure(questions, lambda q: said[q.text])
    assert (found["right"]["share"], found["wrong_section"]["share"]) == (0.5, 0.5)
    assert (found["hand_over_precision"]["share"], found["hand_over_recall"]["share"]) == (0, 0)
    assert (found["refusal_precision"]["share"], found["refusal_recall"]["share"]) == (0, 0)
    assert found["deflection"] == {"share": 0.75, "interval": (0.3006, 0.9544), "n": 4}
    assert len(found["wrong"]) == 3
