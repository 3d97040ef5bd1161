"""The cost of a token as the context grows, in our engine: a worker of benchmarks/long_context.py."""

import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import torch
from generate_ours import limits
from lines import prompts, serve

from ayllu.engine.engine import Engine, EngineSettings
from ayllu.engine.request import Request
from ayllu.engine.runner import make_runner
from ayllu.model.config import LlamaConfig
from ayllu.model.init import initialise
from ayllu.model.llama import Llama
from ayllu.model.params import SamplingParams

PIECE = 1024                                             # prompt tokens of one step, as in the peer
state: dict[str, Any] = {}


def load(shape: dict[str, Any], dtype: str, threads: int, longest: int) -> dict[str, Any]:
    """A model with random weights, and an engine for each kind of page."""
    torch.set_num_threads(threads)
    model = Llama(LlamaConfig(**{**shape, "max_context": 2 * longest})).eval()
    initialise(model, shape["n_layers"], seed=0)
    runner = make_runner(model.to(getattr(torch, dtype)))
    engines = {kind: Engine(runner, EngineSettings(n_pages=longest // 16 + 64, token_budget=PIECE, max_rows=1,
                                                   kv_dtype=kind))            # type: ignore[arg-type]
               for kind in ("auto", "int8")}
    state.update(engines=engines, ids=prompts(1, longest, shape["vocab_size"])[0])
    slots = {kind: engine.cache.n_pages * 16 for kind, engine in engines.items()}
    return {"kv_bytes": {kind: engine.cache.nbytes / slots[kind] for kind, engine in engines.items()}}


def run(kind: str, length: int, n_new: int) -> dict[str, Any]:
    """Seconds for each step that reads a piece of the prompt, and for each new token after it.

    What an earlier call read is in the prefix cache: only the pieces from there on are computed, and timed.
    """
    engine = state["engines"][kind]
    engine.submit(Request(tuple(state["ids"][:length]), SamplingParams(temperature=0, max_tokens=n_new + 1,
                                                                       ignore_eos=True)))
    times, n_chosen, cached = list[float](), 0, 0
    while not engine.is_idle:
        start = time.perf_counter()
        tokens = engine.step()
        times.append(time.perf_counter() - start)
        n_chosen += len(tokens)
        cached = tokens[0].start.cached_tokens if tokens and tokens[0].start else cached
    assert n_chosen == n_new + 1
    return {"prompt_s": sum(times[:-n_new]) / (length - cached), "step_s": times[-n_new:]}


if __name__ == "__main__":
    serve({"load": load, "run": run, "limits": limits})
