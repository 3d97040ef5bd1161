"""Ayllu's training step beside a plain transformers loop and LitGPT, in turns, all loaded all the while.

    python benchmarks/train.py --json results.json             # every shape; about a quarter of an hour
    python benchmarks/train.py --shapes 15m                    # one of them
    python benchmarks/train.py --quick                         # the smallest shape, one batch size, nothing compiled

A step is forward, backward, clipping and AdamW on one batch. Each side tries several batch sizes (LitGPT also two
precisions) in processes of their own, and its fastest is what counts. All compute in bfloat16 with torch.compile, SDPA
and fused AdamW; the first step, which compiles, is reported apart. Weights and tokens are random.
"""

from typing import Any

from contest import Contest, hold, options_of

SCRIPTS = {"ayllu": "train_ours.py", "transformers": "train_transformers.py", "litgpt": "train_litgpt.py"}
SETTINGS = {"ayllu": ("bf16_masters",), "transformers": ("autocast",), "litgpt": ("bf16-mixed", "bf16-true")}
SHAPES: dict[str, dict[str, Any]] = {
    "5m": {"dim": 192, "n_layers": 6, "n_heads": 4, "n_kv_heads": 4, "head_dim": 48, "hidden_dim": 512,
           "vocab_size": 12_000, "max_context": 256, "tie_embeddings": True},
    "15m": {"dim": 288, "n_layers": 6, "n_heads": 6, "n_kv_heads": 6, "head_dim": 48, "hidden_dim": 768,
            "vocab_size": 32_000, "max_context": 256, "tie_embeddings": True},
    "110m": {"dim": 768, "n_layers": 12, "n_heads": 12, "n_kv_heads": 12, "head_dim": 64, "hidden_dim": 2048,
             "vocab_size": 32_000, "max_context": 1024, "tie_embeddings": True},
}
ROWS = {"5m": (16, 64), "15m": (8, 32), "110m": (2, 4)}  # batch sizes that are tried
CONTEST = Contest(SCRIPTS, SETTINGS, SHAPES, ROWS)

if __name__ == "__main__":
    hold(CONTEST, options_of(__doc__, CONTEST, "5m", "--shapes"))
