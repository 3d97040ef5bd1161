"""The code blocks of the documentation: read, run and, where they are transcripts, made anew from real runs.

    python docs/transcripts.py README.md README.zh-CN.md   # fills every ```console block with what its commands print
    python docs/transcripts.py --check README.md           # changes nothing; exit code 1 where a command fails

A block fenced `sh` or `python` is run by tests/docs/test_readme.py; `console` is a transcript: a line that begins with
"$ " is a command, the rest is what it printed. `<!-- not run: REASON -->` or `<!-- slow -->` may stand above.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LINKED = ("recipes", "docs", "examples", "benchmarks", "README.md", "README.zh-CN.md")
BLOCK = re.compile(r"(?:^<!-- (?P<note>[^\n]*) -->\n)?^```(?P<kind>\w*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One fenced block: where its body lies in the page, and the note above it."""

    kind: str
    body: str
    note: str
    start: int
    line: int

    @property
    def commands(self) -> list[str]:
        """What a person types: the `$ ` lines of a transcript, every line of a shell block."""
        lines = self.body.splitlines()
        if self.kind == "console":
            return [line[2:] for line in lines if line.startswith("$ ")]
        return [line for line in lines if line.strip() and not line.startswith("#")] if self.kind == "sh" else []


def blocks(page: str) -> Iterator[Block]:
    for found in BLOCK.finditer(page):
        yield Block(found["kind"], found["body"], found["note"] or "", found.start("body"),
                    page.count("\n", 0, found.start("body")))


def workplace(folder: Path) -> Path:
    """A folder that looks like the top of a checkout, where runs may leave what they write."""
    for name in LINKED:
        (folder / name).symlink_to(ROOT / name)
    return folder


def shell(command: str, folder: Path, timeout_s: float = 600) -> subprocess.CompletedProcess[str]:
    """Run one command as typed, with this Python's programs first; stdout and stderr as one text, 100 columns wide."""
    programs = str(Path(sys.executable).parent)
    environment = {**os.environ, "PATH": programs + os.pathsep + os.environ["PATH"], "COLUMNS": "100", "TERM": "dumb",
                   "NO_COLOR": "1"}
    return subprocess.run(["bash", "-o", "pipefail", "-c", command], cwd=folder, env=environment, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, timeout=timeout_s,
                          check=False)


def renewed(page: str, folder: Path) -> tuple[str, list[str]]:
    """The page with every transcript made anew, and the commands that failed with what they said."""
    failed = []
    for block in reversed(list(blocks(page))):
        if block.kind != "console" or block.note.startswith("not run"):
            continue
        lines = []
        for command in block.commands:
            done = shell(command, folder)
            shown = [line.rstrip() for line in done.stdout.splitlines()]
            lines += [f"$ {command}", *shown]
            if done.returncode:
                failed.append(f"{command}: exit code {done.returncode}\n{done.stdout}")
        page = page[:block.start] + "\n".join(lines) + "\n" + page[block.start + len(block.body):]
    return page, failed


def main(arguments: list[str]) -> int:
    is_check = "--check" in arguments
    all_failed = []
    for name in (a for a in arguments if a != "--check"):
        with tempfile.TemporaryDirectory() as folder:
            page, failed = renewed(Path(name).read_text(encoding="utf-8"), workplace(Path(folder)))
        all_failed += failed
        if not is_check and not failed:
            Path(name).write_text(page, encoding="utf-8")
    print("\n".join(all_failed) or "all commands ran")
    return bool(all_failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
