"""Seconds from typing `ayllu generate` to its first token, with everything on the disk read before.

    python benchmarks/startup.py [--quick] [--rounds 7] [--model ayllu-mini] [--json FILE]

The command is started as a person starts it and its stdout is watched for the first byte after the prompt, which the
command repeats. The share of `import torch` is that of the same interpreter importing torch and nothing else, measured
in turns with the command.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

GOALS_S = {"first token": 3.0, "ayllu --help": 0.3}
PROMPT = "Once upon a time"


def main() -> None:
    """Measure, print a line for each part, and the ratio to the goal last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three rounds")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--model", default=None, help="default: the command's own")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    options.rounds = min(options.rounds, 3) if options.quick else options.rounds
    command = [sys.executable, "-m", "ayllu", "generate", PROMPT, "--max-tokens", "16"]
    command += ["--model", options.model] if options.model else []
    bare, torch_only = [sys.executable, "-c", "print(1)"], [sys.executable, "-c", "import torch; print(1)"]
    help_text = [sys.executable, "-m", "ayllu", "--help"]
    parts: dict[str, list[float]] = {"python": [], "ayllu --help": [], "import torch": [], "first token": []}
    for number in range(options.rounds + 1):
        for name, line in zip(parts, (bare, help_text, torch_only, command), strict=True):
            seconds = first_byte(line)
            if number:                                   # the first round warms the disk's cache
                parts[name].append(seconds)
    medians = {name: statistics.median(values) for name, values in parts.items()}
    torch_s = medians["import torch"] - medians["python"]
    for name, seconds in medians.items():
        print(f"{name:14s}{seconds:6.2f} s")
    print(f"import torch is {torch_s / medians['first token']:.0%} of the time to the first token (goals: {GOALS_S} s)")
    if options.json:
        options.json.write_text(json.dumps({**medians, "torch_share": torch_s / medians["first token"]}) + "\n")
    cells = {name: goal / medians[name] for name, goal in GOALS_S.items()}
    worst = min(cells, key=lambda name: cells[name])
    print(f"worst ratio: {cells[worst]:.2f} (time to {worst})")


def first_byte(command: list[str]) -> float:
    """Seconds until a command's stdout shows something that is not the prompt; the command is ended then."""
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0,
                          env={**os.environ, "PYTHONUNBUFFERED": "1"}) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        seen = process.stdout.read(1)
        while seen and PROMPT.encode().startswith(seen.lstrip()):
            more = process.stdout.read(1)
            if not more:
                break
            seen += more
        seconds = time.perf_counter() - start
        if not seen:
            raise SystemExit(f"{' '.join(command)} printed nothing:\n{process.stderr.read().decode()}")
        process.kill()
    return seconds


if __name__ == "__main__":
    main()
