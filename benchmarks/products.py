"""Products of few and many rows with bfloat16 weights by our C++ (ayllu/native/step.py), beside torch's own, by turns.

    python benchmarks/products.py                        # shapes of the bundled model, 110m and 1.1b; 1 to 512 rows
    python benchmarks/products.py --quick                # one shape, three numbers of rows

For CPUs without AMX; with it the engine leaves single products to oneDNN. Torch multiplies bfloat16, and, shown beside,
float32, which is twice the memory. The floor of few rows is the reading of the weights: GB/s stands beside the
memory's, measured in this run; of many rows the products: GFLOPS. Medians of CPU-bound rounds, one thread, each set of
weights larger than the caches where `--mb` says so.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from peers import machine

from ayllu.native.step import Packed

SHAPES = {"bundled w13": (256, 1408), "110m w13": (768, 4096), "1.1b w13": (2048, 11264)}
ROWS = (1, 2, 4, 8, 16, 32, 128, 512)


def main() -> None:
    """A table for each shape."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--mb", type=int, default=64, help="MB of weights that are read by turns")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    shapes = {"110m w13": SHAPES["110m w13"]} if options.quick else SHAPES
    rows = (1, 8, 128) if options.quick else ROWS
    torch.set_num_threads(1)
    bandwidth = memory_bandwidth()
    cells = [cell for name, (K, O) in shapes.items() for cell in measure(name, K, O, rows, options)]   # noqa: E741
    print(f"\nmemory: {bandwidth / 1e9:.1f} GB/s, one thread")
    if options.json:
        options.json.write_text(json.dumps({"date": date.today().isoformat(), "machine": machine(), "cells": cells,
                                            "bandwidth": bandwidth}, indent=1) + "\n", encoding="utf-8")
    worst = min(cells, key=lambda c: c["ratio"])
    print(f"worst ratio: {worst['ratio']:.2f} ({worst['shape']}, {worst['rows']} rows, beside torch's bfloat16)")


def memory_bandwidth() -> float:
    """Bytes per second that one thread reads of 512 MB: the best of 5 sums."""
    x, best = torch.ones(2**27), 0.0
    for _ in range(5):
        begin = time.perf_counter()
        x.sum()
        best = max(best, 4 * len(x) / (time.perf_counter() - begin))
    return best


def measure(name: str, K: int, O: int, rows: tuple[int, ...], options: argparse.Namespace) -> list[dict[str, Any]]:   # noqa: E741
    """K numbers in, O out."""
    n_sets = max(1, options.mb * 10**6 // (2 * K * O))
    weights = [torch.randn(O, K).bfloat16() for _ in range(n_sets)]
    packed, wide = [Packed(w) for w in weights], [w.float() for w in weights]
    blocked = [torch.ops.mkldnn._reorder_linear_weight(w, 128) for w in weights]
    cells = []
    print(f"\n{name}: {K} in, {O} out, {n_sets} sets of weights\n"
          "| rows | ours: GFLOPS, GB/s | torch bfloat16 | torch float32 | ours over bfloat16 | over float32 |\n"
          "|---:|---|---:|---:|---:|---:|")
    for n in rows:
        x = torch.randn(n + -n % 32, K).bfloat16()[:n]
        x_wide = x.float()
        ways: dict[str, Callable[[int], Any]] = {
            "ours": lambda i, x=x: packed[i](x, None, 1),
            "bfloat16": lambda i, x=x: torch.ops.mkldnn._linear_pointwise(x, blocked[i], None, "none", [], ""),
            "float32": lambda i, x=x_wide: F.linear(x, wide[i])}
        spent: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(options.rounds):
            for way, run in ways.items():
                begin, done = time.perf_counter(), 0
                while time.perf_counter() - begin < 0.1:
                    for i in range(n_sets):
                        run(i)
                    done += n_sets
                spent[way].append((time.perf_counter() - begin) / done)
        seconds = {way: statistics.median(times) for way, times in spent.items()}
        gflops = {way: 2e-9 * n * K * O / s for way, s in seconds.items()}
        cell = {"shape": name, "rows": n, "gflops": gflops, "gb_per_s": 2e-9 * K * O / seconds["ours"],
                "ratio": seconds["bfloat16"] / seconds["ours"], "over_float32": seconds["float32"] / seconds["ours"]}
        cells.append(cell)
        print(f"| {n} | {gflops['ours']:.0f}, {cell['gb_per_s']:.1f} | {gflops['bfloat16']:.0f} | "
              f"{gflops['float32']:.0f} | {cell['ratio']:.2f} | {cell['over_float32']:.2f} |", flush=True)
    return cells


if __name__ == "__main__":
    main()
