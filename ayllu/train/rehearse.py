"""A run rehearsed: a few real steps over full windows of random ids, with an evaluation and a save, in a process apart.

The child measures its own memory. A twin of next to no size goes first, so that what libraries, kernels and compilers
take is in the base and not in the model's share.
"""

import gc
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ayllu.device import pick_device
from ayllu.errors import ConfigError
from ayllu.model.generate import generate
from ayllu.model.params import SamplingParams
from ayllu.train.adapt import AdaptConfig
from ayllu.train.control import Control, Parts
from ayllu.train.grpo_config import GrpoConfig
from ayllu.train.heads_config import HeadRecipe
from ayllu.train.loop import BatchSource, fit
from ayllu.train.method import TrainConfig, empty_state, loss_of, read_settings, shape_of
from ayllu.train.state import TrainState
from ayllu.train.worst import Windows, look, rollouts

STEPS, EVERY = 4, 2                                      # two evaluations and saves, each after two steps
PARTS = 4                                                # micro-batches of a rehearsed step; time is scaled to all
COPIES = 3                                               # that `follow` keeps in its first trial, when it keeps most


class Meter:
    """The highest memory use since the last reading: resident bytes of this process, or allocated ones of a GPU."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def now(self) -> int:
        """Bytes in use."""
        gc.collect()
        return torch.cuda.memory_allocated(self.device) if self.device.type == "cuda" else _status("VmRSS")

    def restart(self) -> None:
        """Forget the highest point."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        elif Path("/proc/self/clear_refs").exists():
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")

    def highest(self) -> int:
        """The highest point since `restart`."""
        return torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else _status("VmHWM")


class Watch:
    """Observer and evaluation of a rehearsal: notes how long and how high each part was."""

    def __init__(self, config: TrainConfig, device: torch.device, meter: Meter) -> None:
        self.config, self.device, self.meter = config, device, meter
        self.seconds: dict[str, list[float]] = {}
        self.peaks: dict[str, int] = {}
        self._since = time.perf_counter()

    def lap(self, name: str) -> None:
        """What has been since the last lap was `name`."""
        now = time.perf_counter()
        self.seconds.setdefault(name, []).append(now - self._since)
        self.peaks[name] = max(self.peaks.get(name, 0), self.meter.highest())
        self.meter.restart()
        self._since = time.perf_counter()

    def advance(self, state: TrainState, row: dict[str, Any]) -> None:
        """After each step."""
        self.lap("step")
        if self.config.adapt.kind == "follow" and state.control is None:
            parts = Parts(state.model, state.optimizer, state.average)
            state.control = Control(AdaptConfig(kind="plateau"))    # which keeps what it's given; checkpoints hold it
            state.control.copies = {str(n): parts.copy(0) for n in range(COPIES)}

    def log(self, row: dict[str, Any]) -> None:
        """Nothing is kept."""

    def evaluate(self, state: TrainState) -> dict[str, Any]:
        """Samples and held-out windows, as on the way of a run."""
        room = min(60, shape_of(self.config).max_context - 2)
        state.model.eval()
        asked = () if isinstance(self.config, HeadRecipe) else self.config.samples
        if room > 0 and asked:
            generate(state.model, [[0, 0]], SamplingParams(max_tokens=room, seed=0, ignore_eos=True), ())
        look(self.config, state, self.device)
        self.lap("evaluation")
        return {}


def rehearse(config: TrainConfig, device: torch.device, run: Path, meter: Meter) -> Watch:
    """Train `STEPS` steps in the folder `run`."""
    watch = Watch(config, device, meter)
    state = empty_state(config, device)
    loop = config.loop.model_copy(update={"steps": STEPS, "eval_every": EVERY, "checkpoint_every": EVERY, "keep": 1,
                                          "patience": 0})
    batches: BatchSource = Windows(config)
    if isinstance(config, GrpoConfig):
        state.follower = batches = rollouts(config, state.model)
    meter.restart()
    fit(state, batches, loss_of(config, device, state), loop=loop, optim=config.optim, run=run, observer=watch,
        evaluate=watch.evaluate, device=device)
    watch.lap("saving")
    return watch


def shortened(config: TrainConfig, parts: int) -> TrainConfig:
    """The same run with at most so many micro-batches a step: one takes the memory and the time of another."""
    rows = min(config.loop.batch_size, parts * int(config.loop.micro_batch))
    return config.with_loop(batch_size=rows)


def twin(config: TrainConfig) -> TrainConfig:
    """The same run with next to no size: it loads and compiles what the run will need."""
    shape = shape_of(config)
    model = shape.model_copy(update={
        "dim": 64, "n_layers": min(shape.n_layers, 2), "hidden_dim": 64, "vocab_size": 64, "n_heads": 4,
        "n_kv_heads": 4 if shape.n_heads == shape.n_kv_heads else 2, "head_dim": 16})
    loop = config.loop.model_copy(update={"batch_size": 2, "micro_batch": 1})
    if isinstance(config, GrpoConfig):
        config = config.model_copy(update={"group": 2, "max_tokens": min(config.max_tokens, config.context // 2, 8)})
    distill = getattr(config, "distill", None)
    if distill is not None and distill.model is not None:                    # the teacher has the same vocabulary
        config = config.model_copy(update={"distill": distill.model_copy(update={"model": model})})
    fewer = {"eval_tokens": 64} if "eval_tokens" in type(config).model_fields else {}
    return config.model_copy(update={"model": model, "loop": loop, "context": min(config.context, 32), **fewer})


def measure(config: TrainConfig) -> dict[str, Any]:
    """In this process: bytes before the model, highest bytes with it, and seconds of each part."""
    device = pick_device(config.device)
    if config.threads:
        torch.set_num_threads(config.threads)
    meter = Meter(device)
    with tempfile.TemporaryDirectory(prefix="ayllu-rehearsal-") as folder:
        rehearse(twin(config), device, Path(folder) / "twin", meter)
        base = meter.now()
        short = config if isinstance(config, GrpoConfig) else shortened(config, PARTS)   # the engine holds all answers
        watch = rehearse(short, device, Path(folder) / "run", meter)
    steps, saves, whole = watch.seconds["step"], watch.seconds["saving"], config.loop.batch_size / short.loop.batch_size
    return {"base": base, "peak": max(watch.peaks.values()), "peaks": watch.peaks, "first_step_s": steps[0] * whole,
            "step_s": min(steps[1:]) * whole, "evaluation_s": watch.seconds["evaluation"][-1], "saving_s": saves[-1]}


def measure_apart(config: TrainConfig, report: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """`measure` in a process of its own, which may be killed for memory without harm to this one."""
    child = subprocess.run([sys.executable, "-m", "ayllu.train.rehearse"], input=config.model_dump_json(),
                           capture_output=True, text=True, check=False)
    if child.returncode:
        last = (child.stderr.strip().splitlines() or ["no message"])[-1]
        why = "was killed, most likely for its memory" if child.returncode in (-9, 137) else f"failed: {last}"
        raise ConfigError(f"the rehearsal of this run {why}: the run itself would fail in the same way; "
                          "lower loop.micro_batch or context")
    found: dict[str, Any] = json.loads(child.stdout.splitlines()[-1])
    return found


def _status(name: str) -> int:
    """A line of Linux's account of this process, in bytes; elsewhere the highest use since the process began."""
    if not Path("/proc/self/status").exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise ConfigError(f"/proc/self/status has no line {name}: measure on another system, or on a GPU")


if __name__ == "__main__":
    print(json.dumps(measure(read_settings(sys.stdin.read()))))
