"""Sample efficiency: the held-out loss of a character-level model of tiny Shakespeare, from scratch, by our own loop.

Two budgets. `cpu`: 0.8 million parameters and at most 1.6 million training tokens, about a minute on two cores; the
known reference (nanoGPT's settings for a CPU) reaches 1.886 nats per character there. `gpu`: what nanoGPT spends with a
GPU, 10.7 million parameters and 82 million tokens, gives 1.4697; here 4.5 million parameters and 16.4 million tokens,
little more than an hour on one core. What keeps 16 epochs from overfitting is mostly decay: 1.0, ten times the usual.

The first 90 % of the text is learned, the whole rest is judged: each of its characters but the first is predicted once,
in windows of 64 and of 256 characters that don't overlap, so that the first characters of a window see little.

    python benchmarks/shakespeare.py [--budget cpu|gpu] [--seeds 3] [--share 0.5] [--quick] [--json FILE] [--data FILE]
"""

import argparse
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from ayllu.data.loader import Batch, WindowLoader
from ayllu.data.texts import documents
from ayllu.files import write_json
from ayllu.log import say, setup
from ayllu.model.build import CausalModel, build_model, count_parameters
from ayllu.model.config import LlamaConfig
from ayllu.model.init import initialise
from ayllu.model.parallel import Precision
from ayllu.native import build
from ayllu.train.compiled import missing_compiler
from ayllu.train.head_loss import Kernels
from ayllu.train.loop import LoopConfig, LossFunction, fit
from ayllu.train.losses import IGNORED, next_token_loss
from ayllu.train.optim import OptimConfig, build_optimizer
from ayllu.train.schedule import Schedule
from ayllu.train.state import TrainState
from ayllu.train.trainee import TraineeLoss

DATA = Path(__file__).resolve().parents[2] / "shared/data/tinyshakespeare/input.txt.zst"
CONTEXTS = (64, 256)
REFERENCES = {"cpu": 1.886, "gpu": 1.4697}               # nanoGPT's, nats per character
GOALS = {"cpu": 1.75, "gpu": 1.45}
JUDGED_AT = {"cpu": 64, "gpu": 256}                      # the context of each reference


def settings(budget: str) -> tuple[LlamaConfig, OptimConfig, LoopConfig]:
    """Shape, optimiser and length of a budget; the vocabulary is what the text holds."""
    wide = budget == "gpu"
    dim, layers, hidden, dropout, decay = (256, 6, 640, 0.1, 1.0) if wide else (128, 4, 320, 0.0, 0.1)
    steps, rows = (4000, 16) if wide else (1560, 4)
    model = LlamaConfig(dim=dim, n_layers=layers, n_heads=dim // 32, n_kv_heads=dim // 32, head_dim=32,
                        hidden_dim=hidden, vocab_size=65, max_context=256, tie_embeddings=True,
                        residual_dropout=dropout, embedding_dropout=dropout)
    optim = OptimConfig(kind="muon", lr=5e-3, weight_decay=decay, schedule=Schedule(kind="linear", warmup_steps=50))
    loop = LoopConfig(steps=steps, batch_size=rows, micro_batch=rows, eval_every=250, checkpoint_every=steps,
                      precision="autocast" if wide else "float32")
    return model, optim, loop


def load(path: Path) -> tuple[np.ndarray, torch.Tensor]:
    """Ids of characters: (tokens,) to learn, the first 90 %, and (tokens,) to judge by."""
    text = "".join(documents(path))
    places = {c: i for i, c in enumerate(sorted(set(text)))}
    ids = np.array([places[c] for c in text], dtype="<u2")
    cut = len(ids) * 9 // 10
    return ids[:cut], torch.from_numpy(ids[cut:].astype(np.int64))


def trainee(precision: Precision) -> LossFunction:
    """The loss; in bfloat16 compiled, with the kernels that `ayllu pretrain` takes there. A minute isn't worth it."""
    if precision == "float32" or missing_compiler(torch.device("cpu")):
        return next_token_loss
    native = build.missing() is None
    return TraineeLoss(partial(next_token_loss, kernels=Kernels.compiled(native)), precision, True, False, native)


