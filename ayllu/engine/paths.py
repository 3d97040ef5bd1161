"""Which way a step takes: on CUDA, attention in Triton and decoding by CUDA graphs; elsewhere, plain torch (paged.py).

The plain way is the slow twin of the other, and may be asked for on a GPU, too.
"""

import os
import shutil
import sysconfig
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from ayllu.engine.batch import FlatBatch
from ayllu.engine.graphs import CudaRecorder, DecodeGraphs
from ayllu.engine.paged import PagedCache
from ayllu.engine.reads import TableViews
from ayllu.errors import ConfigError
from ayllu.log import say
from ayllu.model.adapt import Adapt
from ayllu.model.step import Runner

AttentionKind = Literal["auto", "torch", "triton"]
GraphsKind = Literal["auto", "off"]
OLDEST = (8, 0)                                          # compute capability that multiplies bfloat16


class Paths:
    """Computes a batch the fastest way that there is for it."""

    def __init__(self, runner: Runner, cache: PagedCache, views: TableViews | None = None,
                 graphs: DecodeGraphs | None = None) -> None:
        self.runner, self.cache, self.views, self.graphs = runner, cache, views, graphs

    def hidden(self, batch: FlatBatch, adapt: Adapt | None) -> Tensor:        # (N, D)
        """What `logits` takes, for all tokens; good until the next call."""
        found = self.graphs.hidden(batch) if self.graphs is not None and adapt is None else None
        if found is not None:
            return found
        attends = (self.views or self.cache).attends(batch)
        return self.runner.flat(batch.ids, batch.positions, attends, adapt)


def uses_triton(kind: AttentionKind, device: torch.device) -> bool:
    """Whether attention goes through Triton."""
    if kind == "torch" or (kind == "auto" and device.type != "cuda"):
        return False
    reason = _why_not(device)
    if kind == "triton" and reason is not None:
        raise ConfigError(f"attention='triton' can't be had: {reason}; use attention='auto'")
    if reason is not None:
        say(f"attention is plain torch's, without CUDA graphs: {reason}")
    return reason is None


def _why_not(device: torch.device) -> str | None:
    if find_spec("triton") is None:
        return "triton is not installed (the torch for CUDA brings it)"
    if device.type == "cuda":
        found = torch.cuda.get_device_capability(device)
        if found < OLDEST:
            return f"this GPU has compute capability {found}, and {OLDEST} is needed"
        if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
            return "triton needs a C compiler, and there is none: install gcc"
        if not Path(sysconfig.get_path("include"), "Python.h").exists():
            return "triton needs Python's header files, and there are none: install python3-dev"
        return None
    from ayllu.engine.paged_triton import INTERPRETED

    return None if INTERPRETED else f"on {device.type} it only runs in Triton's interpreter (TRITON_INTERPRET=1)"


def make_paths(runner: Runner, cache: PagedCache, *, triton: bool, graphs: bool, context: int, max_rows: int) -> Paths:
    """With graphs, the last page of the cache must be one that the scheduler doesn't know."""
    if not triton:
        return Paths(runner, cache)
    from ayllu.engine.paged_triton import mix_by_triton

    is_cuda = runner.device.type == "cuda"
    n_processors = torch.cuda.get_device_properties(runner.device).multi_processor_count if is_cuda else 1
    views = TableViews(cache, mix_by_triton, n_processors)
    if not graphs:
        return Paths(runner, cache, views)
    return Paths(runner, cache, views, DecodeGraphs(runner, views, context, max_rows, CudaRecorder(runner.device)))
