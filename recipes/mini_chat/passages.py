"""Questions whose answer stands in a passage: CMRC 2018 and DRCD, and made-up passages in both languages."""

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rows import PHRASES, Chat, Language, one, sentences, source

ASK = PHRASES["passages"]["ask"]
MOST = 140                                               # characters of a real passage around its answer
UNKNOWN, NAMES, COLOURS, FACTS = (PHRASES["passages"][name] for name in ("unknown", "names", "colours", "facts"))
REAL = (("cmrc2018/dev.jsonl.zst", False), ("drcd/dev.jsonl.zst", False), ("cmrc2018/trial.jsonl.zst", True),
        ("drcd/test.jsonl.zst", True))                   # the sets' own splits

OWNED = {"en": "a {colour} {value}", "zh": "一个{colour}的{value}"}


def chats(root: Path, rng: random.Random, made: int = 6000) -> Iterator[Chat]:
    """The real ones, and `made` of our own in each language."""
    for path, held_out in REAL:
        for row, _ in source(root, path):
            chat = _real(row, path.split("/")[0], held_out, rng)
            if chat:
                yield chat
    for language in FACTS:
        for number in range(made):
            yield _made(language, rng, number < made // 50)


def _real(row: dict[str, Any], name: str, held_out: bool, rng: random.Random) -> Chat | None:
    """The question with the sentences around its answer that fit; None where the answer alone is too long."""
    answers, context = row["answers"], row["context"]
    starts = row.get("answer_starts") or [row["answer_start"]]
    answer, start = answers[0], starts[0]
    if not answer or context[start:start + len(answer)] != answer or len(answer) > 40:
        return None
    parts, places, at = sentences(context, "zh"), [], 0
    for part in parts:
        at = context.index(part, at)
        places.append((at, at + len(part)))
        at += len(part)
    inside = [i for i, (a, b) in enumerate(places) if a <= start and start + len(answer) <= b]
    if not inside or places[inside[0]][1] - places[inside[0]][0] > MOST:
        return None
    first = last = inside[0]
    while True:                                          # grows to both sides while it fits
        grown = [(a, b) for a, b in ((first - 1, last), (first, last + 1))
                 if a >= 0 and b < len(places) and places[b][1] - places[a][0] <= MOST]
        if not grown:
            break
        first, last = rng.choice(grown)
    passage = context[places[first][0]:places[last][1]]
    asked = one(rng, ASK["zh"], passage="{p}", question="{q}").replace("{p}", passage).replace("{q}", row["question"])
    return Chat("passage", "zh", asked, answer, name, held_out, {"expected": sorted(set(answers))})


def _made(language: Language, rng: random.Random, held_out: bool) -> Chat:
    """A passage of two to four sentences; one in ten asks for somebody who isn't in it."""
    names = rng.sample(NAMES[language], 5)
    *told, stranger = names[:rng.randrange(3, 6)]
    said, asked = [], []
    for name in told:
        fact = rng.choice(FACTS[language])
        values = PHRASES["passages"][fact["values"]][language]
        filled = {"name": name, "value": rng.choice(values), "colour": rng.choice(COLOURS[language])}
        filled["owned"] = OWNED[language].format(**filled)
        said.append(fact["says"].format(**filled))
        asked += [(question.format(**filled), filled[which], question.format(**{**filled, "name": stranger}))
                  for question, which in fact["asked"]]
    times = Counter(question for question, _, _ in asked)
    question, answer, of_stranger = rng.choice([each for each in asked if times[each[0]] == 1])
    if question != of_stranger and rng.random() < 0.15:
        question, answer = of_stranger, UNKNOWN[language]
    passage = (" " if language == "en" else "").join(said)
    text = one(rng, ASK[language], passage=passage, question=question)
    return Chat("passage", language, text, answer, "made", held_out, {"expected": [answer]})
