"""A walk as one self-contained HTML page: no outside resource, both languages, light and dark, any width."""

from html import escape

from torch import Tensor

from ayllu.explain.shell import spans
from ayllu.explain.walk import Step, Value, Walk
from ayllu.explain.words import STEPS, WALK, readable

COLUMNS = 10                                             # features shown of a wide vector
HEADS = 16                                               # attention maps shown
_both = WALK.both


def page(walk: Walk) -> str:
    """The whole page as text."""
    model = f"{walk.kind} · {_both('n_layers', walk.n_layers)} · {escape(walk.dtype)}"
    body = "".join(_step(walk, step, number) for number, step in enumerate(walk.steps, 1))
    return WALK.page(body, model=model, chips=_chips(walk), pick=_both("pick"))


def _chips(walk: Walk) -> str:
    return "".join(f'<button class="chip" data-t="{t}"><b>{_piece(piece)}</b><i>{number}</i></button>'
                   for t, (number, piece) in enumerate(zip(walk.ids, walk.pieces, strict=True)))


def _piece(piece: str) -> str:
    return escape(readable(piece))


def _step(walk: Walk, step: Step, number: int) -> str:
    words = STEPS[step.key]
    layer = f'<span class="tag">{_both("layer", step.layer)}</span>' if step.layer is not None else ""
    return (f'<section id="{step.key}"><header><span class="number">{number}</span>'
            f'<h2>{spans(*words["title"])}</h2>{layer}</header>'
            f'<p>{spans(*words["note"])}</p>'
            f'<div class="formula"><code>{escape(step.formula)}</code><span class="line">{step.line}</span></div>'
            f'{"".join(_value(walk, step, value) for value in step.values)}{_extra(walk, step)}{_check(step)}'
            '</section>')


def _check(step: Step) -> str:
    if step.difference is None:
        return ""
    word = _both("agrees" if step.agrees else "differs")
    return (f'<p class="check {"good" if step.agrees else "bad"}">{"✓" if step.agrees else "✗"} {word} · '
            f'{_both("difference")} {step.difference:.1e}</p>')


def _value(walk: Walk, step: Step, value: Value) -> str:
    match step.key:
        case "weights":
            return _maps(walk, value)
        case "layers":
            return _sizes(walk, value)
        case "logits" | "distribution":
            return f'<div class="shape">{_shape(value)}</div>' if step.key == "logits" else ""
    return _table(walk, value)


def _extra(walk: Walk, step: Step) -> str:
    if step.key == "ids":
        rows = "".join(f"<tr data-t='{t}'><th>{t}</th><td class='left'>{_piece(piece)}</td><td>{number}</td></tr>"
                       for t, (number, piece) in enumerate(zip(walk.ids, walk.pieces, strict=True)))
        head = f"<tr><th>{_both('position')}</th><th class='left'>{_both('token')}</th><th>id</th></tr>"
        return f'<div class="scroll"><table class="ids">{head}{rows}</table></div>'
    return _bars(walk) if step.key == "distribution" else ""


def _shape(value: Value) -> str:
    sizes = " × ".join(f"{n:,}" for n in value.tensor.shape)
    return f'<b>{escape(value.name)}</b> <span class="axes">({escape(", ".join(value.axes.split()))})</span> = {sizes}'


def _table(walk: Walk, value: Value) -> str:
    """Rows are tokens, columns the first features (of head 0 where there are heads), coloured by sign and size."""
    tensor = value.tensor[:, 0] if value.tensor.dim() == 3 else value.tensor
    shown = tensor[:, :COLUMNS].float()
    largest = float(shown.abs().max()) or 1.0
    amount = "first_columns" if shown.shape[1] < tensor.shape[1] else "all_columns"
    note = _both(amount, shown.shape[1], tensor.shape[1])
    if value.tensor.dim() == 3:
        note = f"{_both('head', 0)} · {note}"
    rows = "".join(f'<tr data-t="{t}"><th>{_piece(piece)}</th>{"".join(_cell(x, largest) for x in row)}</tr>'
                   for t, (piece, row) in enumerate(zip(walk.pieces, shown.tolist(), strict=True)))
    return (f'<div class="shape">{_shape(value)} <small>{note}</small></div>'
            f'<div class="scroll"><table class="heat">{rows}</table></div>')


def _cell(x: float, largest: float) -> str:
    strength = min(abs(x) / largest, 1.0) * 0.75
    return f'<td class="{"plus" if x >= 0 else "minus"}" style="--a:{strength:.2f}">{x:.3g}</td>'


def _maps(walk: Walk, value: Value) -> str:
    """One small picture per head; each square's title gives the weight."""
    H = value.tensor.shape[0]
    note = f" <small>{_both('first_heads', HEADS, H)}</small>" if H > HEADS else ""
    maps = "".join(_map(walk, head, value.tensor[head]) for head in range(min(H, HEADS)))
    return f'<div class="shape">{_shape(value)}{note}</div><div class="maps">{maps}</div>'


def _map(walk: Walk, head: int, weights: Tensor) -> str:
    T = len(walk.ids)
    squares = []
    for t, row in enumerate(weights.tolist()):
        for s, weight in enumerate(row[:t + 1]):
            title = f"{readable(walk.pieces[t])} → {readable(walk.pieces[s])}: {weight:.3f}"
            squares.append(f'<rect data-t="{t}" x="{s}" y="{t}" width="1" height="1" style="--a:{weight:.3f}">'
                           f'<title>{escape(title)}</title></rect>')
    return (f'<figure><svg viewBox="0 0 {T} {T}" role="img" aria-label="head {head}">{"".join(squares)}</svg>'
            f'<figcaption>{_both("head", head)}</figcaption></figure>')


def _sizes(walk: Walk, value: Value) -> str:
    """One line per token: the size of its vector after each layer."""
    sizes, (L, T) = value.tensor.tolist(), value.tensor.shape
    top = max(max(row) for row in sizes) or 1.0
    lines = []
    for t in range(T):
        points = " ".join(f"{40 + 600 * (i / max(L - 1, 1)):.1f},{150 - 130 * sizes[i][t] / top:.1f}" for i in range(L))
        lines.append(f'<polyline data-t="{t}" points="{points}"><title>{_piece(walk.pieces[t])}</title></polyline>')
    step = max(1, L // 8)
    ticks = "".join(f'<text x="{40 + 600 * (i / max(L - 1, 1)):.1f}" y="168">{i}</text>' for i in range(0, L, step))
    return (f'<div class="shape">{_shape(value)}</div><svg class="lines" viewBox="0 0 660 175">'
            f'<line x1="40" y1="150" x2="640" y2="150"/><text x="34" y="26" class="end">{top:.3g}</text>'
            f'<text x="34" y="153" class="end">0</text>{"".join(lines)}{ticks}</svg>')


def _bars(walk: Walk) -> str:
    best = max(p for _, _, p in walk.top)
    rows = "".join(f'<tr><th>{_piece(piece)}</th><td class="bar"><span style="width:{100 * p / best:.1f}%"></span></td>'
                   f'<td>{p:.2%}</td><td class="dim">{number}</td></tr>' for number, piece, p in walk.top)
    return f'<table class="bars">{rows}</table>'
