"""The few facts about other processes that everything else needs; one process is the common case."""

import os

import torch
import torch.distributed as dist


def rank() -> int:
    """This process's number among all (0 without torchrun)."""
    return dist.get_rank() if dist.is_initialized() else int(os.environ.get("RANK", 0))


def world_size() -> int:
    """How many processes train together (1 without torchrun)."""
    return dist.get_world_size() if dist.is_initialized() else int(os.environ.get("WORLD_SIZE", 1))


def is_main() -> bool:
    """Whether this process is the one that prints and writes."""
    return rank() == 0


def sum_over_ranks(value: torch.Tensor) -> torch.Tensor:
    """The sum over all ranks, on every rank; the value itself where there is one process."""
    if dist.is_initialized():
        value = value.clone()
        dist.all_reduce(value)
    return value
