"""The sample shop's customer service on its own questions, beside the best section by BM25 without rules or threshold.

    python benchmarks/support.py [--part test] [--docs FOLDER] [--model NAME] [--quick] [--wrong] [--json FILE]

Of a shop's questions (questions.tsv) the half "dev" served to set the threshold and the words of the rules; shares are
told of "test", with 95 % intervals (Wilson's). `right`: of the questions that the pages answer, those that are answered
with the expected section cited first. `refused`: of those that they don't answer, the ones that are declined or said
not to be known. `deflected`: of all questions (not small talk), those that no person was asked for. The questions and
the pages are by the same hands, so the figures show that the parts work, and are no promise for another shop.
--model asks a model of any size to put the answers in its own words, and tells the share that the check lets pass.
--quick asks every tenth question. The last line says the smallest distance: ours less the baseline's share right, in
points, over the goal of 0.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ayllu.apps.speaker import LocalSpeaker, Speaker
from ayllu.apps.support.figures import share, wilson
from ayllu.apps.support.match import Bm25
from ayllu.apps.support.pages import QUESTIONS, sample
from ayllu.apps.support.questions import Given, Question, given_of, measure, read_questions
from ayllu.apps.support.service import Support, open_support
from ayllu.apps.support.wording import cite, in_own_words
from ayllu.evaluate.intervals import compare, mean
from ayllu.files import write_json
from ayllu.log import say, setup

Side = Callable[[Question], Given]
ROWS = (("right", "right answers"), ("wrong_section", "another section"),
        ("hand_over_precision", "hand-over: precision"), ("hand_over_recall", "hand-over: recall"),
        ("refusal_precision", "refusal: precision"),
        ("refusal_recall", "refusal: recall"), ("small_talk", "small talk"), ("deflection", "deflected"))


def timed(answer: Side, took: list[float]) -> Side:
    """The same, and how many milliseconds each answer took."""
    def ask(question: Question) -> Given:
        begun = time.perf_counter()
        found = answer(question)
        took.append(1000 * (time.perf_counter() - begun))
        return found
    return ask


def sides(service: Support) -> dict[str, Side]:
    """Ours; and the section in the question's language that BM25 likes best, whatever its score."""
    sections = service.pages.matcher.sections
    lexical = Bm25([f"{s.title} {s.heading} {s.text}" for s in sections])

    def ours(question: Question) -> Given:
        draft = service.answer(question.text, question.language)
        return given_of(draft.kind, draft.citations)

    def bm25(question: Question) -> Given:
        scores = {number: score for number, score in lexical.scores(question.text).items()
                  if sections[number].language in (question.language, None)}
        if not scores:
            return Given("unknown")
        best = sections[max(scores, key=lambda number: (scores[number], -number))]
        return given_of("answer", [cite(best, question.text, service.pages.matcher)])
    return {"ours": ours, "BM25 alone": bm25}


def gain(questions: list[Question], ours: Side, theirs: Side) -> dict[str, Any]:
    """Right answers of ours less the baseline's, with the interval of the difference over the same questions."""
    a, b = (np.array([side(q).section == q.expected for q in questions], float) for side in (theirs, ours))
    found = compare(mean(a), mean(b), len(questions)).difference
    return {"value": found.value, "low": found.low, "high": found.high}


def own_words(service: Support, speaker: Speaker, questions: list[Question]) -> dict[str, Any]:
    """Of the questions that the pages answer: how many a model words so that the check lets it pass, and its time."""
    passed, took = [], []
    for question in questions:
        draft = service.answer(question.text, question.language)
        if draft.kind == "answer":
            begun = time.perf_counter()
            persona = service.rules.persona_in(question.language)
            worded = in_own_words(speaker, persona, question.text, draft.citations, service.pages.matcher)
            took.append(time.perf_counter() - begun)
            passed.append(worded is not None)
    found = {"share": share(sum(passed), len(passed)), "interval": wilson(sum(passed), len(passed)), "n": len(passed)}
    return {"model": speaker.name, "passed": found, "s_median": statistics.median(took)}


def run(folder: Path, part: str, quick: bool, model: str | None) -> dict[str, Any]:
    """All figures, by side and language."""
    questions = [q for q in read_questions(folder / QUESTIONS) if part == "all" or q.part == part]
    questions = questions[::10] if quick else questions
    found: dict[str, Any] = {"part": part, "n": len(questions), "sides": {}}
    with tempfile.TemporaryDirectory() as top:
        service = open_support(folder, Path(top) / "support.sqlite")
        for name, answer in sides(service).items():
            took: list[float] = []
            whole = measure(questions, timed(answer, took))
            languages = {language: measure((q for q in questions if q.language == language), answer)["right"]
                         for language in ("en", "zh")}
            found["sides"][name] = {**whole, "languages": languages, "ms_median": statistics.median(took),
                                    "ms_95": sorted(took)[int(0.95 * len(took))]}
        found["gain"] = gain([q for q in questions if q.kind == "answer"], *sides(service).values())
        if model:
            found["own_words"] = own_words(service, LocalSpeaker.load(model), questions)
        service.close()
    return found


def show(found: dict[str, Any]) -> None:
    """A table."""
    print(f"{found['n']} questions ({found['part']})\n{'':24}" + "".join(f"{name:>32}" for name in found["sides"]))
    for key, label in ROWS:
        print(f"{label:24}" + "".join(f"{_share(side[key]):>32}" for side in found["sides"].values()))
    for language in ("en", "zh"):
        cells = (_share(side["languages"][language]) for side in found["sides"].values())
        print(f"{f'right answers, {language}':24}" + "".join(f"{cell:>32}" for cell in cells))
    times = (f"{side['ms_median']:.2f} (95 %: {side['ms_95']:.1f})" for side in found["sides"].values())
    print(f"{'ms per answer':24}" + "".join(f"{cell:>32}" for cell in times))


def show_words(found: dict[str, Any]) -> None:
    """What a model's own words came to."""
    print(f"{found['model']}: own words that the check lets pass: {_share(found['passed'])}, "
          f"{found['s_median']:.1f} s per answer")


def _share(value: dict[str, Any]) -> str:
    if not value["n"]:
        return "-"
    low, high = value["interval"]
    return f"{100 * value['share']:.1f} % ({100 * low:.1f} to {100 * high:.1f}) of {value['n']}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("dev", "test", "all"), default="test")
    parser.add_argument("--docs", type=Path, default=sample(), metavar="FOLDER")
    parser.add_argument("--model", metavar="NAME")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--wrong", action="store_true", help="tell the questions that were not answered as expected")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    setup()
    found = run(args.docs, args.part, args.quick, args.model)
    show(found)
    if args.model:
        show_words(found["own_words"])
    if args.wrong:
        for row in found["sides"]["ours"]["wrong"]:
            say(f"  {row['question']}  expected {row['expected']}, given {row['given']}")
    if args.json:
        write_json(args.json, found)
    gain = found["gain"]
    print(f"right answers, ours less BM25's: {100 * gain['value']:+.1f} points ({100 * gain['low']:+.1f} to "
          f"{100 * gain['high']:+.1f}, paired)")
    right = [side["right"]["share"] for side in found["sides"].values()]
    print(f"worst ratio: {right[0] / right[1]:.2f} (right answers)")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
