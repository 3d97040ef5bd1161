"""LitGPT as a worker of benchmarks/finetune.py, in an environment of its own: imports no ayllu.

Put together as its scripts `finetune_lora` and `finetune_full` do: Fabric with bf16-true, chunked head and loss, AdamW;
also with torch.compile and with bf16-mixed, which its scripts have as options or for pretraining.
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
from litgpt import lora
from litgpt.config import Config
from litgpt.model import GPT
from litgpt.utils import chunked_cross_entropy

state: dict[str, Any] = {}
CHUNK = 128                                              # of the head, as its scripts have it


def load(shape: dict[str, Any], setting: str, rows: int, threads: int, compiled: bool, method: str) -> dict[str, Any]:
    """The model and optimiser under Fabric, and one random batch."""
    if "compiled" in setting and not compiled:
        raise ValueError("a quick run compiles nothing")
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    D, T, V = shape["dim"], shape["max_context"], shape["vocab_size"]
    told: dict[str, Any] = {
        "name": "benchmark", "block_size": T, "n_layer": shape["n_layers"], "n_embd": D, "n_head": shape["n_heads"],
        "n_query_groups": shape["n_kv_heads"], "head_size": shape["head_dim"], "vocab_size": V,
        "padded_vocab_size": V, "intermediate_size": shape["hidden_dim"], "rotary_percentage": 1.0,
        "parallel_residual": False, "bias": False, "norm_class_name": "RMSNorm", "mlp_class_name": "LLaMAMLP",
        "norm_eps": 1e-5}
    fabric = Fabric(accelerator="cpu", devices=1, precision=setting.split()[0])
    with fabric.init_module():
        if method == "lora":
            model = lora.GPT(lora.Config(**told, lora_r=16, lora_alpha=32, lora_dropout=0.0, lora_query=True,
                                         lora_key=True, lora_value=True, lora_projection=True, lora_mlp=True))
            lora.mark_only_lora_as_trainable(model)
        else:
            model = GPT(Config(**told))
        if shape["tie_embeddings"]:
            model.transformer.wte.weight = model.lm_head.weight if method == "full" else model.lm_head.linear.weight
    model = fabric.setup(torch.compile(model) if "compiled" in setting else model)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = fabric.setup_optimizers(torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.0, fused=True))
    ids = torch.tensor(prompts(rows, shape["max_context"], shape["vocab_size"]))
    state.update(fabric=fabric, model=model, optimizer=optimizer, ids=ids)
    return {"version": lightning.__version__, "torch": torch.__version__}


def run() -> dict[str, Any]:
    """One step."""
    start, ids = time.perf_counter(), state["ids"]
    logits = state["model"](ids, lm_head_chunk_size=CHUNK)
    logits[-1] = logits[-1][..., :-1, :]
    loss = chunked_cross_entropy(logits, ids[..., 1:])
    state["fabric"].backward(loss)
    state["fabric"].clip_gradients(state["model"], state["optimizer"], max_norm=1.0)
    state["optimizer"].step()
    state["optimizer"].zero_grad()
    value = loss.item()
    return {"seconds": time.perf_counter() - start, "loss": value}


if __name__ == "__main__":
    serve({"load": load, "run": run, "peak": peak_bytes})
