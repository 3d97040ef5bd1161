"""Several processes, one for each device, by torchrun: the line that starts a training, and a start from here."""

import logging
import os
import shlex
from collections.abc import Collection
from typing import Any

import typer


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


def words_of(ctx: typer.Context, without: Collection[str] = ()) -> list[str]:
    """The words of a command line as they were understood, but for some options by their parameters' names."""
    found: list[str] = []
    for param in ctx.command.params:
        name = param.name or ""
        source = ctx.get_parameter_source(name)
        if name in without or source is None or source.name != "COMMANDLINE":
            continue
        given: Any = ctx.params[name]
        values = given if isinstance(given, list | tuple) else [given]
        if param.param_type_name == "argument":
            found += map(str, values)
        else:
            found += [param.opts[0] if value is True else f"{param.opts[0]}={value}" for value in values]
    return found


def start_ranks(n: int, words: list[str]) -> None:
    """Run a command of ayllu on `n` ranks of this machine, as `torchrun -m ayllu` would; Ctrl-C reaches them all.

    Where a rank ended by its own error it has told it, and its exit code becomes ours.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    from ayllu.errors import EngineFailed
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)    # what ended is told below
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or n) // n)))       # torchrun's own choice: 1
    try:
        run(parse_args(["--standalone", "--nproc-per-node", str(n), "-m", "ayllu", *words]))
    except SignalException as stop:
        raise typer.Exit(128 + stop.sigval) from stop
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode > 0:
            raise typer.Exit(failure.exitcode) from error
        raise EngineFailed(f"rank {rank} was ended by {failure.signal_name()}, and without its share of the model no "
                           "other can go on: start the server again") from error
