"""Short sentences, from English to Chinese and back: Tatoeba, and the pages of the storybooks."""

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from rows import PHRASES, Chat, one, source

TO_CHINESE, TO_ENGLISH = PHRASES["translate"]["to_chinese"], PHRASES["translate"]["to_english"]
MOST = 60                                                # words or characters of a sentence


def chats(root: Path, rng: random.Random) -> Iterator[Chat]:
    """Both directions of each pair. Held out: what the base never saw, and of which no other translation is learned."""
    path = "tatoeba_en_zh/train.jsonl.zst"
    pairs = [(row["en"], row["zh"], held_out) for row, held_out in source(root, path)]
    times = Counter(en for en, _, _ in pairs) + Counter(zh for _, zh, _ in pairs)
    for en, zh, held_out in pairs:
        if held_out and (times[en] > 1 or times[zh] > 1):
            continue
        yield from _both(en, zh, "tatoeba_en_zh", held_out, rng)
    for row, held_out in source(root, "storybooks/pairs_en_zh.jsonl.zst"):
        en, zh = (" ".join(row[side].split()) for side in ("en", "zh"))
        if len(en.split()) <= MOST and len(zh) <= MOST:
            yield from _both(en, zh, "storybooks", held_out, rng)


def _both(en: str, zh: str, name: str, held_out: bool, rng: random.Random) -> Iterator[Chat]:
    yield Chat("translate", "zh", one(rng, TO_CHINESE, text=en), zh, name, held_out, {"expected": zh})
    yield Chat("translate", "en", one(rng, TO_ENGLISH, text=zh), en, name, held_out, {"expected": en})
