"""Ayllu's eye and ear beside transformers', in turns, both loaded: encoders at the shapes of CLIP ViT-L/14 and
Whisper-small, and the time from a file to the first token of a Llama of 110 million parameters.

    python benchmarks/media.py --json results.json             # all cells, transformers plain and compiled
    python benchmarks/media.py --quick                         # encoders in one dtype, few rounds, nothing compiled

Equal shapes, dtypes, threads and inputs; weights are random. transformers runs with SDPA, plain and through
torch.compile; the faster counts. Ayllu's layers run in media/fast.py, its Llama in the runner that LLM.load takes.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

from lines import Worker
from peers import machine, python_of

HERE = Path(__file__).parent
ENCODERS = [("image encoder", 1), ("image encoder", 4), ("audio encoder", 1)]
CELLS = [*ENCODERS, ("image to first token", 1), ("sound to first token", 1)]


@dataclass
class Cell:
    """Medians; a ratio above 1 means that Ayllu is ahead."""

    name: str
    seconds: float
    peer_seconds: float
    setting: str                                         # transformers' faster one
    ratio: float                                         # the median of the rounds' ratios
    failed: dict[str, str]                               # settings that did not run, and why


def main() -> None:
    """Measure the cells and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="encoders alone, in the first dtype, not compiled")
    parser.add_argument("--dtypes", default="float32,bfloat16", help="bfloat16 is slow without AMX or AVX512-BF16")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--peer-python", help="a Python with transformers and Pillow; by default one is made")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    log = Path(tempfile.gettempdir()) / f"ayllu-benchmark-{os.getpid()}.log"
    peer = options.peer_python or with_pillow(python_of("transformers"))
    rounds = min(options.rounds, 3) if options.quick else options.rounds
    cells, versions, start = list[Cell](), dict[str, str](), time.perf_counter()
    print("| | Ayllu ms | transformers ms | its setting | ratio |\n|---|---:|---:|---|---:|")
    for dtype in options.dtypes.split(",")[:1 if options.quick else None]:
        for what, batch in [ENCODERS[0], ENCODERS[2]] if options.quick else CELLS:
            ours = Worker(sys.executable, HERE / "media_ours.py", options.threads, log)
            theirs = Worker(peer, HERE / "media_peer.py", options.threads, log)
            try:
                ours.ask("load", what=what, dtype=dtype, threads=options.threads)
                versions = theirs.ask("load", what=what, dtype=dtype, threads=options.threads)
                cells.append(measured(f"{what}, {dtype}, batch {batch}", ours, theirs, batch, rounds,
                                      ("eager",) if options.quick else ("eager", "compile")))
            finally:
                ours.close()
                theirs.close()
            cell = cells[-1]
            print(f"| {cell.name} | {1e3 * cell.seconds:.0f} | {1e3 * cell.peer_seconds:.0f} | {cell.setting} | "
                  f"{cell.ratio:.2f} |", flush=True)
    worst = min(cells, key=lambda cell: cell.ratio)
    print(f"{time.perf_counter() - start:.0f} s; logs of the workers: {log}", file=sys.stderr)
    if options.json:
        options.json.write_text(json.dumps({
            "date": date.today().isoformat(), "machine": machine(), "threads": options.threads, "quick": options.quick,
            **versions, "cells": [asdict(cell) for cell in cells],
            "worst": {"ratio": worst.ratio, "cell": worst.name}}, indent=1) + "\n", encoding="utf-8")
    print(f"worst ratio: {worst.ratio:.2f} ({worst.name})")


def with_pillow(python: str) -> str:
    """The peer's Python; other benchmarks' environment has no Pillow at first."""
    if subprocess.run([python, "-c", "import PIL"], capture_output=True).returncode:
        subprocess.run([python, "-m", "pip", "install", "-q", "pillow"], check=True, stdout=sys.stderr)
    return python


def measured(name: str, ours: Worker, theirs: Worker, batch: int, rounds: int, settings: tuple[str, ...]) -> Cell:
    """Each of transformers' settings once warm, then the faster one in turns with us; who begins changes."""
    trials, failed = dict[str, float](), dict[str, str]()
    for setting in settings:
        try:
            theirs.ask("setting", name=setting)
            theirs.ask("run", batch=batch)
            trials[setting] = min(theirs.ask("run", batch=batch)["seconds"] for _ in range(2))
        except RuntimeError as error:
            failed[setting] = str(error)
    if not trials:
        raise SystemExit(f"transformers ran in no setting: {failed}")
    best = min(trials, key=lambda setting: trials[setting])
    theirs.ask("setting", name=best)
    theirs.ask("run", batch=batch)
    ours.ask("run", batch=batch)
    pairs = []
    for number in range(rounds):
        order = (ours, theirs) if number % 2 else (theirs, ours)
        seconds = {id(worker): worker.ask("run", batch=batch)["seconds"] for worker in order}
        pairs.append((seconds[id(ours)], seconds[id(theirs)]))
    return Cell(name, statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs), best,
                statistics.median(b / a for a, b in pairs), failed)


if __name__ == "__main__":
    main()