@torch.no_grad()
def held_out(model: CausalModel, ids: torch.Tensor, context: int, rows: int = 64) -> float:
    """Nats per character: each but the first is predicted once, in windows that don't overlap."""
    n = -(-(len(ids) - 1) // context)                    # windows; the last is filled up with what isn't judged
    padding = n * context - (len(ids) - 1)
    inputs = F.pad(ids[:-1], (0, padding)).view(n, context)
    labels = F.pad(ids[1:], (0, padding), value=IGNORED).view(n, context)
    model.eval()
    total = sum(next_token_loss(model, Batch(inputs[i:i + rows], labels[i:i + rows])).total.item()
                for i in range(0, n, rows))
    model.train()
    return total / (len(ids) - 1)


class Curve:
    """The observer: says how it goes."""

    def log(self, row: dict[str, Any]) -> None:
        """Held-out losses on the way."""
        if "loss_256" in row:
            say(f"step {row['step']:,}: {row['loss_64']:.4f} at 64, {row['loss_256']:.4f} at 256")

    def advance(self, state: TrainState, row: dict[str, Any]) -> None:
        """No bar."""


def train(budget: str, seed: int, learn: np.ndarray, judge: torch.Tensor, share: float) -> dict[str, Any]:
    """One run over `share` of the budget's steps; judged on the way on a tenth of the text, at the end on all."""
    shape, optim, loop = settings(budget)
    loop = loop.model_copy(update={"steps": round(loop.steps * share)})
    torch.manual_seed(seed)
    model = build_model(shape)
    initialise(model, shape.n_layers, seed)
    state = TrainState(model, build_optimizer(model, optim))

    def look(state: TrainState) -> dict[str, float]:
        part = judge if state.step >= loop.steps else judge[:len(judge) // 10]
        return {f"loss_{c}": held_out(state.model, part, c) for c in CONTEXTS}

    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as run:
        fit(state, WindowLoader(learn, shape.max_context, loop.batch_size, seed), trainee(loop.precision), loop=loop,
            optim=optim, run=Path(run), observer=Curve(), evaluate=look, device=torch.device("cpu"))
    return {"budget": budget, "seed": seed, "parameters": count_parameters(shape), "tokens": state.tokens,
            "seconds": round(state.seconds, 1), "all_seconds": round(time.perf_counter() - started, 1), **look(state)}


def main() -> int:
    """Run, print, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", choices=sorted(GOALS), default="cpu")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--share", type=float, default=1.0, help="of the budget's tokens")
    parser.add_argument("--quick", action="store_true", help="one seed and a quarter of the tokens: under a minute")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--data", type=Path, default=DATA)
    options = parser.parse_args()
    setup()
    learn, judge = load(options.data)
    runs = [train(options.budget, seed, learn, judge, 0.25 if options.quick else options.share)
            for seed in range(1 if options.quick else options.seeds)]
    print(f"{'budget':<8}{'seed':>5}{'parameters':>12}{'tokens':>12}{'seconds':>9}{'loss, 64':>10}{'loss, 256':>11}")
    for r in runs:
        print(f"{r['budget']:<8}{r['seed']:>5}{r['parameters']:>12,}{r['tokens']:>12,}{r['seconds']:>9.0f}"
              f"{r['loss_64']:>10.4f}{r['loss_256']:>11.4f}")
    means = {c: statistics.mean(r[f"loss_{c}"] for r in runs) for c in CONTEXTS}
    print(f"mean: {means[64]:.4f} at 64, {means[256]:.4f} at 256; the reference: {REFERENCES[options.budget]}")
    if options.json:
        write_json(options.json, {"runs": runs, "reference": REFERENCES[options.budget]})
    worst = JUDGED_AT[options.budget]
    print(f"worst ratio: {GOALS[options.budget] / means[worst]:.2f} ({options.budget} budget, context {worst})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
