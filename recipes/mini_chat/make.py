"""The conversations of ayllu-mini-chat, made by templates from sources whose licences are clear and allow it.

    python recipes/mini_chat/make.py --data ../shared/data --out runs/mini-chat/data

writes train.jsonl, for `ayllu sft recipes/mini-chat.toml`, held_out.jsonl, 500 prompts that nothing of training shares
(benchmarks/mini_chat.py asks them), and counts.json. The same data gives the same files.
"""

import argparse
import json
import random
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import about
import feelings
import passages
import stories
import sums
import translate
from rows import Chat

from ayllu.files import write_json

LICENCES = {"tatoeba_en_zh": "CC-BY-2.0-FR", "storybooks": "CC-BY-4.0", "childrens_books_en": "CC0-1.0",
            "vernacular_zh": "public domain", "cmrc2018": "CC-BY-SA-4.0", "drcd": "CC-BY-SA-3.0",
            "movie_reviews": "CC-BY-4.0", "clinc150": "CC-BY-3.0", "banking77": "CC-BY-4.0", "made": "Apache-2.0"}
HELD_OUT = {"story": 40, "continue": 80, "passage": 90, "sum": 70, "feeling": 40, "film": 10, "about": 50,
            "translate": 500}                            # what the others leave of 500
TALKS = 0.12                                             # the share of conversations with two or three questions


def main() -> int:
    """Make, split, count, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder with the sources")
    parser.add_argument("--out", type=Path, required=True, help="a folder, made where it is missing")
    options = parser.parse_args()
    rng = random.Random(0)
    found = unique(every(options.data, rng))
    held = held_out([chat for chat in found if chat.held_out], rng)
    known = {chat.asked for chat in found if chat.held_out}
    learned = [chat for chat in found if not chat.held_out and chat.asked not in known]
    rows = talks(learned, rng)
    options.out.mkdir(parents=True, exist_ok=True)
    write(options.out / "train.jsonl", rows)
    write(options.out / "held_out.jsonl", [{**chat.row(), "id": n} for n, chat in enumerate(held)])
    counts = {"rows": len(rows), "questions": len(learned), "held_out": len(held), "sources": sources(learned)}
    write_json(options.out / "counts.json", counts)
    print(json.dumps(counts, ensure_ascii=False))
    return 0


def every(data: Path, rng: random.Random) -> Iterator[Chat]:
    """Of all kinds."""
    yield from translate.chats(data, rng)
    yield from stories.chats(data, rng)
    yield from passages.chats(data, rng)
    yield from sums.chats(rng)
    yield from feelings.chats(data, rng)
    yield from about.chats(data, rng)


def unique(chats: Iterator[Chat]) -> list[Chat]:
    """Each question and answer once, but for what the model says of itself: there are few, and people ask them most."""
    return list({(chat.asked, chat.answer, n if chat.kind == "about" else 0): chat
                 for n, chat in enumerate(chats)}.values())


def held_out(chats: list[Chat], rng: random.Random) -> list[Chat]:
    """So many of each kind, half of them in each language where there are enough; each question once."""
    chosen: list[Chat] = []
    for kind, most in HELD_OUT.items():
        n = min(most, HELD_OUT["translate"] - len(chosen))
        asked = {chat.asked: chat for chat in chats if chat.kind == kind}
        sides: dict[str, list[Chat]] = defaultdict(list)
        for chat in asked.values():
            sides[chat.language].append(chat)
        for side in sides.values():
            rng.shuffle(side)
        english = sides["en"][:n - min(n // 2, len(sides["zh"]))]
        chosen += english + sides["zh"][:n - len(english)]
    return chosen


def talks(chats: list[Chat], rng: random.Random) -> list[dict[str, object]]:
    """As rows of training, in an order of chance; some with several questions of one language after each other."""
    rng.shuffle(chats)
    rows: list[dict[str, object]] = []
    short: dict[str, list[Chat]] = {"en": [], "zh": []}
    for chat in chats:
        if rng.random() < TALKS * 2 and chat.kind not in {"story", "continue", "film"}:
            short[chat.language].append(chat)
            if len(short[chat.language]) >= rng.choice((2, 2, 3)):
                rows.append({"messages": [m for one in short[chat.language] for m in one.row()["messages"]]})
                short[chat.language] = []
        else:
            rows.append({"messages": chat.row()["messages"]})
    rows += [{"messages": chat.row()["messages"]} for side in short.values() for chat in side]
    rng.shuffle(rows)
    return rows


def sources(chats: list[Chat]) -> dict[str, dict[str, object]]:
    """What each source gave, with its licence."""
    times = Counter((chat.source, chat.kind, chat.language) for chat in chats)
    table: dict[str, dict[str, object]] = {}
    for (name, kind, language), n in sorted(times.items()):
        table.setdefault(name, {"licence": LICENCES[name]})[f"{kind}, {language}"] = n
    return table


def write(path: Path, rows: list[dict[str, object]]) -> None:
    """JSON Lines."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
