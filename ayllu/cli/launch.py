"""The line that starts a training on several devices: torchrun starts the processes, one for each device."""

import os
import shlex


def torchrun_line(devices: int, words: list[str]) -> str:
    """What to type for `devices` processes on this machine, with the command's own words behind."""
    return shlex.join(["torchrun", "--standalone", "--nproc-per-node", str(devices), "-m", "ayllu", "pretrain", *words])


def torchrun_lines(ranks: int, per_machine: int, words: list[str]) -> str:
    """The same for ranks on one or many machines; on many, it is typed on each, HOST being one of them."""
    machines = -(-ranks // per_machine)
    if machines == 1:
        return torchrun_line(ranks, words)
    return shlex.join(["torchrun", "--nnodes", str(machines), "--nproc-per-node", str(ranks // machines),
                       "--rdzv-backend", "c10d", "--rdzv-endpoint", "HOST:29500", "-m", "ayllu", "pretrain", *words])


def is_launched() -> bool:
    """Whether torchrun has started this process already."""
    return "WORLD_SIZE" in os.environ


def tell_of_devices(words: list[str]) -> None:
    """Say on stderr that more GPUs are here than this process will use, and how to use them."""
    import torch

    from ayllu.log import say
    if not is_launched() and torch.cuda.device_count() > 1:
        say(f"one of {torch.cuda.device_count()} GPUs is used; for all of them: "
            f"{torchrun_line(torch.cuda.device_count(), words)}")
