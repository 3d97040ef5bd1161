"""Ayllu's training step as a worker of benchmarks/train.py: what `ayllu pretrain` runs with loop.precision as given."""

import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import torch
from lines import peak_bytes, prompts, serve

from ayllu.data.loader import Batch
from ayllu.device import large_pages, matrix_peak
from ayllu.model.build import build_model
from ayllu.model.config import LlamaConfig
from ayllu.model.init import initialise
from ayllu.native import build
from ayllu.native.pool import pool_memory
from ayllu.train.head_loss import EAGER, Kernels
from ayllu.train.loop import LoopConfig, step
from ayllu.train.losses import next_token_loss
from ayllu.train.optim import OptimConfig, build_optimizer
from ayllu.train.state import TrainState
from ayllu.train.trainee import TraineeLoss

large_pages()                                            # as `ayllu pretrain` does, and the next line with the kernels
pool_memory()
CPU = torch.device("cpu")
state: dict[str, Any] = {}


def load(shape: dict[str, Any], setting: str, rows: int, threads: int, compiled: bool) -> dict[str, Any]:
    """Everything of a run but its data, which are one random batch."""
    torch.set_num_threads(threads)
    model = build_model(LlamaConfig(**shape))
    initialise(model, shape["n_layers"], 0)
    optim, native = OptimConfig(lr=1e-4), build.missing() is None
    ids = torch.tensor(prompts(rows, shape["max_context"] + 1, shape["vocab_size"]))
    state.update(
        train=TrainState(model, build_optimizer(model, optim)), optim=optim,
        batch=Batch(ids[:, :-1].contiguous(), ids[:, 1:].contiguous()),
        loop=LoopConfig(steps=1_000_000, batch_size=rows, micro_batch=rows, precision=setting),
        loss=TraineeLoss(partial(next_token_loss, kernels=Kernels.compiled(native) if compiled else EAGER), setting,
                         compiled, False, native and compiled))
    return {"torch": torch.__version__, "kernels": "C++ kernels" if native and compiled else "torch's kernels"}


def run() -> dict[str, Any]:
    """One step."""
    start = time.perf_counter()
    loss = step(state["train"], state["batch"], state["loss"], state["loop"], state["optim"], CPU)["loss"]
    return {"seconds": time.perf_counter() - start, "loss": loss}


def peak_flops() -> dict[str, Any]:
    """The matrix peak that shares are taken of: the best of several measurements."""
    return {"flops_per_s": max(matrix_peak(CPU) for _ in range(5))}


if __name__ == "__main__":
    serve({"load": load, "run": run, "peak_flops": peak_flops, "peak": peak_bytes})
