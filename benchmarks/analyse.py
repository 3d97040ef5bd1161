"""`ayllu analyse` on real posts: how good its verdicts are, and how many posts a second a head labels.

Quality: accuracy, macro-F1 and calibration error on the sides of benchmarks/heads.py that are tested on. `words` is the
default (the lexicon; it learned nothing), `few` learns 16 rows of each label, `zero` ranks the labels' names, `head` is
the recipe of benchmarks/heads.py (minutes for each set), `tfidf` its logistic regression over all training rows. The
calibration error stands before and after one temperature: of `words` and `zero` it is fitted on 500 training rows, of
`head` on the tenth that it holds back; `few` has its from rows that each fold held back, and `tfidf` none.

Speed: one classifier with random weights in the bundled model's shape, read by `ayllu.train.labeller` and, exported as
LlamaForSequenceClassification, by transformers' text-classification pipeline (batches of 1, its default, of 8 and
of 32), in turns over the same posts. Rounds are medians; labels of both are compared first.

Large: 100,000 posts (the sample's, each made different) through the whole of `ayllu analyse`: posts a second, and how
much memory the process had after a fifth of them and at the end.

Signs: there is no set at hand that labels emotions, advertising or insults. So this says what the labelled sentiment of
reviews can say: how often a post whose words name joy is positive, and one that names anger, sadness, fear or disgust
negative; and how many reviews, of which hardly any is advertising, are called advertising or insulting.

Names: how many names of people in presidio_pii's sentences become pseudonyms, and how many finds are right.

    python benchmarks/analyse.py [--parts quality signs names large speed] [--sets sst2 waimai_10k ...]
                                 [--sides words few zero tfidf head] [--most N] [--runs FILE] [--quick] [--json FILE]
                                 [--data FOLDER] [--heads FOLDER] [--posts N] [--write] [KEY=VALUE ...]

Each side of a set is a line of --runs as soon as it is measured, and what stands there isn't run again. --most takes so
many training rows of a larger set. KEY=VALUE changes the recipe of `head`; with --heads FOLDER nothing is trained, and
FOLDER/SET, which `ayllu train-head` wrote, is what is measured.
--write keeps what `words` scores for the reports (ayllu/apps/analyse/measured.json).
"""

import argparse
import csv
import json
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from head_sets import CHINESE, DATA, SETS, load
from heads import tfidf_tables, trained
from lines import Worker, peak_bytes
from peers import machine, python_of

from ayllu.apps.analyse.names import names
from ayllu.apps.analyse.reading import SPAM, TOXIC, spam
from ayllu.apps.analyse.report import MEASURED
from ayllu.apps.analyse.run import SAMPLE, analyse
from ayllu.apps.analyse.scorers import Base, FewShot, Words, ZeroShot
from ayllu.checkpoint.head_file import HeadFacts, write_weights
from ayllu.checkpoint.load import load_checkpoint
from ayllu.data.labelled import Labelled, names_of, position
from ayllu.data.readers import columns, records
from ayllu.data.rows import Record
from ayllu.evaluate.intervals import bootstrap_mean
from ayllu.evaluate.metrics import calibration_error, macro_f1_of
from ayllu.files import write_json
from ayllu.log import say, setup
from ayllu.model.heads import Classifier, HeadConfig
from ayllu.text.lexicon import EMOTIONS, emotions, read, strength
from ayllu.train.calibrate import temperature
from ayllu.train.labeller import Labeller

SENTIMENT = ("sst2", "movie_reviews", "eprstmt", "waimai_10k", "chnsenticorp_htl", "online_shopping_10_cats")
TOPICS = ("trec", "ag_news_test", "tnews")
MOST, SHOTS, FITTED = 2000, 16, 500                      # rows tested; of each label; that a temperature is fitted on
NAMES = {                                                # what a label is called where its name says nothing
    **{name: {"0": "negative", "1": "positive"} for name in SENTIMENT},
    "trec": {"ABBR": "abbreviation", "DESC": "description", "ENTY": "thing", "HUM": "person", "LOC": "place",
             "NUM": "number", "0": "description", "1": "thing", "2": "abbreviation", "3": "person", "4": "place",
             "5": "number"},
    "ag_news_test": {"1": "world", "2": "sport", "3": "business", "4": "science"}}
PARTS = ("quality", "signs", "names", "large", "speed")
PEER = Path(__file__).parent / "analyse_peer.py"
Tables = list[dict[str, float]]


