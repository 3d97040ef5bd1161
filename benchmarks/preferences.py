"""Learning from preferences on real pairs: how often the better answer is the likelier one on held-out pairs, before
and after `ayllu prefer`, with 95 % bootstrap intervals. No peer.

`dpo_demo` are long answers of commercial models in English and Chinese, `hh` the harmlessness test set of HH-RLHF. Rows
are split by a hash of the prompt: a fifth is held out and never trained on. The bundled model has never been taught to
answer, and both sets are far from its stories: what it can show is whether the method moves it.

    python benchmarks/preferences.py [--sets dpo_demo hh] [--methods dpo simpo] [--seeds 1] [--steps 0] [--context 512]
        [--quick] [--json FILE] [KEY=VALUE ...]

KEY=VALUE changes the recipe, as in `ayllu prefer` (loop.precision=float32 where the CPU has no AMX).
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

from ayllu.config import build_recipe
from ayllu.files import write_json
from ayllu.log import setup
from ayllu.train.prefer import prefer, prepared
from ayllu.train.prefer_config import PreferConfig

DATA = Path(__file__).resolve().parents[2] / "shared/data"
SETS = {"dpo_demo": ["dpo_demo/train_en.jsonl.zst", "dpo_demo/train_zh.jsonl.zst"],
        "hh": ["hh_rlhf_harmless/test.jsonl.zst"]}
RATES = {"dpo": 5e-5, "ipo": 5e-5, "kto": 5e-5, "orpo": 1e-4, "simpo": 2e-5}
QUICK = ["loop.steps=2", "loop.batch_size=2", "context=128", "data.held_out=0.02"]


def measured(name: str, method: str, seed: int, data: Path, more: list[str]) -> dict[str, Any]:
    """One run with all weights, and what it reached."""
    with tempfile.TemporaryDirectory(prefix="ayllu-preferences-") as out:
        table = {"name": name, "out": f"{out}/run", "base": "ayllu-mini", "method": method, "seed": seed, "epochs": 2,
                 "context": 512, "optim": {"lr": RATES[method]},
                 "loop": {"batch_size": 8, "micro_batch": 4, "eval_every": 10_000, "checkpoint_every": 10_000},
                 "data": {"root": str(data), "held_out": 0.2, "too_long": "cut", "bad_rows": "drop",
                          "sources": [{"path": path} for path in SETS[name]]}}
        config = build_recipe(PreferConfig, table, more, where="the benchmark")
        ready, lesson = prepared(config, Path("."))
        return prefer(ready, lesson, Path(".")) | {"left_out": len(lesson.gathered.rejects)}


def shown(row: dict[str, Any], name: str) -> str:
    """A share with its interval."""
    return f"{row[name]:.1%} ({row[name + '_low']:.1%} to {row[name + '_high']:.1%})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("changes", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--methods", nargs="+", choices=RATES, default=["dpo", "simpo"])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=0, help="of 8 pairs each; 0: two epochs")
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--quick", action="store_true", help="two steps: only whether it works")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--data", type=Path, default=DATA, help="the folder of the data sets")
    options = parser.parse_args()
    setup()
    rows = []
    for name in options.sets:
        for method in options.methods:
            for seed in range(options.seeds):
                more = [f"loop.steps={options.steps}", f"context={options.context}", *options.changes]
                row = measured(name, method, seed, options.data, QUICK if options.quick else more)
                rows.append({"set": name, "method": method, "seed": seed, **row})
                print(f"{name} {method}, seed {seed}, {row['held_out_pairs']} held-out pairs", file=sys.stderr)
                for key in ("held_out_accuracy", *(f"likelihood_accuracy{by}_{when}" for by in ("", "_by_id")
                                                   for when in ("before", "after", "gain"))):
                    print(f"  {key:<34}{shown(row, key)}", file=sys.stderr)
                if options.json:
                    write_json(options.json, {"rows": rows})
    worst = min(rows, key=lambda row: row["held_out_accuracy_low"])
    print(f"worst ratio: {worst['held_out_accuracy_low'] / 0.5:.2f} ({worst['set']} {worst['method']}: the lower end "
          "of the held-out accuracy over one half)")


if __name__ == "__main__":
    main()
