"""`ayllu translate` beside copying the source and a word-by-word dictionary: BLEU and chrF, with intervals.

The test sides of Tatoeba and of the storybooks, by the hash that ayllu/evaluate/task.py takes; and `tatoeba_unseen`,
the sentences that the recipe of the bundled models (recipes/mini.toml, recipes/mini_chat) left out of training. The
bundled chat model has learned most of the test sides, so for it the unseen ones count. The dictionary is the best word
of IBM model 1 (Brown et al. 1993) trained on all other pairs; Chinese is cut by rjieba. It also shows what the marks of
doubtful translations are worth: how near the marked and the others come to the reference.

    python benchmarks/translate_texts.py --data ../shared/data [--model MODEL] [--quick] [--json FILE] [--write]
"""

import argparse
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rjieba

from ayllu.apps.speaker import LocalSpeaker
from ayllu.apps.translate.languages import Pair
from ayllu.apps.translate.marks import words
from ayllu.apps.translate.measured import FILE
from ayllu.apps.translate.quality import closeness
from ayllu.apps.translate.translator import Translation, Translator
from ayllu.data.corpus import uniform
from ayllu.data.packed import open_binary
from ayllu.evaluate.intervals import bootstrap, bootstrap_mean, compare
from ayllu.evaluate.task import Task, built_in, is_test
from ayllu.evaluate.translation import corpus
from ayllu.files import write_json, write_text
from ayllu.log import say, setup

PATHS = {"tatoeba": "tatoeba_en_zh/train.jsonl.zst", "storybooks": "storybooks/pairs_en_zh.jsonl.zst"}
TESTS: dict[str, Task] = {"tatoeba": built_in()["tatoeba_en_zh.en_zh"]}
TESTS["storybooks"] = TESTS["tatoeba"].model_copy(update={"file": PATHS["storybooks"]})
BASE_SEED, BASE_HELD_OUT = 0, 0.02                       # of recipes/mini.toml
ROUNDS = 5                                               # of expectation and maximisation
BUNDLED = "ayllu-mini-chat"


@dataclass
class Set:
    """Texts of one language with their references in the other."""

    name: str
    pair: Pair
    references: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))


