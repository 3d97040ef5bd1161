"""What a run tells: a progress bar on stderr, metrics as JSON lines and TensorBoard events, samples, curves, a page."""

import json
import math
import time
from contextlib import nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn

from ayllu import dist
from ayllu.device import matrix_peak
from ayllu.files import atomic_path, write_text
from ayllu.log import say
from ayllu.model.account import training_flops
from ayllu.model.config import LlamaConfig
from ayllu.model.parallel import Precision
from ayllu.train.page import write_page
from ayllu.train.state import TrainState

SMOOTHING = 0.95


class Report:
    """The observer of one run, used as a context manager around `fit`."""

    def __init__(self, run: Path, state: TrainState, steps: int, step_tokens: int, context: int,
                 device: torch.device, resumed: bool = False, precision: Precision = "autocast") -> None:
        self.run, self.steps, self.step_tokens = run, steps, step_tokens
        self.last: dict[str, Any] = {}
        self._flops = _flops_per_token(state.model, context)
        products = torch.float32 if precision == "float32" else torch.bfloat16
        self._peak = matrix_peak(device, products) * dist.world_size()
        self._start, self._first_step = time.perf_counter(), state.step
        self._smooth: float | None = None
        self._shown = 0.0
        for name in ("metrics.jsonl", "samples.jsonl"):
            _drop_rows(run / name, after=state.step if resumed else -1)
        self._events = open_events(run, state.step + 1 if resumed else 0)
        columns = (TextColumn("step {task.completed:,.0f}/{task.total:,.0f}"), BarColumn(),
                   TextColumn("loss {task.fields[loss]:.3f}"), TextColumn("{task.fields[rate]:,.0f} tokens/s"),
                   TextColumn("{task.fields[share]:.0%} of peak"), TimeRemainingColumn())
        console = Console(stderr=True)
        self._plain = not console.is_terminal
        self._progress = Progress(*columns, console=console, disable=self._plain)
        self._task = self._progress.add_task("train", total=steps, completed=state.step, loss=math.nan, rate=0.0,
                                             share=0.0)

    def __enter__(self) -> "Report":
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._progress.stop()
        with suppress(OSError) if error else nullcontext():     # a full disk has been told already
            plot(self.run)
            write_page(self.run)
        if self._events is not None:
            self._events.close()

    def advance(self, state: TrainState, row: dict[str, Any]) -> None:
        """Move the bar; where stderr is no terminal, a plain line now and then."""
        loss = row["loss"] if math.isfinite(row["loss"]) else self._smooth or 0.0   # the controller skips such batches
        self._smooth = loss if self._smooth is None else SMOOTHING * self._smooth + (1 - SMOOTHING) * loss
        seconds = time.perf_counter() - self._start
        rate = (state.step - self._first_step) * self.step_tokens / max(seconds, 1e-9)
        share = rate * self._flops / self._peak
        self._progress.update(self._task, completed=state.step, loss=self._smooth, rate=rate, share=share)
        if self._plain and (seconds - self._shown > 30 or state.step == self.steps):
            self._shown = seconds
            left = (self.steps - state.step) * self.step_tokens / max(rate, 1e-9)
            say(f"step {state.step:,}/{self.steps:,}  loss {self._smooth:.3f}  {rate:,.0f} tokens/s  "
                f"{share:.0%} of peak  {left / 60:.1f} min left")

    def log(self, row: dict[str, Any]) -> None:
        """One row of metrics, appended to metrics.jsonl."""
        row = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
        if "decision" not in row:                        # results, not what was decided on the way to them
            self.last.update(row)
        self._append("metrics.jsonl", row)
        if self._events is not None:
            add_events(self._events, row)
        if "decision" in row:
            say(f"step {row['step']:,}  {row['decision']}: {row['reason']}")
        held = {k.removeprefix("bits_per_byte_"): v for k, v in row.items() if k.startswith("bits_per_byte_")}
        if held:
            say(f"step {row['step']:,}  held-out bits per byte: "
                + "  ".join(f"{name} {value:.3f}" for name, value in held.items()))
        if row.get("held_out") is not None:
            say(f"step {row['step']:,}  held-out loss: {row['held_out']:.4f}")

    def samples(self, step: int, texts: list[str]) -> None:
        """Samples on the way, appended to samples.jsonl."""
        self._append("samples.jsonl", {"step": step, "texts": texts})
        if self._events is not None:
            self._events.add_text("samples", "\n\n".join(texts), step)
        write_page(self.run)

    def _append(self, name: str, row: dict[str, Any]) -> None:
        with open(self.run / name, "a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def open_events(run: Path, step: int) -> Any:
    """A writer of TensorBoard events below the run, from `step` on; None, and said so, without the extra."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        say("no TensorBoard events are written: pip install 'ayllu[tensorboard]' to have them")
        return None
    return SummaryWriter(str(run / "tensorboard"), purge_step=step)      # what a resume writes again is hidden


def add_events(events: Any, row: dict[str, Any]) -> None:
    """One row of metrics as scalars, a decision as text."""
    if "decision" in row:
        events.add_text("decisions", f"{row['decision']}: {row['reason']}", row["step"])
        return
    end = "_at_the_end" if "final" in row else ""
    for name, value in row.items():
        if isinstance(value, int | float) and name not in ("step", "final"):
            events.add_scalar(name + end, value, row["step"])


def _drop_rows(path: Path, after: int) -> None:
    """Rows that a resume will write again would stand twice: those after its checkpoint, and the very last."""
    if not path.exists():
        return
    rows = [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if _step_of(line) <= after]
    write_text(path, "".join(f"{line}\n" for line in rows))


class Unseen:
    """The observer of the other ranks: they compute what the first one tells."""

    def __init__(self, *_: Any) -> None:
        self.last: dict[str, Any] = {}

    def __enter__(self) -> "Unseen":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def advance(self, state: TrainState, row: dict[str, Any]) -> None:
        """The first rank moves the bar."""

    def log(self, row: dict[str, Any]) -> None:
        """The first rank writes the row."""

    def samples(self, step: int, texts: list[str]) -> None:
        """The first rank has the same texts."""


def _flops_per_token(model: nn.Module, context: int) -> float:
    """Operations of training on one token; for what is no Llama the usual 6 per parameter."""
    if isinstance(model.config, LlamaConfig):
        return training_flops(model.config, context)
    return 6.0 * sum(p.numel() for p in model.parameters())


def _step_of(line: str) -> float:
    try:
        row = json.loads(line)
    except ValueError:                                   # the line that a killed run was writing
        return math.inf
    return math.inf if "final" in row else row["step"]


COLORS = {"try": "tab:purple", "grow": "tab:green", "shrink": "tab:orange", "skip": "tab:olive",
          "roll back": "tab:red", "cooldown": "tab:cyan", "stop": "black"}


def _draw_decisions(axes: Any, rows: list[dict[str, Any]], trained: list[dict[str, Any]]) -> None:
    """A line at each of the controller's decisions, where the tokens of its step stand."""
    seen: set[str] = set()
    for row in rows:
        action = row.get("decision")
        if action in COLORS and trained:
            tokens = next((r["tokens"] for r in trained if r["step"] >= row["step"]), trained[-1]["tokens"])
            axes.axvline(tokens / 1e6, color=COLORS[action], lw=0.8, ls="--", label=None if action in seen else action)
            seen.add(action)
    if seen:
        axes.legend(title="decisions")


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def plot(run: Path) -> Path | None:
    """Draw loss.png from metrics.jsonl: training loss, learning rate, decisions, held-out bits per byte."""
    path = run / "metrics.jsonl"
    if not path.exists():
        return None
    from matplotlib.figure import Figure  # slow to import, needed only here
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    trained = [r for r in rows if "loss" in r]
    left.plot([r["tokens"] / 1e6 for r in trained], [_number(r["loss"]) for r in trained], lw=0.8, color="tab:blue")
    left.set(xlabel="million tokens", ylabel="training loss (nats per token)", title=run.name)
    rate = left.twinx()
    rate.plot([r["tokens"] / 1e6 for r in trained], [r["lr"] for r in trained], lw=0.8, color="tab:gray")
    rate.set_ylabel("learning rate", color="tab:gray")
    _draw_decisions(left, rows, trained)
    names = sorted({k for r in rows for k in r if k.startswith(("bits_per_byte_", "held_out"))})
    for name in names:
        points = [r for r in rows if name in r]
        right.plot([r["step"] for r in points], [r[name] for r in points], marker="o", ms=3,
                   label=name.removeprefix("bits_per_byte_"))
    right.set(xlabel="step", ylabel="nats per learned token" if "held_out" in names else "bits per byte",
              title="held-out text")
    if names:
        right.legend()
    out = run / "loss.png"
    with atomic_path(out) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
    return out
