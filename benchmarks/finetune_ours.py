"""Ayllu's step of `ayllu sft` as a worker of benchmarks/finetune.py, on packed conversations of random ids."""

import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import torch
from lines import peak_bytes, serve

from ayllu.device import keep_memory, large_pages, matrix_peak
from ayllu.train.loop import step
from ayllu.train.method import empty_state, loss_of
from ayllu.train.sft_config import SftConfig
from ayllu.train.worst import Windows

large_pages()
keep_memory()
CPU = torch.device("cpu")
state: dict[str, Any] = {}


def load(shape: dict[str, Any], setting: str, rows: int, threads: int, compiled: bool, method: str) -> dict[str, Any]:
    """The state before the first step, and windows full of random conversations."""
    assert setting == "bf16", setting
    torch.set_num_threads(threads)
    config = SftConfig.model_validate({
        "name": "benchmark", "out": "none", "base": "none",
        "model": shape, "context": shape["max_context"], "compile": "on" if compiled else "off",
        "lora": {"r": 16, "lora_alpha": 32} if method == "lora" else None, "data": {"sources": [{"path": "none"}]},
        "optim": {"lr": 1e-4},
        "loop": {"steps": 1_000_000, "batch_size": rows, "micro_batch": rows, "precision": "bf16_masters"}})
    train = empty_state(config, CPU)
    state.update(train=train, config=config, loss=loss_of(config, CPU, train), batch=Windows(config).batch(0))
    return {"torch": torch.__version__}


def run() -> dict[str, Any]:
    """One step."""
    config, start = state["config"], time.perf_counter()
    loss = step(state["train"], state["batch"], state["loss"], config.loop, config.optim, CPU)["loss"]
    return {"seconds": time.perf_counter() - start, "loss": loss}


def peak_flops() -> dict[str, Any]:
    """The matrix peak that shares are taken of: the best of several measurements."""
    return {"flops_per_s": max(matrix_peak(CPU) for _ in range(5))}


if __name__ == "__main__":
    serve({"load": load, "run": run, "peak_flops": peak_flops, "peak": peak_bytes})
