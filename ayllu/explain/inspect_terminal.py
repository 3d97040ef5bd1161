"""A batch in the terminal: what is given and, under it, what must be predicted; plain text where it is piped."""

from rich.console import Console
from rich.text import Text

from ayllu.explain.inspect import Piece, Place, View
from ayllu.explain.inspect_words import NOTE_WORDS, WORDS
from ayllu.explain.words import readable

STYLES = {"text": "", "border": "reverse", "mark": "bold yellow", "replaced": "bold magenta"}
MOST = 160                                               # places shown of a piece


def show(view: View, console: Console, chinese: bool = False) -> None:
    """Print every window of the view."""
    word = 1 if chinese else 0
    places = view.counts["places"]
    lines = [WORDS[view.form][word], WORDS["step"][word].format(view.step) + ", " + WORDS["size"][word].format(
        view.batch_size, view.context) + ", " + WORDS["learned"][word].format(view.counts["learned"] / places)
        + ", " + WORDS["filled"][word].format(view.counts["filled"] / places)]
    if view.packing:
        lines.append(WORDS["corpus"][word].format(*(view.packing[k] for k in (
            "windows", "documents_split", "documents_too_short"))))
    for line in lines:
        console.print(Text(line, style="dim"))
    for key, n in sorted(view.notes.items()):
        console.print(Text(f"{n} × {NOTE_WORDS[key][word]}", style="red"))
    for window in view.windows:
        empty = f"  ({WORDS['padding'][word].format(window.padding)})" if window.padding else ""
        console.print(Text(f"\n{WORDS['row'][word].format(window.row)}{empty}", style="bold"))
        for piece in window.pieces:
            _piece(piece, console, word)


def _piece(piece: Piece, console: Console, word: int) -> None:
    name = piece.where or (WORDS["stretch"][word] if piece.document is None
                           else WORDS["document"][word].format(piece.document))
    parts = [name, piece.objective, WORDS["count"][word].format(piece.learned, len(piece.places))]
    if piece.two_way:
        parts.append(WORDS["two_way"][word].format(piece.two_way))
    if piece.note:
        parts.append(NOTE_WORDS[piece.note][word])
    console.print(Text("── " + " · ".join(parts), style="cyan"))
    shown = piece.places[:MOST]
    rest = (WORDS["rest"][word].format(len(piece.places) - MOST),) if len(piece.places) > MOST else ()
    for key, texts in (("gives", [_given(place) for place in shown]), ("predicts", _asked(shown))):
        console.print(Text.assemble((f"{WORDS[key][word]:<9} ", "dim"), *texts, *rest), soft_wrap=True)


def _given(place: Place) -> tuple[str, str]:
    return readable(place.piece), STYLES[place.look]


def _asked(places: tuple[Place, ...]) -> list[tuple[str, str]]:
    """Learned targets; a run of places that teach nothing is one mark with its length."""
    out: list[tuple[str, str]] = []
    silent = 0
    for place in (*places, None):
        if place is not None and place.target is None:
            silent += 1
            continue
        if silent:
            out.append((f"[{silent}]", "dim"))
            silent = 0
        if place is not None and place.target is not None:
            out.append((readable(place.target), "green"))
    return out
