"""The cost of a token as the context grows in transformers: a worker of benchmarks/long_context.py, without ayllu."""

import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import generate_peer
import torch
from lines import prompts, serve
from transformers import DynamicCache

PIECE = 1024                                             # prompt tokens of one step, as in ours
state: dict[str, Any] = {}


def load(shape: dict[str, Any], dtype: str, threads: int, longest: int) -> dict[str, Any]:
    """A model with random weights, SDPA attention and an empty dynamic cache."""
    told = generate_peer.load({**shape, "max_context": 2 * longest}, dtype, threads)
    model = generate_peer.state["model"]
    state.update(model=model, ids=torch.tensor(prompts(1, longest, shape["vocab_size"])),
                 cache=DynamicCache(config=model.config))
    return told


@torch.inference_mode()
def run(length: int, n_new: int) -> dict[str, Any]:
    """Seconds per prompt token from where the cache ends up to `length`, and for each new token after it."""
    model, cache, ids = state["model"], state["cache"], state["ids"]
    if cache.get_seq_length() >= length:
        state["cache"] = cache = DynamicCache(config=model.config)
    begin, start = cache.get_seq_length(), time.perf_counter()
    for piece in ids[:, begin:length].split(PIECE, dim=1):
        logits = model(piece, past_key_values=cache, logits_to_keep=1).logits
    prompt_s = (time.perf_counter() - start) / (length - begin)
    steps = []
    for _ in range(n_new):
        start = time.perf_counter()
        token = logits[:, -1].argmax(-1, keepdim=True)
        logits = model(token, past_key_values=cache, logits_to_keep=1).logits
        logits[:, -1].argmax(-1).item()
        steps.append(time.perf_counter() - start)
    cache.crop(-n_new)                                   # what it wrote
    return {"prompt_s": prompt_s, "step_s": steps}


if __name__ == "__main__":
    serve({"load": load, "run": run})
