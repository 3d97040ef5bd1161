"""Ayllu's generation beside transformers' `generate`, in turns, both loaded all the while.

    python benchmarks/generate.py --json results.json          # every row; minutes to an hour, compile times included
    python benchmarks/generate.py --quick                      # two shapes, fewer rounds, transformers uncompiled

A row is a shape, a dtype and a batch. Its cells: time to the first token of a prompt of 128 tokens, tokens per second
after it, and for each shape and dtype the peak memory of a process that does the batch-1 run and nothing else.
transformers runs with SDPA and the dynamic cache, the static cache, and the static cache with torch.compile; the best
for each cell is what counts. Greedy, end token off, equal prompts, dtypes and threads; weights are random.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

from lines import Worker
from peers import machine, python_of

HERE = Path(__file__).parent
OURS, PEER = HERE / "generate_ours.py", HERE / "generate_peer.py"
SETTINGS = ("dynamic", "static", "compile")
BUNDLED = {"dim": 256, "n_layers": 6, "n_heads": 4, "n_kv_heads": 2, "head_dim": 64, "hidden_dim": 768,
           "vocab_size": 16_000, "max_context": 2048, "tie_embeddings": True}
SHAPES: dict[str, dict[str, Any]] = {
    "bundled": BUNDLED,
    "110m": {"dim": 768, "n_layers": 12, "n_heads": 12, "n_kv_heads": 12, "head_dim": 64, "hidden_dim": 2048,
             "vocab_size": 32_000, "max_context": 1024, "tie_embeddings": True},
    "1.1b": {"dim": 2048, "n_layers": 22, "n_heads": 32, "n_kv_heads": 4, "head_dim": 64, "hidden_dim": 5632,
             "vocab_size": 32_000, "max_context": 2048, "tie_embeddings": False},
}
BYTES = {"float32": 4, "bfloat16": 2}
QUICK = [("bundled", "float32"), ("110m", "bfloat16")]
LARGE_NEW = 24                                           # a step of 1.1b takes a third of a second; 24 are enough


@dataclass
class Row:
    """Medians of one shape, dtype and batch; ratios above 1 mean that Ayllu is ahead."""

    name: str
    first_ms: float
    peer_first_ms: float
    first_setting: str
    first_ratio: float                                   # the median of the rounds' ratios
    rate: float                                          # tokens per second, all rows of the batch together
    peer_rate: float
    rate_setting: str
    rate_ratio: float
    first_share: float                                   # of the matrix peak
    rate_share: float                                    # of the memory bandwidth
    peer_rate_share: float
    warmup_s: dict[str, float]                           # transformers' first call by setting, compiling included
    failed: dict[str, str]                               # settings that did not run, and why


@dataclass
class MemoryRow:
    """Peak resident bytes of a process that runs one prompt."""

    name: str
    bytes: int
    peer_bytes: int
    ratio: float
    setting: str


def main() -> None:
    """Measure the rows that are asked for and print the table."""
    options = _options()
    peer_python = options.peer_python or python_of("transformers")
    log = Path(tempfile.gettempdir()) / f"ayllu-benchmark-{os.getpid()}.log"
    bench = Bench(options.threads, peer_python, log, options.quick, _settings(options))
    start = time.perf_counter()
    rows, memory = list[Row](), list[MemoryRow]()
    for shape, dtype in options.tables:
        limits = bench.limits(dtype)
        rows += bench.speed(shape, dtype, options.batches, limits)
        memory.append(bench.memory(shape, dtype, rows[-1].rate_setting))
        _show(rows[-len(options.batches):], memory[-1], limits)
    worst, cell = worst_ratio(rows, memory)
    _say(f"{time.perf_counter() - start:.0f} s; logs of the workers: {log}")
    if options.json:
        report = {"date": date.today().isoformat(), "machine": machine(), "threads": options.threads,
                  "quick": options.quick, **bench.versions, "rows": [asdict(row) for row in rows],
                  "memory": [asdict(row) for row in memory], "worst": {"ratio": worst, "cell": cell}}
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(f"worst ratio: {worst:.2f} ({cell})")


class Bench:
    """The two workers, started anew for each shape and dtype."""

    def __init__(self, threads: int, peer_python: str, log: Path, quick: bool, settings: Sequence[str]) -> None:
        self.threads, self.peer_python, self.log, self.quick, self.settings = threads, peer_python, log, quick, settings
        self.new = 12 if quick else 64                   # tokens of each answer; the large shape writes LARGE_NEW
        self.versions: dict[str, str] = {}

    def limits(self, dtype: str) -> dict[str, float]:
        """The machine's bandwidth and matrix peak, measured now."""
        worker = self._ours()
        found = worker.ask("limits", dtype=dtype, threads=self.threads)
        worker.close()
        return found

    def speed(self, shape: str, dtype: str, batches: Sequence[int], limits: dict[str, float]) -> list[Row]:
        """All batches of one shape and dtype, in turns."""
        ours, peer = self._ours(), self._peer()
        try:
            self._load(ours, shape, dtype, runner="auto")
            loaded = self._load(peer, shape, dtype)
            self.versions = {"transformers": loaded["version"], "torch": loaded["torch"]}
            return [self._row(ours, peer, shape, dtype, batch, limits) for batch in batches]
        finally:
            ours.close()
            peer.close()

    def memory(self, shape: str, dtype: str, setting: str) -> MemoryRow:
        """Each in a process of its own that has done nothing else; transformers uncompiled, which needs least."""
        setting = "static" if setting == "compile" else setting
        ours, peer = self._ours(), self._peer()
        self._load(ours, shape, dtype, runner="auto")
        ours.ask("run", batch=1, prompt=128, new=min(self.new, LARGE_NEW))
        mine = int(ours.ask("peak")["peak_bytes"])
        ours.close()
        self._load(peer, shape, dtype)
        peer.ask("setting", name=setting)
        peer.ask("run", batch=1, prompt=128, new=min(self.new, LARGE_NEW))
        theirs = int(peer.ask("peak")["peak_bytes"])
        peer.close()
        return MemoryRow(f"{shape} {dtype}", mine, theirs, theirs / mine, setting)

    def _row(self, ours: Worker, peer: Worker, shape: str, dtype: str, batch: int, limits: dict[str, float]) -> Row:
        call = {"batch": batch, "prompt": 128, "new": min(self.new, LARGE_NEW) if shape == "1.1b" else self.new}
        ours.ask("run", **call)
        trials, warmup, failed = self._trials(peer, call)
        by_rate = min(trials, key=lambda name: trials[name]["step_s"])
        by_first = min(trials, key=lambda name: trials[name]["first_s"])
        rate_pairs = self._rounds(ours, peer, by_rate, call)
        first_pairs = rate_pairs if by_first == by_rate else self._rounds(ours, peer, by_first, {**call, "new": 2})
        first, peer_first = ([pair[i]["first_s"] for pair in first_pairs] for i in (0, 1))
        step, peer_step = ([pair[i]["step_s"] for pair in rate_pairs] for i in (0, 1))
        n = matmul_parameters(SHAPES[shape])
        rate, peer_rate = batch / statistics.median(step), batch / statistics.median(peer_step)
        share = n * BYTES[dtype] / batch / limits["bytes_per_s"]
        return Row(
            f"{shape} {dtype} batch {batch}", 1e3 * statistics.median(first), 1e3 * statistics.median(peer_first),
            by_first, _ratio(peer_first, first), rate, peer_rate, by_rate, _ratio(peer_step, step),
            2 * prompt_operations(SHAPES[shape], 128) * batch / statistics.median(first) / limits["flops_per_s"],
            rate * share, peer_rate * share, warmup, failed)

    def _trials(self, peer: Worker, call: dict[str, int]) -> tuple[dict[str, dict[str, float]], dict[str, float],
                                                                   dict[str, str]]:
        """Each setting of transformers once warm: the better of two runs (--quick: its first one)."""
        trials, warmup, failed = dict[str, dict[str, float]](), dict[str, float](), dict[str, str]()
        for name in self.settings:
            try:
                peer.ask("setting", name=name)
                first = peer.ask("run", **call)
                warmup[name] = first["total_s"]
                runs = [first] if self.quick else [peer.ask("run", **call) for _ in range(2)]
            except RuntimeError as error:
                failed[name] = str(error)
                _say(f"transformers {name}: {error}")
                continue
            trials[name] = {key: min(run[key] for run in runs) for key in ("first_s", "step_s")}
        if not trials:
            raise SystemExit(f"transformers ran in no setting: see {self.log}")
        return trials, warmup, failed

    def _rounds(self, ours: Worker, peer: Worker, setting: str, call: dict[str, int]) -> list[tuple[Any, Any]]:
        """Pairs of runs, one after the other; who begins changes from round to round."""
        peer.ask("setting", name=setting)
        peer.ask("run", **call)
        ours.ask("run", **call)
        pairs, start = list[tuple[Any, Any]](), time.perf_counter()
        least, most, budget_s = (3, 5, 1.0) if self.quick else (5, 15, 60.0)
        while len(pairs) < least or (len(pairs) < most and time.perf_counter() - start < budget_s):
            if len(pairs) % 2:
                theirs, mine = peer.ask("run", **call), ours.ask("run", **call)
            else:
                mine, theirs = ours.ask("run", **call), peer.ask("run", **call)
            pairs.append((mine, theirs))
        return pairs

    def _load(self, worker: Worker, shape: str, dtype: str, **options: Any) -> dict[str, Any]:
        return worker.ask("load", shape=SHAPES[shape], dtype=dtype, threads=self.threads, **options)

    def _ours(self) -> Worker:
        return Worker(sys.executable, OURS, self.threads, self.log)

    def _peer(self) -> Worker:
        return Worker(self.peer_python, PEER, self.threads, self.log)


