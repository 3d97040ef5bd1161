"""LitGPT as a worker of benchmarks/train.py, in an environment of its own: imports no ayllu.

Its own model, loss and precision plugins, put together as its pretraining script does: Fabric with bf16-mixed or
bf16-true, torch.compile of the model, chunked cross-entropy, clipping, AdamW (fused; the script has that on GPUs only).
"""

import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import lightning
import torch
from lightning.fabric import Fabric
from lines import peak_bytes, prompts, serve
from litgpt.config import Config
from litgpt.model import GPT
from litgpt.utils import chunked_cross_entropy

state: dict[str, Any] = {}


def load(shape: dict[str, Any], setting: str, rows: int, threads: int, compiled: bool) -> dict[str, Any]:
    """The model and optimiser under Fabric, and one random batch."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    config = Config(
        name="benchmark", block_size=shape["max_context"], n_layer=shape["n_layers"], n_embd=shape["dim"],
        n_head=shape["n_heads"], n_query_groups=shape["n_kv_heads"], head_size=shape["head_dim"],
        intermediate_size=shape["hidden_dim"], vocab_size=shape["vocab_size"], padded_vocab_size=shape["vocab_size"],
        rotary_percentage=1.0, parallel_residual=False, bias=False, norm_class_name="RMSNorm",
        mlp_class_name="LLaMAMLP", norm_eps=1e-5)
    fabric = Fabric(accelerator="cpu", devices=1, precision=setting)
    with fabric.init_module():
        model = GPT(config)
        if shape["tie_embeddings"]:
            model.transformer.wte.weight = model.lm_head.weight
    model = fabric.setup(torch.compile(model) if compiled else model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    optimizer = fabric.setup_optimizers(optimizer)
    ids = torch.tensor(prompts(rows, shape["max_context"] + 1, shape["vocab_size"]))
    state.update(fabric=fabric, model=model, optimizer=optimizer, inputs=ids[:, :-1].contiguous(),
                 targets=ids[:, 1:].contiguous())
    return {"version": lightning.__version__, "torch": torch.__version__}


def run() -> dict[str, Any]:
    """One step."""
    start = time.perf_counter()
    loss = chunked_cross_entropy(state["model"](state["inputs"]), state["targets"])
    state["fabric"].backward(loss)
    state["fabric"].clip_gradients(state["model"], state["optimizer"], max_norm=1.0)
    state["optimizer"].step()
    state["optimizer"].zero_grad()
    value = loss.item()
    return {"seconds": time.perf_counter() - start, "loss": value}


if __name__ == "__main__":
    serve({"load": load, "run": run, "peak": peak_bytes})