def main() -> int:
    """Measure and print."""
    setup()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("changes", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--sets", nargs="+", choices=(*SENTIMENT, *TOPICS), default=[*SENTIMENT, *TOPICS],
                        metavar="SET")
    parser.add_argument("--sides", nargs="+", choices=("words", "few", "zero", "tfidf", "head"),
                        default=["words", "few", "zero", "tfidf"])
    parser.add_argument("--most", type=int, help="training rows of a set")
    parser.add_argument("--heads", type=Path, help="for `head`: a folder with a trained head for each set, by its name")
    parser.add_argument("--posts", type=int, default=4000, help="for `speed`; without AMX 400 take a minute")
    parser.add_argument("--runs", type=Path, help="JSON lines: read at first, and written to after each side of a set")
    parser.add_argument("--quick", action="store_true", help="few rows: whether it works, not how well")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--data", type=Path, default=DATA)
    options = parser.parse_args()
    result: dict[str, Any] = {"machine": machine()}
    if "quality" in options.parts:
        result["quality"] = quality(options)
    if "signs" in options.parts:
        result["signs"] = signs(options)
    if "names" in options.parts:
        result["names"] = people(options)
    if "large" in options.parts:
        result["large"] = large(5_000 if options.quick else 100_000)
    if "speed" in options.parts:
        result["speed"] = speed(options)
    if options.json:
        write_json(options.json, result)
    print(json.dumps(result))
    return 0


