"""`ayllu --help` answers in under 0.3 s of its own processor time, and imports no torch."""

import os
import shutil
import subprocess
import sys

LIMIT_S = 0.3
RUNS = 5


def processor_seconds(command: list[str]) -> float:
    """User and system time of one run: what the clock would show on a machine that does nothing else."""
    before = os.times()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


if __name__ == "__main__":
    command = shutil.which("ayllu")
    if command is None:
        sys.exit("no command ayllu on PATH")
    best = min(processor_seconds([command, "--help"]) for _ in range(RUNS))
    trace = subprocess.run([sys.executable, "-X", "importtime", command, "--help"], check=True, capture_output=True,
                           text=True).stderr
    print(f"ayllu --help: {best:.2f} s")
    if best > LIMIT_S:
        sys.exit(f"ayllu --help took {best:.2f} s of processor time, the most is {LIMIT_S}")
    if "| torch" in trace:
        sys.exit("ayllu --help imported torch")
