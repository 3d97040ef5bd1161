"""transformers' text-classification pipeline as a worker of benchmarks/analyse.py: imports no ayllu."""

import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import torch
import transformers
from lines import serve
from transformers import pipeline

transformers.logging.set_verbosity_error()
state: dict[str, Any] = {}


def load(folder: str, posts: list[str]) -> dict[str, Any]:
    """The exported head in the dtype that its folder names; float32, as the pipeline takes it."""
    pipe = pipeline("text-classification", model=folder, device="cpu")
    if pipe.tokenizer.pad_token is None:
        pipe.tokenizer.pad_token = pipe.tokenizer.eos_token
    pipe.model.config.pad_token_id = pipe.tokenizer.pad_token_id
    state.update(pipe=pipe, posts=posts)
    return {"transformers": transformers.__version__, "torch": torch.__version__}


def label(size: int, some: int) -> dict[str, Any]:
    """The first posts in batches of this size."""
    start = time.perf_counter()
    found = state["pipe"](state["posts"][:some], batch_size=size, truncation=True, max_length=512)
    return {"seconds": time.perf_counter() - start, "labels": [one["label"] for one in found]}


if __name__ == "__main__":
    serve({"load": load, "label": label})
