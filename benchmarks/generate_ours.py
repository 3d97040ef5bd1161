"""Ayllu's generation as a worker of benchmarks/generate.py."""

import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import torch
from lines import peak_bytes, prompts, serve

from ayllu.device import matrix_peak
from ayllu.engine.runner import make_runner
from ayllu.model.config import LlamaConfig
from ayllu.model.generate import Generation
from ayllu.model.llama import Llama
from ayllu.model.params import SamplingParams

state: dict[str, Any] = {}


def load(shape: dict[str, Any], dtype: str, threads: int, runner: str) -> dict[str, Any]:
    """A model with random weights, in the runner that LLM.load takes; fuse_s is what the runner needs to prepare."""
    torch.set_num_threads(threads)
    start = time.perf_counter()
    torch.manual_seed(0)
    torch.set_default_dtype(getattr(torch, dtype))
    model = Llama(LlamaConfig(**shape)).eval()
    with torch.no_grad():
        model.tok_embeddings.weight.normal_(std=0.02)
    torch.set_default_dtype(torch.float32)
    loaded = time.perf_counter()
    state.update(runner=make_runner(model, runner), vocab_size=shape["vocab_size"])  # type: ignore[arg-type]
    return {"load_s": loaded - start, "fuse_s": time.perf_counter() - loaded, "runner": type(state["runner"]).__name__}


def run(batch: int, prompt: int, new: int) -> dict[str, Any]:
    """Seconds to the first token, and per step after it."""
    ids = prompts(batch, prompt, state["vocab_size"])
    start = time.perf_counter()
    generation = Generation(state["runner"], ids, SamplingParams(temperature=0, max_tokens=new, ignore_eos=True))
    steps = []
    while generation.step():
        steps.append(time.perf_counter())
    total = time.perf_counter() - start
    assert all(len(row.tokens) == new for row in generation.rows)
    return {"first_s": steps[0] - start, "step_s": (steps[-1] - steps[0]) / max(1, len(steps) - 1), "total_s": total}


def limits(dtype: str, threads: int) -> dict[str, Any]:
    """What the machine gives now: bytes per second read from memory, operations per second of a matrix product."""
    torch.set_num_threads(threads)
    numbers = torch.ones(1 << 27)                        # 512 MiB: no cache holds it
    matrix, vector = torch.ones(1 << 14, 1 << 13), torch.ones(1 << 13)
    best = min(_seconds(lambda: numbers.sum()) for _ in range(5))
    product = min(_seconds(lambda: torch.ops.mkldnn._linear_pointwise(vector[None], matrix, None, "none", [], ""))
                  for _ in range(5))
    peak = max(matrix_peak(torch.device("cpu"), getattr(torch, dtype)) for _ in range(2))
    return {"bytes_per_s": numbers.numel() * 4 / min(best, product), "flops_per_s": peak}


def _seconds(function: Any) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


if __name__ == "__main__":
    serve({"load": load, "run": run, "peak": peak_bytes, "limits": limits})
