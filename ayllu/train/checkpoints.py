"""The checkpoints of a run on the disk: written whole or not at all, the newest and the best kept, the intact found.

    RUN/checkpoints/step-00000500/     what torch's distributed checkpoint wrote, and manifest.json
    RUN/checkpoints/best-00000400/     the same, as it was when the held-out loss was lowest
    RUN/checkpoints/latest, best       the names of the folders to use; moved when these are on the disk
"""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch.distributed import ProcessGroup

from ayllu.errors import CheckpointError, DamagedCheckpoint
from ayllu.files import sync, write_text
from ayllu.log import warn
from ayllu.train.sealed import read_seal, seal
from ayllu.train.state import TrainState, load, write
from ayllu.train.together import write_together

NAME = re.compile(r"(step|best)-(\d{8,})")


def step_folder(run: Path, step: int) -> Path:
    """Where the checkpoint after `step` steps is."""
    return run / "checkpoints" / f"step-{step:08d}"


def best_folder(run: Path, step: int) -> Path:
    """Where the state of the best evaluation is, which was after `step` steps."""
    return run / "checkpoints" / f"best-{step:08d}"


def save(parts: dict[str, Any], run: Path, keep: int, group: ProcessGroup | None = None) -> None:
    """Write `TrainState.state_dict()`, move `latest` to it, and remove all older ones but the newest `keep` in all.

    All ranks of the group (by default all) must call it, and it fails on all of them or on none.
    """
    folder = step_folder(run, parts["step"])

    def publish() -> None:
        if (run / "metrics.jsonl").exists():
            sync(run / "metrics.jsonl")                  # its rows are on the disk before a resume relies on them
        write_text(folder.parent / "latest", folder.name + "\n")
        _prune(folder.parent, parts["step"], keep)

    _write(parts, folder, publish, group)


def save_best(parts: dict[str, Any], run: Path, group: ProcessGroup | None = None) -> None:
    """Write the state of the best evaluation and move `best` to it; older ones stay while a checkpoint needs them."""
    folder = best_folder(run, parts["step"])
    _write(parts, folder, lambda: write_text(folder.parent / "best", folder.name + "\n"), group)


def take_best(state: TrainState, run: Path) -> None:
    """Go back to the weights of the best evaluation; steps, tokens and seconds stay as they were spent."""
    assert state.best is not None
    spent = state.step, state.tokens, state.seconds, state.stopped
    load(state, best_folder(run, state.best.step))
    state.step, state.tokens, state.seconds, state.stopped = spent


def latest(run: Path) -> Path | None:
    """The checkpoint that a resume begins with, whole or not; None where the run has none."""
    return next(iter(_candidates(run)), None)


def restore(state: TrainState, run: Path, fall_back: bool = False) -> bool:
    """Load the newest checkpoint of a run into `state`; False where there is none yet.

    `fall_back` goes on to the next older one where one is damaged, and says so.
    """
    candidates = _candidates(run)
    for folder in candidates:
        try:
            load(state, folder)
        except DamagedCheckpoint as error:
            if not fall_back:
                raise DamagedCheckpoint(f"{error}. --resume auto goes on from the newest checkpoint that is "
                                        "intact") from error
            warn(f"{error}: the checkpoint before it is tried")
            continue
        return True
    if candidates:
        raise CheckpointError(f"{run / 'checkpoints'}: all {len(candidates)} checkpoints are damaged. Check the disk; "
                              f"to begin anew remove {run}, or set out=ANOTHER_FOLDER")
    return False


def clean(run: Path) -> None:
    """Remove what a killed process was writing; only the process that holds the run may do so."""
    for left in (*run.glob(".*.part"), *(run / "checkpoints").glob(".*.part"), *(run / "checkpoints").glob(".*.old")):
        shutil.rmtree(left) if left.is_dir() else left.unlink()


def _candidates(run: Path) -> list[Path]:
    """`latest` first, then older ones, newest first; newer ones belong to a line that was left, or `latest` would say.

    A pointer may name a folder that is gone: it leads the list, so that its loss is noticed.
    """
    pointer = run / "checkpoints" / "latest"
    found = sorted(_steps(run / "checkpoints", "step").items(), reverse=True)
    name = NAME.fullmatch(pointer.read_text(encoding="utf-8").strip()) if pointer.exists() else None
    if name is None:
        return [folder for _, folder in found]
    return [pointer.parent / name[0], *(folder for step, folder in found if step < int(name[2]))]


def _steps(folder: Path, kind: str) -> dict[int, Path]:
    matches = [(NAME.fullmatch(path.name), path) for path in folder.glob(f"{kind}-*")]
    return {int(match[2]): path for match, path in matches if match}


def _write(parts: dict[str, Any], folder: Path, publish: Callable[[], None], group: ProcessGroup | None) -> None:
    write_together(folder, lambda temporary: write(parts, temporary, group),
                   lambda temporary: seal(temporary, step=parts["step"], best=parts.get("best", {}).get("step")),
                   publish, group)


def _prune(folder: Path, now: int, keep: int) -> None:
    """Newer ones than `now` are left alone: somebody went back to an older one, and decides about them."""
    steps = sorted(step for step in _steps(folder, "step") if step <= now)
    kept = steps[-keep:]
    needed = {_best_of(_steps(folder, "step")[step]) for step in kept}
    for step in set(steps) - set(kept):
        shutil.rmtree(_steps(folder, "step")[step])
    for step, path in _steps(folder, "best").items():
        if step <= now and step not in needed:
            shutil.rmtree(path)


def _best_of(folder: Path) -> int | None:
    try:
        best: int | None = read_seal(folder).get("best")
    except DamagedCheckpoint:                            # no resume will begin there
        return None
    return best