def main() -> int:
    """Read, translate three ways, score, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--model", default=BUNDLED)
    parser.add_argument("--quick", action="store_true", help="40 texts of each set")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--write", action="store_true", help=f"put the scores into {FILE.name}, which the app tells")
    options = parser.parse_args()
    setup()
    sets, training = read(options.data)
    speaker = LocalSpeaker.load(options.model)
    found = []
    for pair in (Pair("en", "zh"), Pair("zh", "en")):
        dictionary = learn([(a, b) if pair.source == "en" else (b, a) for a, b in training], pair)
        for one in (s for s in sets if s.pair == pair):
            sources = list(one.references)[:40 if options.quick else None]
            found.append(score(one, sources, Translator(speaker, pair).translate([(s,) for s in sources]), dictionary))
            show(found[-1])
    if options.json:
        write_json(options.json, {"model": speaker.name, "sets": found})
    if options.write:
        write(speaker.name, found)
    return 0


def read(data: Path) -> tuple[list[Set], list[tuple[str, str]]]:
    """The sets in both directions, and the pairs (en, zh) that share no sentence with any of them."""
    names = ("tatoeba", "tatoeba_unseen", "storybooks")
    forward = {name: Set(name, Pair("en", "zh")) for name in names}
    backward = {name: Set(name, Pair("zh", "en")) for name in names}
    rows: list[tuple[str, str, list[str]]] = []
    for name, path in PATHS.items():
        with open_binary(data / path) as stream:
            for number, line in enumerate(stream):
                row = json.loads(line)
                where = [name] if is_test(TESTS[name], row) else []
                if name == "tatoeba" and uniform(f"{BASE_SEED}/{path}/{number}") < BASE_HELD_OUT:
                    where.append("tatoeba_unseen")
                rows.append((" ".join(row["en"].split()), " ".join(row["zh"].split()), where))
    times = Counter(en for en, _, _ in rows) + Counter(zh for _, zh, _ in rows)
    for en, zh, where in rows:
        for name in where:
            if name == "tatoeba_unseen" and (times[en] > 1 or times[zh] > 1):
                continue                                 # another translation of it was learned
            forward[name].references[en].append(zh)
            backward[name].references[zh].append(en)
    tested = {text for one in (*forward.values(), *backward.values()) for text in one.references}
    training = [(en, zh) for en, zh, where in rows if not where and en not in tested and zh not in tested]
    return [*forward.values(), *backward.values()], training


def cut(text: str, language: str) -> list[str]:
    """Words; a Chinese text has no blanks between them."""
    pieces = rjieba.cut(text) if language == "zh" else text.lower().replace("'", " '").split()
    return [bare for piece in pieces if (bare := piece.strip(" .,!?;:\"()。，！？；：“”、"))]


def learn(pairs: Sequence[tuple[str, str]], pair: Pair) -> dict[str, str]:
    """The likeliest translation of each word by IBM model 1: t(f | e) from expected counts, from uniform."""
    lines = [(cut(a, pair.source), cut(b, pair.target)) for a, b in pairs]
    table: dict[tuple[str, str], float] = defaultdict(lambda: 1.0)
    for _ in range(ROUNDS):
        counts: dict[tuple[str, str], float] = defaultdict(float)
        totals: dict[str, float] = defaultdict(float)
        for source, target in lines:
            for f in target:
                shares = [table[e, f] for e in source]
                whole = sum(shares)
                for e, share in zip(source, shares, strict=True):
                    counts[e, f] += share / whole
                    totals[e] += share / whole
        table = defaultdict(float, {(e, f): n / totals[e] for (e, f), n in counts.items()})
    best: dict[str, tuple[float, str]] = {}
    for (e, f), p in table.items():
        best[e] = max(best.get(e, (0.0, "")), (p, f))
    return {e: f for e, (_, f) in best.items()}


def by_word(text: str, dictionary: dict[str, str], pair: Pair) -> str:
    """Each word's best translation in the source's order; unknown ones as they are."""
    done = [dictionary.get(word, word) for word in cut(text, pair.source)]
    return ("" if pair.target == "zh" else " ").join(done) + ("。" if pair.target == "zh" else ".")


def score(one: Set, sources: list[str], said: Sequence[Translation], dictionary: dict[str, str]) -> dict[str, Any]:
    """All ways over the same texts; the app's difference from the dictionary with its interval."""
    references = [one.references[text] for text in sources]
    ways = {"app": [words(t.parts) for t in said], "copy": sources,
            "dictionary": [by_word(text, dictionary, one.pair) for text in sources]}
    found: dict[str, Any] = {"set": one.name, "pair": str(one.pair), "n": len(sources), "ways": {}}
    statistics: dict[tuple[str, str], Callable[[np.ndarray], float]] = {}
    for way, written in ways.items():
        for metric in ("chrf", "bleu"):
            statistic = corpus(metric, written, references, "zh" if one.pair.target == "zh" else "13a")
            statistics[way, metric] = statistic
            found["ways"].setdefault(way, {})[metric] = vars(bootstrap(statistic, len(sources), samples=500))
    for metric in ("chrf", "bleu"):
        better = compare(statistics["dictionary", metric], statistics["app", metric], len(sources), samples=500)
        found[f"{metric}_over_dictionary"] = vars(better.difference)
    near = np.array([max(closeness(w, r) for r in rs) for w, rs in zip(ways["app"], references, strict=True)])
    low = np.array([t.is_low for t in said])
    found["marked"] = {"share": float(low.mean()), "kept": sum(t.origin == "kept" for t in said),
                       **{name: vars(bootstrap_mean(near[which], samples=500)) for name, which in
                          (("nearness_marked", low), ("nearness_others", ~low)) if which.any()}}
    return found


def show(found: dict[str, Any]) -> None:
    """One set on a few lines."""
    say(f"{found['set']} {found['pair']}, {found['n']:,} texts")
    for way, scores in found["ways"].items():
        say(f"  {way:<12}" + "   ".join(f"{m} {s['value']:.1f} ({s['low']:.1f} to {s['high']:.1f})"
                                        for m, s in scores.items()))
    over = found["chrf_over_dictionary"]
    say(f"  app over dictionary, chrf: {over['value']:+.1f} ({over['low']:+.1f} to {over['high']:+.1f})")
    marked = found["marked"]
    say(f"  marked doubtful: {marked['share']:.0%}, nearness to the reference " + ", ".join(
        f"{name[9:]} {marked[name]['value']:.2f} ({marked[name]['low']:.2f} to {marked[name]['high']:.2f})"
        for name in ("nearness_marked", "nearness_others") if name in marked))


def write(model: str, found: list[dict[str, Any]]) -> None:
    """measured.toml with this model's scores; those of others stay."""
    import tomllib
    table: dict[str, Any] = tomllib.loads(FILE.read_text(encoding="utf-8")) if FILE.is_file() else {}
    table[model] = {}
    for one in found:
        if (one["set"] == "tatoeba_unseen") != (model == BUNDLED and one["set"] != "storybooks"):
            continue
        scores = {f"{m}{end}": round(s[key], 2) for m, s in one["ways"]["app"].items()
                  for end, key in (("", "value"), ("_low", "low"), ("_high", "high"))}
        table[model].setdefault(one["pair"].replace("→", "-"), {})[one["set"]] = {"n": one["n"], **scores}
    lines = ["# Written by python benchmarks/translate_texts.py --write: what was measured of which model."]
    for name, pairs in table.items():
        for pair, its in pairs.items():
            for which, scores in its.items():
                lines += ["", f'["{name}"."{pair}"."{which}"]', *(f"{k} = {v}" for k, v in scores.items())]
    write_text(FILE, "\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())
