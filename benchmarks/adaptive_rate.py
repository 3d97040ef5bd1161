"""What a wrong learning rate costs: plain cosine, ReduceLROnPlateau, GreedyLR and our controller, at equal tokens.

For each size AdamW with cosine is tuned on the first seed over 7 rates a factor of 2 apart, and the best is trained on
every seed; then each method starts from 10 times that rate and from a tenth of it, and ours from the tuned rate too.
Prints the held-out loss (nats per byte of tinyshakespeare's last tenth) and its excess over the tuned run of the same
seed; tokens that the controller spends on trials are part of its budget.

Each finished run is a line of --runs: what is in there is not run again, so that a study can be interrupted.

    python benchmarks/adaptive_rate.py [--quick] [--sizes 1m,5m] [--seeds 3] [--runs FILE] [--json FILE] [--data FILE]
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
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
from ayllu.model.parallel import Precision
from ayllu.native import build
from ayllu.train.adapt import AdaptConfig
from ayllu.train.compiled import missing_compiler
from ayllu.train.control import Control
from ayllu.train.head_loss import Kernels
from ayllu.train.loop import LoopConfig, LossFunction, fit
from ayllu.train.losses import bits_per_byte, next_token_loss
from ayllu.train.optim import OptimConfig, build_optimizer
from ayllu.train.schedule import Schedule
from ayllu.train.state import TrainState
from ayllu.train.trainee import TraineeLoss

SIZES = {"0.1m": (64, 2, 176), "0.3m": (96, 3, 256), "1m": (128, 4, 448), "5m": (256, 6, 704)}
# width, layers, hidden width
PRECISION = {"5m": "autocast"}                            # others in float32; at 5m bfloat16 halves the hours
RATES = {"0.1m": 8e-3, "0.3m": 4e-3, "1m": 4e-3, "5m": 5e-4}                 # the middle of the seven that are tried
STARTS = {"tuned": 1.0, "10x too high": 10.0, "10x too low": 0.1}
METHODS = ("cosine", "plateau", "greedy", "follow")
GOAL = 0.02                                              # the largest mean excess of `follow` that the project allows
LOOKS = 40                                               # evaluations that plateau and greedy decide by


@dataclass(frozen=True)
class Plan:
    """What all runs of one size share."""

    size: str
    steps: int
    tokens: np.ndarray                                   # (tokens,) of training
    held_out: torch.Tensor                               # (tokens,)
    device: torch.device
    loss: LossFunction
    precision: Precision = "float32"
    batch: int = 8
    context: int = 64

    def model(self) -> LlamaConfig:
        """The shape of this size, over bytes."""
        dim, layers, hidden = SIZES[self.size]
        return LlamaConfig(dim=dim, n_layers=layers, n_heads=dim // 32, n_kv_heads=dim // 32, head_dim=32,
                           hidden_dim=hidden, vocab_size=256, max_context=self.context, tie_embeddings=True)


@dataclass(frozen=True)
class Run:
    """One run: what it is, and once it is done what came out."""

    size: str
    method: str
    start: str
    lr: float
    seed: int
    steps: int
    step_tokens: int
    loss: float = float("nan")                           # nats per byte, held out; infinite where training diverged
    seconds: float = 0.0
    decisions: list[str] = field(default_factory=list)

    def key(self) -> tuple[Any, ...]:
        """Tells runs apart; the start is only a name."""
        return self.size, self.method, f"{self.lr:.3e}", self.seed, self.steps, self.step_tokens


class Study:
    """Runs that are done, by key; a new one is trained and written down."""

    def __init__(self, file: Path | None) -> None:
        self.file = file
        lines = file.read_text(encoding="utf-8").splitlines() if file is not None and file.exists() else []
        runs = [Run(**json.loads(line)) for line in lines]
        self.done = {r.key(): r for r in runs}

    def run(self, plan: Plan, method: str, start: str, lr: float, seed: int) -> Run:
        """The finished run, trained now unless it was before."""
        wanted = Run(plan.size, method, start, lr, seed, plan.steps, plan.batch * plan.context)
        if wanted.key() not in self.done:
            found = train(plan, wanted)
            self.done[found.key()] = found
            if self.file is not None:
                with open(self.file, "a", encoding="utf-8") as file:
                    file.write(json.dumps(asdict(found)) + "\n")
        return Run(**{**asdict(self.done[wanted.key()]), "start": start})


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


def trainee(precision: Precision, eager: bool, device: torch.device) -> LossFunction:
    """The loss, compiled where it can be; in bfloat16 with what `ayllu pretrain` trains with."""
    if precision == "float32" or eager:
        return next_token_loss if eager else torch.compile(next_token_loss)
    native = device.type == "cpu" and build.missing() is None
    loss = partial(next_token_loss, kernels=Kernels.compiled(native))
    return TraineeLoss(loss, precision, True, False, native)


def train(plan: Plan, run: Run) -> Run:
    """One run of `plan.steps` computed batches."""
    torch.compiler.reset()                               # else each run's model counts towards the compiler's limit
    torch.manual_seed(run.seed)
    config = plan.model()
    model = build_model(config)
    initialise(model, config.n_layers, run.seed)
    model.to(plan.device)
    schedule = Schedule(kind="cosine" if run.method in ("cosine", "follow") else "constant",
                        warmup_steps=max(plan.steps // 20, 2))
    optim = OptimConfig(lr=run.lr, schedule=schedule)
    adapt = AdaptConfig(kind="off" if run.method == "cosine" else run.method)
    state = TrainState(model, build_optimizer(model, optim),
                       control=Control(adapt) if adapt.kind != "off" else None)
    loop = LoopConfig(steps=plan.steps, batch_size=plan.batch, micro_batch=plan.batch,
                      eval_every=max(plan.steps // LOOKS, 1), checkpoint_every=plan.steps,
                      precision=plan.precision)
    notes, before = Notes(), time.perf_counter()
    look = _held_out(plan, plan.held_out[:3000]) if state.control is not None else lambda state: {}
    try:
        with tempfile.TemporaryDirectory() as folder:
            fit(state, WindowLoader(plan.tokens, plan.context, plan.batch, run.seed), plan.loss, loop=loop,
                optim=optim, run=Path(folder), observer=notes, evaluate=look, device=plan.device)
        loss = _held_out(plan, plan.held_out)(state)["held_out"]
    except TrainingDiverged as error:
        loss = float("inf")
        notes.decisions.append(str(error))
    seconds = time.perf_counter() - before
    say(f"{run.size} {run.method} {run.start} seed {run.seed}: rate {run.lr:.2e}, loss {loss:.4f}, {seconds:.0f} s")
    return Run(**{**asdict(run), "loss": loss, "seconds": round(seconds, 1), "decisions": notes.decisions})


def _held_out(plan: Plan, ids: torch.Tensor) -> Callable[[TrainState], dict[str, float]]:
    def evaluate(state: TrainState) -> dict[str, float]:
        bits = bits_per_byte(state.model, ids, len(ids), plan.context, plan.device, rows=32)
        return {"held_out": bits * float(np.log(2))}

    return evaluate


def table(study: Study, plan: Plan, seeds: int, n_rates: int, methods: tuple[str, ...]) -> Iterator[Run]:
    """The tuning on the first seed, the tuned run of each seed, then every method from the wrong starts."""
    rates = [RATES[plan.size] * 2.0 ** (i - n_rates // 2) for i in range(n_rates)]
    tuning = [study.run(plan, "cosine", "tuning", rate, 0) for rate in rates]
    best = min(tuning, key=lambda r: r.loss)
    yield from tuning
    if best.lr in (rates[0], rates[-1]):
        say(f"the best rate, {best.lr:.2e}, is the last of those tried: there may be a better one")
    for seed in range(seeds):
        for start, factor in STARTS.items():
            for method in methods:
                if start != "tuned" or method in ("cosine", "follow"):
                    yield study.run(plan, method, start, best.lr * factor, seed)


def summary(results: list[Run], size: str) -> list[dict[str, Any]]:
    """For each start and method: the mean held-out loss, and the mean and worst excess over the seed's tuned run."""
    rows = []
    tuned = {r.seed: r.loss for r in results if (r.size, r.start, r.method) == (size, "tuned", "cosine")}
    for start in STARTS:
        for method in METHODS:
            found = [r for r in results if (r.size, r.start, r.method) == (size, start, method)]
            excess = [r.loss / tuned[r.seed] - 1 for r in found]
            if found:
                rows.append({"size": size, "start": start, "method": method, "seeds": len(found),
                             "loss": statistics.mean(r.loss for r in found), "excess": statistics.mean(excess),
                             "worst_excess": max(excess)})
    return rows


