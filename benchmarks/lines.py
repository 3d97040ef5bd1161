"""A worker process that is asked and answers in lines of JSON, so that two programs stay loaded and take turns."""

import json
import os
import resource
import select
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


class Worker:
    """The asking side. Everything that a worker prints on its stderr goes to `log`; one that takes more than `limit`
    seconds for an answer is ended."""

    def __init__(self, python: str, script: Path, threads: int, log: Path, limit: float | None = None) -> None:
        threading = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        self.log, self.limit = log, limit
        with open(log, "ab") as errors:
            self.process = subprocess.Popen([python, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                            stderr=errors, text=True, env={**os.environ, **threading})

    def ask(self, command: str, **options: Any) -> dict[str, Any]:
        """One question and its answer; a worker that failed tells why."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"command": command, **options}) + "\n")
        self.process.stdin.flush()
        if self.limit is not None and not select.select([self.process.stdout], [], [], self.limit)[0]:
            self.process.kill()
            raise RuntimeError(f"{command} took more than {self.limit:g} s: see {self.log}")
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the worker ended with code {self.process.wait()}: see {self.log}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise RuntimeError(f"{command} failed in the worker: {answer['error']} (see {self.log})")
        return answer

    def close(self) -> None:
        """End the worker and wait for it."""
        if self.process.poll() is None:
            assert self.process.stdin is not None
            self.process.stdin.close()
            self.process.wait()


def serve(commands: dict[str, Callable[..., dict[str, Any]]]) -> None:
    """The answering side: runs until its stdin ends. What libraries print on stdout is kept out of the answers."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        question = json.loads(line)
        try:
            answer = commands[question.pop("command")](**question)
        except Exception as error:                       # the asking side decides what a failure means
            answer = {"error": f"{type(error).__name__}: {error}"[:500]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def peak_bytes() -> dict[str, Any]:
    """The largest resident size that this process had."""
    return {"peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def prompts(batch: int, length: int, vocab_size: int) -> Sequence[list[int]]:
    """The same ids for both sides, another row for each prompt."""
    return [[3 + (7919 * (row + 1) + 104_729 * i) % (vocab_size - 3) for i in range(length)] for row in range(batch)]


# (prompt, answer) of the first 17 conversations of alpaca_en, in tokens of ayllu-mini, as best fit puts them into
# windows of 512: 494, 498, 500 and 437 places
WINDOWS = (((38, 285), (30, 141)), ((27, 185), (22, 143), (22, 99)), ((24, 132), (21, 129), (27, 83), (30, 54)),
           ((22, 75), (21, 59), (37, 20), (39, 12), (23, 24), (34, 4), (21, 16), (20, 10)))


def conversations(windows: int, vocab_size: int, context: int = 512) -> list[list[tuple[list[int], int]]]:
    """Conversations of fine-tuning, those of each window together: ids, and how many of them are the prompt's. A window
    of more than 512 places has those of several of WINDOWS."""
    made: list[list[tuple[list[int], int]]] = []
    number, each = 0, context // 512
    for window in range(windows):
        made.append([])
        for prompt, answer in (one for i in range(each) for one in WINDOWS[(window * each + i) % len(WINDOWS)]):
            ids = [3 + (7919 * (number + 1) + 104_729 * i) % (vocab_size - 3) for i in range(prompt + answer)]
            made[-1].append((ids, prompt))
            number += 1
    return made
