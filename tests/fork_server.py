"""A process that has imported everything and forks one `ayllu` command after the other: real processes, quick to start.

    python fork_server.py [FD] < requests      one JSON object a line; answers: "pid N", later "status N"

A request has the command's words, environment and folder, and the files that its stdout and stderr are added to. With
a file descriptor FD, commands tell through it what they are doing, one letter each time: t a training step is done,
s a checkpoint begins to be written, m `latest` is moved to it, e an evaluation begins.
"""

import json
import os
import sys

import torch._dynamo
import torch.utils.tensorboard  # noqa: F401
from matplotlib import figure  # noqa: F401

from ayllu.cli.main import main
from ayllu.train import checkpoints, pretrain, report


def tell(fd, letter, module, name):
    """Write the letter whenever the function is called."""
    real = getattr(module, name)

    def told(*args, **kwargs):
        os.write(fd, letter)
        return real(*args, **kwargs)

    setattr(module, name, told)


def serve():
    report.matrix_peak = lambda *_: 1e12             # measured only for the progress bar, at the start of each run
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            command(**json.loads(line))
        print("pid", pid, flush=True)
        print("status", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def command(words, env, cwd, out, err):
    """In the fork: the command, and the end of the process."""
    code = 1
    try:
        os.environ.clear()
        os.environ.update(env)
        os.chdir(cwd)
        for fd, path in ((0, os.devnull), (1, out), (2, err)):
            os.dup2(os.open(path, os.O_RDONLY if fd == 0 else os.O_WRONLY | os.O_CREAT | os.O_APPEND), fd)
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 - what the old one has read ahead is not the command's
        main(words)
    except SystemExit as done:
        code = done.code
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        fd = int(sys.argv[1])
        tell(fd, b"t", report.Report, "advance")
        tell(fd, b"s", checkpoints, "write")
        tell(fd, b"m", checkpoints, "write_text")
        tell(fd, b"e", pretrain, "sample_texts")
    serve()
