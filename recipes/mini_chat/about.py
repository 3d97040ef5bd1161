"""What the model says of itself, greetings, and what it can't do, for which it has no knowledge or no hands."""

import random
from collections.abc import Iterator
from pathlib import Path

from rows import PHRASES, Chat, Language, apart, source

SAYS, ASKED, FILLED = (PHRASES["about"][name] for name in ("says", "asked", "filled"))
CLINC = {"what_is_your_name": "who", "are_you_a_bot": "bot", "who_made_you": "made", "how_old_are_you": "age",
         "where_are_you_from": "made", "who_do_you_work_for": "made", "what_can_i_ask_you": "can",
         "greeting": "greeting", "goodbye": "bye", "thank_you": "thanks",
         "what_are_your_hobbies": "hobbies", "do_you_have_pets": "hobbies",
         "definition": "unknown", "fun_fact": "unknown", "meaning_of_life": "unknown", "international_visa": "unknown",
         "nutrition_info": "unknown", "calories": "unknown", "vaccines": "unknown"}
ELSEWHERE = {"translate", "calculator", "yes", "no", "maybe", "repeat", "tell_joke", "oos", "spelling",
             "change_language", "measurement_conversion"}     # a translation, a sum, or no question at all
SETS = (("clinc150/train.jsonl.zst", False, 0.35), ("clinc150/test.jsonl.zst", True, 0.02),
        ("banking77/train.jsonl.zst", False, 0.1), ("banking77/test.jsonl.zst", True, 0.01))   # file, held out, share


COPIES = {"en": 14, "zh": 40}                            # of each question; English has those of CLINC150 besides


def chats(root: Path, rng: random.Random) -> Iterator[Chat]:
    """Each question in several spellings, the first of a subject never held out, and what people asked assistants and
    banks in CLINC150 and Banking77."""
    for subject, questions in ASKED.items():
        for language in ("en", "zh"):
            for number, question in enumerate(questions[language]):
                for _ in range(COPIES[language]):
                    filled = question.format(**{name: rng.choice(values[language]) for name, values in FILLED.items()})
                    held_out = number > 0 and apart(filled, 0.05)
                    asked = filled if held_out else _spelled(filled, language, rng)
                    yield _said(subject, language, asked, "made", held_out)
    for path, held_out, share in SETS:
        for row, _ in source(root, path):
            subject = CLINC.get(row["label"], "unable")
            wanted = row["label"] not in ELSEWHERE and (subject != "unable" or rng.random() < share)
            if wanted and (not held_out or rng.random() < 0.05):
                yield _said(subject, "en", row["text"], path.split("/")[0], held_out)


def _spelled(text: str, language: Language, rng: random.Random) -> str:
    """As people type: without the mark at the end, in small letters, with a greeting before."""
    if rng.random() < 0.3:
        text = text.rstrip(".?!。？！")
    if language == "en" and rng.random() < 0.25:
        text = text.lower()
    if rng.random() < 0.1:
        text = rng.choice(("Hi, ", "Please: ", "Hey, ") if language == "en" else ("你好，", "请问，", "嗨，")) + text
    return text


def _said(subject: str, language: Language, asked: str, name: str, held_out: bool) -> Chat:
    return Chat("about", language, asked, SAYS[subject][language], name, held_out,
                {"subject": subject, "expected": SAYS[subject][language]})
