"""Ayllu's training step beside a plain transformers loop and LitGPT, in turns, all loaded all the while.

    python benchmarks/train.py --json results.json             # every shape; about a quarter of an hour
    python benchmarks/train.py --shapes 15m                    # one of them
    python benchmarks/train.py --quick                         # the smallest shape, one batch size, nothing compiled

A step is forward, backward, clipping and AdamW on one batch. Each side tries several batch sizes (LitGPT also two
precisions) in processes of their own, and its fastest is what counts. All compute in bfloat16 with torch.compile, SDPA
and fused AdamW; the first step, which compiles, is reported apart. Weights and tokens are random.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

from lines import Worker
from peers import machine, python_of

HERE = Path(__file__).parent
SCRIPTS = {"ayllu": "train_ours.py", "transformers": "train_transformers.py", "litgpt": "train_litgpt.py"}
SETTINGS = {"ayllu": ("bf16_masters",), "transformers": ("autocast",), "litgpt": ("bf16-mixed", "bf16-true")}
SHAPES: dict[str, dict[str, Any]] = {
    "5m": {"dim": 192, "n_layers": 6, "n_heads": 4, "n_kv_heads": 4, "head_dim": 48, "hidden_dim": 512,
           "vocab_size": 12_000, "max_context": 256, "tie_embeddings": True},
    "15m": {"dim": 288, "n_layers": 6, "n_heads": 6, "n_kv_heads": 6, "head_dim": 48, "hidden_dim": 768,
            "vocab_size": 32_000, "max_context": 256, "tie_embeddings": True},
    "110m": {"dim": 768, "n_layers": 12, "n_heads": 12, "n_kv_heads": 12, "head_dim": 64, "hidden_dim": 2048,
             "vocab_size": 32_000, "max_context": 1024, "tie_embeddings": True},
}
ROWS = {"5m": (16, 64), "15m": (8, 32), "110m": (2, 4)}  # batch sizes that are tried


@dataclass
class Side:
    """One program at its best setting."""

    name: str
    setting: str
    rows: int                                            # of the batch
    rate: float                                          # tokens per second, median of the rounds
    share: float                                         # of the matrix peak
    peak_bytes: int
    first_s: float                                       # the first step, compiling included
    ratio: float                                         # Ayllu's rate over this one's, median of the rounds
    memory_ratio: float                                  # its peak over Ayllu's
    tried: dict[str, float]                              # tokens per second of each setting, one step
    failed: dict[str, str]


def main() -> None:
    """Measure the shapes that are asked for and print a table for each."""
    options = _options()
    log = Path(tempfile.gettempdir()) / f"ayllu-benchmark-{os.getpid()}.log"
    start, tables, worst = time.perf_counter(), dict[str, Any](), (float("inf"), "")
    for shape in options.shapes:
        peak, sides = measure(shape, options, log)
        tables[shape] = {"peak_flops": peak, "sides": [asdict(side) for side in sides]}
        _show(shape, peak, sides)
        worst = min([worst, *((side.ratio, f"{shape}, tokens/s beside {side.name}") for side in sides[1:])])
    _say(f"{time.perf_counter() - start:.0f} s; logs of the workers: {log}")
    if options.json:
        report = {"date": date.today().isoformat(), "machine": machine(), "threads": options.threads,
                  "quick": options.quick, "tables": tables, "worst": {"ratio": worst[0], "cell": worst[1]}}
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(f"worst ratio: {worst[0]:.2f} ({worst[1]})")


def measure(shape: str, options: argparse.Namespace, log: Path) -> tuple[float, list[Side]]:
    """The matrix peak, and each side's fastest setting against ours in turns."""
    rows = ROWS[shape][:1] if options.quick else ROWS[shape]
    workers, found = dict[str, Worker](), dict[str, Any]()
    try:
        for name in SCRIPTS:
            settings = SETTINGS[name][:1] if options.quick else SETTINGS[name]
            workers[name], found[name] = _fastest(name, shape, settings, rows, options, log)
        peak = workers["ayllu"].ask("peak_flops")["flops_per_s"]
        rates = _rounds(workers, found, shape, 2 if options.quick else options.rounds)
        memory = {name: int(worker.ask("peak")["peak_bytes"]) for name, worker in workers.items()}
    finally:
        for worker in workers.values():
            worker.close()
    sides = []
    for name in SCRIPTS:
        rate = statistics.median(rates[name])
        ratio = statistics.median(a / b for a, b in zip(rates["ayllu"], rates[name], strict=True))
        sides.append(Side(name, rate=rate, share=rate * token_operations(SHAPES[shape]) / peak, ratio=ratio,
                          peak_bytes=memory[name], memory_ratio=memory[name] / memory["ayllu"], **found[name]))
    return peak, sides


