"""What a wrong learning rate costs: plain cosine, ReduceLROnPlateau, GreedyLR and our controller, at equal tokens.

For each size and seed, AdamW with cosine is tuned over 7 rates a factor of 2 apart; then every method starts from the
best rate, from 10 times as much and from a tenth. Prints the held-out loss (nats per byte of tinyshakespeare's last
tenth) and its excess over the tuned run; tokens that the controller spends on trials are part of its budget.

    python benchmarks/adaptive_rate.py [--quick] [--sizes 1m,5m] [--seeds 3] [--steps N] [--json FILE] [--data FILE]
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ayllu.data.loader import WindowLoader
from ayllu.data.texts import documents
from ayllu.errors import TrainingDiverged
from ayllu.files import write_json
from ayllu.log import say, setup
from ayllu.model.build import build_model, count_parameters
from ayllu.model.config import LlamaConfig
from ayllu.model.init import initialise
from ayllu.train.adapt import AdaptConfig
from ayllu.train.control import Control
from ayllu.train.loop import LoopConfig, fit
from ayllu.train.losses import bits_per_byte, next_token_loss
from ayllu.train.optim import OptimConfig, build_optimizer
from ayllu.train.schedule import Schedule
from ayllu.train.state import TrainState

SIZES = {"tiny": (64, 2, 176), "1m": (128, 4, 448), "5m": (256, 6, 704)}      # width, layers, hidden width
RATES = {"tiny": 4e-3, "1m": 2e-3, "5m": 1e-3}           # the middle of the seven that are tried
STARTS = {"tuned": 1.0, "10x too high": 10.0, "10x too low": 0.1}
GOAL = 0.02                                              # the largest excess of `follow` that the project allows


@dataclass(frozen=True)
class Plan:
    """What all runs of one table share."""

    size: str
    steps: int
    tokens: np.ndarray                                   # (tokens,) of training
    held_out: torch.Tensor                               # (tokens,)
    device: torch.device
    batch: int = 16
    context: int = 128

    def model(self) -> LlamaConfig:
        """The shape of this size, over bytes."""
        dim, layers, hidden = SIZES[self.size]
        return LlamaConfig(dim=dim, n_layers=layers, n_heads=dim // 32, n_kv_heads=dim // 32, head_dim=32,
                           hidden_dim=hidden, vocab_size=256, max_context=self.context, tie_embeddings=True)


@dataclass(frozen=True)
class Result:
    """One run."""

    size: str
    method: str
    start: str
    lr: float
    seed: int
    loss: float                                          # nats per byte, held out; infinite where training diverged
    steps: int
    seconds: float
    decisions: list[str]


class Notes:
    """The observer: remembers decisions."""

    def __init__(self) -> None:
        self.decisions: list[str] = []

    def log(self, row: dict[str, Any]) -> None:
        """Keep what the controller decided."""
        if "decision" in row:
            self.decisions.append(f"{row['step']} {row['decision']}: {row['reason']}")

    def advance(self, state: TrainState, row: dict[str, Any]) -> None:
        """No bar."""


def train(plan: Plan, method: str, start: str, lr: float, seed: int) -> Result:
    """One run of `plan.steps` computed batches."""
    torch.manual_seed(seed)
    config = plan.model()
    model = build_model(config)
    initialise(model, config.n_layers, seed)
    model.to(plan.device)
    warmup = max(plan.steps // 20, 2)
    schedule = Schedule(kind="cosine" if method in ("cosine", "follow") else "constant", warmup_steps=warmup)
    optim = OptimConfig(lr=lr, schedule=schedule)
    adapt = {"cosine": AdaptConfig(), "plateau": AdaptConfig(kind="plateau"), "greedy": AdaptConfig(kind="greedy"),
             "follow": AdaptConfig(kind="follow", trial_steps=max(plan.steps // 40, 8))}[method]
    state = TrainState(model, build_optimizer(model, optim),
                       control=Control(adapt) if adapt.kind != "off" else None)
    every = max(plan.steps // 25, 1)
    loop = LoopConfig(steps=plan.steps, batch_size=plan.batch, micro_batch=plan.batch, eval_every=every,
                      checkpoint_every=plan.steps, autocast=plan.device.type == "cuda")
    part = plan.held_out[:4000]
    notes, before = Notes(), time.perf_counter()
    look = _held_out(plan, part) if state.control is not None else lambda state: {}
    try:
        with tempfile.TemporaryDirectory() as folder:
            fit(state, WindowLoader(plan.tokens, plan.context, plan.batch, seed), next_token_loss, loop=loop,
                optim=optim, run=Path(folder), observer=notes, evaluate=look, device=plan.device)
        loss = _held_out(plan, plan.held_out)(state)["held_out"]
    except TrainingDiverged as error:
        loss = float("inf")
        notes.decisions.append(str(error))
    seconds = time.perf_counter() - before
    say(f"{plan.size} {method} {start} seed {seed}: rate {lr:.2e}, loss {loss:.4f}, {seconds:.0f} s")
    return Result(plan.size, method, start, lr, seed, loss, state.step, round(seconds, 1), notes.decisions)


def _held_out(plan: Plan, ids: torch.Tensor) -> Callable[[TrainState], dict[str, float]]:
    def evaluate(state: TrainState) -> dict[str, float]:
        bits = bits_per_byte(state.model, ids, len(ids), plan.context, plan.device, rows=32)
        return {"held_out": bits * float(np.log(2))}

    return evaluate


def table(plan: Plan, seeds: int, n_rates: int) -> Iterator[Result]:
    """The tuning runs of each seed, then every method from every start."""
    middle = n_rates // 2
    for seed in range(seeds):
        tuning = [train(plan, "cosine", "tuning", RATES[plan.size] * 2.0 ** (i - middle), seed)
                  for i in range(n_rates)]
        yield from tuning
        best = min(tuning, key=lambda r: r.loss)
        for start, factor in STARTS.items():
            for method in ("cosine", "plateau", "greedy", "follow"):
                yield train(plan, method, start, best.lr * factor, seed)


def summary(results: list[Result], size: str) -> list[dict[str, Any]]:
    """For each method and start: the mean held-out loss and the mean and worst excess over the seed's tuned run."""
    tuned = {seed: min(r.loss for r in results if r.size == size and r.start == "tuning" and r.seed == seed)
             for seed in {r.seed for r in results if r.size == size}}
    rows = []
    for start in STARTS:
        for method in ("cosine", "plateau", "greedy", "follow"):
            found = [r for r in results if (r.size, r.start, r.method) == (size, start, method)]
            excess = [r.loss / tuned[r.seed] - 1 for r in found]
            rows.append({"size": size, "start": start, "method": method,
                         "loss": statistics.mean(r.loss for r in found), "excess": statistics.mean(excess),
                         "worst_excess": max(excess)})
    return rows


