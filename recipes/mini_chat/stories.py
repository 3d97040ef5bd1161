"""Stories begun and continued: storybooks, children's books, and Chinese prose of a century ago and before."""

import random
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from rows import PHRASES, Chat, Language, one, sentences, size, source

CONTINUE, BEGIN, ANY = (PHRASES["stories"][name] for name in ("continue", "begin", "any"))
TOPICS = PHRASES["stories"]["topics"]
PROMPT, ANSWER = {"en": (15, 60), "zh": (20, 90)}, {"en": (30, 90), "zh": (40, 130)}     # words, characters
CHUNKS = {"storybooks": 12, "childrens_books_en": 24}     # the most of one document
MODERN = ("朱自清", "鲁迅", "许地山", "徐志摩", "郁达夫", "萧红", "石评梅", "庐隐", "朱湘", "瞿秋白", "柔石", "胡也频")


def chats(root: Path, rng: random.Random) -> Iterator[Chat]:
    """Pieces of each text, as a beginning or as what follows a beginning."""
    for row, held_out in source(root, "storybooks/en.jsonl.zst"):
        for _ in range(3):                               # asked for in several ways
            yield from _pieces(" ".join(row["text"].split()), "en", "storybooks", held_out, rng, row["title"])
    for row, held_out in source(root, "storybooks/zh.jsonl.zst"):
        for _ in range(8):                               # there are few
            yield from _pieces("".join(row["text"].split()), "zh", "storybooks", held_out, rng, row["title"])
    for row, held_out in source(root, "childrens_books_en/train.jsonl.zst"):
        yield from _pieces(" ".join(row["text"].split()), "en", "childrens_books_en", held_out, rng)
    for row, held_out in source(root, "vernacular_zh/train.jsonl.zst"):
        if row["author"] in MODERN:                       # the language of today, nearly
            yield from _pieces("".join(row["text"].split()), "zh", "vernacular_zh", held_out, rng, most=12)
        else:                                            # of old novels only what follows, and little of it
            pieces = _pieces("".join(row["text"].split()), "zh", "vernacular_zh", held_out, rng, most=1)
            yield from (chat for chat in pieces if chat.kind == "continue")


def _pieces(text: str, language: Language, name: str, held_out: bool, rng: random.Random, title: str = "",
            most: int | None = None) -> Iterator[Chat]:
    parts = sentences(text, language)
    if title and (told := _take(parts, ANSWER[language])):
        ask = one(rng, BEGIN[language], topic=f"“{title}”" if language == "en" else f"《{title}》")
        yield Chat("story", language, rng.choice((ask, rng.choice(ANY[language]))), told[0], name, held_out)
    at, made = 0, 0
    while at < len(parts) and made < (most or CHUNKS[name]):
        shown = _take(parts[at:], PROMPT[language])
        if shown is None:
            return
        rest = _take(parts[at + shown[1]:], ANSWER[language])
        if rest is None:
            return
        topic = _topic(shown[0] + rest[0], language) if rng.random() < 0.3 else None
        whole = _take(parts[at:], ANSWER[language])
        if topic and whole:
            yield Chat("story", language, one(rng, BEGIN[language], topic=topic), whole[0], name, held_out)
        elif not topic:
            asked = one(rng, CONTINUE[language], text=shown[0])
            yield Chat("continue", language, asked, rest[0], name, held_out)
        made += 1
        at += shown[1] + rest[1] + rng.randrange(0, 25 if name == "childrens_books_en" else 6)


def _take(parts: list[str], limits: tuple[int, int]) -> tuple[str, int] | None:
    """(text, sentences taken): whole sentences, as many as lie within the limits; None where there are none."""
    least, most = limits
    taken, total = 0, 0
    for part in parts:
        n = size(part, "zh" if re.search(r"[\u4e00-\u9fff]", part) else "en")
        if total + n > most:
            break
        taken, total = taken + 1, total + n
        if total >= (least + most) // 2:
            break
    if total < least:
        return None
    joint = "" if re.search(r"[\u4e00-\u9fff]", parts[0]) else " "
    return joint.join(parts[:taken]), taken


def _topic(text: str, language: Language) -> str | None:
    words = Counter(re.findall(r"[a-z]+", text.lower()))
    if language == "en":
        count, said = max((words[word], f"a {word}") for word in TOPICS["en"])
    else:
        count, said = max((text.count(word), word) for word in TOPICS["zh"])
    return said if count >= 2 else None
