"""Which feeling a sentence tells of: situations written for this, and sentences of Tatoeba that name one."""

import random
import re
from collections.abc import Iterator
from pathlib import Path

from rows import PHRASES, Chat, Language, apart, one, source

ASK, NAMED, SITUATIONS, WORDS = (PHRASES["feelings"][name] for name in ("ask", "named", "situations", "words"))


def chats(root: Path, rng: random.Random, copies: int = 6) -> Iterator[Chat]:
    """Each situation in several phrasings, and each fitting sentence once in each language."""
    for feeling, told in SITUATIONS.items():
        for language, texts in told.items():
            for number, text in enumerate(texts):
                held_out = number < 1                    # a tenth of the situations, which no phrasing of is learned
                ended = text if text[-1] in "?？" else text + ("." if language == "en" else "。")
                for asked in rng.choices(ASK[language], k=1 if held_out else copies):
                    yield _named(feeling, language, asked.format(text=ended), "made", held_out)
    for row, held_out in source(root, "tatoeba_en_zh/train.jsonl.zst"):
        found = [feeling for feeling, pattern in WORDS.items() if re.search(pattern, row["zh"])]
        if len(found) == 1 and not re.search(r"不|没", row["zh"]):
            for language in ("en", "zh"):
                asked = one(rng, ASK[language], text=row[language])
                yield _named(found[0], language, asked, "tatoeba_en_zh", held_out)
    yield from _films(root, rng)


def _named(feeling: str, language: Language, asked: str, name: str, held_out: bool) -> Chat:
    answer = NAMED[feeling][language]
    return Chat("feeling", language, asked, answer, name, held_out, {"expected": answer})


FILMS = ("Did the writer like this film? {text}", "Is this review good or bad? {text}",
         "{text}\n\nDid the writer like the film?")
LIKED = {0: "The writer didn't like it.", 1: "The writer liked it."}


def _films(root: Path, rng: random.Random) -> Iterator[Chat]:
    """The end of each review, where most people sum up."""
    for row, _ in source(root, "movie_reviews/train.jsonl.zst"):
        answer = LIKED[row["label"]]
        asked = one(rng, FILMS, text="{text}").replace("{text}", " ".join(row["text"].split()[-60:]))
        yield Chat("film", "en", asked, answer, "movie_reviews", apart(row["id"]), {"expected": answer})
