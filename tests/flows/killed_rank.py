"""`torchrun killed_rank.py RANK MOMENT STEP WORDS`: the command `ayllu WORDS`, of which one rank is killed (-9).

MOMENT is `training`, after so many steps, or `saving`: in the checkpoint of that step, when the rank's own shards are
on the disk and those of the others may not be.
"""

import os
import signal
import sys

from torch.distributed.checkpoint import FileSystemWriter

from ayllu.cli.main import main
from ayllu.train import checkpoints, loop


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def kill_in_training(at):
    real = loop.step

    def step(state, *rest):
        row = real(state, *rest)
        if state.step == at:
            die()
        return row

    loop.step = step


def kill_in_saving(at):
    real, written = checkpoints.write, FileSystemWriter.write_data

    def write_data(self, plan, planner):
        written(self, plan, planner).wait()
        die()

    def write(parts, folder, group):
        if parts["step"] == at:
            FileSystemWriter.write_data = write_data
        real(parts, folder, group)

    checkpoints.write = write


if __name__ == "__main__":
    rank, moment, step = sys.argv[1:4]
    if os.environ["RANK"] == rank:
        {"training": kill_in_training, "saving": kill_in_saving}[moment](int(step))
    main(sys.argv[4:])
