"""What the model is told, in the language of the text: words.toml. What people wrote is named in the user's turn."""

import tomllib
from collections.abc import Sequence
from pathlib import Path

from ayllu.apps.write.brief import Brief

WORDS = tomllib.loads(Path(__file__).with_name("words.toml").read_text(encoding="utf-8"))    # by language

SMALL_MODEL = ("note: {model} is too small to write texts that are meant to be used. Of 40 briefs with two "
               "points each ayllu-mini-chat reached the length of 32 %, spoke of 5 % of the points, and met all checks "
               "of none (benchmarks/write.py). Take an instruction model of 7 billion parameters or more (--model).")


def told(language: str, instruction: str, facts: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    """One turn: what to do, then what people gave, each under its name. Facts that are empty are left out."""
    lines = [f"{WORDS[language]['says'][name]}: {value}" for name, value in facts if value]
    return [{"role": "user", "content": "\n".join([instruction, "", *lines])}]


def facts_of(brief: Brief, points: Sequence[str] = ()) -> list[tuple[str, str]]:
    """The wishes of a brief that each call repeats."""
    mark = "；" if brief.tongue == "zh" else "; "
    keywords = [word for word in brief.keywords if word not in brief.topic]              # said once
    return [("topic", brief.topic), ("keywords", mark.join(keywords)), ("audience", brief.audience),
            ("tone", brief.tone), ("points", mark.join(points)), ("forbidden", mark.join(brief.forbidden))]
