"""Everything that a resume needs, written through torch's distributed checkpoint, atomically."""

import random
import shutil
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

from ayllu.errors import CheckpointError
from ayllu.files import atomic_folder, write_text
from ayllu.model.build import CausalModel

SCHEMA = 1


@dataclass
class TrainState:
    """A model in training: its weights, its optimiser, and how far it has come."""

    model: CausalModel
    optimizer: torch.optim.Optimizer
    step: int = 0                                        # steps done
    tokens: int = 0                                      # tokens learned from
    seconds: float = 0.0                                 # time spent training, over all resumes
    facts: dict[str, Any] = field(default_factory=dict)  # what must not change on a resume: threads, micro-batch, data

    def state_dict(self) -> dict[str, Any]:
        """Plain tensors and numbers, as torch's distributed checkpoint wants them."""
        model, optimizer = get_state_dict(self.model, self.optimizer)
        return {"schema": SCHEMA, "model": model, "optimizer": optimizer, "step": self.step, "tokens": self.tokens,
                "seconds": self.seconds, "facts": dict(self.facts),
                "random": random_state()}


def save(state: TrainState, run: Path, keep: int) -> Path:
    """Write `run/checkpoints/step-N`, move `latest` to it, and remove all but the newest `keep`."""
    folder = run / "checkpoints" / f"step-{state.step:08d}"
    with atomic_folder(folder) as temporary:
        _quiet(dcp.save, state.state_dict(), checkpoint_id=temporary, no_dist=True)
    write_text(run / "checkpoints" / "latest", folder.name + "\n")
    for old in sorted(folder.parent.glob("step-*"))[:-keep]:
        shutil.rmtree(old)
    return folder


def restore(state: TrainState, run: Path) -> bool:
    """Load the newest checkpoint of a run into `state`; False where there is none yet."""
    pointer = run / "checkpoints" / "latest"
    if not pointer.exists():
        return False
    folder = pointer.parent / pointer.read_text(encoding="utf-8").strip()
    target = state.state_dict()
    try:
        _quiet(dcp.load, target, checkpoint_id=folder, no_dist=True)
    except (dcp.api.CheckpointException, OSError, RuntimeError, ValueError, KeyError) as error:
        raise CheckpointError(f"{folder} can't be resumed from: {error}. Remove it and write the name of an older "
                              f"folder into {pointer}, or start a new run") from error
    if target["schema"] != SCHEMA:
        raise CheckpointError(f"{folder} has schema {target['schema']}, this version reads {SCHEMA}")
    _check_facts(state.facts, target["facts"], folder)
    set_state_dict(state.model, state.optimizer, model_state_dict=target["model"],
                   optim_state_dict=target["optimizer"])
    state.step, state.tokens, state.seconds = target["step"], target["tokens"], target["seconds"]
    set_random_state(target["random"])
    return True


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
    changed = [k for k in now if k in then and now[k] != then[k]]
    if changed:
        key = changed[0]
        raise CheckpointError(f"{folder} was trained with {key}={then[key]!r}, now it is {now[key]!r}: an exact resume "
                              f"needs the same; set it back, or start a new run from the exported weights")


def _quiet(function: Any, *args: Any, **kwargs: Any) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled|TypedStorage is deprecated")
        function(*args, **kwargs)
