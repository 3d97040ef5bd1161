"""Everything that a resume needs, read and written through torch's distributed checkpoint.

`checkpoints.py` keeps the folders of a run, `saver.py` writes them in the background.
"""

import random
import warnings
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed import ProcessGroup
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from ayllu import dist
from ayllu.errors import CheckpointError
from ayllu.model.build import CausalModel
from ayllu.model.parallel import ALONE, Layout
from ayllu.train.average import Average, averaged
from ayllu.train.best import Best
from ayllu.train.control import Control, Parts
from ayllu.train.sealed import check_seal
from ayllu.train.together import first_checks

SCHEMA = 1
TRAINED = StateDictOptions(ignore_frozen_params=True)    # a frozen base is known by its fingerprint

for message in ("torch.distributed is disabled", "TypedStorage is deprecated"):   # neither is news to a caller
    warnings.filterwarnings("ignore", message=message)


class Follower(Protocol):
    """Batches that depend on the losses before them, and so have a state that a resume needs."""

    def observe(self, loss: float) -> None: ...

    def row(self) -> dict[str, float]: ...

    def state(self) -> dict[str, Any]: ...

    def restore(self, state: dict[str, Any]) -> None: ...


@dataclass
class TrainState:
    """A model in training: its weights, its optimiser, and how far it has come."""

    model: CausalModel
    optimizer: torch.optim.Optimizer
    step: int = 0                                        # steps done
    tokens: int = 0                                      # tokens learned from
    seconds: float = 0.0                                 # time spent training, over all resumes
    facts: dict[str, Any] = field(default_factory=dict)  # what must not change on a resume: threads, micro-batch, data

    average: Average | None = None                       # an exponential moving average of the weights, where wanted
    best: Best | None = None                             # the best evaluation so far, where training may stop early
    follower: Follower | None = None                     # batches that follow the loss, where masks do
    control: Control | None = None                       # the adaptive learning rate, where it is switched on
    stopped: str = ""                                    # why training ended before its last step
    layout: Layout = ALONE                               # where this process stands among others

    def state_dict(self) -> dict[str, Any]:
        """Plain tensors and numbers, as torch's distributed checkpoint wants them; what is switched off is absent.

        So is an optimiser without moments, as the controller's way back to the first weights leaves it: torch would
        give it some by a step of rate 0, which counts as a step ever after.
        """
        return self.parts(has_moments=bool(self.optimizer.state))

    def parts(self, has_moments: bool) -> dict[str, Any]:
        """`state_dict` with the optimiser or without."""
        out = {"schema": SCHEMA, "model": get_model_state_dict(self.model, options=TRAINED), "step": self.step,
               "tokens": self.tokens, "seconds": self.seconds, "facts": dict(self.facts),
               self.random_key: random_state()}
        if has_moments:
            out["optimizer"] = get_optimizer_state_dict(self.model, self.optimizer, options=TRAINED)
        if self.average is not None:
            out["average"] = dict(self.average)
        if self.best is not None:
            out["best"] = asdict(self.best)
        if self.control is not None:
            out["control"] = self.control.state_dict()
        if self.follower is not None:
            out["batches"] = self.follower.state()
        if self.best is not None or self.control is not None:
            out["stopped"] = self.stopped
        return out

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Take what `state_dict` gave; both must have the same parts switched on."""
        is_whole = all(p.requires_grad for p in self.model.parameters())
        set_model_state_dict(self.model, saved["model"], options=StateDictOptions(strict=is_whole))
        if "optimizer" in saved:
            set_optimizer_state_dict(self.model, self.optimizer, saved["optimizer"])
        else:
            self.optimizer.state.clear()
        self.step, self.tokens, self.seconds = saved["step"], saved["tokens"], saved["seconds"]
        if self.average is not None:
            for name, tensor in self.average.items():
                tensor.copy_(saved["average"][name])
        if self.best is not None:
            self.best = Best(**saved["best"])
        if self.control is not None:
            self.control.load_state_dict(saved["control"])
        if self.follower is not None:
            self.follower.restore(saved["batches"])
        self.stopped = saved.get("stopped", "")
        if self.random_key in saved:
            set_random_state(saved[self.random_key])
        else:                                            # more ranks than wrote the checkpoint
            torch.manual_seed((self.step << 16) + self.layout.data_rank)

    @property
    def random_key(self) -> str:
        """Where this rank's generators stand in a checkpoint; tensor ranks drop out alike, so they share theirs."""
        return f"random_{self.layout.data_rank}" if self.layout.data_rank else "random"

    def averaged(self) -> AbstractContextManager[None]:
        """Inside, the model has the weights to evaluate, sample and export: its average where it keeps one."""
        return averaged(self.model, self.optimizer, self.average)


def write(parts: dict[str, Any], folder: Path, group: ProcessGroup | None = None) -> None:
    """Write what `state_dict` gave into a folder; all ranks of the group do so together, by default all."""
    dcp.save(parts, checkpoint_id=folder, process_group=group, no_dist=dist.world_size() == 1)


def load(state: TrainState, folder: Path) -> None:
    """Load one checkpoint folder into `state`; nothing is touched where the folder is damaged."""
    first_checks(partial(check_seal, folder))            # it reads every byte: once is enough
    groups = [dict(group) for group in state.optimizer.param_groups]
    target = state.parts(has_moments=True)               # this gives the optimiser moments that can be filled
    try:
        saved = dcp.FileSystemReader(folder).read_metadata().state_dict_metadata
        if not any(name.startswith("optimizer.") for name in saved):
            del target["optimizer"]                      # from before the first update
            for group, before in zip(state.optimizer.param_groups, groups, strict=True):
                group.update(before)                     # filling counts as a step in some
        if not any(name.startswith(f"{state.random_key}.") for name in saved):
            del target[state.random_key]
        if state.control is not None:
            state.control.make_room(saved, Parts(state.model, state.optimizer, state.average))
            target["control"] = state.control.state_dict()
        dcp.load(target, checkpoint_id=folder, no_dist=True)
    except (dcp.api.CheckpointException, OSError, RuntimeError, ValueError, KeyError) as error:
        raise CheckpointError(f"{folder} can't be resumed from: {error}. It is as it was written, so the settings must "
                              "have changed: set them back, or start a new run") from error
    if target["schema"] != SCHEMA:
        raise CheckpointError(f"{folder} has schema {target['schema']}, this version reads {SCHEMA}")
    _check_facts(state.facts, target["facts"], folder)
    state.load_state_dict(target)


def random_state() -> dict[str, Any]:
    """The state of every generator that training may draw from."""
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    version, numbers, gauss = random.getstate()
    state = {"torch": torch.get_rng_state(), "numpy": [name, np.asarray(keys).tolist(), position, has_gauss, cached],
             "python": [version, list(numbers), gauss]}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Put back what `random_state` returned."""
    torch.set_rng_state(state["torch"])
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


def _check_facts(now: dict[str, Any], then: dict[str, Any], folder: Path) -> None:
    changed = [k for k in now if k in then and now[k] != then[k] and not (k == "threads" and 0 in (now[k], then[k]))]
    if changed:
        key = changed[0]
        raise CheckpointError(f"{folder} was trained with {key}={then[key]!r}, now it is {now[key]!r}: an exact resume "
                              f"needs the same; set it back, or start a new run from the exported weights")
