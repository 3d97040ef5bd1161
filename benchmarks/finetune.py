"""Ayllu's step of fine-tuning beside TRL (with transformers and PEFT) and LitGPT: LoRA and all weights, in turns.

    python benchmarks/finetune.py --json finetune.json         # all four cells; an hour and more
    python benchmarks/finetune.py --cells "110m lora"          # one of them
    python benchmarks/finetune.py --quick                      # 110m lora, one batch size, nothing compiled

A step is forward, backward, clipping and AdamW on the first conversations of alpaca_en by their lengths (lines.py), as
many as fill so many windows of 512 tokens; prompts, a quarter, are not learned, and the ids are random. Tokens are
those of the conversations, padding doesn't count. Each program batches them as its documentation has it: Ayllu packs,
in float32 one window at a time, as its peers take one conversation at a time; TRL packs or takes them one by one,
LitGPT pads some to the longest or takes them one by one; eager or compiled; its fastest counts. LoRA is of rank 16 on
every linear layer of the blocks, beside a frozen base. All compute in float32 on a CPU that has no instructions for
bfloat16, else in bfloat16, with several ways of holding it. TRL runs its own SFTTrainer, LitGPT what its finetuning
scripts put together. Where memory holds one program at a time they are loaded in turns.
"""

from pathlib import Path
from typing import Any

from contest import Contest, Shape, hold, options_of, token_operations
from lines import WINDOWS
from train import SHAPES as PRETRAINED

GOAL = 1.3
SCRIPTS = {"ayllu": "finetune_ours.py", "trl": "finetune_trl.py", "litgpt": "finetune_litgpt.py"}
LOW = any(flag in Path("/proc/cpuinfo").read_text(encoding="utf-8") for flag in ("amx_bf16", "avx512_bf16"))
SETTINGS: dict[str, tuple[str, ...]] = {
    "ayllu": ("bf16_masters by 4", "bf16_masters by 1"),
    "trl": ("bf16 packed", "bf16 packed compiled", "autocast packed compiled"),
    "litgpt": ("bf16-true by 1", "bf16-true by 4", "bf16-mixed by 1", "bf16-true by 1 compiled")} if LOW else {
    "ayllu": ("float32 by 1",),
    "trl": ("float32 packed", "float32 packed compiled", "float32 one by one"),
    "litgpt": ("32-true by 1", "32-true by 4", "32-true by 1 compiled")}
SHAPES: dict[str, Shape] = {
    "110m": {**PRETRAINED["110m"], "max_context": 512},
    "1.1b": {"dim": 2048, "n_layers": 22, "n_heads": 32, "n_kv_heads": 4, "head_dim": 64, "hidden_dim": 5632,
             "vocab_size": 32_000, "max_context": 512, "tie_embeddings": False}}
CELLS = {f"{size} {method}": (size, method) for size in SHAPES for method in ("lora", "full")}


def operations(cell: str, shape: dict[str, Any]) -> float:
    """Per token, of what has to be done: the head where something is learned, attention within a conversation. LoRA's
    own matrices are too small to count."""
    each, made = 4 if CELLS[cell][1] == "lora" else 6, [one for window in WINDOWS for one in window]
    lengths, learned = [sum(one) for one in made], sum(answer for _, answer in made)
    seen = sum(n * n for n in lengths) / sum(lengths)    # the tokens that a token's conversation has, in the mean
    unlearned = each * shape["dim"] * shape["vocab_size"] * (1 - learned / sum(lengths))
    return token_operations({**shape, "max_context": seen}, each) - unlearned


CONTEST = Contest(
    SCRIPTS, SETTINGS, {cell: SHAPES[size] for cell, (size, _) in CELLS.items()},
    {cell: (4,) if size == "110m" else (2,) for cell, (size, _) in CELLS.items()},
    {cell: {"method": method} for cell, (_, method) in CELLS.items()},
    frozenset(cell for cell in CELLS if cell.startswith("1.1b")), operations)

if __name__ == "__main__":
    hold(CONTEST, options_of(__doc__, CONTEST, "110m lora", "--cells"), GOAL)
