"""What the documentation shows is run: shell and Python blocks, transcripts, the examples, the two first commands."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from scripts import load_script

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "docs/faq.md", "docs/install.md")  # tests/docs/test_pages.py: their twins have the same blocks
SAME_EVERYWHERE = ("ayllu --help", "ayllu info llama2-7b")   # what they print depends on no weights and no machine


transcripts = load_script("docs/transcripts.py")


def cases(kind: str) -> list[Any]:
    """The blocks of a kind that can run here, each a test; those noted as slow are marked so."""
    found = []
    for page in PAGES:
        for block in transcripts.blocks((ROOT / page).read_text(encoding="utf-8")):
            if block.kind == kind and not block.note.startswith("not run"):
                marks = [pytest.mark.slow] if block.note == "slow" else []
                found.append(pytest.param(block, id=f"{page}:{block.line}", marks=marks))
    return found


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return transcripts.workplace(tmp_path)


def run(command: str, place: Path) -> str:
    done = transcripts.shell(command, place)
    assert done.returncode == 0, f"{command}\n{done.stdout}"
    return done.stdout


@pytest.mark.parametrize("block", cases("sh"))
def test_shell_blocks_run(block, place):
    for command in block.commands:
        assert run(command, place).strip()


@pytest.mark.parametrize("block", cases("python"))
def test_python_blocks_run(block, place):
    done = subprocess.run([sys.executable, "-c", block.body], cwd=place, capture_output=True, text=True, timeout=300,
                          encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.parametrize("block", cases("console"))
def test_transcripts_run_and_are_filled(block, place):
    shown = [line for line in block.body.splitlines() if not line.startswith("$ ")]
    assert shown, "no output stands here: python docs/transcripts.py README.md README.zh-CN.md"
    for command in block.commands:
        lines = [line.rstrip() for line in run(command, place).splitlines()]
        assert lines
        if command.startswith(SAME_EVERYWHERE):
            assert lines == shown


def test_blocks_are_found():
    assert len(cases("console")) >= 5
    assert len(cases("python")) >= 3
    assert len(cases("sh")) >= 2


def test_a_note_keeps_a_block_from_running():
    page = "<!-- not run: why -->\n```sh\na\n```\n\n```console\n$ b\nc\n```\n"
    assert [(b.kind, b.note, b.commands) for b in transcripts.blocks(page)] == [
        ("sh", "not run: why", ["a"]), ("console", "", ["b"])]


def test_transcripts_are_made_anew(tmp_path):
    page = "x\n```console\n$ echo one\nold\n$ echo two; exit 3\n```\ny\n"
    renewed, failed = transcripts.renewed(page, tmp_path)
    assert renewed == "x\n```console\n$ echo one\none\n$ echo two; exit 3\ntwo\n```\ny\n"
    assert len(failed) == 1
    assert "exit code 3" in failed[0]


@pytest.mark.parametrize("page", ["README.md", "README.zh-CN.md"])
def test_ci_runs_the_two_first_commands(page):
    first, second = 'pip install . && ayllu generate "Once upon a time"', "pip install '.[test]' && pytest"
    blocks = transcripts.blocks((ROOT / page).read_text(encoding="utf-8"))
    assert [block.body for block in blocks][:2] == [first + "\n", second + "\n"]
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert f"first='{first}'\n" in script
    assert f'second="{second}"\n' in script


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.name)
def test_examples_run(example, place):
    done = subprocess.run([sys.executable, example], cwd=place, capture_output=True, text=True, timeout=300,
                          encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_the_first_example_is_short():
    lines = (ROOT / "examples" / "first.py").read_text(encoding="utf-8").splitlines()
    assert len([line for line in lines if line.strip()]) <= 10
