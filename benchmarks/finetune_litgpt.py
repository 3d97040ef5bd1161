"""LitGPT as a worker of benchmarks/finetune.py, in an environment of its own: imports no ayllu.

Put together as its scripts `finetune_lora` and `finetune_full` do: Fabric, chunked head and loss, masked prompts,
AdamW; conversations padded to the longest of so many, with their gradients added up. Its scripts don't compile, while
its pretraining does: both are tried.
"""

import importlib.metadata
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import lightning
import torch
from lightning.fabric import Fabric
from lines import conversations, serve
from litgpt import lora
from litgpt.config import Config
from litgpt.model import GPT
from litgpt.utils import chunked_cross_entropy
from on_device import GPU, loaded, peak, wait

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
    fabric = Fabric(accelerator="cuda" if GPU else "cpu", devices=1, precision=setting.split()[0])
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
    made, size = conversations(rows, V, T), int(setting.split()[2])
    flat = [one for window in made for one in window]
    state.update(fabric=fabric, model=model, optimizer=optimizer,
                 parts=[fabric.to_device(padded(flat[i:i + size])) for i in range(0, len(flat), size)])
    version = f"{importlib.metadata.version('litgpt')} with lightning {lightning.__version__}"
    return {"version": version, **loaded(), "tokens": sum(len(ids) for ids, _ in flat)}


def padded(made: list[tuple[list[int], int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and labels of some conversations as its collator has them."""
    longest = max(len(ids) for ids, _ in made)
    ids = torch.tensor([ids + [0] * (longest - len(ids)) for ids, _ in made])
    labels = torch.tensor([[-100] * prompt + ids[prompt:] + [-100] * (longest - len(ids)) for ids, prompt in made])
    return ids, labels


def run() -> dict[str, Any]:
    """One step."""
    wait()
    start, losses = time.perf_counter(), []
    for ids, labels in state["parts"]:
        logits = state["model"](ids, lm_head_chunk_size=CHUNK)
        logits[-1] = logits[-1][..., :-1, :]
        loss = chunked_cross_entropy(logits, labels[..., 1:])
        state["fabric"].backward(loss / len(state["parts"]))
        losses.append(loss.detach())
    state["fabric"].clip_gradients(state["model"], state["optimizer"], max_norm=1.0)
    state["optimizer"].step()
    state["optimizer"].zero_grad()
    value = torch.stack(losses).mean().item()
    wait()
    return {"seconds": time.perf_counter() - start, "loss": value}


if __name__ == "__main__":
    serve({"load": load, "run": run, "peak": peak})
