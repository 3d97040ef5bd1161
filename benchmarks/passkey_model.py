"""A small model that reads a number hidden in a long text and says it again: what benchmarks/long_context.py tries.

No pretrained model of a long context is small enough to come along, so this trains one by our own loop: 0.6 million
parameters over bytes, English books as filler, a context of 512. Each row hides one key of five digits and asks for it
at the end. The window grows while it learns (128 to 512 bytes), so that copying is learned early, where it's easy.
With `--stretch` a trained model goes on for some steps with scaled positions and a longer window, as YaRN's paper does
(arXiv:2309.00071, section 4).

    python benchmarks/passkey_model.py --out benchmarks/runs/passkey/trained
    python benchmarks/passkey_model.py --from RUN/trained --stretch yarn:8 --out RUN/stretched
"""

import argparse
import random
import sys
import tempfile
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ayllu.checkpoint.load import load_checkpoint
from ayllu.checkpoint.save import save_checkpoint
from ayllu.data.texts import documents
from ayllu.log import say, setup
from ayllu.model.build import CausalModel
from ayllu.model.config import LlamaConfig, RopeScaling
from ayllu.model.init import initialise
from ayllu.model.llama import Llama
from ayllu.train.loop import LoopConfig, fit
from ayllu.train.losses import Loss, token_loss
from ayllu.train.optim import OptimConfig, build_optimizer
from ayllu.train.schedule import Schedule
from ayllu.train.state import TrainState

BOOKS = Path(__file__).resolve().parents[2] / "shared/data/classic_books_en/train.jsonl.zst"
CONTEXT, SHORTEST, DIGITS = 512, 128, 5
SHAPE = LlamaConfig(dim=128, n_layers=3, n_heads=4, n_kv_heads=4, head_dim=32, hidden_dim=320, vocab_size=256,
                    max_context=CONTEXT, tie_embeddings=True)
STATED, ASKED = b" The pass key is %d. ", b" What is the pass key? The pass key is "
ANSWER_WEIGHT = 16.0                                     # the five digits beside hundreds of bytes of filler
HELD_OUT = 40                                            # books at the end of the file that no training sees


@dataclass(frozen=True)
class Rows:
    """`ids` (B, T), the next ids and how much each counts: the key where it is first told can't be known, so 0."""

    ids: Tensor
    labels: Tensor
    weights: Tensor

    def __len__(self) -> int:
        return len(self.ids)

    def split(self, rows: int) -> Any:
        """Micro-batches of at most `rows` rows."""
        for i in range(0, len(self), rows):
            yield Rows(self.ids[i:i + rows], self.labels[i:i + rows], self.weights[i:i + rows])

    def to(self, device: torch.device) -> "Rows":
        """The same on another device."""
        return Rows(self.ids.to(device), self.labels.to(device), self.weights.to(device))


def hide(filler: bytes, key: int, depth: float) -> tuple[bytes, int]:
    """The filler with the key told at `depth` (0: begin, 1: end) and asked for at the end; and where it was told."""
    at = round(depth * len(filler))
    told = STATED % key
    return filler[:at] + told + filler[at:] + ASKED, at + told.index(b"%d" % key)


def prompt_of(text: bytes, length: int, key: int, depth: float, start: int) -> bytes:
    """A prompt of `length` bytes, its filler taken from `text` at `start`."""
    return hide(text[start:start + length - len(STATED % key) - len(ASKED)], key, depth)[0]


