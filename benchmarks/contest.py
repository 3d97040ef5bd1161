"""Training steps of several programs in turns: the fastest setting of each, then rounds in which all take a step.

A program is a script that answers `load`, `run` and `peak` (lines.py); the one called ayllu also `peak_flops`.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from lines import Worker
from peers import machine, python_of

HERE = Path(__file__).parent
Shape = dict[str, Any]


@dataclass(frozen=True)
class Contest:
    """Who takes part, in which settings, in which cells of the table."""

    scripts: dict[str, str]                              # program: script beside this file
    settings: dict[str, tuple[str, ...]]                 # program: what it is tried with
    shapes: dict[str, Shape]                             # cell: shape
    rows: dict[str, tuple[int, ...]]                     # cell: batch sizes that are tried
    told: dict[str, dict[str, Any]] = field(default_factory=dict)    # cell: what else `load` is told
    alone: frozenset[str] = frozenset()                  # cells in which memory holds one program at a time
    operations: Callable[[str, Shape], float] = lambda _, shape: token_operations(shape)    # (cell, shape) per token


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


def measure(contest: Contest, cell: str, options: argparse.Namespace, log: Path) -> tuple[float, list[Side]]:
    """The matrix peak, and each side's fastest setting against ours in turns."""
    parties = {name: _Party(contest, cell, name, options, log) for name in contest.scripts}
    try:
        for party in parties.values():
            party.find()
        peak = parties["ayllu"].ask("peak_flops")["flops_per_s"]
        if cell in contest.alone:
            parties["ayllu"].close()
        rates = _rounds(parties, 2 if options.quick else options.rounds)
        memory = {name: party.peak_bytes() for name, party in parties.items()}
    finally:
        for party in parties.values():
            party.close()
    operations, sides = contest.operations(cell, contest.shapes[cell]), []
    for name, party in parties.items():
        rate = statistics.median(rates[name])
        ratio = statistics.median(a / b for a, b in zip(rates["ayllu"], rates[name], strict=True))
        sides.append(Side(name, party.told, party.rows, rate, rate * operations / peak, memory[name], party.first_s,
                          ratio, memory[name] / memory["ayllu"], party.tried, party.failed))
    return peak, sides


class _Party:
    """One program in one cell: its fastest setting, and its worker, warm where all fit into memory."""

    def __init__(self, contest: Contest, cell: str, name: str, options: argparse.Namespace, log: Path) -> None:
        self.contest, self.cell, self.name, self.options, self.log = contest, cell, name, options, log
        self.shape = contest.shapes[cell]
        self.worker: Worker | None = None
        self.setting, self.told, self.rows, self.first_s, self.highest = "", "", 0, 0.0, 0
        self.tokens = self.step_tokens = 0               # of a step: of the setting tried last, of the fastest
        self.tried, self.failed = dict[str, float](), dict[str, str]()

    def find(self) -> None:
        """Try every setting and batch size; keep the fastest."""
        few = 1 if self.options.quick else None
        settings = self.contest.settings[self.name][:few]
        for setting in [one for one in settings if one in self.options.settings] or settings:
            for rows in self.contest.rows[self.cell][:few]:
                self._try(setting, rows)
        if not self.tried:
            raise SystemExit(f"{self.name} ran in no setting ({self.failed}): see {self.log}")
        if self.cell in self.contest.alone:
            self._keep(None)

    def _try(self, setting: str, rows: int) -> None:
        label = f"{setting}, {rows} rows"
        worker = Worker(python_of(self.name), HERE / self.contest.scripts[self.name], self.options.threads, self.log)
        try:
            told, first = self._load(worker, setting, rows)
            rate = self.tokens / min(worker.ask("run")["seconds"] for _ in range(2))
            peak = int(worker.ask("peak")["peak_bytes"])
        except RuntimeError as error:
            self.failed[label] = str(error)
            worker.close()
            return
        best = max(self.tried.values(), default=0.0)
        self.tried[label] = rate
        say(f"  {self.cell} {self.name} {label}: {rate:.0f} tokens/s, first step {first:.1f} s")
        if rate <= best:
            worker.close()
            return
        self.setting, self.told, self.rows, self.first_s, self.highest = setting, told, rows, first, peak
        self.step_tokens = self.tokens
        self._keep(None if self.cell in self.contest.alone else worker)
        if self.worker is None:
            worker.close()

    def _load(self, worker: Worker, setting: str, rows: int) -> tuple[str, float]:
        """What the setting is called, and seconds of the first step."""
        loaded = worker.ask("load", shape=self.shape, setting=setting, rows=rows, threads=self.options.threads,
                            compiled=not self.options.quick, **self.contest.told.get(self.cell, {}))
        self.tokens = loaded.get("tokens", rows * self.shape["max_context"])
        told = f"{setting}, {loaded['kernels']}" if "kernels" in loaded else setting
        return told, worker.ask("run")["seconds"]

    def run(self, steps: int) -> float:
        """Tokens per second of some steps."""
        if self.worker is None:                          # others need the memory: start again, and warm up again
            self.ask("peak")
        assert self.worker is not None
        seconds = sum(self.worker.ask("run")["seconds"] for _ in range(steps))
        self.highest = max(self.highest, int(self.worker.ask("peak")["peak_bytes"]))
        if self.cell in self.contest.alone:
            self._keep(None)
        return steps * self.step_tokens / seconds

    def ask(self, command: str) -> dict[str, Any]:
        """Of a warm worker, started where there is none."""
        if self.worker is None:
            self.worker = Worker(python_of(self.name), HERE / self.contest.scripts[self.name], self.options.threads,
                                 self.log)
            self._load(self.worker, self.setting, self.rows)
        return self.worker.ask(command)

    def peak_bytes(self) -> int:
        """The most that the process held."""
        return self.highest

    def _keep(self, worker: Worker | None) -> None:
        if self.worker is not None:
            self.worker.close()
        self.worker = worker

    def close(self) -> None:
        """End the worker."""
        self._keep(None)


