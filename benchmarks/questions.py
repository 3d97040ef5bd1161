"""Extractive questions in Chinese and English: the bundled model before and after learning two dev parts.

    python benchmarks/questions.py --data ../shared/data --out runs/questions --seeds 1 2 3
    python benchmarks/questions.py --data ../shared/data --untaught --model ayllu-mini-chat --limit 100
    python benchmarks/questions.py --data ../shared/data --quick

Each seed trains one model on the dev parts of cmrc2018 and drcd, in the very prompts that the tasks ask by, and answers
cmrc2018's trial part, drcd's test part and xquad_en_zh, written and as a span, with the passage given and with it
looked for among all. --only-recall tells how often it is found and how good the nearest sentence is, which needs no
model and takes a minute; --untaught trains nothing and asks the model as it is.
Beside it stands what needs no model: the sentence of the passage that shares most characters with the question.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from ayllu.evaluate.intervals import bootstrap_mean
from ayllu.evaluate.metrics import Convention, answer_f1, exact_match, pieces
from ayllu.evaluate.retrieval import RANKS
from ayllu.evaluate.run import read_records
from ayllu.evaluate.task import built_in, load_items
from ayllu.files import write_json

TAUGHT = {"cmrc2018.qa": "cmrc2018/dev.jsonl.zst", "drcd.qa": "drcd/dev.jsonl.zst"}
ASKED = ["cmrc2018", "drcd", "xquad_en_zh"]
Scores = dict[str, dict[str, dict[str, Any]]]


def write_rows(data: Path, out: Path, limit: int | None) -> int:
    """The dev parts as prompts and completions; how many."""
    rows = [{"prompt": item.prompt + task.join, "completion": str(item.expected[0])}
            for name, file in TAUGHT.items() for task in [built_in()[name].model_copy(update={"file": file})]
            for item in load_items(name, task, data, limit)]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return len(rows)


def ayllu(*words: object) -> None:
    subprocess.run([sys.executable, "-m", "ayllu", *map(str, words)], check=True, stdout=sys.stderr)


def nearest_sentence(data: Path, name: str, limit: int | None) -> dict[str, tuple[float, float, float]]:
    """The sentence of the passage that shares most characters (or words) with the question, as the answer."""
    task = built_in()[name]
    items = load_items(name, task, data, limit)
    best = [_nearest(item.row["context"], item.row["question"], task.convention) for item in items]
    found = {}
    for key, score in (("f1", answer_f1), ("em", exact_match)):
        one = bootstrap_mean([score(said, item.expected, task.convention)
                              for said, item in zip(best, items, strict=True)], groups=[item.group for item in items])
        found[key] = (one.value, one.low, one.high)
        print(f"{name:<28}{key:<10} {100 * one.value:6.2f}  ({100 * one.low:.2f} to {100 * one.high:.2f}, n = "
              f"{one.n}), the nearest sentence")
    return found


def _nearest(passage: str, question: str, convention: Convention) -> str:
    asked = set(pieces(question, convention))
    for mark in "。！？.!?":
        passage = passage.replace(mark, mark + "\n")
    return max(passage.splitlines(), key=lambda s: len(asked & set(pieces(s, convention))))


def recall(data: Path, limit: int | None) -> dict[str, dict[str, tuple[float, float, float]]]:
    """How often the passage is among the first k found: the share and its interval."""
    found: dict[str, dict[str, tuple[float, float, float]]] = {}
    for name, task in built_in().items():
        for k in (f"recall@{k}" for k in RANKS if task.retrieve):
            items = load_items(name, task, data, limit)
            one = bootstrap_mean([i.ranks[k] for i in items], groups=[i.group for i in items])
            found.setdefault(name, {})[k] = (one.value, one.low, one.high)
            print(f"{name:<28}{k:<10} {100 * one.value:6.2f}  ({100 * one.low:.2f} to {100 * one.high:.2f}, "
                  f"n = {one.n})")
    return found


def over_seeds(folders: list[Path]) -> Scores:
    """Of each task and metric: the mean over seeds and their spread, and the interval over items of the seeds' mean."""
    runs = [json.loads((folder / "scores.json").read_text(encoding="utf-8"))["tasks"] for folder in folders]
    found: Scores = {}
    for task in runs[0]:
        rows = [read_records(folder, task) for folder in folders]
        groups = [r["group"] for r in rows[0]]
        for metric in rows[0][0]["scores"]:
            each = np.array([[r["scores"][metric] for r in one] for one in rows])         # (seeds, items)
            interval = bootstrap_mean(each.mean(0), groups=groups)
            found.setdefault(task, {})[metric] = {
                "mean": interval.value, "low": interval.low, "high": interval.high, "n": interval.n,
                "spread": float(each.mean(1).std(ddof=1)) if len(rows) > 1 else None}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("runs/questions"))
    parser.add_argument("--model", default="ayllu-mini")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--limit", type=int, help="items of each task")
    parser.add_argument("--set", nargs="*", default=[], help="recipe keys of the training, such as epochs=5")
    parser.add_argument("--only-recall", action="store_true", help="no model: passages found, nearest sentences")
    parser.add_argument("--untaught", action="store_true", help="ask the model as it is, train nothing")
    parser.add_argument("--quick", action="store_true", help="a few rows and items: does it run?")
    args = parser.parse_args()
    limit, more = args.limit, list(args.set)
    if args.quick:
        limit, args.seeds = 4, args.seeds[:1]
        more = ["loop.steps=4", "loop.batch_size=4", "loop.micro_batch=2", "context=512", "compile=off", *more]
    asked = [name for name in built_in() if name.split(".")[0] in ASKED and name.endswith("qa")]
    found: dict[str, object] = {"recall": recall(args.data, limit),
                                "nearest_sentence": {name: nearest_sentence(args.data, name, limit) for name in asked}}
    if not args.only_recall:
        found |= teach_and_ask(args, limit, more)
    print(json.dumps(found))


def teach_and_ask(args: argparse.Namespace, limit: int | None, more: list[str]) -> dict[str, object]:
    tasks = [word for name in ASKED for word in ("--task", name)]
    how = [*tasks, "--data", args.data, "--too-long", "truncate-left", *(["--limit", limit] if limit else [])]
    ayllu("evaluate", args.model, *how, "--out", args.out / "before")
    before = over_seeds([args.out / "before"])
    found: dict[str, Any] = {"model": args.model, "before": before, "after": {}}
    if not args.untaught:
        found |= teach(args, how, more)
    write_json(args.out / "questions.json", found)
    for task, metrics in {**before, **found["after"]}.items():
        for metric, one in metrics.items():
            was = f"{100 * before[task][metric]['mean']:6.2f} -> " if found["after"] else ""
            print(f"{task:<28}{metric:<10} {was}{100 * one['mean']:6.2f}  "
                  f"({100 * one['low']:.2f} to {100 * one['high']:.2f}, n = {one['n']})")
    return found


def teach(args: argparse.Namespace, how: list[object], more: list[str]) -> dict[str, object]:
    """Train with each seed, and ask what came of it."""
    rows, folders = args.out / "train.jsonl", []
    n = write_rows(args.data, rows, 40 if args.quick else None)
    for seed in args.seeds:
        run = args.out / f"run-{seed}"
        ayllu("sft", args.model, rows.resolve(), "data.template=plain", "context=1664", "data.too_long=drop",
              f"seed={seed}", f"out={run}", "loop.patience=3", *more)
        folders.append(args.out / f"after-{seed}")
        ayllu("evaluate", run / "model", *how, "--out", folders[-1])
    return {"train_rows": n, "after": over_seeds(folders)}


if __name__ == "__main__":
    main()
