"""How much memory a QLoRA step takes: predicted, and measured in this process with random weights.

    python benchmarks/qlora.py                           # the shape of Llama 2 7B: about 7 GB, minutes for each step
    python benchmarks/qlora.py --quick                   # two layers of it

Predicted and measured are both the most that the process holds from the beginning of the first step to the end of the
last, less what it held before the model. Random bytes stand in for the codes: they take the room that true ones take.
"""

import argparse
import json
import time
from pathlib import Path

import torch

from ayllu.config import load_recipe
from ayllu.device import pick_device
from ayllu.train.loop import step
from ayllu.train.memory import predict
from ayllu.train.method import empty_state, loss_of, shape_of
from ayllu.train.rehearse import Meter, measure, twin
from ayllu.train.sft_config import SftConfig
from ayllu.train.worst import Windows

RECIPE = Path(__file__).parents[1] / "recipes" / "qlora-7b.toml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two layers")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--whole", action="store_true", help="the rehearsal of --dry-run, evaluation and save")
    parser.add_argument("overrides", nargs="*", help="keys of the recipe, such as context=512")
    args = parser.parse_args()
    config = load_recipe(SftConfig, RECIPE, args.overrides)
    if args.quick:
        small = shape_of(config).model_copy(update={"n_layers": 2})
        config = config.model_copy(update={"model": small, "context": min(config.context, 128)})
    device = pick_device(config.device)
    peaks = predict(config, device)
    found = {"layers": shape_of(config).n_layers, "context": config.context,
             "predicted_gb": peaks.moments["step"] / 1e9}
    if args.whole:
        done = measure(config)
        found |= {"measured_gb": (done["peak"] - done["base"]) / 1e9, "process_gb": done["peak"] / 1e9,
                  "step_s": done["step_s"]}
    else:
        found |= steps_of(config, device, args.steps)
    found["off"] = found["predicted_gb"] / found["measured_gb"] - 1
    print(json.dumps({key: round(value, 4) for key, value in found.items()}))


def steps_of(config: SftConfig, device: torch.device, steps: int) -> dict[str, float]:
    """Bytes and seconds of some steps; a twin of next to no size goes first, as in a rehearsal."""
    meter = Meter(device)
    _run(twin(config), device, 1)
    before = meter.now()
    meter.restart()
    seconds = _run(config, device, steps)
    most = meter.highest()
    return {"measured_gb": (most - before) / 1e9, "process_gb": most / 1e9, "step_s": seconds}


def _run(config: SftConfig, device: torch.device, steps: int) -> float:
    state = empty_state(config, device)
    loss, batch = loss_of(config, device, state), Windows(config).batch(0)
    best = float("inf")
    for _ in range(steps):
        started = time.perf_counter()
        step(state, batch, loss, config.loop, config.optim, device)
        best = min(best, time.perf_counter() - started)
    return best


if __name__ == "__main__":
    main()