def main() -> int:
    """Run, print, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one seed of a tiny model, 3 rates: under a minute")
    parser.add_argument("--sizes", default="1m,5m")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2]
                        / "shared/data/tinyshakespeare/input.txt.zst")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    setup()
    sizes, seeds, steps, n_rates = options.sizes.split(","), options.seeds, options.steps, 7
    if options.quick:
        sizes, seeds, steps, n_rates = ["tiny"], 1, 120, 3
    data = np.frombuffer("".join(documents(options.data)).encode(), dtype=np.uint8).astype("<u2")
    cut = len(data) * 9 // 10
    held = torch.from_numpy(data[cut:][:8000 if options.quick else None].astype(np.int64))
    results: list[Result] = []
    rows: list[dict[str, Any]] = []
    for size in sizes:
        shape = {"batch": 8, "context": 64} if options.quick else {}
        plan = Plan(size, steps, data[:cut], held, torch.device(options.device), **shape)
        say(f"{size}: {count_parameters(plan.model()):,} parameters, {steps * plan.batch * plan.context:,} tokens")
        results += table(plan, seeds, n_rates)
        rows += summary(results, size)
    print(f"{'size':<6}{'start':<14}{'method':<10}{'loss':>8}{'excess':>9}{'worst':>9}")
    for r in rows:
        print(f"{r['size']:<6}{r['start']:<14}{r['method']:<10}{r['loss']:>8.4f}{r['excess']:>9.2%}"
              f"{r['worst_excess']:>9.2%}")
    if options.json:
        write_json(options.json, {"rows": rows, "runs": [asdict(r) for r in results]})
    worst = max((r for r in rows if r["method"] == "follow"), key=lambda r: r["worst_excess"])
    print(f"worst ratio: {(1 + GOAL) / (1 + worst['worst_excess']):.2f} ({worst['size']} {worst['start']})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
