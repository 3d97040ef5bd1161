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
from dataclasses import asdict, dataclass, field, replace
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
    steps: dict[str, int] = field(default_factory=dict)  # cell: steps of the largest batch in a turn, where not 1
    frugal: frozenset[str] = frozenset()                 # cells where ours may not take more memory than each peer
    default: tuple[str, ...] = ()                        # cells that are measured where none is named; (): all


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
    peaks: dict[str, int]                                # and its bytes
    failed: dict[str, str]
    versions: dict[str, str]


@dataclass
class Table:
    """One cell: the matrix peak, each side's fastest setting against ours in turns, and what went wrong by program."""

    peak_flops: float
    sides: list[Side]
    failed: dict[str, dict[str, str]]


def measure(contest: Contest, cell: str, options: argparse.Namespace, log: Path) -> Table:
    """All that is measured of a cell."""
    parties = {name: _Party(contest, cell, name, options, log) for name in contest.scripts}
    try:
        for party in parties.values():
            party.find()
        ran = {name: party for name, party in parties.items() if party.trials}
        if len(ran) < 2 or "ayllu" not in ran:
            raise SystemExit(f"{cell}: {', '.join(set(parties) - set(ran))} ran in no setting: see {log}")
        if cell in contest.frugal:
            ran["ayllu"].choose(min(party.best.peak_bytes for name, party in ran.items() if name != "ayllu"))
        rates = _rounds(ran, min(2, options.rounds) if options.quick else options.rounds)
    finally:
        for party in parties.values():
            party.close()
    if "ayllu" not in rates:
        raise SystemExit(f"{cell}: ayllu ended in a round: see {log}")
    peak, memory = ran["ayllu"].flops, ran["ayllu"].highest
    operations, sides = contest.operations(cell, contest.shapes[cell]), []
    for name, found in rates.items():
        party, rate = ran[name], statistics.median(found)
        ratio = statistics.median(a / b for a, b in zip(rates["ayllu"], found, strict=True))
        sides.append(Side(name, party.best.told, party.best.rows, rate, rate * operations / peak, party.highest,
                          party.best.first_s, ratio, party.highest / memory,
                          {label: trial.rate for label, trial in party.trials.items()},
                          {label: trial.peak_bytes for label, trial in party.trials.items()}, party.failed,
                          party.versions))
    return Table(peak, sides, {name: party.failed for name, party in parties.items() if name not in rates})


@dataclass
class Trial:
    """One setting that ran."""

    setting: str
    told: str                                            # what it is called in the table
    rows: int
    tokens: int                                          # of a step
    rate: float                                          # tokens per second, the better of two steps
    first_s: float
    peak_bytes: int


