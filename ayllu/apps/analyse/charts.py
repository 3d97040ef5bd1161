"""Charts of a report as inline SVG and HTML, without a script: stacked bars over time, shares, bars to two sides."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

VERDICTS = ("negative", "neutral", "positive")
WIDE, HIGH = 720, 200                                    # of the drawing over time


def over_time(buckets: Sequence[str], table: dict[str, list[int]], flags: dict[int, str]) -> str:
    """A bar for each bucket, stacked by sentiment; flagged ones have a mark above with its reason."""
    totals = [sum(table[v][i] for v in VERDICTS) for i in range(len(buckets))]
    top = _round_up(max(totals, default=1))
    step = WIDE / max(len(buckets), 1)
    parts = [f'<line class="grid" x1="0" x2="{WIDE}" y1="{y:.1f}" y2="{y:.1f}"/>'
             f'<text class="tick" x="0" y="{y - 3:.1f}">{round(top * (1 - y / HIGH))}</text>' for y in (0.0, HIGH / 2)]
    for i, name in enumerate(buckets):
        y = float(HIGH)
        said = f"{name}: " + ", ".join(f"{v} {table[v][i]}" for v in VERDICTS)
        bars = ""
        for verdict in VERDICTS:
            height = HIGH * table[verdict][i] / top
            y -= height
            bars += (f'<rect class="{verdict}" x="{i * step + step * 0.12:.1f}" y="{y:.1f}" width="{step * 0.76:.1f}" '
                     f'height="{height:.1f}"/>')
        if i in flags:
            bars += (f'<path class="flag" d="M{(i + 0.5) * step:.1f} {y - 6:.1f}l-6 -10h12z">'
                     f"<title>{escape(flags[i])}</title></path>")
        parts.append(f"<g><title>{escape(said)}</title>{bars}</g>")
    every = max(1, -(-len(buckets) // 8))
    below = "".join(f'<text class="tick" x="{(i + 0.5) * step:.1f}" y="{HIGH + 16}" text-anchor="middle">'
                    f"{escape(name[5:])}</text>" for i, name in enumerate(buckets) if i % every == 0)
    return (f'<svg class="time" viewBox="-4 -22 {WIDE + 8} {HIGH + 44}" role="img">{"".join(parts)}{below}</svg>')


def spark(table: dict[str, list[int]], flags: Iterable[int]) -> str:
    """A small line of counts, with the negative ones below it as an area."""
    totals = [sum(table[v][i] for v in VERDICTS) for i in range(len(table["negative"]))]
    top, n = max([*totals, 1]), max(len(totals) - 1, 1)
    at = [(200 * i / n, 40 * (1 - value / top)) for i, value in enumerate(totals)]
    bad = [(200 * i / n, 40 * (1 - value / top)) for i, value in enumerate(table["negative"])]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in at)
    area = "0,40 " + " ".join(f"{x:.1f},{y:.1f}" for x, y in bad) + " 200,40"
    dots = "".join(f'<circle class="flag" cx="{at[i][0]:.1f}" cy="{at[i][1]:.1f}" r="4"/>' for i in flags)
    return (f'<svg class="spark" viewBox="-5 -5 210 50" aria-hidden="true"><polygon class="negative" points="{area}"/>'
            f'<polyline points="{line}"/>{dots}</svg>')


def shares(row: dict[str, Any], most: int | None = None) -> str:
    """One bar, as long as its count beside the largest, cut by sentiment."""
    cells = "".join(f'<i class="{v}" style="width:{100 * row[v] / max(row["n"], 1):.2f}%" title="{v}: {row[v]:,}"></i>'
                    for v in VERDICTS if row[v])
    return f'<span class="shares" style="width:{100 * row["n"] / (most or row["n"] or 1):.1f}%">{cells}</span>'


def two_sides(row: dict[str, Any], most: int) -> str:
    """Negative to the left of the middle, positive to the right."""
    left, right = (100 * row[v] / max(most, 1) for v in ("negative", "positive"))
    return (f'<span class="two"><span><i class="negative" style="width:{left:.1f}%"></i></span>'
            f'<span><i class="positive" style="width:{right:.1f}%"></i></span></span>')


def plain(value: float, most: float) -> str:
    """One bar of one colour."""
    return f'<span class="shares"><i class="one" style="width:{100 * value / max(most, 1e-9):.1f}%"></i></span>'


def highlighted(text: str, why: Sequence[Sequence[float]] | None) -> str:
    """A text with its words coloured by what they did, the stronger the darker."""
    out, last = [], 0
    top = max((abs(effect) for *_, effect in why or ()), default=1.0) or 1.0
    for start, end, effect in sorted(map(tuple, why or ())):
        start, end = int(start), int(end)
        if start < last or abs(effect) < 0.05 * top:
            continue
        side = "positive" if effect > 0 else "negative"
        out += [escape(text[last:start]), f'<mark class="{side}" style="--a:{0.18 + 0.4 * abs(effect) / top:.2f}">'
                f"{escape(text[start:end])}</mark>"]
        last = end
    return "".join([*out, escape(text[last:])])


def _round_up(value: int) -> int:
    """The next number that is easy to read."""
    size = 10 ** max(len(str(value)) - 1, 0)
    return next(s * size // 10 for s in (10, 15, 20, 30, 40, 50, 60, 80, 100) if s * size // 10 >= max(value, 1))
