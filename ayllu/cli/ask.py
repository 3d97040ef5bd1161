"""`ayllu ask`."""

import sys
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ayllu.checkpoint.resolve import BUNDLED_MODELS
from ayllu.cli.documents import Ear, Fuse, Spoken, heard, pairs, shown
from ayllu.cli.output import Json, print_json, write_text
from ayllu.errors import ConfigError, DataError

if TYPE_CHECKING:
    from ayllu.apps.collection import Collection
    from ayllu.apps.docqa.ask import Asking, Reply
    from ayllu.apps.speaker import Speaker

SMALL = set(BUNDLED_MODELS)                              # never write an answer: nothing has to be loaded
QUIT = {"exit", "quit", "退出"}


def ask(words: Annotated[list[str], typer.Argument(metavar="DOCS... [QUESTION]", help="Folders, files or a collection, "
                                                   "and the question; without one, a conversation begins.")],
        collection: Annotated[Path | None, typer.Option(help="Keep what was read in this file; else in Ayllu's "
                                                        "cache.")] = None,
        model: Annotated[str, typer.Option(help="A model that writes the answer. The bundled ones are too small: "
                                           "with them the answer is a sentence of the documents.")] = "ayllu-mini-chat",
        k: Annotated[int, typer.Option("--k", min=1, max=50, help="Passages that are read.")] = 5,
        way: Annotated[str, typer.Option(help="extract (a sentence of the documents), write (the model's words), or "
                                         "auto.")] = "auto",
        where: Annotated[list[str] | None, typer.Option(help="NAME=VALUE of metadata; source=*PATTERN*, kind=pdf.")]
        = None,
        drop: Annotated[bool, typer.Option("--drop", help="Drop sentences that no source supports, instead of marking "
                                           "them.")] = False,
        fuse: Fuse = "scores",
        rerank: Annotated[bool, typer.Option("--rerank", help="Let the model order the passages anew: slower.")]
        = False,
        audio: Spoken = None, ear: Ear = "ayllu-mini-chat", as_json: Json = False) -> None:
    """Answer a question from documents (TXT, Markdown, HTML, PDF, DOCX, CSV, XLSX, EPUB), with checked citations.

    Example: ayllu ask handbook/ "How many days do I have to return shoes?"
    """
    from ayllu.apps.collection import Collection
    from ayllu.apps.docqa.ask import Asking
    from ayllu.config import validate
    docs, question = _split(words)
    if audio is not None and question is not None:
        raise ConfigError("give the question in words or with --audio, not both")
    if not docs and collection is None:
        raise ConfigError(f"no file or folder at {words[0]}: name documents first, then the question")
    how = validate(Asking, {"k": k, "way": way, "where": pairs(where, "--where"),
                            "unsupported": "drop" if drop else "mark", "rerank": rerank,
                            "fuse": fuse}, where="the command line")
    file, docs = _home(docs, collection)
    with Collection(file) as found:
        if docs:
            _read(found, docs)
        elif not len(found):
            raise DataError(f"{file} holds no documents: add some with `ayllu documents add {file} FOLDER`")
        speaker = _speaker(model, how)
        if audio is not None:
            question = heard(audio, ear)
        if question is not None:
            _answer(question, found, speaker, [], how, as_json)
            return
        _converse(found, speaker, how, as_json)


def _split(words: list[str]) -> tuple[list[str], str | None]:
    """Documents are what exists; one thing at most doesn't, and that is the question."""
    docs = [word for word in words if _exists(word)]
    rest = [word for word in words if not _exists(word)]
    if len(rest) > 1:
        raise ConfigError(f"no file or folder at {rest[0]!r}: check the path, and put the question in quotes")
    return docs, rest[0] if rest else None


def _exists(word: str) -> bool:
    try:
        return Path(word).exists()
    except (OSError, ValueError):                        # a question may be too long for a path, or hold a NUL
        return False


def _home(docs: list[str], collection: Path | None) -> tuple[Path, list[str]]:
    """The collection's file, and what is to be read into it: a collection among the documents is read as it is."""
    from ayllu.files import cache_folder
    files = [Path(doc) for doc in docs if Path(doc).is_file() and _is_database(Path(doc))]
    others = [doc for doc in docs if Path(doc) not in files]
    if collection is not None or not files:
        names = "\n".join(sorted(str(Path(doc).absolute()) for doc in others))
        key = blake2b(names.encode(), digest_size=8).hexdigest()
        return collection or cache_folder() / "collections" / f"{key}.sqlite", others
    if len(files) > 1 or others:
        raise ConfigError(f"{files[0]} is a collection: ask it alone, or add to it with `ayllu documents add`")
    return files[0], []


def _is_database(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(16) == b"SQLite format 3\0"


def _read(collection: "Collection", docs: list[str]) -> None:
    from ayllu.log import say
    with shown() as progress:
        summary = collection.add([Path(doc).absolute() for doc in docs], progress=progress)
    if not len(collection):
        raise DataError("\n".join(["there is nothing to answer from", *summary.lines()]))
    if summary.added or summary.updated or summary.removed or summary.left_out:
        say("\n".join(summary.lines()))


def _speaker(model: str, how: "Asking") -> "Speaker | None":
    if how.way == "extract" or (how.way == "auto" and model in SMALL and not how.rerank):
        return None
    from ayllu.apps.speaker import LocalSpeaker
    from ayllu.log import warn
    speaker = LocalSpeaker.load(model)
    if speaker.is_small:
        warn(f"{model} is small: of ayllu-mini-chat's own answers at most 9 % were exact, and --rerank put the right "
             "passage first for 77 to 88 % of the questions instead of 86 to 96 % (benchmarks/retrieval.py): leave "
             "--way and --rerank away, or take 3 billion parameters or more")
    return speaker


def _answer(question: str, collection: "Collection", speaker: "Speaker | None", history: list[dict[str, Any]],
            how: "Asking", as_json: bool) -> None:
    from ayllu.apps.docqa.ask import ask as put
    asked = put(question, collection, speaker, history, how)
    if as_json:
        print_json(asked.reply.as_json())
    else:
        for piece in asked:
            write_text(piece)
        write_text("\n")
        _sources(asked.reply)
    history += [{"role": "user", "content": question}, {"role": "assistant", "content": asked.reply.answer}]


def _sources(reply: "Reply") -> None:
    for one in reply.citations:
        page = f", page {one.page}" if one.page else ""
        quote = "" if reply.way == "extract" else f": “{' '.join(one.quote.split())[:200]}”"
        write_text(f"[{one.number}] {one.source}{page}, characters {one.start}-{one.end}{quote}\n")


def _converse(collection: "Collection", speaker: "Speaker | None", how: "Asking", as_json: bool) -> None:
    history: list[dict[str, Any]] = []
    is_seen = sys.stdin.isatty()
    while True:
        try:
            question = input("? " if is_seen else "").strip()
        except EOFError:
            return
        if question.lower() in QUIT:
            return
        if question:
            _answer(question, collection, speaker, history, how, as_json)
