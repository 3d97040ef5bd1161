"""The results of `ayllu fewshot` as a table in plain text and as a picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ayllu.files import atomic_path

Row = dict[str, Any]


def table(rows: Sequence[Row]) -> str:
    """Means over draws with 95 % intervals, in percent."""
    heads = "".join(f"{name:<21}" for name in ("accuracy", "macro-F1", "calibration error"))
    lines = [f"{'method':<18}{'k':>4}{'draws':>7}  {heads}left out"]
    for row in rows:
        cells = [f"{100 * row[name]['value']:5.1f} ({100 * row[name]['low']:.1f} to {100 * row[name]['high']:.1f})"
                 for name in ("accuracy", "macro_f1", "calibration_error")]
        left = f"{row['left_out']:.1f}" if row["left_out"] else "-"
        lines.append(f"{row['method']:<18}{row['k']:>4}{row['draws']:>7}  {''.join(f'{c:<21}' for c in cells)}{left}")
    return "\n".join(lines)


def plot(rows: Sequence[Row], path: Path, title: str) -> Path:
    """Accuracy and calibration error over the number of examples, a line for each method with its interval."""
    from matplotlib.figure import Figure  # slow to import, needed only here
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    shots = sorted({row["k"] for row in rows})
    for axes, name, label in zip(figure.subplots(1, 2), ("accuracy", "calibration_error"),
                                 ("accuracy, %", "expected calibration error, %"), strict=True):
        for number, method in enumerate(dict.fromkeys(row["method"] for row in rows)):
            some = sorted((row for row in rows if row["method"] == method), key=lambda row: row["k"])
            at = [shots.index(row["k"]) for row in some]
            values, low, high = ([100 * row[name][part] for row in some] for part in ("value", "low", "high"))
            line, = axes.plot(at, values, marker="os^vD*x+"[number % 8], ms=4, label=method)
            axes.fill_between(at, low, high, color=line.get_color(), alpha=0.15, lw=0)
        axes.set_xticks(range(len(shots)), [str(k) for k in shots])
        axes.set(xlabel="examples of each label", ylabel=label)
        axes.grid(alpha=0.3)
    figure.suptitle(title)
    figure.axes[0].legend(fontsize=8)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:], dpi=120)
    return path
