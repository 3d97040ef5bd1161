"""Draw docs/pictures/terminal.svg: a real terminal, from a real run of the commands below.

    python docs/pictures/terminal.py [--model FOLDER]
"""

import html
import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

OUT = Path(__file__).with_name("terminal.svg")
COMMANDS = (
    ["ayllu", "generate", "Once upon a time", "--seed", "1", "--max-tokens", "70"],
    ["ayllu", "generate", "从前有一个", "--seed", "1", "--max-tokens", "60"],
)
WIDTH = 88                                               # columns


def run(command: list[str], extra: list[str]) -> str:
    """What the command prints on stdout; its messages go to this program's stderr."""
    environment = {**os.environ, "COLUMNS": str(WIDTH)}
    done = subprocess.run([sys.executable, "-m", *command, *extra], env=environment, stdout=subprocess.PIPE, text=True,
                          encoding="utf-8", check=True)
    return done.stdout.rstrip("\n")


def draw(extra: list[str]) -> str:
    """The picture as SVG, without the web fonts that rich would load."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    for number, command in enumerate(COMMANDS):
        if number:
            console.print()
        shown = " ".join(f'"{word}"' if " " in word else shlex.quote(word) if word.isascii() else f'"{word}"'
                         for word in command)
        console.print(Text.assemble(("$ ", "bold green"), (shown, "bold")))
        console.print(Text(run(command, extra)))
    picture = re.sub(r"@font-face \{.*?\}\s*", "", console.export_svg(title="ayllu"), flags=re.DOTALL)
    return re.sub(r'textLength="([\d.]+)"([^>]*>)([^<]*)<', widened, picture)


def widened(found: re.Match[str]) -> str:
    """rich gives each character one column; a Chinese one takes two, and would be squeezed to half its width."""
    length, rest, text = float(found[1]), found[2], html.unescape(found[3])
    return f'textLength="{length * cell_len(text) / max(len(text), 1):.1f}"{rest}{found[3]}<'


if __name__ == "__main__":
    OUT.write_text(draw(sys.argv[1:]), encoding="utf-8")
    print(OUT)
