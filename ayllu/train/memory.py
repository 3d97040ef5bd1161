"""How much memory a run will take, before a byte of it is taken: the real training step, run on tensors without data.

torch's fake tensors know shapes, dtypes and devices and hold nothing. The run's own code goes over them, and a ledger
notes every storage as it is born and as it dies. So there is no formula that could fall behind the code: optimisers,
averages, chunks of logits or recomputed blocks count as they are, also for models that this machine could never hold.
What kernels take inside themselves isn't seen; the checks in benchmarks/memory.py say how much that is.
"""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ayllu.model.account import compiled_layer_bytes
from ayllu.train.compiled import may_compile
from ayllu.train.control import Parts
from ayllu.train.grpo_config import GrpoConfig
from ayllu.train.loop import step
from ayllu.train.method import TrainConfig, empty_state, loss_of, shape_of
from ayllu.train.rehearse import COPIES, Meter, shortened
from ayllu.train.worst import Windows, look, rollouts

NUMBER = torch.ops.aten._local_scalar_dense.default      # what .item() asks for


class Ledger(TorchDispatchMode):
    """Bytes of all storages born inside, `live` now and `peak` since `begin`; `.item()` of a fake tensor gives 1."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._sizes: dict[int, int] = {}                 # by the storage's address

    def begin(self) -> None:
        """From here on, the peak is counted anew."""
        self.peak = self.live

    def count(self, tensor: Tensor) -> None:
        """Note a tensor that no operation returned: a parameter, which wraps another tensor's storage."""
        self._note(tensor.untyped_storage())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is NUMBER:
            return 1.0 if args[0].is_floating_point() else 1
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._note(leaf.untyped_storage())
        self.peak = max(self.peak, self.live)
        return out

    def _note(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._sizes:
            weakref.finalize(storage, self._forget, key)
        self.live += size - self._sizes.get(key, 0)      # a storage may have been resized
        self._sizes[key] = size

    def _forget(self, key: int) -> None:
        self.live -= self._sizes.pop(key)


@contextmanager
def without_data() -> Iterator[Ledger]:
    """Inside, tensors have no data and the ledger counts what they would take."""
    ledger = Ledger()
    with FakeTensorMode(allow_non_fake_inputs=True), ledger:
        yield ledger


@dataclass
class Peaks:
    """Bytes at the highest point of each part of a run, without what the process takes before it."""

    state: int = 0                                       # weights, moments, averages, copies: what always lies there
    moments: dict[str, int] = field(default_factory=dict)    # "step", "evaluation", "saving"

    @property
    def worst(self) -> str:
        """The part with the highest point."""
        return max(self.moments, key=lambda name: self.moments[name])

    @property
    def most(self) -> int:
        """The highest point of all."""
        return self.moments[self.worst]


def predict(config: TrainConfig, device: torch.device) -> Peaks:
    """The peaks of a run by its settings; nothing is allocated and no data is read.

    A compiled run on a CPU is predicted as one that computes its blocks again in the backward pass, beside what
    compiled blocks keep by the account; on a GPU as if it were eager, which is the more. Eager on a CPU, malloc keeps
    some of what was freed and products take room for themselves: `_kept` was fitted to nine cells of
    benchmarks/memory.py. Of compiled runs, whose memory is pooled (native/pool.py), it is 60 MB.
    """
    eager, compiled = config.model_copy(update={"compile": "off"}), 0
    if device.type == "cpu" and may_compile(config, device) and not config.loop.activation_checkpointing:
        eager = eager.model_copy(update={"loop": config.loop.model_copy(update={"activation_checkpointing": True})})
        compiled = _kept_compiled(config)
    distill = getattr(config, "distill", None)           # what is kept by its content can't be without content: all
    if distill is not None:                              # of a distribution takes more than the likeliest ids
        eager = eager.model_copy(update={"distill": distill.model_copy(update={"top_k": 0})})
    with without_data() as ledger:
        state = empty_state(eager, device)
        for parameter in state.model.parameters():
            ledger.count(parameter)
        batch = Windows(shortened(config, 2)).batch(0)   # the second adds to gradients, as all after it
        loss, peaks, copies = loss_of(eager, device, state), Peaks(), []
        engine = rollouts(config, state.model) if isinstance(config, GrpoConfig) else None      # its pages count
        step(state, batch, loss, config.loop, config.optim, device)
        if config.adapt.kind == "follow":
            parts = Parts(state.model, state.optimizer, state.average)
            copies = [parts.copy(0) for _ in range(COPIES)]
        peaks.state = ledger.live
        ledger.begin()
        step(state, batch, loss, config.loop, config.optim, device)
        peaks.moments["step"] = ledger.peak + compiled
        ledger.begin()
        with state.averaged():
            look(config, state, device, most=2)          # each further batch takes what the second does
        peaks.moments["evaluation"] = ledger.peak
        peaks.moments["saving"] = peaks.state
        if config.loop.async_save and device.type == "cpu":  # a copy is written while training goes on
            peaks.moments["saving"] = peaks.moments["step"] + peaks.state
        if device.type == "cpu":
            for name, size in peaks.moments.items():
                peaks.moments[name] = size + min(60_000_000 if compiled else _kept(config), size // 2)
        del copies, engine
    return peaks


def _kept_compiled(config: TrainConfig) -> int:
    """Bytes that compiled blocks keep for the backward pass."""
    tokens = min(int(config.loop.micro_batch), config.loop.batch_size) * config.context
    shape = shape_of(config)
    precision = config.loop.precision
    return tokens * shape.n_layers * compiled_layer_bytes(shape, precision == "bf16_masters", precision == "float32")


def _kept(config: TrainConfig) -> int:
    """Bytes on a CPU beside the tensors; half of what these take at most, so that small models aren't drowned in it."""
    if config.loop.precision == "float32":
        return 60_000_000
    rows = min(int(config.loop.micro_batch), config.loop.batch_size)
    return 90_000_000 + 120 * rows * config.context * shape_of(config).dim


def process_bytes(device: torch.device) -> int:
    """What this process takes now, on the device that the model will lie on."""
    return Meter(device).now()