def matmul_parameters(shape: dict[str, Any]) -> int:
    """Weights that one decoding step reads: everything but an embedding that is not the head."""
    D, E, F = shape["dim"], shape["head_dim"], shape["hidden_dim"]
    layer = 2 * D * shape["n_heads"] * E + 2 * D * shape["n_kv_heads"] * E + 3 * D * F
    return shape["n_layers"] * layer + D * shape["vocab_size"]


def prompt_operations(shape: dict[str, Any], length: int) -> int:
    """Multiply-adds of a prompt: every layer for each token, the head for the last one only, and causal attention."""
    D, V, width = shape["dim"], shape["vocab_size"], shape["n_heads"] * shape["head_dim"]
    layers = matmul_parameters(shape) - D * V
    return layers * length + D * V + shape["n_layers"] * width * length * (length + 1)


def worst_ratio(rows: Sequence[Row], memory: Sequence[MemoryRow]) -> tuple[float, str]:
    """The smallest ratio of all cells, each measured over its goal of 1, and its name."""
    cells = [(row.rate_ratio, f"{row.name}, tokens/s") for row in rows]
    cells += [(row.first_ratio, f"{row.name}, first token") for row in rows]
    cells += [(row.ratio, f"{row.name}, peak memory") for row in memory]
    return min(cells)


