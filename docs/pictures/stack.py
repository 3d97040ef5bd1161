"""Draw docs/pictures/stack.svg: held-out bits per byte of ayllu-mini and of its baseline as they trained.

    python docs/pictures/stack.py [OURS/metrics.jsonl BASELINE/metrics.jsonl]

Without files it draws the runs whose metrics lie in benchmarks/runs (recipes/mini.toml, recipes/mini-baseline.toml).
"""

import json
import sys
from pathlib import Path

from matplotlib.figure import Figure

HERE = Path(__file__).parent
RUNS = HERE.parents[1] / "benchmarks" / "runs"
LANGUAGES = {"en": "English", "zh": "Chinese", "mixed": "both languages in one text"}
LINES = (("Llama, Muon, WSD (mini.toml)", "#0b6e99"), ("original Transformer, AdamW (mini-baseline.toml)", "#c05621"))


def points(file: Path, language: str) -> tuple[list[float], list[float]]:
    """Millions of tokens, and bits per byte of the held-out text, at each evaluation."""
    tokens, x, y = {}, [], []
    for row in map(json.loads, file.read_text(encoding="utf-8").splitlines()):
        if "tokens" in row:
            tokens[row["step"]] = row["tokens"] / 1e6
        if f"bits_per_byte_{language}" in row and not row.get("final"):
            x.append(tokens[row["step"]])
            y.append(row[f"bits_per_byte_{language}"])
    return x, y


def main() -> None:
    files = [Path(name) for name in sys.argv[1:3]] or [RUNS / "mini.jsonl", RUNS / "mini_baseline.jsonl"]
    figure = Figure(figsize=(9, 3.1), layout="constrained")
    for place, (language, title) in zip(figure.subplots(1, len(LANGUAGES)), LANGUAGES.items(), strict=True):
        for file, (name, colour) in zip(files, LINES, strict=False):
            x, y = points(file, language)
            place.plot(x, y, color=colour, marker="o", markersize=3, label=name)
            place.annotate(f"{y[-1]:.3f}", (x[-1], y[-1]), textcoords="offset points", xytext=(0, 6), ha="right",
                           color=colour, fontsize=8)
        place.set(title=title, xlabel="million tokens")
        place.grid(alpha=0.25)
        place.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("bits per byte")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    figure.savefig(HERE / "stack.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
