"""Ayllu's step of fine-tuning beside TRL (with transformers and PEFT) and LitGPT: LoRA and all weights, in turns.

    python benchmarks/finetune.py --json finetune.json         # all four cells; an hour and more
    python benchmarks/finetune.py --cells "110m lora"          # one of them
    python benchmarks/finetune.py --quick                      # 110m lora, one batch size, nothing compiled

A step is forward, backward, clipping and AdamW on windows of 512 tokens that are full: Ayllu and TRL pack
conversations, LitGPT gets samples that need no padding. LoRA is of rank 16 on every linear layer of the blocks, beside
a frozen base in bfloat16. TRL runs its own SFTTrainer, LitGPT what its finetuning scripts put together; each in its
fastest of several settings, eager or compiled, which differ in what they hold in float32. Weights and tokens are
random. All weights of 1.1b, with their gradients and moments, take most of the memory of this machine: there the
programs are loaded in turns as well.
"""

from typing import Any

from contest import Contest, Shape, hold, options_of, token_operations
from train import SHAPES as PRETRAINED

GOAL = 1.3
SCRIPTS = {"ayllu": "finetune_ours.py", "trl": "finetune_trl.py", "litgpt": "finetune_litgpt.py"}
SETTINGS = {"ayllu": ("bf16",), "trl": ("bf16", "bf16 compiled", "autocast", "autocast compiled"),
            "litgpt": ("bf16-true", "bf16-true compiled", "bf16-mixed compiled")}
SHAPES: dict[str, Shape] = {
    "110m": {**PRETRAINED["110m"], "max_context": 512},
    "1.1b": {"dim": 2048, "n_layers": 22, "n_heads": 32, "n_kv_heads": 4, "head_dim": 64, "hidden_dim": 5632,
             "vocab_size": 32_000, "max_context": 512, "tie_embeddings": False}}
CELLS = {f"{size} {method}": (size, method) for size in SHAPES for method in ("lora", "full")}


def operations(cell: str, shape: dict[str, Any]) -> float:
    """Per token; LoRA's own matrices are too small to count."""
    return token_operations(shape, 4 if CELLS[cell][1] == "lora" else 6)


CONTEST = Contest(
    SCRIPTS, SETTINGS, {cell: SHAPES[size] for cell, (size, _) in CELLS.items()},
    {cell: (4, 8) if size == "110m" else (2,) for cell, (size, _) in CELLS.items()},
    {cell: {"method": method} for cell, (_, method) in CELLS.items()}, frozenset({"1.1b full"}), operations)

if __name__ == "__main__":
    hold(CONTEST, options_of(__doc__, CONTEST, "110m lora", "--cells"), GOAL)