def _ratio(theirs: Sequence[float], ours: Sequence[float]) -> float:
    """The median over the rounds: what slows both sides of a round leaves it as it is."""
    return statistics.median(a / b for a, b in zip(theirs, ours, strict=True))


def _show(rows: Sequence[Row], memory: MemoryRow, limits: dict[str, float]) -> None:
    print(f"\n{memory.name}: memory {limits['bytes_per_s'] / 1e9:.1f} GB/s, matrix peak "
          f"{limits['flops_per_s'] / 1e12:.2f} T operations/s")
    print("| batch | first token ms, ours / transformers | ratio | share of peak | tokens/s, ours / transformers "
          "| ratio | share of bandwidth, ours / transformers |\n|---|---|---|---|---|---|---|")
    for row in rows:
        print(f"| {row.name.split()[-1]} | {row.first_ms:.1f} / {row.peer_first_ms:.1f} ({row.first_setting}) "
              f"| {row.first_ratio:.2f} | {row.first_share:.0%} "
              f"| {row.rate:.1f} / {row.peer_rate:.1f} ({row.rate_setting}) | {row.rate_ratio:.2f} "
              f"| {row.rate_share:.0%} / {row.peer_rate_share:.0%} |")
        _say(f"  {row.name}: first calls of transformers, s: "
             + ", ".join(f"{name} {seconds:.1f}" for name, seconds in row.warmup_s.items()))
    print(f"peak memory MB: {memory.bytes / 1e6:.0f} / {memory.peer_bytes / 1e6:.0f} ({memory.setting}), "
          f"ratio {memory.ratio:.2f}", flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two tables, fewer rounds, transformers uncompiled")
    parser.add_argument("--rows", help="shapes, dtypes and batches, like: bundled,110m float32 1")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--peer-python", help="a Python that has transformers; default: an environment made for it")
    parser.add_argument("--settings", help=f"of transformers, some of {','.join(SETTINGS)}")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    words = set((options.rows or "").replace(",", " ").split())
    known = {*SHAPES, *BYTES, "1", "8"}
    if words - known:
        parser.error(f"--rows: {', '.join(sorted(words - known))} is none of {', '.join(sorted(known))}")
    shapes, dtypes = words & set(SHAPES) or set(SHAPES), words & set(BYTES) or set(BYTES)
    options.tables = [(shape, dtype) for shape in SHAPES for dtype in BYTES if shape in shapes and dtype in dtypes]
    if options.quick and not options.rows:
        options.tables = QUICK
    options.batches = [n for n in (1, 8) if str(n) in words] or [1, 8]
    return options


def _settings(options: argparse.Namespace) -> Sequence[str]:
    if options.settings:
        return tuple(options.settings.split(","))
    return SETTINGS[:2] if options.quick else SETTINGS


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