def quality(options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each set and side."""
    rows, base = [], Base.load("ayllu-mini")
    lines = options.runs.read_text(encoding="utf-8").splitlines() if options.runs and options.runs.exists() else []
    known = [json.loads(line) for line in lines]
    for name in options.sets:
        train, test = split(name, options)
        for side in options.sides:
            if side == "words" and name not in SENTIMENT:
                continue
            key = {"set": name, "side": side, "train": len(train), "test": len(test),
                   **({"changes": options.changes} if side == "head" else {}),
                   **({"heads": options.heads.name} if side == "head" and options.heads else {})}
            row = next((run for run in known if {k: run.get(k) for k in key} == key), None)
            if row is None:
                row = key | measured(side, name, train, test, base, options)
                if options.runs:
                    with open(options.runs, "a", encoding="utf-8") as file:
                        file.write(json.dumps(row) + "\n")
            rows.append(row)
            print(told(row), flush=True)
    if options.write:
        keep = {row["set"]: {"language": "zh" if is_chinese(row["set"]) else "en", "rows": row["test"],
                             **{key: round(row[key], 4) for key in ("accuracy", "macro_f1", "calibration_error")}}
                for row in rows if row["side"] == "words"}
        write_json(MEASURED, keep)
    return rows


def is_chinese(name: str) -> bool:
    """eprstmt isn't one of heads.py's sets."""
    return name in CHINESE or name == "eprstmt"


def split(name: str, options: argparse.Namespace) -> tuple[list[Labelled], list[Labelled]]:
    """As benchmarks/heads.py has it, the tested rows drawn by a fixed hash where there are too many; named labels."""
    if name == "eprstmt":
        SETS.setdefault(name, ("train", "test"))
    train, test = load(name, options.data, False)
    test = sorted(test, key=lambda row: position(row.text))[:100 if options.quick else MOST]
    most = 500 if options.quick else options.most
    train = sorted(train, key=lambda row: position(row.text))[:most] if most else train
    names = NAMES.get(name, {})

    def named(rows: Sequence[Labelled]) -> list[Labelled]:
        return [Labelled(row.file, row.line, row.text, names.get(str(row.label), str(row.label))) for row in rows]
    return named(train), named(test)


def measured(side: str, name: str, train: list[Labelled], test: list[Labelled], base: Base,
             options: argparse.Namespace) -> dict[str, Any]:
    """Accuracy with its interval, macro-F1, and the calibration error before and after."""
    names = names_of([*train, *test])
    expected, texts = np.array([names.index(str(row.label)) for row in test]), [str(row.text) for row in test]
    start = time.perf_counter()
    by: float | None = None
    if side == "tfidf":
        log_p = logs(tfidf_tables(name, (train, test), options.quick), names)
    elif side == "head":
        kept = options.heads and Labeller.load(options.heads / name, is_fast=True)
        head = kept or trained((train, test), "ayllu-mini", 0, options.changes, options.quick)
        by, said = head.facts.temperature, NAMES.get(name, {})               # a kept one has the set's own labels
        log_p = logs([{said.get(label, label): p for label, p in answer.probabilities.items()}
                      for answer in head(texts)], names) * by
    else:
        scorer = scorer_of(side, name, train, names, base)
        log_p = logs(scorer(texts), names)
        if side in ("words", "zero"):
            fitted = sorted(train, key=lambda row: position(row.text))[:FITTED]
            other = logs(scorer([str(row.text) for row in fitted]), names)
            by = temperature(other, torch.tensor([names.index(str(row.label)) for row in fitted]), "single")
    predicted = log_p.argmax(-1).numpy()
    right = predicted == expected
    interval = bootstrap_mean(right.astype(float))

    def error(by: float) -> float:
        return calibration_error((log_p / by).softmax(-1).max(-1).values.clamp(max=1).numpy(), right)
    out = {"accuracy": float(right.mean()), "low": interval.low, "high": interval.high,
           "macro_f1": macro_f1_of(expected, predicted, len(names)), "calibration_error": error(1)}
    return (out | ({} if by is None else {"temperature": by, "calibrated_error": error(by)})
            | {"seconds": round(time.perf_counter() - start, 1)})


def scorer_of(side: str, name: str, train: list[Labelled], names: Sequence[str], base: Base) -> Callable[[Any], Tables]:
    """One of the application's own."""
    if side == "words":
        return Words()
    if side == "zero":
        return ZeroShot(base, names)
    seen = Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "few.jsonl"
        with open(file, "w", encoding="utf-8") as lines:
            for row in sorted(train, key=lambda row: position(row.text)):
                seen[str(row.label)] += 1
                if seen[str(row.label)] <= SHOTS:
                    lines.write(json.dumps({"text": row.text, "label": row.label}) + "\n")
        return FewShot(base, str(file), "sentiment" if name in SENTIMENT else "topic")


def logs(tables: Tables, names: Sequence[str]) -> torch.Tensor:                                     # (N, C)
    """Log-probabilities in the order of the names; what was never seen has next to none."""
    return torch.tensor([[table.get(label, 0.0) for label in names] for table in tables]).double().clamp(1e-9).log()


def told(row: dict[str, Any]) -> str:
    """A line of the table, in percent."""
    before, after = (f"{100 * row[key]:5.1f}" if key in row else "    -" for key in ("calibration_error",
                                                                                    "calibrated_error"))
    return (f"{row['set']:<24}{row['side']:<7}{row['test']:>6}  accuracy {100 * row['accuracy']:.1f} "
            f"({100 * row['low']:.1f} to {100 * row['high']:.1f})  macro-F1 {100 * row['macro_f1']:.1f}"
            f"  calibration error {before} -> {after}")


def signs(options: argparse.Namespace) -> dict[str, Any]:
    """For each language: of posts whose likeliest emotion is this one, the share with the label of its side, among all
    that many are; and the shares that are called advertising and insulting."""
    seen: dict[str, list[tuple[str, bool, bool, bool]]] = {"en": [], "zh": []}
    for name in SENTIMENT:
        for row in split(name, options)[1]:
            found = read(str(row.text))
            named = emotions(found)
            first = max(named, key=lambda one: named[one]) if named else ""
            seen["zh" if is_chinese(name) else "en"].append((
                first, str(row.label) == ("positive" if first == "joy" else "negative"),
                spam(str(row.text), found) >= SPAM, strength(found, "toxic") >= TOXIC))
    out: dict[str, Any] = {}
    for language, rows in seen.items():
        share = {"spam": np.mean([row[2] for row in rows]), "toxic": np.mean([row[3] for row in rows])}
        out[language] = {"reviews": len(rows), **{key: float(value) for key, value in share.items()}}
        print(f"{language}: {len(rows):,} reviews, called advertising {share['spam']:.2%}, insulting "
              f"{share['toxic']:.2%}")
        for emotion in EMOTIONS:
            its = [row[1] for row in rows if row[0] == emotion]
            if its and emotion != "surprise":            # which has no side
                right = bootstrap_mean(np.array(its, float))
                out[language][emotion] = {"n": len(its), "right": (right.value, right.low, right.high)}
                print(f"  {emotion:<9}{len(its):>6}  on its side {right.value:.1%} ({right.low:.1%} to "
                      f"{right.high:.1%})")
    return out


def people(options: argparse.Namespace) -> dict[str, float]:
    """Names of people in presidio_pii's made-up sentences: the share that is found, and the share of finds that are
    names. A find that overlaps a name counts."""
    hits = right = found = there = 0
    for record in records(options.data / "presidio_pii" / "test.jsonl.zst", (), "test.jsonl.zst"):
        assert isinstance(record, Record)
        row: Any = columns(record)
        gold = [(s["start_position"], s["end_position"]) for s in row["spans"] if s["entity_type"] == "PERSON"]
        said = set(names(row["full_text"]))
        there, found = there + len(gold), found + len(said)
        hits += sum(any(a < end and start < b for a, b in said) for start, end in gold)
        right += sum(any(a < end and start < b for start, end in gold) for a, b in said)
    out = {"names": there, "recall": hits / there, "precision": right / found}
    print(f"names of people: {there:,}, found {out['recall']:.1%}, finds that are right {out['precision']:.1%}")
    return out


def large(n: int) -> dict[str, Any]:
    """A whole run, report included."""
    random = np.random.default_rng(0)
    peaks: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "posts.csv"
        with open(SAMPLE, encoding="utf-8") as given, open(file, "w", encoding="utf-8", newline="") as out:
            rows = list(csv.DictReader(given))
            table = csv.DictWriter(out, list(rows[0]))
            table.writeheader()
            for i in range(n):
                row = rows[int(random.integers(len(rows)))]
                table.writerow({**row, "id": i, "text": f"{row['text']} {i}",
                                "time": f"2026-{random.integers(1, 13):02d}-{random.integers(1, 29):02d}"})
        start = time.perf_counter()
        analyse(file, Path(folder) / "out", tick=lambda posts: peaks.append(peak_bytes()["peak_bytes"] / 2**20))
        seconds = time.perf_counter() - start
    found = {"posts": n, "posts_per_second": n / seconds, "fifth_mib": peaks[len(peaks) // 5], "read_mib": peaks[-1],
            "end_mib": peak_bytes()["peak_bytes"] / 2**20}
    print(f"{n:,} posts: {found['posts_per_second']:,.0f} a second, {found['fifth_mib']:.0f} MiB after a fifth, "
          f"{found['read_mib']:.0f} when all are read, {found['end_mib']:.0f} at the end")
    return found


def speed(options: argparse.Namespace) -> dict[str, Any]:
    """Posts per second of both sides in turns, and whether they say the same."""
    n, rounds = (200, 1) if options.quick else (options.posts, 3)
    posts = [str(row.text) for name in ("waimai_10k", "sst2", "ag_news_test", "online_shopping_10_cats")
             for row in load(name, options.data, False)[0][:n // 4]]
    posts = [posts[i] for i in np.random.default_rng(0).permutation(len(posts))]
    threads = max(1, len(os.sched_getaffinity(0)))
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        exported(Path(folder))
        labeller = Labeller.load(folder, is_fast=True)
        peer = Worker(python_of("transformers"), PEER, threads, Path(folder) / "peer.log")
        try:
            versions = peer.ask("load", folder=folder, posts=posts)
            same = agreement(labeller, posts, peer)
            rates: dict[str, list[float]] = {"ours": [], "1": [], "8": [], "32": []}
            for _ in range(rounds):
                start = time.perf_counter()
                labeller(posts)
                rates["ours"].append(len(posts) / (time.perf_counter() - start))
                for size in (32, 8, 1):
                    some = len(posts) if size > 1 else len(posts) // 4
                    rates[str(size)].append(some / peer.ask("label", size=size, some=some)["seconds"])
        finally:
            peer.close()
    medians = {name: statistics.median(found) for name, found in rates.items()}
    ratio = medians["ours"] / max(medians["1"], medians["8"], medians["32"])
    say(f"ours {medians['ours']:,.0f} posts/s, transformers' pipeline {medians['1']:,.0f} (batch 1), "
        f"{medians['8']:,.0f} (batch 8), {medians['32']:,.0f} (batch 32): "
        f"{ratio:.2f} times the better one; labels the same: {same:.2%}")
    return {"posts": len(posts), "threads": threads, "rates": rates, "ratio": ratio, "same_labels": same, **versions}


def exported(folder: Path) -> None:
    """The bundled model's body under a head of four labels that LlamaForSequenceClassification computes, too."""
    loaded = load_checkpoint("ayllu-mini", dtype="float32")
    head = HeadConfig(n_outputs=4, pooling="last", attention="causal")
    model = Classifier(loaded.model, head)
    torch.nn.init.normal_(model.score.weight, std=0.5, generator=torch.Generator().manual_seed(0))
    facts = HeadFacts(head=head, body=model.config, names=("a", "b", "c", "d"), context=512, too_long="begin")
    write_weights(folder, model, facts)
    assert loaded.tokenizer is not None
    loaded.tokenizer.save(folder)


def agreement(labeller: Labeller, posts: Sequence[str], peer: Worker) -> float:
    """The share of some posts with the same label."""
    some = min(200, len(posts))
    theirs = peer.ask("label", size=32, some=some)["labels"]
    ours = [answer.labels[0] for answer in labeller(posts[:some])]
    return sum(a == b for a, b in zip(ours, theirs, strict=True)) / some


if __name__ == "__main__":
    sys.exit(main())
