"""Where a line of code stands, so that explanations can point at it and never at a line that has moved."""

from dataclasses import dataclass
from pathlib import Path

import ayllu


@dataclass(frozen=True)
class Line:
    """One line of the package: its file (from the repository's root) and number."""

    file: str
    number: int

    def __str__(self) -> str:
        return f"{self.file}:{self.number}"


def find_line(file: str, fragment: str, after: str = "") -> Line:
    """The first line of a package file (such as model/llama.py) that holds `fragment`, below the one with `after`.

    A fragment that isn't there is our mistake: the code was changed and its explanation was not.
    """
    lines = (Path(ayllu.__file__).parent / file).read_text(encoding="utf-8").splitlines()
    start = next((i for i, line in enumerate(lines) if after in line), None)
    assert start is not None, f"ayllu/{file} no longer has {after!r}"
    found = next((i for i, line in enumerate(lines[start:], start + 1) if fragment in line), None)
    assert found is not None, f"ayllu/{file} no longer has {fragment!r}"
    return Line(f"ayllu/{file}", found)
