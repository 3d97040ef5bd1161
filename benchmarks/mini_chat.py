"""What ayllu-mini-chat can do: the 500 held-out prompts of recipes/mini_chat, each asked twice, and each kind scored.

Once as `ayllu chat` asks, by its default sampling with a fixed seed: does the answer end by itself within 256 tokens,
is it in the language that it should be, and is it free of the template's marks? And once greedily, for the scores, all
with 95 % bootstrap intervals: chrF of translations, exact match and F1 of answers from passages, the share of right
sums, feelings and answers about itself. `--compare` asks another model, such as the base, the same.

    python recipes/mini_chat/make.py --data ../shared/data --out runs/mini-chat/data
    python benchmarks/mini_chat.py --prompts runs/mini-chat/data/held_out.jsonl [--model MODEL] [--compare MODEL]
                                   [--quick] [--json FILE] [--answers FILE]
"""

import argparse
import json
import random
import re
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ayllu import LLM
from ayllu.engine.dialogue import as_prompt
from ayllu.evaluate.intervals import Interval, bootstrap, bootstrap_mean
from ayllu.evaluate.metrics import answer_f1, exact_match
from ayllu.evaluate.translation import corpus
from ayllu.files import write_json
from ayllu.log import say, setup

ROOT = Path(__file__).resolve().parent.parent
LIMIT, SEED = 256, 1
ENDS_GOAL = 0.99
MARKS = re.compile(r"<\|im_(start|end)\|>|^(User|Assistant|user|assistant)[:\n]", re.MULTILINE)

Row = dict[str, Any]


def main() -> int:
    """Ask, score, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=Path, default=ROOT / "runs/mini-chat/data/held_out.jsonl")
    parser.add_argument("--model", default="ayllu-mini-chat")
    parser.add_argument("--compare", help="another model, asked the same")
    parser.add_argument("--quick", action="store_true", help="30 of the prompts")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--answers", type=Path, help="JSON Lines of every prompt and answer")
    options = parser.parse_args()
    setup()
    rows = [json.loads(line) for line in options.prompts.read_text(encoding="utf-8").splitlines()]
    if options.quick:
        rows = random.Random(0).sample(rows, 30)
    results = {}
    for name in filter(None, (options.model, options.compare)):
        asked = ask(name, rows)
        results[name] = {label: (vars(found) if found else None) for label, found in table(asked).items()}
        show(name, table(asked))
        if options.answers and name == options.model:
            options.answers.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in asked), "utf-8")
    if options.json:
        write_json(options.json, results)
    ends = results[options.model]["ends by itself"]["value"]
    print(f"worst ratio: {ends / ENDS_GOAL:.2f} (answers that end by themselves)")
    return 0


def ask(name: str, rows: list[Row]) -> list[Row]:
    """Each row with what the model said: `drawn` and `ended` by its defaults, `greedy`."""
    llm = LLM.load(name)
    say(f"{name}: {len(rows)} prompts, twice")
    prompts = [as_prompt(row["messages"][:1], llm.tokenizer, llm.checkpoint.chat_template) for row in rows]
    ids, stop = [prompt.ids for prompt in prompts], prompts[0].stop
    drawn = llm.generate(ids, max_tokens=LIMIT, seed=SEED, stop=stop)
    greedy = llm.generate(ids, max_tokens=LIMIT, temperature=0, stop=stop)
    return [{**row, "drawn": d.text.strip(), "ended": d.finish_reason == "stop", "greedy": g.text.strip()}
            for row, d, g in zip(rows, drawn, greedy, strict=True)]


def table(rows: list[Row]) -> dict[str, Interval | None]:
    """Every score by its name."""
    found: dict[str, Interval | None] = {
        "ends by itself": bootstrap_mean([row["ended"] for row in rows]),
        "in the right language": bootstrap_mean([language(row["drawn"]) in (row["language"], None) for row in rows]),
        "without marks of the template": bootstrap_mean([not MARKS.search(row["drawn"]) for row in rows])}
    kinds: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        kinds[row["kind"], row["language"]].append(row)
    for (kind, tongue), part in sorted(kinds.items()):
        for metric, score in SCORES.get(kind, {}).items():
            found[f"{kind}, {tongue}: {metric}"] = score(part)
    return found


def language(text: str) -> str | None:
    """en or zh, by what most of the letters are; None where there are none, as in a sum."""
    chinese, latin = len(re.findall(r"[\u4e00-\u9fff]", text)), len(re.findall(r"[A-Za-z]+", text))
    return None if chinese + latin == 0 else "zh" if chinese > latin else "en"


def chrf(rows: list[Row]) -> Interval:
    """Of the corpus, 0 to 100."""
    return bootstrap(corpus("chrf", [row["greedy"] for row in rows], [[row["expected"]] for row in rows]), len(rows))


def share(right: Callable[[Row], float]) -> Callable[[list[Row]], Interval]:
    """The mean of a score of each row."""
    return lambda rows: bootstrap_mean([right(row) for row in rows])


def convention(row: Row) -> Any:
    """How answers from passages are compared."""
    return "cmrc" if row["language"] == "zh" else "squad"


def number(row: Row) -> float:
    """Whether what stands after the last equals sign is the result."""
    said = re.findall(r"-?\d+", row["greedy"].rsplit("=", 1)[-1])
    return float(bool(said) and said[0] == row["expected"])


SCORES: dict[str, dict[str, Callable[[list[Row]], Interval]]] = {
    "translate": {"chrF": chrf},
    "passage": {"exact": share(lambda row: exact_match(row["greedy"], row["expected"], convention(row))),
                "F1": share(lambda row: answer_f1(row["greedy"], row["expected"], convention(row)))},
    "sum": {"right": share(number)},
    "feeling": {"right": share(lambda row: row["greedy"] == row["expected"])},
    "film": {"right": share(lambda row: row["greedy"] == row["expected"])},
    "about": {"right": share(lambda row: row["greedy"] == row["expected"])},
}


def show(name: str, found: dict[str, Interval | None]) -> None:
    """A table for people."""
    print(f"\n{name:<40}{'score':>9}{'95 % interval':>20}{'n':>6}")
    for label, at in found.items():
        if at:
            print(f"{label:<40}{at.value:>9.3f}{at.low:>12.3f} to {at.high:.3f}{at.n:>5}")


if __name__ == "__main__":
    sys.exit(main())
