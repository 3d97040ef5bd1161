"""Which way a step takes: on CUDA, attention in Triton and decoding by CUDA graphs; on a CPU, attention and, in
bfloat16, whole steps in C++; elsewhere, plain torch (paged.py).

The plain way is the slow twin of the others, and may be asked for everywhere.
"""

import copy
import os
import shutil
import sysconfig
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ayllu.engine.batch import FlatBatch
from ayllu.engine.graphs import CudaRecorder, DecodeGraphs
from ayllu.engine.paged import PagedCache, Views
from ayllu.engine.paged_native import NativeViews
from ayllu.engine.reads import TableViews
from ayllu.engine.sampling import Kernels
from ayllu.engine.sizes import filled_up, size_of
from ayllu.engine.step_native import NativeStep, make_step
from ayllu.errors import ConfigError
from ayllu.log import say
from ayllu.model.adapt import Adapt
from ayllu.model.fused import FusedRunner
from ayllu.model.step import Model, Runner, as_runner
from ayllu.native import draw, pointwise
from ayllu.native.build import NativeError, missing_avx2, missing_vectors
from ayllu.native.paged import KERNELS, load

AttentionKind = Literal["auto", "torch", "triton", "native"]
GraphsKind = Literal["auto", "off"]
OLDEST = (8, 0)                                          # compute capability that multiplies bfloat16


class Paths:
    """Computes a batch the fastest way that there is for it."""

    def __init__(self, runner: Runner, cache: PagedCache, views: Views | None = None,
                 graphs: DecodeGraphs | None = None, kernels: Kernels | None = None,
                 step: NativeStep | None = None) -> None:
        self.runner, self.cache, self.views = runner, cache, views or cache
        self.graphs, self.kernels, self.step = graphs, kernels, step
        self.fills_up = isinstance(views, NativeViews)
        self.reads_at = runner.device if graphs is None else torch.device("cpu")   # graphs take a batch from there

    def hidden(self, batch: FlatBatch, adapt: Callable[[int], Adapt | None]) -> Tensor:       # (N, D)
        """What `logits` takes, for all tokens; good until the next call. `adapt` is told how many tokens fill the step
        up."""
        if self.step is not None and batch.shown is None and self.step.takes(batch):
            return self.step.hidden(batch, adapt(0))
        n = len(batch.ids)
        if self.fills_up:                                # the last page is none of the scheduler's
            batch = filled_up(batch, self.cache.n_pages - 1, self.cache.page_size)
        adapter = adapt(len(batch.ids) - n)
        is_plain = adapter is None and batch.shown is None
        found = self.graphs.hidden(batch) if self.graphs is not None and is_plain else None
        if found is not None:
            return found
        batch = batch.on(self.runner.device)
        return self.runner.flat(batch.ids, batch.positions, self.views.attends(batch), adapter, batch.shown)[:n]

    def logits(self, hidden: Tensor) -> Tensor:                               # (C, D) -> (C, V)
        """The model's head."""
        n = len(hidden)
        if self.step is not None and (found := self.step.logits(hidden)) is not None:
            return found
        if self.fills_up:
            hidden = F.pad(hidden, (0, 0, 0, size_of(n) - n))
        return self.runner.logits(hidden)[:n]


def uses_triton(kind: AttentionKind, device: torch.device) -> bool:
    """Whether attention goes through Triton."""
    if kind in ("torch", "native") or (kind == "auto" and device.type != "cuda"):
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


def uses_native(kind: AttentionKind, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether attention goes through C++. What was never compiled here is compiled now."""
    if kind in ("torch", "triton") or (kind == "auto" and (device.type != "cpu" or missing_avx2())):
        return False
    reason = missing_vectors() if device.type == "cpu" else "it is for the CPU"
    if reason is None and dtype not in KERNELS:
        reason = f"it knows bfloat16 and float32, not {dtype}"
    try:
        if reason is None:
            load()
            pointwise.load()
            draw.load()
    except (NativeError, OSError) as error:
        reason = str(error)
    if kind == "native" and reason is not None:
        raise ConfigError(f"attention='native' can't be had: {reason}; use attention='auto'")
    if reason is not None:
        say(f"attention is plain torch's, which is slower: {reason}")
    return reason is None


def runner_for(model: Model | Runner, native: bool, triton: bool = False) -> Runner:
    """A runner, in C++ or Triton between its products if it is a fused one; a runner that was given stays as it is."""
    runner = as_runner(model)
    if not (native or triton) or not isinstance(runner, FusedRunner):
        return runner
    faster = copy.copy(runner)
    if triton:
        from ayllu.engine.pointwise_triton import Kernels as TritonKernels

        faster.pointwise = TritonKernels()
    else:
        faster.pointwise = pointwise.Kernels()
    return faster


def make_paths(runner: Runner, cache: PagedCache, *, native: bool, triton: bool, graphs: bool, context: int,
               max_rows: int) -> Paths:
    """With graphs or `native`, the last page of the cache must be one that the scheduler doesn't know."""
    if not triton:
        if not native:
            return Paths(runner, cache)
        views = NativeViews(cache)
        return Paths(runner, cache, views, kernels=Kernels(pointwise.largest, draw.draw), step=make_step(runner, views))
    from ayllu.engine.paged_triton import mix_by_triton

    is_cuda = runner.device.type == "cuda"
    n_processors = torch.cuda.get_device_properties(runner.device).multi_processor_count if is_cuda else 1
    has_flash = is_cuda and runner.dtype.itemsize == 2   # torch's attention has no such kernel for float32
    tables = TableViews(cache, mix_by_triton, n_processors, has_flash)
    if not graphs:
        return Paths(runner, cache, tables)
    return Paths(runner, cache, tables, DecodeGraphs(runner, tables, context, max_rows, CudaRecorder(runner.device)))