def _rounds(parties: dict[str, _Party], rounds: int) -> dict[str, list[float]]:
    """Tokens per second of each side in each round; who begins changes from round to round."""
    rates: dict[str, list[float]] = {name: [] for name in parties}
    names, most = list(parties), max(party.rows for party in parties.values())
    for number in range(rounds):
        for name in names[number % len(names):] + names[:number % len(names)]:
            steps = max(1, most // parties[name].rows)   # about as many tokens for everybody
            rates[name].append(parties[name].run(steps))
    return rates


def token_operations(shape: dict[str, Any], each: int = 6) -> float:
    """Operations per token of a training step: `each` for every weight of a product, and causal attention. A weight
    that isn't trained takes 4: it has no gradient of its own."""
    D, E, F = shape["dim"], shape["head_dim"], shape["hidden_dim"]
    layer = 2 * D * shape["n_heads"] * E + 2 * D * shape["n_kv_heads"] * E + 3 * D * F
    weights = shape["n_layers"] * layer + D * shape["vocab_size"]
    attention = 6 * shape["n_layers"] * shape["n_heads"] * E * shape["max_context"]
    return float(each * weights + attention)


def show(contest: Contest, cell: str, peak: float, sides: list[Side]) -> None:
    """A table for people."""
    print(f"\n{cell}: matrix peak {peak / 1e12:.2f} T operations/s, "
          f"at most {peak / contest.operations(cell, contest.shapes[cell]):,.0f} tokens/s")
    print("| | setting | tokens/s | share of peak | Ayllu's rate over it | peak MB | first step s |\n"
          "|---|---|---:|---:|---:|---:|---:|")
    for side in sides:
        print(f"| {side.name} | {side.setting}, {side.rows} rows | {side.rate:,.0f} | {side.share:.0%} "
              f"| {side.ratio:.2f} | {side.peak_bytes / 1e6:,.0f} | {side.first_s:.0f} |", flush=True)


def hold(contest: Contest, options: argparse.Namespace, goal: float = 1.0) -> None:
    """Measure the cells of `options.cells`, print a table for each and the worst ratio over the goal, write JSON."""
    log = Path(tempfile.gettempdir()) / f"ayllu-benchmark-{os.getpid()}.log"
    start, tables, worst = time.perf_counter(), dict[str, Any](), (float("inf"), "")
    for cell in options.cells:
        peak, sides = measure(contest, cell, options, log)
        tables[cell] = {"peak_flops": peak, "sides": [asdict(side) for side in sides]}
        show(contest, cell, peak, sides)
        worst = min([worst, *((side.ratio / goal, f"{cell}, tokens/s beside {side.name}") for side in sides[1:])])
        if options.json:
            report = {"date": date.today().isoformat(), "machine": machine(), "threads": options.threads,
                      "quick": options.quick, "tables": tables, "worst": {"ratio": worst[0], "cell": worst[1]}}
            options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    say(f"{time.perf_counter() - start:.0f} s; logs of the workers: {log}")
    print(f"worst ratio: {worst[0]:.2f} ({worst[1]})")


def options_of(doc: str | None, contest: Contest, quick: str, cells: str) -> argparse.Namespace:
    """The command line; `quick` is the cell that --quick measures, `cells` the option that names others."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"{quick} alone, one batch size, nothing compiled")
    parser.add_argument(cells, dest="cells", help=f"some of {','.join(contest.shapes)}")
    parser.add_argument("--settings", metavar="A,B", default=[], type=lambda text: text.split(","),
                        help="a program that has some of these settings tries no others")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    options.cells = (options.cells or (quick if options.quick else ",".join(contest.shapes))).split(",")
    if unknown := set(options.cells) - set(contest.shapes):
        parser.error(f"{cells}: {', '.join(sorted(unknown))} is none of {', '.join(contest.shapes)}")
    return options


def say(message: str) -> None:
    """Progress, on stderr."""
    print(message, file=sys.stderr, flush=True)
