"""What commands print: results on stdout, and with --json one object as stdout's last line."""

import json
import sys
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object on the last line.")]


def print_json(value: dict[str, Any]) -> None:
    """One object on one line, non-Latin text readable; NaN and infinities are refused, for they are no JSON."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n")
    sys.stdout.flush()


def is_terminal() -> bool:
    """Whether a person sees stdout directly (colours and boxes are welcome)."""
    return sys.stdout.isatty()


def write_text(text: str) -> None:
    """Write a model's text to stdout at once. A terminal gets no control characters: they could command it."""
    if sys.stdout.isatty():
        text = "".join(c for c in text if c in "\n\t" or not (c < " " or "\x7f" <= c < "\xa0"))
    sys.stdout.write(text)
    sys.stdout.flush()


def human_bytes(n: float) -> str:
    """Bytes for people, in powers of 1024: 13476831232 -> '12.6 GiB'."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(n) < 1024 or unit == "TiB":
            break
        n /= 1024
    return f"{n:.0f} B" if unit == "B" else f"{n:.1f} {unit}" if n < 100 else f"{n:.0f} {unit}"


def human_count(n: float) -> str:
    """Counts for people: 6738415616 -> '6.74B' (billions)."""
    return _scaled(n, ("", "K", "M", "B", "T"))


def human_flops(n: float) -> str:
    """Operations for people: 13214154752 -> '13.2 GFLOP'."""
    return _scaled(n, (" ", " k", " M", " G", " T", " P", " E", " Z")) + "FLOP"


def _scaled(n: float, units: tuple[str, ...]) -> str:
    for unit in units[:-1]:
        if abs(n) < 999.5:
            return f"{n:.3g}{unit}"
        n /= 1000
    return f"{n:.3g}{units[-1]}"