class _Party:
    """One program in one cell: its fastest setting, and its worker, warm where all fit into memory."""

    def __init__(self, contest: Contest, cell: str, name: str, options: argparse.Namespace, log: Path) -> None:
        self.contest, self.cell, self.name, self.options, self.log = contest, cell, name, options, log
        self.shape = contest.shapes[cell]
        self.worker: Worker | None = None
        self.highest, self.flops, self.tokens = 0, 0.0, 0    # tokens: of a step of the setting loaded last
        self.trials, self.failed, self.versions = dict[str, Trial](), dict[str, str](), dict[str, str]()
        self.most: int | None = None                     # bytes that its setting may take

    def find(self) -> None:
        """Try every setting and batch size; keep the fastest."""
        few = 1 if self.options.quick else None
        settings = self.contest.settings[self.name][:few]
        for setting in [one for one in settings if one in self.options.settings] or settings:
            for rows in self.contest.rows[self.cell][:few]:
                try:
                    self._try(setting, rows)
                except RuntimeError as error:
                    self._note(f"{setting}, {rows} rows", error)

    def _try(self, setting: str, rows: int) -> None:
        label, worker = f"{setting}, {rows} rows", self._start()
        try:
            told, first = self._load(worker, setting, rows)
            rate = self.tokens / min(worker.ask("run")["seconds"] for _ in range(2))
            trial = Trial(setting, told, rows, self.tokens, rate, first, int(worker.ask("peak")["peak_bytes"]))
            if self.name == "ayllu":
                self.flops = max(self.flops, worker.ask("peak_flops")["flops_per_s"])
        except RuntimeError:
            worker.close()
            raise
        say(f"  {self.cell} {self.name} {label}: {rate:.0f} tokens/s, {trial.peak_bytes / 1e6:,.0f} MB, "
            f"first step {first:.1f} s")
        self.trials[label] = trial
        if self.best is trial:
            self.highest = trial.peak_bytes
            self._keep(None if self.cell in self.contest.alone else worker)
        if self.worker is not worker:
            worker.close()

    @property
    def best(self) -> Trial:
        """The fastest that was tried, of those that take no more than `most`."""
        within = [trial for trial in self.trials.values() if self.most is None or trial.peak_bytes <= self.most]
        return max(within, key=lambda trial: trial.rate)

    def choose(self, most: int) -> None:
        """The fastest setting of those that take no more than so many bytes, where there is one."""
        fastest = self.best
        if fastest.peak_bytes > most >= min(trial.peak_bytes for trial in self.trials.values()):
            say(f"  {self.cell} {self.name}: {fastest.told} is faster, and takes more than {most / 1e6:,.0f} MB")
            self._keep(None)
            self.most = most
            self.highest = self.best.peak_bytes

    def _load(self, worker: Worker, setting: str, rows: int) -> tuple[str, float]:
        """What the setting is called, and seconds of the first step."""
        loaded = worker.ask("load", shape=self.shape, setting=setting, rows=rows, threads=self.options.threads,
                            compiled=not self.options.quick, **self.contest.told.get(self.cell, {}))
        self.tokens = loaded.get("tokens", rows * self.shape["max_context"])
        self.versions = {name: loaded[name] for name in ("version", "torch", "device") if name in loaded}
        told = f"{setting}, {loaded['kernels']}" if "kernels" in loaded else setting
        return told, worker.ask("run")["seconds"]

    def run(self, steps: int) -> float:
        """Tokens per second of some steps."""
        if self.worker is None:                          # others need the memory: start again, and warm up again
            self.worker = self._start()
            self._load(self.worker, self.best.setting, self.best.rows)
        seconds = sum(self.worker.ask("run")["seconds"] for _ in range(steps))
        self.highest = max(self.highest, int(self.worker.ask("peak")["peak_bytes"]))
        if self.cell in self.contest.alone:
            self._keep(None)
        return steps * self.best.tokens / seconds

    def fail(self, error: RuntimeError) -> None:
        """What ended it in a round."""
        self._note(f"{self.best.setting}, in a round", error)

    def _note(self, label: str, error: RuntimeError) -> None:
        self.failed[label] = str(error)
        say(f"  {self.cell} {self.name} {label}: {error}")

    def _start(self) -> Worker:
        return Worker(python_of(self.name), HERE / self.contest.scripts[self.name], self.options.threads, self.log,
                      self.options.limit)

    def _keep(self, worker: Worker | None) -> None:
        if self.worker is not None:
            self.worker.close()
        self.worker = worker

    def close(self) -> None:
        """End the worker."""
        self._keep(None)


