"""The way back: from a masked example to the ids it was made from. What an objective loses would show here."""

import numpy as np

from ayllu.data.mask_marks import Marks
from ayllu.data.masks import Example
from ayllu.errors import DataError


def undo(example: Example, marks: Marks) -> np.ndarray:
    """The piece's ids, from inputs, targets and weights alone."""
    kind, _, mode = example.objective.partition("-")
    if kind == "tokens":
        learned = example.weights > 0
        if not example.shifted:
            return np.where(learned, example.targets, example.inputs)
        inner = np.where(learned[:-1], example.targets[:-1], example.inputs[1:])
        return np.concatenate([example.inputs[:1], inner, example.targets[-1:]])
    sequence = np.concatenate([example.inputs, example.targets[-1:]])
    if mode:
        sequence = np.delete(sequence, 1)
    match kind:
        case "causal" | "prefix":
            return sequence
        case "spans":
            return _fill_holes(sequence, marks)
        case "fim":
            return _put_back(sequence, marks)
    raise DataError(f"no way back is known for the objective {example.objective!r}")


def _fill_holes(sequence: np.ndarray, marks: Marks) -> np.ndarray:
    """Each sentinel of the first half by what follows it in the second, which begins with the second <0>."""
    border = int(np.flatnonzero(sequence == marks.sentinels[0])[1])
    holes: dict[int, list[int]] = {}
    tail: list[int] = []
    current = tail
    for i in sequence[border:].tolist():
        if i in marks.sentinels:
            current = holes.setdefault(i, [])
        else:
            current.append(i)
    tail = current                                       # after the closing sentinel: EOS, or nothing
    text = [i for given in sequence[:border].tolist() for i in holes.get(given, [given])]
    return np.array(text + tail, dtype=np.int64)


def _put_back(sequence: np.ndarray, marks: Marks) -> np.ndarray:
    """head <PRE> a <SUF> s <MID> m <END> tail is head a m s tail; SPM's prefix stands before the middle, a is empty."""
    pre, suf, mid, end = (int(np.flatnonzero(sequence == mark)[0]) for mark in marks.fim)
    return np.concatenate([sequence[:pre], sequence[pre + 1:suf], sequence[mid + 1:end], sequence[suf + 1:mid],
                           sequence[end + 1:]])
