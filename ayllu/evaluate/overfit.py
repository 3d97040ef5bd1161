"""The gap between training and held-out loss of a run: is it overfitting, why most likely, and which setting to change.

It reads what a run folder holds. Held-out loss in nats per token stands beside the training loss; bits per byte have
another unit, so of these only the way they go is looked at.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ayllu.errors import ConfigError

BITS = "bits_per_byte_"
RISE = 0.01                                              # of the best: less is the noise of an evaluation
GAP = 0.15                                               # of the held-out loss: less is usual
MANY_EPOCHS = 4.0                                        # up to there, repeating costs little (arXiv:2305.16264)


def overfitting(run: Path) -> dict[str, Any]:
    """What the curves say, as numbers and in a sentence of each language."""
    rows = _rows(run / "metrics.jsonl")
    config = _object(run / "config.json")
    trained = [(r["step"], r["loss"]) for r in rows if isinstance(r.get("loss"), int | float)]
    held = [(r["step"], value) for r in rows if "final" not in r and (value := _held(r)) is not None]
    if len(trained) < 2 or len(held) < 2:
        raise ConfigError(f"{run} has {len(trained)} rows of training and {len(held)} of held-out loss in "
                          "metrics.jsonl, and two of each are needed: set loop.eval_every lower, and hold texts out")
    best_step, best = min(held, key=lambda point: point[1])
    last_step, last = held[-1]
    facts: dict[str, Any] = {"steps": last_step, "train": _near(trained, last_step), "train_at_best":
                             _near(trained, best_step), "held_out": last, "best": best, "best_step": best_step,
                             "rise": last / best - 1, "epochs": _epochs(run, config)}
    is_nats = not any(key.startswith(BITS) for r in rows for key in r)
    facts["gap"] = last - facts["train"] if is_nats else None
    verdict, causes = _verdict(facts, len(held))
    return {**facts, "verdict": verdict, "advice": [_advice(cause, facts, config) for cause in causes]}


def _verdict(facts: dict[str, Any], n_looks: int) -> tuple[str, list[str]]:
    gap, epochs = facts["gap"], facts["epochs"]
    repeats = ["epochs"] if epochs is not None and epochs > MANY_EPOCHS else []
    if facts["rise"] > RISE and facts["train"] < facts["train_at_best"]:
        return "overfitting", [*repeats, "stop", "regularise"]
    if facts["rise"] > RISE:
        return "unstable", ["rate"]
    longer = ["longer"] if facts["best_step"] == facts["steps"] and n_looks > 2 else []
    if gap is not None and gap > GAP * facts["held_out"]:
        return "gap", [*(repeats or ["data"]), *longer]
    return ("still learning" if longer else "no gap"), longer


def _advice(cause: str, facts: dict[str, Any], config: dict[str, Any]) -> dict[str, str]:
    """(why, the setting, and what to make of it) in both languages."""
    step, epochs = facts["best_step"], facts["epochs"]
    held = "lora.lora_dropout=0.1, lora.r" if config.get("lora") else "optim.weight_decay, model.attention_dropout"
    lower = "lower" if config.get("lora") else "higher"
    match cause:
        case "epochs":
            share = step / max(facts["steps"], 1)
            return {"setting": f"epochs={max(epochs * share, 1):.1f}" if "epochs" in config else f"loop.steps={step}",
                    "en": f"the texts were read {epochs:.1f} times, and the best was reached after "
                          f"{epochs * share:.1f}",
                    "zh": f"文本读了 {epochs:.1f} 遍，最好的结果在第 {epochs * share:.1f} 遍时达到"}
        case "stop":
            return {"setting": "loop.patience=3",
                    "en": f"training went on after its best at step {step:,}; early stopping keeps that one",
                    "zh": f"最好的结果在第 {step:,} 步，此后训练仍在继续；提前停止会保留那一步"}
        case "regularise":
            return {"setting": held, "en": f"the model can learn these texts by heart: more texts, or a {lower} value",
                    "zh": "模型能把这些文本背下来：增加文本，或调整这些设置"}
        case "rate":
            return {"setting": "optim.lr", "en": "training loss rose too: the learning rate is too high",
                    "zh": "训练损失也在上升：学习率过高"}
        case "data":
            return {"setting": "data.sources",
                    "en": "training and held-out texts may be of different kinds, or too few",
                    "zh": "训练文本与留出文本可能不是同一种，或者文本太少"}
        case _:
            return {"setting": "loop.steps", "en": "the last evaluation was the best: more steps would help",
                    "zh": "最后一次评估最好：增加步数会有帮助"}


def _held(row: dict[str, Any]) -> float | None:
    """The mean of a row's held-out losses, as early stopping has it."""
    found = [value for key, value in row.items() if (key == "held_out" or key.startswith(BITS))
             and isinstance(value, int | float)]
    return sum(found) / len(found) if found else None


def _near(points: Sequence[tuple[int, float]], step: int, n: int = 5) -> float:
    """The mean of the last few training losses up to a step."""
    upto = [loss for at, loss in points if at <= step][-n:] or [points[0][1]]
    return sum(upto) / len(upto)


def _epochs(run: Path, config: dict[str, Any]) -> float | None:
    """How often the texts were read: what the mixture says, or the recipe."""
    mixture = run / "mixture.json"
    if mixture.is_file():
        rows = json.loads(mixture.read_text(encoding="utf-8"))
        passes = [row["epochs"] for row in rows if isinstance(row, dict) and "epochs" in row]
        return max(passes, default=None)
    value = config.get("epochs")
    return float(value) if isinstance(value, int | float) else None


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ConfigError(f"{path.parent} holds no run (metrics.jsonl is missing): give the folder that a recipe's "
                          "`out` names") from error
    found = []
    for line in lines:
        try:
            found.append(json.loads(line))
        except ValueError:                               # the line that a killed run was writing
            continue
    return found


def _object(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}
