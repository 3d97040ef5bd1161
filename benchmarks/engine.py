"""The engine beside the dense cache: many requests of different lengths, by turns in one process.

    python benchmarks/engine.py                          # bundled shape and 110m, 1 to 32 rows
    python benchmarks/engine.py --quick                  # a look at whether it works

Requests have 16 to 48 prompt ids and answers of 16 to 112, all greedy; there are twice as many as rows. `one by one` is
the dense cache with one request after the other, `batches` the same with as many as rows together, which wait for the
longest. Each is run three times by turns, the fastest counts. Ratios are of tokens per second, engine over batches; the
other settings of the engine (torch instead of the kernels, deterministic, 8-bit cache, guesses by repetition) are shown
beside it, and `over torch` is what the kernels gain.
"""

import argparse
import json
import random
import time
from pathlib import Path
from typing import Any

import torch

from ayllu.engine.engine import Engine, EngineSettings
from ayllu.engine.request import Request
from ayllu.engine.runner import Runner, make_runner
from ayllu.model.config import LlamaConfig
from ayllu.model.generate import generate
from ayllu.model.init import initialise
from ayllu.model.llama import Llama
from ayllu.model.params import SamplingParams
from ayllu.model.presets import preset

BUNDLED = LlamaConfig(dim=256, n_layers=6, n_heads=4, n_kv_heads=2, head_dim=64, hidden_dim=704, vocab_size=16_000,
                      tie_embeddings=True)
SHAPES = {"bundled": BUNDLED, "110m": preset("stories110m")}
SETTINGS: dict[str, dict[str, Any]] = {"engine": {}, "torch": {"attention": "torch"},
                                       "deterministic": {"deterministic": True}, "int8 cache": {"kv_dtype": "int8"},
                                       "guesses": {"n_guesses": 4}}


def requests_of(n: int, vocabulary: int) -> list[Request]:
    """The same for every way to run them."""
    rng = random.Random(0)
    return [Request(tuple(rng.randrange(3, vocabulary) for _ in range(rng.randint(16, 48))),
                    SamplingParams(temperature=0, max_tokens=rng.randint(16, 112))) for _ in range(n)]


def run_engine(runner: Runner, requests: list[Request], rows: int, **settings: Any) -> int:
    """Tokens of all answers."""
    engine = Engine(runner, EngineSettings(max_rows=rows, prefix_cache=False, **settings))
    for request in requests:
        engine.submit(request)
    n = 0
    while not engine.is_idle:
        n += len(engine.step())
    return n


def run_dense(runner: Runner, requests: list[Request], rows: int) -> int:
    """Tokens of all answers, in batches of so many rows."""
    n = 0
    for i in range(0, len(requests), rows):
        some = requests[i:i + rows]
        n += sum(len(outputs[0].ids) for outputs in generate(runner, [r.ids for r in some], [r.params for r in some]))
    return n


def measure(shape: str, dtype: str, rows: int, rounds: int, names: list[str]) -> dict[str, Any]:
    """Tokens per second of each way."""
    model = Llama(SHAPES[shape]).eval()
    initialise(model, SHAPES[shape].n_layers, seed=0)
    runner = make_runner(model.to(getattr(torch, dtype)))
    requests = requests_of(2 * rows, SHAPES[shape].vocab_size)
    ways = {"one by one": lambda: run_dense(runner, requests, 1), "batches": lambda: run_dense(runner, requests, rows)}
    ways |= {name: lambda name=name: run_engine(runner, requests, rows, **SETTINGS[name])  # type: ignore[misc]
             for name in names}
    best: dict[str, float] = {}
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            n = way()
            best[name] = max(best.get(name, 0.0), n / (time.perf_counter() - start))
    return {"cell": f"{shape} {dtype} {rows}", **{name: round(rate, 1) for name, rate in best.items()},
            "over torch": round(best["engine"] / best["torch"], 2), "ratio": round(best["engine"] / best["batches"], 2)}


def main() -> None:
    """Print one table row per cell as it comes, then the worst ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one small cell, once")
    parser.add_argument("--rows", type=int, nargs="*", default=[1, 8, 32])
    parser.add_argument("--shapes", nargs="*", default=list(SHAPES), choices=SHAPES)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write the cells here")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    cells = [("bundled", "float32", 4)] if args.quick else [
        (shape, dtype, rows) for shape in args.shapes for dtype in ("float32", "bfloat16") for rows in args.rows]
    results = []
    for shape, dtype, rows in cells:
        results.append(measure(shape, dtype, rows, 1 if args.quick else args.rounds, list(SETTINGS)))
        print(" | ".join(f"{key} {value}" for key, value in results[-1].items()), flush=True)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    worst = min(results, key=lambda r: r["ratio"])
    print(f"worst ratio: {worst['ratio']:.2f} ({worst['cell']})")


if __name__ == "__main__":
    main()
