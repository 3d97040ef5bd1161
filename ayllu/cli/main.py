"""The command `ayllu`: a lazy table of commands, and the one place where errors become exit codes.

Exit codes: 0 done, 1 our fault (or a training that diverged), 2 the caller's input, 130 Ctrl-C.
"""

import difflib
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from ayllu import __version__, log
from ayllu.cli.output import print_json
from ayllu.cli.table import COMMANDS, Family, Row
from ayllu.errors import AylluError

# ClickException of whichever click this Typer uses: older ones import click, newer ones carry a copy
ClickError: type[Exception] = typer.BadParameter.__mro__[2]
COMPLETION = "_AYLLU_COMPLETE"                           # set by the shell's completion script
GLOBAL_OPTIONS = {"help_option_names": ["-h", "--help"]}


class LazyGroup(TyperGroup):
    """A group that knows its commands' names and help lines, and imports a command's module only to run it."""

    rows: Mapping[str, Row | Family]

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.rows)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A stand-in that is good for lists and completion; `resolve_command` gives the real one."""
        row = self.rows.get(cmd_name)
        return TyperCommand(name=cmd_name, help=row.help) if row else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name = args[0]
        if name in self.rows:
            return name, build(name, self.rows[name]), args[1:]
        if not ctx.resilient_parsing:                    # while the shell completes, silence is the answer
            ctx.fail(_unknown_command(name, list(self.rows)))
        return None, None, args[1:]


def _unknown_command(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    return f"no command {name!r}; " + (f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known)}")


def build(name: str, row: Row | Family) -> Any:
    """The runnable command of a row; a family becomes a group without importing its members."""
    if isinstance(row, Family):
        return _group(name, row.rows, help=row.help)
    function = getattr(importlib.import_module(row.module), row.function)
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command(name, context_settings=GLOBAL_OPTIONS)(function)
    return typer.main.get_command(app)


def _group(name: str, rows: Mapping[str, Row | Family], help: str, completion: bool = False,
           callback: Any = None) -> Any:
    cls = type("Group", (LazyGroup,), {"rows": rows})
    app = typer.Typer(cls=cls, name=name, help=help, add_completion=completion, rich_markup_mode=None,
                      invoke_without_command=True, context_settings=GLOBAL_OPTIONS)
    app.callback()(callback or _show_help)
    return typer.main.get_command(app)


def _show_help(ctx: typer.Context) -> None:
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


def _top(ctx: typer.Context,
         version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
         debug: Annotated[bool, typer.Option("--debug", help="Show a traceback with an error, and more messages; "
                                             "may stand after the command too.")] = False) -> None:
    """Ayllu: run, train and understand Llama models on hardware that people own."""
    if version:
        typer.echo(f"ayllu {__version__}")
        raise typer.Exit
    _show_help(ctx)


def application(completion: bool = False) -> Any:
    """The whole command line as one click command; `completion` adds the options that install it in a shell."""
    return _group("ayllu", COMMANDS, help=_top.__doc__ or "", completion=completion, callback=_top)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command line and exit with its code."""
    _speak_utf8()
    if COMPLETION in os.environ:
        application(completion=True).main(prog_name="ayllu")
    words, debug = _take_debug([_as_utf8(w) for w in sys.argv[1:]] if arguments is None else list(arguments))
    log.setup(verbose=debug)
    code = run(words, debug)
    sys.exit(_flush(code))


def run(words: list[str], debug: bool = False) -> int:
    """Run one command line and return its exit code; errors are printed."""
    as_json = "--json" in _before_dashes(words)
    try:
        with application(completion=not words or words[0] not in COMMANDS).make_context("ayllu", words) as ctx:
            ctx.command.invoke(ctx)
        return 0
    except typer.Exit as done:
        return done.exit_code
    except SystemExit as done:                           # completion's own options leave this way
        return done.code if isinstance(done.code, int) else int(done.code is not None)
    except (KeyboardInterrupt, typer.Abort):
        print("\nstopped", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:
        return _reader_left()
    except ClickError as error:
        return _report(error, _usage_text(error), 2, as_json, debug)
    except AylluError as error:
        return _report(error, str(error), error.exit_code, as_json, debug)
    except (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError) as error:
        return _report(error, f"{error.filename}: {error.strerror}", 2, as_json, debug)
    except Exception as error:                           # the last line of defence: a person reads one line, not fifty
        return _report(error, _unexpected(error, debug), 1, as_json, debug)


def _unexpected(error: Exception, debug: bool) -> str:
    """The machine's limits in plain words; anything else is our fault, and the traceback helps to mend it."""
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":     # or torch's own
        return f"out of memory ({text}); `ayllu doctor` shows which sizes fit, --dtype bfloat16 halves most of them"
    if isinstance(error, OSError):
        return text
    return text if debug else f"{text}\nthis is a fault in ayllu; run again with --debug for the traceback"


def _report(error: BaseException, text: str, code: int, as_json: bool, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    print(f"error: {text}", file=sys.stderr)
    if as_json and os.environ.get("RANK", "0") == "0":   # of torchrun's ranks, one speaks on stdout
        print_json({"error": {"type": type(error).__name__, "message": text}})
    return code


def _usage_text(error: Any) -> str:
    ctx = getattr(error, "ctx", None)                    # usage errors carry the command they belong to
    hint = f"\ntry '{ctx.command_path} --help'" if ctx else ""
    return str(error.format_message()) + hint


def _before_dashes(words: list[str]) -> list[str]:
    return words[:words.index("--")] if "--" in words else words


def _take_debug(words: list[str]) -> tuple[list[str], bool]:
    """--debug may stand anywhere before `--`, since it is thought of after a command has failed."""
    head = _before_dashes(words)
    return [w for w in head if w != "--debug"] + words[len(head):], "--debug" in head


def _speak_utf8() -> None:
    """Text is UTF-8 in and out whatever the locale says; what can't be written is replaced, not fatal."""
    for stream, errors in ((sys.stdin, "surrogateescape"), (sys.stdout, "replace"), (sys.stderr, "backslashreplace")):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors=errors)


def _as_utf8(word: str) -> str:
    """A word of the command line, which Python has decoded by the locale, read again as UTF-8."""
    return os.fsencode(word).decode("utf-8", "surrogateescape")


def _flush(code: int) -> int:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        return _reader_left()
    return code


def _reader_left() -> int:
    """`ayllu ... | head`: nobody reads any more, which needs no message; Python must not try to flush at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


if __name__ == "__main__":
    main()
