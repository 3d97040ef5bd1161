"""The command `ayllu` in a process of its own, forked from one that has imported everything (fork_server.py)."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory


class Forks:
    """The forking process; it ends when this one does, for then its stdin is closed."""

    def __init__(self, *arguments, **options):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        self.process = subprocess.Popen([sys.executable, Path(__file__).with_name("fork_server.py"), *arguments],
                                        env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        **options)

    def start(self, *words, out=os.devnull, err=os.devnull, env=None, cwd=None):
        """The command's process id; one command at a time."""
        request = {"words": [str(w) for w in words], "env": dict(os.environ if env is None else env),
                   "cwd": str(cwd or os.getcwd()), "out": str(out), "err": str(err)}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self._answer("pid")

    def status(self):
        """The exit code, once it has ended; -9 when it was killed."""
        return self._answer("status")

    def _answer(self, name):
        word, number = self.process.stdout.readline().split()
        assert word == name
        return int(number)

    def close(self):
        self.process.stdin.close()
        self.process.wait(60)


@functools.cache
def forks():
    """One for each process of the tests."""
    return Forks()


def ayllu(*words, env=None, cwd=None):
    """What the command gave; stdin is empty."""
    with TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        forks().start(*words, out=out, err=err, env=env, cwd=cwd)
        code = forks().status()
        return subprocess.CompletedProcess(words, code, *(p.read_text(encoding="utf-8") for p in (out, err)))
