"""The few facts about other processes that everything else needs; one process is the common case."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")
PATIENCE = timedelta(hours=12)                           # the others wait while the first prepares data


def rank() -> int:
    """This process's number among all (0 without torchrun)."""
    return dist.get_rank() if dist.is_initialized() else int(os.environ.get("RANK", 0))


def world_size() -> int:
    """How many processes train together (1 without torchrun)."""
    return dist.get_world_size() if dist.is_initialized() else int(os.environ.get("WORLD_SIZE", 1))


def is_main() -> bool:
    """Whether this process is the one that prints and writes."""
    return rank() == 0


def own_device(device: torch.device) -> torch.device:
    """The GPU of this process among those of its machine; any other device is shared as it is."""
    if device.type != "cuda" or device.index is not None or world_size() == 1:
        return device
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    torch.cuda.set_device(device)
    return device


@contextmanager
def processes(device: torch.device) -> Iterator[None]:
    """Inside, the processes that torchrun started know each other: NCCL between GPUs, gloo between CPUs."""
    if world_size() == 1 or dist.is_initialized():
        yield
        return
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield
    finally:
        dist.destroy_process_group()


@contextmanager
def main_first() -> Iterator[None]:
    """The first rank goes through alone, then all others, which find what it made."""
    if not is_main():
        barrier()
    yield
    if is_main():
        barrier()


def barrier() -> None:
    """Wait until all ranks are here."""
    if dist.is_initialized():
        dist.barrier()


def any_rank(values: Sequence[bool], device: torch.device) -> list[bool]:
    """For each whether it is true on some rank: a signal, say, may reach one a step later than another."""
    if not dist.is_initialized():
        return list(values)
    return [bool(n) for n in sum_over_ranks(torch.tensor(values, dtype=torch.float32, device=device)).tolist()]


def group_apart(patience: timedelta = PATIENCE) -> dist.ProcessGroup | None:
    """A group of all ranks whose messages may go beside those of training, from another thread; None: one process."""
    return dist.new_group(backend="gloo", timeout=patience) if dist.is_initialized() else None


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """All of a tensor of which the ranks hold shares; every rank must ask."""
    if not dist.is_initialized():
        return tensor
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def from_first(value: T, group: dist.ProcessGroup | None = None) -> T:
    """The first rank's value (anything that can be pickled) on every rank."""
    if not dist.is_initialized():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0, group=group, device=torch.device("cpu"))
    return box[0]


def sum_over_ranks(value: torch.Tensor, group: dist.ProcessGroup | None = None) -> torch.Tensor:
    """The sum over all ranks (of a group), on every rank; the value itself where there is one process."""
    if dist.is_initialized():
        value = value.clone()
        dist.all_reduce(value, group=group)
    return value
