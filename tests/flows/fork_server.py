"""A process that has imported everything and forks one `ayllu` command after the other: real processes, quick to start.

    python fork_server.py FD < requests      one JSON list of words a line; answers: "pid N", later "status N"

The commands tell through the file descriptor FD what they are doing, one letter each time: t a training step is done,
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


def serve(fd):
    report.matrix_peak = lambda device: 1e12             # measured only for the progress bar, at the start of each run
    tell(fd, b"t", report.Report, "advance")
    tell(fd, b"s", checkpoints, "write")
    tell(fd, b"m", checkpoints, "write_text")
    tell(fd, b"e", pretrain, "sample_texts")
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            sys.stdin = open(os.devnull)  # noqa: SIM115 - the requests are not the command's
            try:
                main(json.loads(line))
            except SystemExit as done:
                sys.stderr.flush()
                os._exit(done.code)
        print("pid", pid, flush=True)
        print("status", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    serve(int(sys.argv[1]))
