"""Jobs that several processes take, one of which is killed; a file that many make at once."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ayllu.jobs import Jobs
from ayllu.principal import Principal

ANNA = Principal("shop", "anna", frozenset({"jobs"}))
WORKER = """
import sys, time
from ayllu.jobs import Jobs
jobs = Jobs(sys.argv[1])
print("ready", flush=True); sys.stdin.readline()
while (claim := jobs.claim(sys.argv[2])) is not None:
    print(claim.job.payload, flush=True); time.sleep(0.002)
    jobs.finish(claim, sys.argv[2])
"""


def start(code: str, *words: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", code, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            encoding="utf-8")


def test_two_processes_never_get_the_same_job(tmp_path: Path):
    path = str(tmp_path / "jobs.db")
    workers = [start(WORKER, path, name) for name in ("w1", "w2")]           # both also create the file at once
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    jobs = Jobs(path)
    for i in range(120):
        jobs.submit(ANNA, "x", i)
    for worker in workers:                               # a waiting `communicate` must not hold the second one back
        assert worker.stdin is not None
        worker.stdin.write("\n")
        worker.stdin.flush()
    done = [[int(line) for line in worker.communicate(timeout=60)[0].splitlines()] for worker in workers]
    assert sorted(done[0] + done[1]) == list(range(120))
    assert all(part == sorted(part) for part in done)    # oldest first
    assert all(done), "one process did everything: nothing ran at the same time"
    assert {job.state for job in jobs.jobs_of(ANNA, limit=200)} == {"done"}


VICTIM = """
import sys, time
from ayllu.jobs import Jobs, work_once
def count(claim):
    for i in range(claim.job.resume or 0, 100):
        claim.beat(i / 100, resume=i)
        if i == 40 and claim.job.attempts == 1:
            print("at 40", flush=True); time.sleep(60)
    return f"{claim.job.resume} to 100"
work_once(Jobs(sys.argv[1], stale_s=0.5), "victim", {"count": count})
"""


def test_kill_9_and_recovery(tmp_path: Path):
    path = str(tmp_path / "jobs.db")
    jobs = Jobs(path, stale_s=0.5)
    job = jobs.submit(ANNA, "count")
    victim = start(VICTIM, path)
    assert victim.stdout is not None
    assert victim.stdout.readline() == "at 40\n"
    time.sleep(0.8)
    assert jobs.claim("thief") is None                   # alive, though its handler sleeps
    os.kill(victim.pid, signal.SIGKILL)
    victim.wait()
    assert jobs.get(ANNA, job).state == "running"        # nobody has noticed yet
    time.sleep(0.7)
    assert start(VICTIM, path).wait(timeout=30) == 0
    found = jobs.get(ANNA, job)
    assert (found.state, found.result, found.attempts) == ("done", "40 to 100", 2)
    assert json.dumps(found.result)


def test_many_may_make_the_file_at_once(tmp_path: Path):
    """sqlite3's own waiting doesn't cover the switch to WAL: who comes second got `database is locked` at once."""
    for number in range(40):
        path, barrier = tmp_path / f"{number}.db", threading.Barrier(6)

        def open_it(path: Path = path, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            Jobs(path).close()

        with ThreadPoolExecutor(6) as pool:
            for opened in [pool.submit(open_it) for _ in range(6)]:
                opened.result()
