"""`ayllu documents`: a collection's file kept in step with folders, listed and searched."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ayllu.cli.output import Json, human_bytes, print_json, write_text
from ayllu.errors import ConfigError, DataError

if TYPE_CHECKING:
    from ayllu.apps.collection import Collection
    from ayllu.apps.index.adding import Progress, Summary
    from ayllu.apps.speaker import Speaker

Spoken = Annotated[Path | None, typer.Option(help="A recording to take for the question.")]
Ear = Annotated[str, typer.Option(help="The model that hears it.")]
Fuse = Annotated[str, typer.Option(help="Put words and vectors together by their scores, or by reciprocal rank (rrf).")]
Here = Annotated[Path, typer.Argument(help="The collection's file; made by `add` where it is missing.")]


@contextmanager
def shown(what: str = "documents") -> "Iterator[Progress]":
    """A bar on stderr while files are read."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    console = Console(stderr=True)
    with Progress(TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
                  TextColumn("{task.description}"), console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, of, name: bar.update(task, completed=done, total=of, description=Path(name).name[:40])


def tell(summary: "Summary", as_json: bool, where: Path) -> None:
    """What was read, and what was left out and why."""
    if as_json:
        print_json({**asdict(summary), "out": str(where)})
    else:
        typer.echo("\n".join(summary.lines()))


def pairs(words: list[str] | None, option: str) -> dict[str, str]:
    """NAME=VALUE, several times."""
    found = {}
    for word in words or ():
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise ConfigError(f"{option} {word!r} should read NAME=VALUE, as in product=lamp")
        found[name] = value
    return found


def add(collection: Here, paths: Annotated[list[Path], typer.Argument(help="Files and folders.")],
        meta: Annotated[list[str] | None, typer.Option(help="NAME=VALUE, said of each; to search by.")] = None,
        vectors: Annotated[str | None, typer.Option(help="Search by meaning, too: tokens:ayllu-mini, speaker:MODEL or "
                                                    "sentences:MODEL (with sentence-transformers).")] = None,
        workers: Annotated[int | None, typer.Option(min=1, help="Files read at a time.")] = None,
        pictures: Annotated[str | None, typer.Option(help="A model with senses that says what is on pictures, also in "
                                                     "PDF, DOCX and HTML, and what is said in recordings.")] = None,
        as_json: Json = False) -> None:
    """Read files and folders into a collection: TXT, Markdown, HTML, PDF, DOCX, CSV, XLSX, EPUB. Only what is new or
    changed is read; stopped by Ctrl-C, the same command goes on.

    Example: ayllu documents add handbook.sqlite handbook/
    """
    from ayllu.apps.collection import Collection
    said, paths = pairs(meta, "--meta"), [path.absolute() for path in paths]
    with Collection(collection) as found, shown() as progress:
        summary = found.add(paths, said, progress, workers)
        if pictures:
            from ayllu.apps.perceive import describe
            describe(found, pictures, seeing, paths, summary, progress)
        if name := vectors or found.store.fact("embedder"):
            found.add_vectors(name, progress)
    tell(summary, as_json, collection)
    if summary.left_out and not summary.added + summary.updated + summary.unchanged:
        raise DataError(f"none of the files could be read ({len(summary.left_out)}): see above why")


def seeing(model: str) -> "Speaker":
    """A model with senses; small ones are said to be weak."""
    from ayllu.apps.speaker import LocalSpeaker
    from ayllu.log import warn
    speaker = LocalSpeaker.load(model)
    if speaker.is_small:
        warn(f"{model} is small: what it says of pictures and recordings that are unlike those it learned from (emoji "
             "and digits; spoken digits and syllables) is a guess, and it is taken as if it were true")
    return speaker


def heard(audio: Path, ear: str) -> str:
    """What is said in a recording, as the model `ear` understands it."""
    from ayllu.apps.hearing import question_in
    from ayllu.engine.parts import file_bytes
    from ayllu.log import say
    text = question_in(seeing(ear), file_bytes(audio), str(audio))
    say(f"heard: {text}")
    return text


def update(collection: Here, as_json: Json = False) -> None:
    """Look again at everything that was added: read what changed, pictures too if they were looked at; forget what is
    gone.

    Example: ayllu documents update handbook.sqlite
    """
    from ayllu.apps.collection import CAPTIONED
    with opened(collection) as found, shown() as progress:
        summary = found.update(progress)
        if found.store.fact(CAPTIONED):
            from ayllu.apps.perceive import describe_again
            describe_again(found, seeing, summary, progress)
        if name := found.store.fact("embedder"):
            found.add_vectors(name, progress)
    tell(summary, as_json, collection)


def remove(collection: Here,
           paths: Annotated[list[str], typer.Argument(help="Names as `list` shows them, or folders.")],
           as_json: Json = False) -> None:
    """Forget documents. The files themselves stay.

    Example: ayllu documents remove handbook.sqlite handbook/old.pdf
    """
    with opened(collection) as found:
        n = found.remove(list(dict.fromkeys(name for path in paths for name in (path, str(Path(path).absolute())))))
    if as_json:
        print_json({"removed": n})
    else:
        typer.echo(f"{n} removed")


def list_documents(collection: Here, as_json: Json = False) -> None:
    """Show what a collection holds, and which files were left out and why.

    Example: ayllu documents list handbook.sqlite
    """
    with opened(collection) as found:
        documents, left_out = found.documents(), found.left_out()
    if as_json:
        print_json({"documents": [asdict(document) for document in documents], "left_out": left_out})
        return
    for one in documents:
        pages = f", {len(one.pages)} pages" if one.pages else ""
        typer.echo(f"{one.source}  ({one.kind}, {human_bytes(one.size)}, {one.characters:,} characters{pages})")
    for name, reason in left_out.items():
        typer.echo(f"left out: {name}: {reason}")


def search(collection: Here, question: Annotated[str, typer.Argument(help="Words, or a question.")],
           k: Annotated[int, typer.Option("--k", min=1, help="Passages.")] = 5,
           where: Annotated[list[str] | None, typer.Option(help="NAME=VALUE of metadata; source=*PATTERN*, kind=pdf.")]
           = None, fuse: Fuse = "scores", as_json: Json = False) -> None:
    """Find passages.

    Example: ayllu documents search handbook.sqlite "return shoes" --k 3
    """
    from ayllu.apps.index.ranking import unfound
    if fuse not in ("scores", "rrf"):
        raise ConfigError(f"--fuse {fuse!r}: use scores or rrf")
    with opened(collection) as found:
        passages = found.search(question, k, pairs(where, "--where"), "rrf" if fuse == "rrf" else "hybrid")
        if not passages:
            typer.echo(unfound(found.store, question), err=True)
    if as_json:
        print_json({"passages": [asdict(passage) for passage in passages]})
        return
    for passage in passages:
        page = f", page {passage.page}" if passage.page else ""
        write_text(f"{passage.source}{page} ({passage.score:.2f})\n{passage.text}\n\n")


@contextmanager
def opened(path: Path) -> "Iterator[Collection]":
    """A collection that exists."""
    from ayllu.apps.collection import Collection
    if not path.is_file():
        raise ConfigError(f"no collection at {path}: make one with `ayllu documents add {path} FOLDER`")
    with Collection(path) as found:
        yield found
