"""What adapters cost a step of the engine: 32 rows that write at the same time, with 0, 1, 8 or 32 different adapters.

    python benchmarks/adapters.py                        # bundled shape and 110m, both dtypes
    python benchmarks/adapters.py --quick                # a look at whether it works

Every linear layer is adapted, with rank 8 and 16 by turns. Prompts of 16 ids are read before the clock starts; then
each row writes its ids. All ways run by turns, the fastest of three counts. `ratio` is the time of a step over that of
the plain model.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from engine import SHAPES
from peers import machine

from ayllu.adapters.config import LoraConfig
from ayllu.adapters.lora import Adapter, new_adapter
from ayllu.engine.engine import Engine, EngineSettings
from ayllu.engine.request import Request
from ayllu.engine.runner import Runner, make_runner
from ayllu.model.init import initialise
from ayllu.model.llama import Llama
from ayllu.model.params import SamplingParams

ROWS = 32
WAYS = {"plain": 0, "1 adapter": 1, "8 adapters": 8, "32 adapters": 32}


def step_ms(runner: Runner, adapters: list[Adapter], n_new: int) -> float:
    """Milliseconds of a step in which every row writes one id."""
    engine = Engine(runner, EngineSettings(max_rows=ROWS, token_budget=2 * ROWS * 16, prefix_cache=False))
    for number, adapter in enumerate(adapters):
        engine.load_adapter(str(number), adapter)
    for row in range(ROWS):
        name = str(row % len(adapters)) if adapters else None
        engine.submit(Request(tuple(range(3 + row, 19 + row)), SamplingParams(temperature=0, max_tokens=n_new + 1),
                              adapter=name))
    engine.step()
    begun, n_steps = time.perf_counter(), 0
    while not engine.is_idle:
        engine.step()
        n_steps += 1
    assert n_steps == n_new
    return 1000 * (time.perf_counter() - begun) / n_steps


def measure(shape: str, dtype: str, n_new: int, rounds: int) -> dict[str, Any]:
    """Each way's time and its ratio to the plain model's."""
    model = Llama(SHAPES[shape]).eval()
    initialise(model, SHAPES[shape].n_layers, seed=0)
    adapters = [new_adapter(model, LoraConfig(r=(8, 16)[i % 2]), seed=i) for i in range(max(WAYS.values()))]
    runner = make_runner(model.to(getattr(torch, dtype)))
    best: dict[str, float] = {}
    for _ in range(rounds):
        for way, n in WAYS.items():
            best[way] = min(best.get(way, float("inf")), step_ms(runner, adapters[:n], n_new))
    return {"cell": f"{shape} {dtype}", "step_ms": {way: round(ms, 2) for way, ms in best.items()},
            "ratio": {way: round(ms / best["plain"], 2) for way, ms in best.items()}}


def main() -> None:
    """Print each cell as it is measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    cells = [("bundled", "float32")] if args.quick else \
        [(shape, dtype) for shape in SHAPES for dtype in ("float32", "bfloat16")]
    rows = []
    for shape, dtype in cells:
        rows.append(measure(shape, dtype, 4 if args.quick else 64, 1 if args.quick else 3))
        print(json.dumps(rows[-1]), flush=True)
    if args.json:
        facts = {"machine": machine(), "threads": torch.get_num_threads(), "torch": torch.__version__}
        args.json.write_text(json.dumps({**facts, "cells": rows}, indent=1) + "\n", encoding="utf-8")
    worst = max(rows, key=lambda row: row["ratio"]["32 adapters"])
    print(f"worst ratio: {1 / worst['ratio']['32 adapters']:.2f} ({worst['cell']}, 32 adapters beside none)")


if __name__ == "__main__":
    main()
