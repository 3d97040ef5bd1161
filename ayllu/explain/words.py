"""The words beside each step of a walk, in English and Chinese: walk.toml."""

from pathlib import Path

from ayllu.explain.shell import Words

WALK = Words(Path(__file__).with_name("walk.toml"))
PAGE, STEPS = WALK.words, WALK.tables["steps"]


def readable(piece: str) -> str:
    """A piece as people can read it: spaces and line ends shown, control characters spelled out."""
    shown = piece.replace("▁", "·").replace(" ", "·").replace("\n", "⏎")
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in shown) or "∅"
