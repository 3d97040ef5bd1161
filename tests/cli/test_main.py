"""The frame of the command line: laziness, exit codes, errors for people and for programs."""

import importlib
import json
import os
import re
import signal
import subprocess
import sys
from typing import Any

import pytest

from ayllu.cli import main as cli
from ayllu.cli.table import COMMANDS, Family, Row
from ayllu.errors import CheckpointError, TrainingDiverged


def ayllu(*words: str, env: dict[str, str] | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "ayllu", *words], capture_output=True, encoding="utf-8",
                          timeout=60, env={**os.environ, **(env or {})}, **options)


def command(body: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a command `probe` in the table whose body is `body`."""
    module = type(sys)("probe_module")
    module.probe = body
    monkeypatch.setitem(sys.modules, "probe_module", module)
    monkeypatch.setitem(COMMANDS, "probe", Row("probe_module", "probe", "Probe."))


def rows() -> list[tuple[str, Row]]:
    out = []
    for name, row in COMMANDS.items():
        out += [(f"{name} {n}", r) for n, r in row.rows.items()] if isinstance(row, Family) else [(name, row)]
    return out


@pytest.mark.parametrize(("name", "row"), rows())
def test_every_row_leads_to_a_function_with_a_help_page(name: str, row: Row, capsys):
    function = getattr(importlib.import_module(row.module), row.function)
    assert function.__doc__
    assert cli.run([*name.split(), "--help"]) == 0
    assert f"ayllu {name}" in capsys.readouterr().out


def test_help_names_the_commands_and_imports_nothing_heavy():
    """benchmarks/startup.py measures how long it takes."""
    result = ayllu("--help")
    assert result.returncode == 0
    assert all(name in result.stdout for name in COMMANDS)
    code = ("import sys; from ayllu.cli.main import run; run(['--help']); "
            "print({'torch', 'numpy', 'rich', 'ayllu.cli.generate'} & set(sys.modules))")
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          timeout=60).stdout.splitlines()[-1] == "set()"


def test_version_and_bare_call():
    assert ayllu("--version").stdout.startswith("ayllu 0.")
    assert "Commands:" in ayllu().stdout


def test_unknown_command_suggests_the_nearest():
    result = ayllu("genrate")
    assert result.returncode == 2
    assert "did you mean 'generate'" in result.stderr
    assert "did you mean 'train'" in ayllu("tokenizer", "trian").stderr
    assert result.stdout == ""


def test_usage_error_as_json_is_the_last_line():
    result = ayllu("walk", "--no-such-option", "--json")
    assert result.returncode == 2
    error = json.loads(result.stdout.splitlines()[-1])["error"]
    assert error["type"] == "NoSuchOption"
    assert "--no-such-option" in error["message"]


@pytest.mark.parametrize(("error", "code"), [(CheckpointError("bad file x"), 2), (TrainingDiverged("step 3"), 1),
                                             (ValueError("oh"), 1), (KeyboardInterrupt(), 130),
                                             (MemoryError(), 1), (OSError(28, "No space left on device"), 1),
                                             (PermissionError(13, "Permission denied", "/x"), 2)])
def test_errors_become_exit_codes(error: BaseException, code: int, monkeypatch, capsys):
    def probe() -> None:
        raise error
    command(probe, monkeypatch)
    assert cli.run(["probe"]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    assert ("fault in ayllu" in err) == isinstance(error, ValueError)
    assert (error.filename if isinstance(error, PermissionError) else str(error)) in err


def test_json_error_object(monkeypatch, capsys):
    from ayllu.cli.output import Json

    def probe(as_json: Json = False) -> None:
        raise CheckpointError("坏文件 model.bin")
    command(probe, monkeypatch)
    assert cli.run(["probe", "--json"]) == 2
    assert json.loads(capsys.readouterr().out) == {"error": {"type": "CheckpointError", "message": "坏文件 model.bin"}}


def test_debug_anywhere_shows_the_traceback(monkeypatch, capsys):
    def probe() -> None:
        raise CheckpointError("bad file x")
    command(probe, monkeypatch)
    with pytest.raises(SystemExit) as left:
        cli.main(["probe", "--debug"])
    assert left.value.code == 2
    assert "Traceback" in capsys.readouterr().err
    assert cli._take_debug(["a", "--", "--debug"]) == (["a", "--", "--debug"], False)


def test_a_reader_that_leaves_early_needs_no_message():
    script = f"{sys.executable} -m ayllu --help | true; echo ${{PIPESTATUS[0]}}"
    result = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60)
    assert "Broken" not in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout.strip() in {"0", "1"}           # 0 where the pipe took everything before its reader left


def test_utf8_in_any_locale():
    result = ayllu("喜欢", env={"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "latin-1"})
    assert result.returncode == 2
    assert "喜欢" in result.stderr


def test_ctrl_c_is_130(tmp_path):
    code = ("import sys, time, types; m = types.ModuleType('slow_module')\n"
            "def slow():\n    print('ready', flush=True); time.sleep(30)\n"
            "m.slow = slow; sys.modules['slow_module'] = m\n"
            "from ayllu.cli import main; from ayllu.cli.table import COMMANDS, Row\n"
            "COMMANDS['slow'] = Row('slow_module', 'slow', ''); main.main(['slow'])")
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 130
    assert process.stderr is not None
    assert b"Traceback" not in process.stderr.read()


def test_shell_completion_gives_names_without_importing_commands():
    def complete(words: str, position: int) -> list[str]:
        return ayllu(env={"_AYLLU_COMPLETE": "complete_bash", "COMP_WORDS": words,
                          "COMP_CWORD": str(position)}).stdout.split()
    assert complete("ayllu to", 1) == ["tokenizer"]
    assert complete("ayllu tokenizer ", 2) == ["train", "extend", "report"]
    assert "complete" in ayllu("--show-completion", "bash").stdout


@pytest.mark.parametrize("name", ["data", *(f"data {name}" for name in COMMANDS["data"].rows)])
def test_help_on_data_has_an_example_and_says_what_is_written(name, capsys):
    assert cli.run([*name.split(), "--help"]) == 0
    page = " ".join(capsys.readouterr().out.split())
    assert "Example" in page
    assert f"ayllu {name}" in page.split("Example", 1)[1]
    assert name == "data" or re.search(r"\b(Writes|Prints)\b", page)
