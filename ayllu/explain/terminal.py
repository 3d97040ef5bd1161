"""A walk in the terminal: colours where a person looks on, plain lines where it is piped."""

from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import Tensor

from ayllu.explain.walk import Step, Value, Walk
from ayllu.explain.words import PAGE, STEPS, readable

COLUMNS = 8                                              # features shown of a wide vector
HEADS = 4                                                # attention maps shown
SHADES = " ░▒▓█"


def show(walk: Walk, console: Console, chinese: bool = False) -> None:
    """Print every step."""
    word = 1 if chinese else 0
    console.print(Text(f"{walk.kind}, {PAGE['n_layers'][word].format(walk.n_layers)}, {walk.dtype}", style="dim"))
    for number, step in enumerate(walk.steps, 1):
        words = STEPS[step.key]
        layer = f"  ({PAGE['layer'][word].format(step.layer)})" if step.layer is not None else ""
        console.print(Text(f"\n{number}. {words['title'][word]}{layer}", style="bold"))
        console.print(Text(f"   {words['note'][word]}", style="dim"))
        console.print(Text.assemble("   ", (step.formula, "cyan"), "   ", (str(step.line), "dim")), soft_wrap=True)
        for value in step.values:
            _value(walk, step, value, console, word)
        if step.key == "ids":
            _ids(walk, console)
        if step.key == "distribution":
            _bars(walk, console)
        _check(step, console, word)


def _value(walk: Walk, step: Step, value: Value, console: Console, word: int) -> None:
    sizes = " × ".join(f"{n:,}" for n in value.tensor.shape)
    console.print(Text(f"   {value.name} ({', '.join(value.axes.split())}) = {sizes}"))
    if step.key == "weights":
        _maps(walk, value, console, word)
    elif step.key == "layers":
        _table(value.tensor.T, walk.pieces, console)                         # (T, L)
    elif step.key not in ("logits", "distribution"):
        _table(value.tensor[:, 0] if value.tensor.dim() == 3 else value.tensor, walk.pieces, console)


def _table(rows: Tensor, labels: tuple[str, ...], console: Console) -> None:
    shown = rows[:, :COLUMNS].float()
    largest = float(shown.abs().max()) or 1.0
    table = Table.grid(padding=(0, 1), pad_edge=True)
    table.add_column(justify="right", no_wrap=True)
    for _ in range(shown.shape[1]):
        table.add_column(justify="right", no_wrap=True)
    for label, row in zip(labels, shown.tolist(), strict=True):
        table.add_row(Text("   " + readable(label)), *(_cell(x, largest) for x in row))
    console.print(table)


def _cell(x: float, largest: float) -> Text:
    """Red when positive, blue when negative, bold when large; the terminal's own colours suit its background."""
    size = abs(x) / largest
    weight = "bold " if size > 0.5 else "dim " if size < 0.1 else ""
    return Text(f"{x:7.3g}", style=weight + ("red" if x >= 0 else "blue"))


def _maps(walk: Walk, value: Value, console: Console, word: int) -> None:
    """Maps side by side; darker is more."""
    heads = min(HEADS, len(value.tensor))
    table = Table.grid(padding=(0, 3))
    table.add_row("  ", *(Text(PAGE["head"][word].format(head), style="dim") for head in range(heads)))
    for t, piece in enumerate(walk.pieces):
        rows = [value.tensor[head, t].tolist() for head in range(heads)]
        shades = ("".join(SHADES[min(int(w * 5), 4)] * 2 for w in row) for row in rows)
        table.add_row(Text("   " + readable(piece)), *shades)
    console.print(table)


def _ids(walk: Walk, console: Console) -> None:
    table = Table.grid(padding=(0, 2))
    for t, (number, piece) in enumerate(zip(walk.ids, walk.pieces, strict=True)):
        table.add_row(Text(f"   {t}", style="dim"), Text(readable(piece)), Text(str(number)))
    console.print(table)


def _bars(walk: Walk, console: Console) -> None:
    best = max(p for _, _, p in walk.top)
    table = Table.grid(padding=(0, 1))
    for number, piece, p in walk.top:
        bar = Text("█" * max(1, round(30 * p / best)), style="yellow")
        table.add_row(Text("   " + readable(piece)), Text(f"{p:7.2%}"), bar, Text(str(number), style="dim"))
    console.print(table)


def _check(step: Step, console: Console, word: int) -> None:
    if step.difference is not None:
        mark, style = ("✓", "green") if step.agrees else ("✗", "bold red")
        verdict = PAGE["agrees" if step.agrees else "differs"][word]
        console.print(Text(f"   {mark} {verdict}, {PAGE['difference'][word]} {step.difference:.1e}", style=style))
