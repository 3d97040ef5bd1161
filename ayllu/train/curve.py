"""Line charts as inline SVG with labels in HTML, so that letters keep their size on any screen. Offline, no library."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

Points = list[tuple[float, float]]                       # (x, y); y is NaN where the line has a gap
Scale = Callable[[float], float]                         # from a value to its place in the drawing

MOST_POINTS = 500                                        # of a line; spikes are kept, whatever the number
SIZE = 1000                                              # of the drawing; it is stretched to the place that there is


@dataclass(frozen=True)
class Line:
    """One curve: its name as HTML, its points, and the class that gives it its look."""

    name: str
    points: Points
    look: str


@dataclass(frozen=True)
class Mark:
    """A vertical line where something happened."""

    x: float
    look: str
    title: str


def chart(title: str, lines: Sequence[Line], marks: Sequence[Mark] = (), legend: str = "", logarithmic: bool = False,
          from_zero: bool = False) -> str:
    """A figure with its title, keys that show the values under the pointer, and ticks; "" where nothing is known."""
    thin = [Line(line.name, thinned(line.points), line.look) for line in lines]
    known = [(x, y) for line in thin for x, y in line.points if math.isfinite(y) and (y > 0 or not logarithmic)]
    if not known:
        return ""
    xs = _range([x for x, _ in known] + [0.0])
    ys = _range([y for _, y in known] + ([0.0] if from_zero else []), logarithmic)
    x_at, y_at = (lambda x: SIZE * _part(x, xs, False)), (lambda y: SIZE * (1 - _part(y, ys, logarithmic)))
    y_ticks, x_ticks = ticks(*ys, logarithmic=logarithmic), ticks(*xs)
    drawn = "".join(f'<path class="grid" d="M0 {y_at(y):.1f}H{SIZE}"/>' for y in y_ticks)
    drawn += "".join(f'<path class="mark {m.look}" d="M{x_at(m.x):.1f} 0V{SIZE}"><title>{escape(m.title)}</title>'
                     "</path>" for m in marks)
    drawn += "".join(_drawn(line, x_at, y_at, logarithmic) for line in thin)
    left = "".join(f'<span style="top:{y_at(y) / 10:.2f}%">{number(y)}</span>' for y in y_ticks)
    below = "".join(f'<span style="left:{x_at(x) / 10:.2f}%">{number(x)}</span>' for x in x_ticks)
    data = json.dumps({"x": xs, "lines": [[[x, number(y)] for x, y in line.points] for line in thin]})
    return (f'<figure class="chart"><figcaption><b>{title}</b> {"".join(_key(line) for line in thin)}{legend}'
            f'</figcaption><div class="left">{left}</div><div class="plot" data-points="{escape(data)}">'
            f'<svg viewBox="0 0 {SIZE} {SIZE}" preserveAspectRatio="none" aria-hidden="true">{drawn}</svg>'
            f'<i class="rule"></i><i class="at"></i></div><div class="below">{below}</div></figure>')


def thinned(points: Points, most: int = MOST_POINTS) -> Points:
    """At most about `most` points: of each stretch the lowest and the highest, so that no spike is lost."""
    if len(points) <= most:
        return points
    size = math.ceil(len(points) / (most / 2))
    out: Points = []
    for i in range(0, len(points), size):
        part = [p for p in points[i:i + size] if math.isfinite(p[1])]
        out += sorted({min(part, key=lambda p: p[1]), max(part, key=lambda p: p[1])}) if part else [points[i]]
    return out


def smoothed(points: Points, keep: float = 0.95) -> Points:
    """An exponential average without the bias of its beginning; gaps stay gaps."""
    total = weight = 0.0
    out: Points = []
    for x, y in points:
        if math.isfinite(y):
            total, weight = keep * total + (1 - keep) * y, keep * weight + (1 - keep)
        out.append((x, total / weight if math.isfinite(y) else math.nan))
    return out


def ticks(low: float, high: float, most: int = 5, logarithmic: bool = False) -> list[float]:
    """Round numbers between two bounds."""
    if logarithmic:
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        for steps in ((1, 2, 5), (1, 3), (1,)):
            found = [s * 10.0**d for d in decades for s in steps if low <= s * 10.0**d <= high]
            if 2 <= len(found) <= most + 1:
                return found
        if len(found) >= 2:
            return found[::math.ceil(len(found) / most)]
    rough = (high - low) / most
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(s * unit for s in (1, 2, 5, 10) if s * unit >= rough)
    return [round(i * step, 12) for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def number(y: float) -> str:
    """Short, for people: 1234567 -> 1.23M."""
    if not math.isfinite(y):
        return "–"
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(y) >= size:
            return f"{y / (1e3 if letter == 'k' else size):.4g}{letter}"
    return f"{y:.4g}" if abs(y) >= 1e-3 or y == 0 else f"{y:.2e}".replace("e-0", "e-")


def _key(line: Line) -> str:
    last = next((y for _, y in reversed(line.points) if math.isfinite(y)), math.nan)
    return f'<span class="key {line.look}"><i></i>{line.name} <output>{number(last)}</output></span>'


def _drawn(line: Line, x_at: Scale, y_at: Scale, logarithmic: bool) -> str:
    """A path with gaps; a line of one point becomes a dot."""
    path, pen_is_down = "", False
    for x, y in line.points:
        if not math.isfinite(y) or (logarithmic and y <= 0):
            pen_is_down = False
            continue
        path += f"{'L' if pen_is_down else 'M'}{x_at(x):.1f} {y_at(y):.1f}"
        if not pen_is_down:
            path += "h0.01"
        pen_is_down = True
    return f'<path class="line {line.look}" d="{path}"/>'


def _range(values: Sequence[float], logarithmic: bool = False) -> tuple[float, float]:
    """Bounds with a little room; never empty."""
    low, high = min(values), max(values)
    if logarithmic:
        return (low / 1.1, high * 1.1)
    room = (high - low) * 0.04 or abs(high) * 0.05 or 1.0
    return (low - room if low else 0.0, high + room)


def _part(value: float, bounds: tuple[float, float], logarithmic: bool) -> float:
    low, high = (math.log(b) for b in bounds) if logarithmic else bounds
    return ((math.log(value) if logarithmic else value) - low) / (high - low)
