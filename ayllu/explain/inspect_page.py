"""A batch as one self-contained HTML page: no outside resource, both languages, light and dark, any width."""

from html import escape

from ayllu.explain.inspect import Piece, Place, View, Window
from ayllu.explain.inspect_words import BATCH, NOTE_WORDS
from ayllu.explain.shell import spans
from ayllu.explain.words import readable

_both = BATCH.both
LOOKS = ("text", "border", "mark", "replaced")


def page(view: View) -> str:
    """The whole page as text."""
    return BATCH.page(_notes(view) + "".join(_window(view, window) for window in view.windows),
                      model=" · ".join(_facts(view)), pick=_legend())


def _facts(view: View) -> list[str]:
    places = view.counts["places"]
    facts = [_both(view.form), _both("step", view.step), _both("size", view.batch_size, view.context),
             _both("learned", view.counts["learned"] / places), _both("filled", view.counts["filled"] / places)]
    if view.packing:
        facts.append(_both("corpus", *(view.packing[k] for k in ("windows", "documents_split", "documents_too_short"))))
    return facts


def _legend() -> str:
    shown = [f'<span class="place {look}"><b>a</b></span> {_both(look)}' for look in LOOKS]
    shown += [f'<span class="place two"><b>a</b></span> {_both("two_way", "n")}',
              f'<span class="place learned"><i>b</i></span> {_both("target")}']
    return '<span class="legend">' + "".join(
        f'<span style="display:inline-flex;gap:.4rem;align-items:center">{item}</span>' for item in shown) + "</span>"


def _notes(view: View) -> str:
    return "".join(f'<p class="note">{n} × {spans(*NOTE_WORDS[key])}</p>' for key, n in sorted(view.notes.items()))


def _window(view: View, window: Window) -> str:
    padding = f'<span class="tag">{_both("padding", window.padding)}</span>' if window.padding else ""
    return (f'<section><header><span class="number">{window.row}</span><h2>{_both("row", window.row)}</h2>{padding}'
            f'</header>{_map(view, window)}{"".join(_piece(piece) for piece in window.pieces)}</section>')


def _map(view: View, window: Window) -> str:
    """A triangle for each document, and a square where it is seen both ways."""
    T, at, shapes = view.context, 0, []
    sizes = [(T, 0)] if view.form == "windows" else [(len(p.places), p.two_way) for p in window.pieces]
    for size, two_way in sizes:
        shapes.append(f'<polygon points="{at},{at} {at},{at + size} {at + size},{at + size}"/>')
        if two_way:
            shapes.append(f'<rect x="{at}" y="{at}" width="{two_way}" height="{two_way}"/>')
        at += size
    return (f'<figure class="map"><svg viewBox="0 0 {T} {T}" role="img" aria-label="attention">{"".join(shapes)}</svg>'
            f'<figcaption>{_both("attention")}</figcaption></figure>')


def _piece(piece: Piece) -> str:
    name = escape(piece.where) or (_both("stretch") if piece.document is None else _both("document", piece.document))
    two_way = f" · {_both('two_way', piece.two_way)}" if piece.two_way else ""
    note = f' · <span class="note">{spans(*NOTE_WORDS[piece.note])}</span>' if piece.note else ""
    places = "".join(_place(place, i < piece.two_way) for i, place in enumerate(piece.places))
    return (f'<div class="piece">{name} · <code>{escape(piece.objective)}</code> · '
            f'{_both("count", piece.learned, len(piece.places))}{two_way}{note}</div>'
            f'<div class="places">{places}</div>')


def _place(place: Place, two_way: bool) -> str:
    kinds = " ".join(["place", place.look, *(["two"] if two_way else []), *(["learned"] if place.target else [])])
    below = escape(readable(place.target)) if place.target is not None else "·"
    title = f"{place.id}" + (f" → {place.label}" if place.label is not None else "")
    return f'<span class="{kinds}" title="{title}"><b>{escape(readable(place.piece))}</b><i>{below}</i></span>'
