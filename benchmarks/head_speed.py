"""CPU seconds that training a head takes for 1,000 rows: texts packed in a row, and padded as they were before.

    python benchmarks/head_speed.py [--sets trec chnsenticorp_htl] [--steps 20] [--rounds 3] [--quick] [--json FILE]
                                    [--data FOLDER] [KEY=VALUE ...]

The recipe and the rows are those of heads.py, on one thread. The sides take turns; of each the least of all rounds is
told, in CPU seconds of this process, since what else runs on a machine takes less from these than from seconds. The
padded side computes 8 texts at once by autocast, as its recipe did; KEY=VALUE changes both (loop.precision=float32
where there is no AMX).
"""

import argparse
import json
import random
import resource
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from head_sets import DATA, load
from heads import RECIPE

from ayllu.config import build_recipe
from ayllu.data.label_loader import LabelLoader
from ayllu.data.text_packs import PackLoader
from ayllu.device import large_pages
from ayllu.files import write_json
from ayllu.log import setup
from ayllu.model.parallel import ALONE
from ayllu.native.pool import pool_memory
from ayllu.train.heads import head_loss, head_model, new_state
from ayllu.train.heads_config import HeadRecipe
from ayllu.train.heads_lesson import prepared_head
from ayllu.train.heads_packed import why_padded
from ayllu.train.loop import BatchSource, step

CPU = torch.device("cpu")
SIDES: dict[str, list[str]] = {"packed": [], "padded": ["loop.micro_batch=8", "loop.precision=autocast"]}


def cost(name: str, side: str, steps: int, options: argparse.Namespace) -> dict[str, float]:
    """Of some steps after three that warm up: CPU seconds for 1,000 rows, and the mean loss."""
    train, test = load(name, options.data, options.quick)
    random.Random(0).shuffle(train)
    with tempfile.TemporaryDirectory() as folder:
        for file, rows in (("train", train), ("test", test[:50])):
            lines = (json.dumps({"text": row.text, "label": row.label}) + "\n" for row in rows)
            (Path(folder) / f"{file}.jsonl").write_text("".join(lines), encoding="utf-8")
        table: dict[str, Any] = {"name": "speed", "out": folder, "base": "ayllu-mini", "data": {
            "path": "train.jsonl", "held_out": "test.jsonl", "test": "test.jsonl"}}
        recipe = build_recipe(HeadRecipe, table, [*RECIPE, *SIDES[side], *options.changes], where="speed")
        config, lesson = prepared_head(recipe, Path(folder))
    torch.manual_seed(0)
    model, base = head_model(config, lesson, CPU)
    if side == "packed" and (reason := why_padded(config, CPU)):
        raise SystemExit(f"texts can't be packed here: {reason}")
    state = new_state(config, model, ALONE, {"base": base})
    loader = LabelLoader(lesson.train.texts, config.loop.batch_size)
    batches: BatchSource = PackLoader(loader) if side == "packed" else loader
    loss = head_loss(config, lesson.train.texts, model, CPU, side == "packed")
    losses, start = [], 0.0
    for i in range(3 + steps):
        if i == 3:
            start = resource.getrusage(resource.RUSAGE_SELF).ru_utime
        losses.append(step(state, batches.batch(i), loss, config.loop, config.optim, CPU)["loss"])
    spent = resource.getrusage(resource.RUSAGE_SELF).ru_utime - start
    return {"seconds": 1000 * spent / steps / config.loop.batch_size, "loss": sum(losses[3:]) / steps}


def main() -> int:
    setup()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("changes", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--sets", nargs="+", default=["trec", "chnsenticorp_htl"])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="200 rows, 2 steps: whether it works, not how fast")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--data", type=Path, default=DATA)
    options = parser.parse_args()
    large_pages()
    pool_memory()
    torch.set_num_threads(1)
    table = []
    for name in options.sets:
        found: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
        for _ in range(1 if options.quick else options.rounds):
            for side in SIDES:
                found[side].append(cost(name, side, 2 if options.quick else options.steps, options))
        row = {side: min(runs, key=lambda run: run["seconds"]) for side, runs in found.items()}
        table.append({"set": name, **row})
        print(f"{name:<20}" + "  ".join(f"{side} {run['seconds']:.2f} s, loss {run['loss']:.3f}"
                                        for side, run in row.items()), flush=True)
    if options.json:
        write_json(options.json, {"table": table})
    print(json.dumps({"table": table}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