@dataclass(frozen=True)
class Hidden:
    """Batches as a function of the step: windows by phase, (steps, length, rows) each."""

    text: bytes
    phases: tuple[tuple[int, int, int], ...]
    seed: int = 0

    @property
    def steps(self) -> int:
        """Of all phases."""
        return sum(steps for steps, _, _ in self.phases)

    def batch(self, step: int) -> Rows:
        """Rows of one length; the shorter ones keep coming, so that near keys aren't forgotten."""
        rng, ends = random.Random(f"{self.seed} {step}"), list(accumulate(steps for steps, _, _ in self.phases))
        _, length, rows = self.phases[bisect_right(ends, step)]
        shorter = 2 if length >= 2 * SHORTEST and rng.random() < 0.25 else 1
        return self._rows(rng, length // shorter, rows * shorter)

    def _rows(self, rng: random.Random, length: int, n: int) -> Rows:
        ids, weights = [], []
        for _ in range(n):
            key, start = rng.randrange(10**(DIGITS - 1), 10**DIGITS), rng.randrange(len(self.text) - length)
            n_filler = length + 1 - DIGITS - len(STATED % key) - len(ASKED)
            asked, told = hide(self.text[start:start + n_filler], key, rng.random())
            ids.append(list(asked + b"%d" % key))
            counts = [1.0] * length
            counts[told - 1:told - 1 + DIGITS] = [0.0] * DIGITS
            counts[-DIGITS:] = [ANSWER_WEIGHT] * DIGITS
            weights.append(counts)
        table = torch.tensor(ids)                                             # (B, T + 1)
        return Rows(table[:, :-1].contiguous(), table[:, 1:].contiguous(), torch.tensor(weights))


def loss(model: CausalModel, rows: Rows) -> Loss:
    """The weighted next-byte loss."""
    return token_loss(model, model.trunk(model.embed(rows.ids)), rows.labels, rows.weights)


@torch.no_grad()
def found(model: CausalModel, rows: Rows) -> float:
    """The share of rows whose five digits are all the likeliest ones."""
    model.eval()
    likeliest = model.logits(model.trunk(model.embed(rows.ids))[:, -DIGITS:]).argmax(-1)
    model.train()
    return (likeliest == rows.labels[:, -DIGITS:]).all(1).float().mean().item()


class Curve:
    """The observer: says how it goes."""

    def log(self, row: dict[str, Any]) -> None:
        """The loss and the share found."""
        say(", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()))

    def advance(self, state: TrainState, row: dict[str, Any]) -> None:
        """No bar."""


def train(model: Llama, batches: Hidden, lr: float, look: Rows) -> TrainState:
    """By the package's loop, in float32."""
    optim = OptimConfig(kind="muon", lr=lr, schedule=Schedule(kind="linear", warmup_steps=min(50, batches.steps // 4)))
    rows = max(n for _, _, n in batches.phases) * 4
    loop = LoopConfig(steps=batches.steps, batch_size=rows, micro_batch=rows, eval_every=50, log_every=50,
                      checkpoint_every=batches.steps, precision="float32")
    state = TrainState(model, build_optimizer(model, optim))
    with tempfile.TemporaryDirectory() as run:
        fit(state, batches, loss, loop=loop, optim=optim, run=Path(run), observer=Curve(),
            evaluate=lambda state: {"found": found(state.model, look)}, device=torch.device("cpu"))
    return state


def books(held_out: bool, n: int = 30) -> bytes:
    """The text of some books: of those that are trained on, or of the last ones of the file."""
    texts = list(documents(BOOKS))
    some = texts[-HELD_OUT:] if held_out else texts[:-HELD_OUT]
    return "\n\n".join(some[:n]).encode()


def scaling_of(text: str) -> RopeScaling:
    """KIND:FACTOR over the context that the model was trained with."""
    kind, _, factor = text.partition(":")
    return RopeScaling(kind=kind, factor=float(factor), original_context=CONTEXT)   # type: ignore[arg-type]


def main() -> int:
    """Train and write the model in bfloat16."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--from", dest="start", type=Path, help="go on with this one")
    parser.add_argument("--stretch", type=scaling_of, metavar="KIND:FACTOR", help="with --from: scale the positions")
    parser.add_argument("--steps", type=int, help="by default 600, and 60 with --stretch")
    parser.add_argument("--quick", action="store_true", help="a few steps: shows that it runs")
    options = parser.parse_args()
    setup()
    torch.manual_seed(0)
    steps = 8 if options.quick else options.steps or (60 if options.stretch else 600)
    if options.start:
        model, lr = load_checkpoint(options.start, dtype="float32").model, 1e-3
        stretch = round(options.stretch.factor) if options.stretch else 1
        config = model.config.model_copy(update={"rope_scaling": options.stretch, "max_context": CONTEXT * stretch})
        weights, model = model.state_dict(), Llama(config)
        model.load_state_dict(weights)
        phases: tuple[tuple[int, int, int], ...] = ((steps, CONTEXT * stretch, 2),)
    else:
        model, lr = Llama(SHAPE), 5e-3
        initialise(model, SHAPE.n_layers, 0)
        phases = ((steps // 2, SHORTEST, 16), (steps // 4, 256, 10), (steps - steps // 2 - steps // 4, CONTEXT, 6))
    batches = Hidden(books(held_out=False), phases)
    look = Hidden(books(held_out=True), ((1, phases[-1][1], 8),), seed=1).batch(0)
    state = train(model, batches, lr, look)
    save_checkpoint(options.out, model, dtype="bfloat16", overwrite=True)
    say(f"{options.out}: {state.tokens:,} weighted bytes in {state.seconds:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
