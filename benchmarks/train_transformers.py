"""A plain transformers loop as a worker of benchmarks/train.py, in an environment of its own: imports no ayllu.

bfloat16 autocast, SDPA, torch.compile of the model (which computes the loss), fused AdamW, clipping: what its pages on
training efficiently recommend for one device.
"""

import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import torch
import transformers
from lines import peak_bytes, prompts, serve
from transformers import LlamaConfig, LlamaForCausalLM

transformers.logging.set_verbosity_error()
state: dict[str, Any] = {}


def load(shape: dict[str, Any], setting: str, rows: int, threads: int, compiled: bool) -> dict[str, Any]:
    """A float32 model, its optimiser and one random batch."""
    assert setting == "autocast", setting
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=shape["dim"], num_hidden_layers=shape["n_layers"], num_attention_heads=shape["n_heads"],
        num_key_value_heads=shape["n_kv_heads"], head_dim=shape["head_dim"], intermediate_size=shape["hidden_dim"],
        vocab_size=shape["vocab_size"], tie_word_embeddings=shape["tie_embeddings"],
        max_position_embeddings=shape["max_context"], rms_norm_eps=1e-5, attn_implementation="sdpa", use_cache=False)
    model = LlamaForCausalLM(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    state.update(model=model, compute=torch.compile(model) if compiled else model, optimizer=optimizer,
                 ids=torch.tensor(prompts(rows, shape["max_context"], shape["vocab_size"])))
    return {"version": transformers.__version__, "torch": torch.__version__}


def run() -> dict[str, Any]:
    """One step."""
    start = time.perf_counter()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = state["compute"](input_ids=state["ids"], labels=state["ids"]).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(state["model"].parameters(), 1.0)
    state["optimizer"].step()
    state["optimizer"].zero_grad(set_to_none=True)
    value = loss.item()
    return {"seconds": time.perf_counter() - start, "loss": value}


if __name__ == "__main__":
    serve({"load": load, "run": run, "peak": peak_bytes})