def _rounds(parties: dict[str, _Party], rounds: int) -> dict[str, list[float]]:
    """Tokens per second of each side in each round; who begins changes from round to round. Without rounds, those of
    the trials; without a side whose worker ended."""
    if not rounds:
        return {name: [party.best.rate] for name, party in parties.items()}
    rates: dict[str, list[float]] = {name: [] for name in parties}
    names, most = list(parties), max(party.best.rows for party in parties.values())
    for number in range(rounds):
        for name in names[number % len(names):] + names[:number % len(names)]:
            party = parties[name]
            steps = party.contest.steps.get(party.cell, 1) * max(1, most // party.best.rows)  # as many tokens for all
            try:
                if name in rates:
                    rates[name].append(party.run(steps))
            except RuntimeError as error:
                party.fail(error)
                del rates[name]
    return rates


def token_operations(shape: dict[str, Any], each: int = 6) -> float:
    """Operations per token of a training step: `each` for every weight of a product, and causal attention. A weight
    that isn't trained takes 4: it has no gradient of its own."""
    D, E, F = shape["dim"], shape["head_dim"], shape["hidden_dim"]
    layer = 2 * D * shape["n_heads"] * E + 2 * D * shape["n_kv_heads"] * E + 3 * D * F
    weights = shape["n_layers"] * layer + D * shape["vocab_size"]
    attention = 6 * shape["n_layers"] * shape["n_heads"] * E * shape["max_context"]
    return float(each * weights + attention)


def show(contest: Contest, cell: str, table: Table) -> None:
    """A table for people."""
    most = table.peak_flops / contest.operations(cell, contest.shapes[cell])
    print(f"\n{cell}: matrix peak {table.peak_flops / 1e12:.2f} T operations/s, at most {most:,.0f} tokens/s")
    print("| | setting | tokens/s | share of peak | Ayllu's rate over it | peak MB | first step s |\n"
          "|---|---|---:|---:|---:|---:|---:|")
    for side in table.sides:
        print(f"| {side.name} | {side.setting}, {side.rows} rows | {side.rate:,.0f} | {side.share:.0%} "
              f"| {side.ratio:.2f} | {side.peak_bytes / 1e6:,.0f} | {side.first_s:.0f} |", flush=True)
    for side in table.sides:
        print(f"{side.name}: {', '.join(f'{name} {value}' for name, value in side.versions.items())}")
    for name in table.failed:
        print(f"{name} ran in no setting, or ended in a round", flush=True)


def hold(contest: Contest, options: argparse.Namespace, goal: float = 1.0) -> None:
    """Measure the cells of `options.cells`, print a table for each and the worst ratio over the goal, write JSON. Ends
    with code 1 where a program didn't run."""
    log = Path(tempfile.gettempdir()) / f"ayllu-benchmark-{os.getpid()}.log"
    start, tables, worst = time.perf_counter(), dict[str, Any](), (float("inf"), "")
    if options.layers:
        contest = replace(contest, shapes={cell: {**shape, "n_layers": options.layers}
                                           for cell, shape in contest.shapes.items()})
    for cell in options.cells:
        table = measure(contest, cell, options, log)
        tables[cell] = asdict(table)
        show(contest, cell, table)
        worst = min([worst, *((side.ratio / goal, f"{cell}, tokens/s beside {side.name}") for side in table.sides[1:])])
        if options.json:
            report = {"date": date.today().isoformat(), "machine": machine(), "threads": options.threads,
                      "quick": options.quick, "layers": options.layers, "tables": tables,
                      "worst": {"ratio": worst[0], "cell": worst[1]}}
            options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    say(f"{time.perf_counter() - start:.0f} s; logs of the workers: {log}")
    print(f"worst ratio: {worst[0]:.2f} ({worst[1]})")
    if any(table["failed"] for table in tables.values()):
        sys.exit(1)


def options_of(doc: str | None, contest: Contest, quick: str, cells: str) -> argparse.Namespace:
    """The command line; `quick` is the cell that --quick measures, `cells` the option that names others."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"{quick} alone, one batch size, nothing compiled")
    parser.add_argument(cells, dest="cells", help=f"some of {','.join(contest.shapes)}")
    parser.add_argument("--settings", metavar="A,B", default=[], type=lambda text: text.split(","),
                        help="a program that has some of these settings tries no others")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each; 0: the trials are all there is")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--limit", type=float, metavar="SECONDS", help="a setting that takes longer for a step failed")
    parser.add_argument("--layers", type=int, default=0, metavar="N", help="in place of the shape's: to try it out")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    all_cells = contest.default or tuple(contest.shapes)
    options.cells = options.cells.split(",") if options.cells else [quick] if options.quick else list(all_cells)
    if unknown := set(options.cells) - set(contest.shapes):
        parser.error(f"{cells}: {', '.join(sorted(unknown))} is none of {', '.join(contest.shapes)}")
    return options


def say(message: str) -> None:
    """Progress, on stderr."""
    print(message, file=sys.stderr, flush=True)