def _fastest(name: str, shape: str, settings: tuple[str, ...], rows: tuple[int, ...], options: argparse.Namespace,
             log: Path) -> tuple[Worker, dict[str, Any]]:
    """A warm worker for the fastest setting and batch size, and what was tried."""
    best: tuple[float, Worker, dict[str, Any]] | None = None
    tried, failed = dict[str, float](), dict[str, str]()
    for setting in settings:
        for n in rows:
            label = f"{setting}, {n} rows"
            worker = Worker(python_of(name), HERE / SCRIPTS[name], options.threads, log)
            try:
                loaded = worker.ask("load", shape=SHAPES[shape], setting=setting, rows=n, threads=options.threads,
                                    compiled=not options.quick)
                first = worker.ask("run")["seconds"]
                rate = n * SHAPES[shape]["max_context"] / min(worker.ask("run")["seconds"] for _ in range(2))
            except RuntimeError as error:
                failed[label] = str(error)
                worker.close()
                continue
            tried[label] = rate
            _say(f"  {shape} {name} {label}: {rate:.0f} tokens/s, first step {first:.1f} s")
            if best is not None and best[0] >= rate:
                worker.close()
                continue
            if best is not None:
                best[1].close()
            told = f"{setting}, {loaded['kernels']}" if "kernels" in loaded else setting
            best = rate, worker, {"setting": told, "rows": n, "first_s": first}
    if best is None:
        raise SystemExit(f"{name} ran in no setting ({failed}): see {log}")
    return best[1], {**best[2], "tried": tried, "failed": failed}


def _rounds(workers: dict[str, Worker], found: dict[str, Any], shape: str, rounds: int) -> dict[str, list[float]]:
    """Tokens per second of each side in each round; who begins changes from round to round."""
    rates: dict[str, list[float]] = {name: [] for name in workers}
    context, names = SHAPES[shape]["max_context"], list(workers)
    for number in range(rounds):
        for name in names[number % 3:] + names[:number % 3]:
            rows = found[name]["rows"]
            steps = max(1, max(f["rows"] for f in found.values()) // rows)    # about as many tokens for everybody
            seconds = sum(workers[name].ask("run")["seconds"] for _ in range(steps))
            rates[name].append(steps * rows * context / seconds)
    return rates


def token_operations(shape: dict[str, Any]) -> float:
    """Operations per token of a training step: 6 for each weight of a product, and causal attention."""
    D, E, F = shape["dim"], shape["head_dim"], shape["hidden_dim"]
    layer = 2 * D * shape["n_heads"] * E + 2 * D * shape["n_kv_heads"] * E + 3 * D * F
    weights = shape["n_layers"] * layer + D * shape["vocab_size"]
    attention = 6 * shape["n_layers"] * shape["n_heads"] * E * shape["max_context"]
    return float(6 * weights + attention)


def _show(shape: str, peak: float, sides: list[Side]) -> None:
    print(f"\n{shape}: matrix peak {peak / 1e12:.2f} T operations/s, "
          f"at most {peak / token_operations(SHAPES[shape]):,.0f} tokens/s")
    print("| | setting | tokens/s | share of peak | Ayllu's rate over it | peak MB | first step s |\n"
          "|---|---|---:|---:|---:|---:|---:|")
    for side in sides:
        print(f"| {side.name} | {side.setting}, {side.rows} rows | {side.rate:,.0f} | {side.share:.0%} "
              f"| {side.ratio:.2f} | {side.peak_bytes / 1e6:,.0f} | {side.first_s:.0f} |", flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the smallest shape, one batch size, nothing compiled")
    parser.add_argument("--shapes", help=f"some of {','.join(SHAPES)}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    options.shapes = (options.shapes or ("5m" if options.quick else ",".join(SHAPES))).split(",")
    if unknown := set(options.shapes) - set(SHAPES):
        parser.error(f"--shapes: {', '.join(sorted(unknown))} is none of {', '.join(SHAPES)}")
    return options


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
