"""A walk as plain JSON values."""

from typing import Any

from ayllu.explain.walk import Step, Value, Walk

MOST = 4096                                              # numbers of one tensor that are written out


def as_table(walk: Walk) -> dict[str, Any]:
    """Everything in the walk; tensors of more than 4,096 numbers are given by shape and statistics only."""
    return {"kind": walk.kind, "dtype": walk.dtype, "ids": list(walk.ids), "pieces": list(walk.pieces),
            "layer": walk.layer, "n_layers": walk.n_layers, "agrees": walk.agrees,
            "steps": [_step(step) for step in walk.steps],
            "next": [{"id": number, "piece": piece, "probability": p} for number, piece, p in walk.top]}


def _step(step: Step) -> dict[str, Any]:
    return {"key": step.key, "layer": step.layer, "formula": step.formula, "line": str(step.line),
            "difference": step.difference, "agrees": step.agrees, "values": [_value(value) for value in step.values]}


def _value(value: Value) -> dict[str, Any]:
    tensor = value.tensor.float()
    out: dict[str, Any] = {"name": value.name, "axes": value.axes.split(), "shape": list(tensor.shape),
                           "mean": tensor.mean().item(), "std": tensor.std(correction=0).item(),
                           "min": tensor.min().item(), "max": tensor.max().item()}
    if tensor.numel() <= MOST:
        out["values"] = tensor.tolist()
    return out
