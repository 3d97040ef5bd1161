"""The predicted peak of memory beside the measured one, over shapes, batches, precisions and optimisers.

    python benchmarks/memory.py [--quick] [--json] [CELL ...]

Each configuration is predicted by `ayllu/train/memory.py` without allocating it, then trained for four steps with two
evaluations and saves in a process of its own, whose highest resident memory (on a GPU: allocated memory) is measured.
The base, what Python, torch and the kernels take before the model is there, is measured in that process too.
"""

import argparse
import json
from typing import Any

from ayllu.device import pick_device
from ayllu.train.memory import predict
from ayllu.train.pretrain import PretrainConfig
from ayllu.train.rehearse import measure_apart

GOAL = 0.10
FIXED = {"name": "memory", "out": "runs/memory", "tokenizer": "none", "data": {"sources": [{"path": "none"}]},
         "compile": "off", "eval_tokens": 4096}
SHAPE = {"dim": 256, "n_layers": 6, "n_heads": 4, "n_kv_heads": 2, "head_dim": 64, "hidden_dim": 704,
         "vocab_size": 8000, "tie_embeddings": True}
WIDE = {"dim": 512, "n_heads": 8, "n_kv_heads": 4, "hidden_dim": 1408}
MEDIUM = {"dim": 288, "n_heads": 6, "n_kv_heads": 6, "head_dim": 48, "hidden_dim": 768, "vocab_size": 32_000}
CELLS: dict[str, dict[str, Any]] = {                     # what differs from the shape above, 8 rows of 256 in one piece
    "plain": {},
    "wide": {"model": WIDE},
    "deep": {"model": {"n_layers": 16}},
    "vocabulary of 64,000": {"model": {"vocab_size": 64_000}},
    "untied head": {"model": {"vocab_size": 32_000, "tie_embeddings": False}},
    "context of 2,048": {"context": 2048, "loop": {"batch_size": 2, "micro_batch": 1}},
    "micro-batch of 2": {"model": WIDE, "loop": {"micro_batch": 2}},
    "micro-batch of 32": {"loop": {"batch_size": 32, "micro_batch": 32}},
    "float32": {"loop": {"precision": "float32"}},
    "bf16 masters": {"model": WIDE, "loop": {"precision": "bf16_masters"}},
    "C++ kernels": {"model": WIDE, "compile": "auto", "loop": {"precision": "bf16_masters"}},
    "C++ kernels, autocast": {"model": WIDE, "compile": "auto"},
    "C++ kernels, packed": {"compile": "auto", "loop": {"precision": "bf16_masters"}, "packing": {"kind": "best_fit"}},
    "C++ kernels, 15m": {"model": MEDIUM, "compile": "auto", "loop": {"precision": "bf16_masters", "batch_size": 32,
                                                                     "micro_batch": 32}},
    "float32, compiled": {"model": WIDE, "compile": "auto", "loop": {"precision": "float32"}},
    "checkpointing": {"model": {"n_layers": 16}, "loop": {"activation_checkpointing": True}},
    "muon": {"model": WIDE, "optim": {"kind": "muon"}},
    "prodigy": {"model": WIDE, "optim": {"kind": "prodigy"}},
    "schedule-free": {"model": WIDE, "optim": {"kind": "schedule_free"}},
    "average": {"model": WIDE, "loop": {"ema": 0.999}},
    "adaptive rate": {"model": WIDE, "adapt": {"kind": "follow"}},
    "packed": {"packing": {"kind": "best_fit"}},
    "saving in the foreground": {"model": WIDE, "loop": {"async_save": False}},
}
QUICK = ("plain", "wide", "muon")


def config_of(cell: dict[str, Any]) -> PretrainConfig:
    """The run of a cell."""
    loop = {"steps": 100, "batch_size": 8, "micro_batch": 8, **cell.get("loop", {})}
    rest = {k: v for k, v in cell.items() if k not in ("model", "loop")}
    return PretrainConfig.model_validate({**FIXED, "context": 256, **rest, "loop": loop,
                                          "model": {**SHAPE, **cell.get("model", {})}})


def main() -> None:
    """Print a row for each cell, and the worst one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cells", nargs="*", help="names of cells; all of them by default")
    parser.add_argument("--quick", action="store_true", help="three cells")
    parser.add_argument("--json", action="store_true", help="one object as the last line")
    args = parser.parse_args()
    rows = []
    print(f"{'cell':<26}{'predicted':>11}{'measured':>10}{'ratio':>7}   MB; without the base")
    for name in args.cells or (QUICK if args.quick else CELLS):
        config = config_of(CELLS[name])
        peaks, found = predict(config, pick_device(config.device)), measure_apart(config)
        predicted = found["base"] + peaks.most
        rows.append({"cell": name, "predicted": predicted, "measured": found["peak"], "base": found["base"],
                     "ratio": predicted / found["peak"], "moments": peaks.moments, "peaks": found["peaks"]})
        print(f"{name:<26}{predicted / 1e6:>11.0f}{found['peak'] / 1e6:>10.0f}{rows[-1]['ratio']:>7.3f}   "
              f"{peaks.most / 1e6:.0f} ({peaks.worst}) {(found['peak'] - found['base']) / 1e6:.0f}", flush=True)
    worst = max(rows, key=lambda row: abs(row["ratio"] - 1))
    print(f"worst ratio: {worst['ratio']:.3f} ({worst['cell']}), goal within {GOAL:.0%}")
    if args.json:
        print(json.dumps({"rows": rows, "worst": worst["cell"], "ratio": worst["ratio"], "goal": GOAL}))


if __name__ == "__main__":
    main()
