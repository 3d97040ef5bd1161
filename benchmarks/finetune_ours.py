"""Ayllu's step of `ayllu sft` as a worker of benchmarks/finetune.py, on packed conversations."""

import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import torch
from lines import conversations, serve
from on_device import DEVICE, GPU, loaded, peak, wait

from ayllu.data.masks import Example
from ayllu.data.pack_loader import PackedBatch, filled
from ayllu.device import emulates_bfloat16, large_pages, matrix_peak
from ayllu.native.pool import pool_memory
from ayllu.train.loop import step
from ayllu.train.method import empty_state, loss_of
from ayllu.train.sft_config import SftConfig

if not GPU:
    if not emulates_bfloat16(DEVICE):                    # finetune.py takes float32 there, which `ayllu sft` keeps on
        large_pages()                                    # small pages
    pool_memory()
state: dict[str, Any] = {}


def load(shape: dict[str, Any], setting: str, rows: int, threads: int, compiled: bool, method: str) -> dict[str, Any]:
    """The state before the first step, and windows full of conversations."""
    torch.set_num_threads(threads)
    precision, _, windows, *how = setting.split()        # "float32 by 2": windows at once; then, perhaps, "eager"
    config = SftConfig.model_validate({
        "name": "benchmark", "out": "none", "base": "none",
        "model": shape, "context": shape["max_context"], "compile": "on" if compiled and not how else "off",
        "lora": {"r": 16, "lora_alpha": 32} if method == "lora" else None, "data": {"sources": [{"path": "none"}]},
        "optim": {"lr": 1e-4},
        "loop": {"steps": 1_000_000, "batch_size": rows, "micro_batch": min(int(windows), rows),
                 "precision": precision}})
    train, made = empty_state(config, DEVICE), conversations(rows, shape["vocab_size"], shape["max_context"])
    state.update(train=train, config=config, loss=loss_of(config, DEVICE, train), setting=precision,
                 batch=packed(made, shape["max_context"]))
    return {**loaded(), "tokens": sum(len(ids) for window in made for ids, _ in window)}


def packed(windows: list[list[tuple[list[int], int]]], context: int, pad: int = 0) -> PackedBatch:
    """Each window's conversations side by side, as `ayllu sft` packs them: all but the prompts is learned."""
    def row(conversations: list[tuple[list[int], int]]) -> list[Example]:
        made = []
        for ids, prompt in conversations:
            weights = np.zeros(len(ids) - 1, np.float32)
            weights[prompt - 1:] = 1
            made.append(Example("chat", np.array(ids[:-1]), np.array(ids[1:]), weights))
        return made
    return filled([row(conversations) for conversations in windows], context, pad, Counter())


def run() -> dict[str, Any]:
    """One step."""
    wait()
    config, start = state["config"], time.perf_counter()
    loss = step(state["train"], state["batch"], state["loss"], config.loop, config.optim, DEVICE)["loss"]
    wait()
    return {"seconds": time.perf_counter() - start, "loss": loss}


def peak_flops() -> dict[str, Any]:
    """The matrix peak that shares are taken of: the best of several measurements."""
    dtype = torch.float32 if state["setting"] == "float32" else torch.bfloat16
    return {"flops_per_s": max(matrix_peak(DEVICE, dtype) for _ in range(5))}


if __name__ == "__main__":
    serve({"load": load, "run": run, "peak_flops": peak_flops, "peak": peak})
