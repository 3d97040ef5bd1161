"""Ayllu's step of fine-tuning beside TRL (with transformers and PEFT) and LitGPT: LoRA and all weights, in turns.

    python benchmarks/finetune.py --json finetune.json         # all four cells; an hour and more
    python benchmarks/finetune.py --cells "110m lora"          # one of them
    python benchmarks/finetune.py --quick                      # 110m lora, one batch size, nothing compiled
    python benchmarks/finetune.py --cells "7b lora" --rounds 2 --limit 240    # on a GPU of 80 GB; about ten minutes

A step is forward, backward, clipping and AdamW on the first conversations of alpaca_en by their lengths (lines.py), as
many as fill so many windows of 512 tokens (7b: four of 2048, the same lengths again and again); prompts, a quarter, are
not learned, and the ids are random. Tokens are those of the conversations, padding doesn't count. Each program batches
them as its documentation has it: Ayllu packs, in float32 one window at a time, as its peers take one conversation at a
time; TRL packs or takes them one by one, LitGPT pads some to the longest or takes them one by one; eager or compiled;
its fastest counts. LoRA is of rank 16 on every linear layer of the blocks, beside a frozen base. On a CPU that has no
instructions for bfloat16 all compute in float32, else in bfloat16, with several ways of holding it. TRL runs its own
SFTTrainer, LitGPT what its finetuning scripts put together. Where memory holds one program at a time they are loaded in
turns.

With a GPU all cells run on it, in bfloat16; "7b lora" runs nowhere else, and asked for without one it says so and ends
with code 2. Memory is then what tensors took on the GPU at most, from the first step on, and Ayllu's setting is the
fastest of those that take no more than each peer's fastest. A setting that fails, for want of memory say, is told and
left out.
"""

import sys
from pathlib import Path
from typing import Any

import torch
from contest import Contest, Shape, hold, options_of, token_operations
from lines import WINDOWS
from train import SHAPES as PRETRAINED

GOAL = 1.3
SCRIPTS = {"ayllu": "finetune_ours.py", "trl": "finetune_trl.py", "litgpt": "finetune_litgpt.py"}
LOW = any(flag in Path("/proc/cpuinfo").read_text(encoding="utf-8") for flag in ("amx_bf16", "avx512_bf16"))
GPU = torch.cuda.is_available()
ON_GPU: dict[str, tuple[str, ...]] = {
    "ayllu": ("bf16_masters by 1", "bf16_masters by 2", "bf16_masters by 4", "bf16_masters by 2 eager"),
    "trl": ("bf16 packed by 1", "bf16 packed by 2", "bf16 packed by 1 flex", "bf16 packed by 4 flex checkpointed",
            "bf16 packed by 2 checkpointed", "bf16 packed by 1 compiled"),
    "litgpt": ("bf16-true by 1", "bf16-true by 4", "bf16-true by 8", "bf16-true by 4 compiled")}
ON_CPU: dict[str, tuple[str, ...]] = {
    "ayllu": ("bf16_masters by 4", "bf16_masters by 1"),
    "trl": ("bf16 packed", "bf16 packed compiled", "autocast packed compiled"),
    "litgpt": ("bf16-true by 1", "bf16-true by 4", "bf16-mixed by 1", "bf16-true by 1 compiled")} if LOW else {
    "ayllu": ("float32 by 1",),
    "trl": ("float32 packed", "float32 packed compiled", "float32 one by one"),
    "litgpt": ("32-true by 1", "32-true by 4", "32-true by 1 compiled")}
SHAPES: dict[str, Shape] = {
    "110m": {**PRETRAINED["110m"], "max_context": 512},
    "1.1b": {"dim": 2048, "n_layers": 22, "n_heads": 32, "n_kv_heads": 4, "head_dim": 64, "hidden_dim": 5632,
             "vocab_size": 32_000, "max_context": 512, "tie_embeddings": False},
    "7b": {"dim": 4096, "n_layers": 32, "n_heads": 32, "n_kv_heads": 32, "head_dim": 128, "hidden_dim": 11_008,
           "vocab_size": 32_000, "max_context": 2048, "tie_embeddings": False}}
BIG = "7b lora"                                          # for a GPU alone
CELLS = {f"{size} {method}": (size, method) for size in SHAPES for method in ("lora", "full")}
del CELLS["7b full"]                                     # weights, gradients and moments alone are more than 80 GB


def operations(cell: str, shape: dict[str, Any]) -> float:
    """Per token, of what has to be done: the head where something is learned, attention within a conversation. LoRA's
    own matrices are too small to count."""
    each, made = 4 if CELLS[cell][1] == "lora" else 6, [one for window in WINDOWS for one in window]
    lengths, learned = [sum(one) for one in made], sum(answer for _, answer in made)
    seen = sum(n * n for n in lengths) / sum(lengths)    # the tokens that a token's conversation has, in the mean
    unlearned = each * shape["dim"] * shape["vocab_size"] * (1 - learned / sum(lengths))
    return token_operations({**shape, "max_context": seen}, each) - unlearned


CONTEST = Contest(
    SCRIPTS, ON_GPU if GPU else ON_CPU, {cell: SHAPES[size] for cell, (size, _) in CELLS.items()},
    {cell: (2,) if size == "1.1b" else (4,) for cell, (size, _) in CELLS.items()},
    {cell: {"method": method} for cell, (_, method) in CELLS.items()},
    frozenset(cell for cell, (size, _) in CELLS.items() if size != "110m"), operations,
    steps=dict.fromkeys(CELLS, 5) if GPU else {}, frugal=frozenset(CELLS if GPU else ()),
    default=tuple(cell for cell in CELLS if GPU or cell != BIG))


def main() -> None:
    options = options_of(__doc__, CONTEST, "110m lora", "--cells")
    if BIG in options.cells and not GPU:
        print(f"no GPU: torch sees no CUDA device, and {BIG!r} needs one of about 80 GB. Leave it out of --cells, or "
              "run this where `ayllu doctor` lists one.", file=sys.stderr)
        sys.exit(2)
    hold(CONTEST, options, GOAL)


if __name__ == "__main__":
    main()