def main() -> int:
    """Run, print, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one seed of the smallest model, 3 rates: under a minute")
    parser.add_argument("--sizes", default="1m,5m")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--rates", type=int, default=7, help="an odd number")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2]
                        / "shared/data/tinyshakespeare/input.txt.zst")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--runs", type=Path, help="one line for each finished run; what it holds is not run again")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    setup()
    if options.quick:
        options.sizes, options.seeds, options.steps, options.rates = "0.1m", 1, 160, 3
    device = torch.device(options.device)
    eager = bool(options.quick or missing_compiler(device))
    data = np.frombuffer("".join(documents(options.data)).encode(), dtype=np.uint8).astype("<u2")
    cut = len(data) * 9 // 10
    held = torch.from_numpy(data[cut:][:8000 if options.quick else None].astype(np.int64))
    study, results, rows = Study(options.runs), [], []
    for size in options.sizes.split(","):
        precision: Precision = "autocast" if device.type == "cuda" else PRECISION.get(size, "float32")
        plan = Plan(size, options.steps, data[:cut], held, device, trainee(precision, eager, device), precision)
        say(f"{size}: {count_parameters(plan.model()):,} parameters, "
            f"{plan.steps * plan.batch * plan.context:,} tokens")
        results += table(study, plan, options.seeds, options.rates, tuple(options.methods.split(",")))
        rows += summary(results, size)
    print(f"{'size':<6}{'start':<14}{'method':<10}{'seeds':>6}{'loss':>8}{'excess':>9}{'worst':>9}")
    for r in rows:
        print(f"{r['size']:<6}{r['start']:<14}{r['method']:<10}{r['seeds']:>6}{r['loss']:>8.4f}{r['excess']:>9.2%}"
              f"{r['worst_excess']:>9.2%}")
    if options.json:
        write_json(options.json, {"rows": rows, "runs": [asdict(r) for r in results]})
    followed = [r for r in rows if r["method"] == "follow"]
    if followed:
        worst = max(followed, key=lambda r: r["excess"])
        print(f"worst ratio: {(1 + GOAL) / (1 + worst['excess']):.3f} ({worst['size']} {worst['start']}, mean of "
              f"{worst['seeds']} seeds)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
