"""transformers' `generate` as a worker of benchmarks/generate.py, in an environment of its own: imports no ayllu."""

import gc
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import torch
import transformers
from lines import peak_bytes, prompts, serve
from transformers import LlamaConfig, LlamaForCausalLM, LogitsProcessor, LogitsProcessorList

transformers.logging.set_verbosity_error()
SETTINGS = ("dynamic", "static", "compile")
state: dict[str, Any] = {}


class Clock(LogitsProcessor):
    """Notes when the logits of each step are there."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        self.times.append(time.perf_counter())
        return scores


def load(shape: dict[str, Any], dtype: str, threads: int) -> dict[str, Any]:
    """A model with random weights and SDPA attention."""
    torch.set_num_threads(threads)
    start = time.perf_counter()
    config = LlamaConfig(
        hidden_size=shape["dim"], num_hidden_layers=shape["n_layers"], num_attention_heads=shape["n_heads"],
        num_key_value_heads=shape["n_kv_heads"], head_dim=shape["head_dim"], intermediate_size=shape["hidden_dim"],
        vocab_size=shape["vocab_size"], tie_word_embeddings=shape["tie_embeddings"],
        max_position_embeddings=shape["max_context"], rms_norm_eps=1e-5, attn_implementation="sdpa")
    torch.manual_seed(0)
    torch.set_default_dtype(getattr(torch, dtype))
    model = LlamaForCausalLM(config).eval()
    torch.set_default_dtype(torch.float32)
    model.generation_config.eos_token_id = None
    model.generation_config.bos_token_id = None
    model.generation_config.pad_token_id = 0
    state.update(model=model, plain=model.forward, vocab_size=shape["vocab_size"])
    return {"load_s": time.perf_counter() - start, "version": transformers.__version__, "torch": torch.__version__}


def setting(name: str) -> dict[str, Any]:
    """dynamic: the default cache. static: a preallocated one. compile: that, and forward through torch.compile, as
    transformers' page on optimising inference has it."""
    model = state["model"]
    torch._dynamo.reset()
    gc.collect()
    model.forward = state["plain"]
    if name == "compile":
        model.forward = torch.compile(state["plain"], fullgraph=True, dynamic=False)
    state["setting"] = name
    return {}


@torch.inference_mode()
def run(batch: int, prompt: int, new: int) -> dict[str, Any]:
    """Seconds to the first token, and per step after it."""
    model, clock = state["model"], Clock()
    ids = torch.tensor(prompts(batch, prompt, state["vocab_size"]))
    cache = {} if state["setting"] == "dynamic" else {"cache_implementation": "static", "disable_compile": True}
    start = time.perf_counter()
    out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, do_sample=False,
                         logits_processor=LogitsProcessorList([clock]), **cache)
    total = time.perf_counter() - start
    assert out.shape == (batch, prompt + new), out.shape
    steps = clock.times
    return {"first_s": steps[0] - start, "step_s": (steps[-1] - steps[0]) / max(1, len(steps) - 1), "total_s": total}


if __name__ == "__main__":
    serve({"load": load, "setting": setting, "run": run, "peak": peak_bytes})
