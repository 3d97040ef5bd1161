"""`ayllu tokenizer train` and `ayllu tokenizer report`."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from ayllu.cli.output import Json, human_bytes, print_json
from ayllu.data.texts import documents
from ayllu.errors import ConfigError, DataError
from ayllu.log import say
from ayllu.text import report as report_
from ayllu.text.spm import SentencePieceCodec
from ayllu.text.tokenizer import Tokenizer
from ayllu.text.train import train_sentencepiece

Fields = Annotated[list[str] | None, typer.Option("--field", help="Field of JSON Lines rows that holds text; may be "
                                                  "given several times (default: text).")]


def train(
    files: Annotated[list[Path], typer.Argument(help="Texts in any mix of languages: .txt, .md, .jsonl, also .gz, .xz "
                                                "or .zst, or folders of them.")],
    out: Annotated[Path, typer.Option(help="Folder for tokenizer.model and tokenizer.json.")],
    vocab_size: Annotated[int, typer.Option(help="Number of ids.")] = 16_000,
    field: Fields = None,
    coverage: Annotated[float, typer.Option(min=0.98, max=1.0, help="Share of characters with a piece of their own; "
                                            "the rest is spelled in bytes.")] = 0.9995,
    max_bytes: Annotated[int, typer.Option(help="Read at most so many bytes of each file.")] = 50_000_000,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 2,
    as_json: Json = False,
) -> None:
    """Train a Llama-2-style tokenizer (SentencePiece BPE: byte fallback, split digits, dummy prefix) from files."""
    read = {str(path): 0 for path in files}
    texts = read_texts(files, tuple(field or ["text"]), max_bytes, read)
    model = train_sentencepiece(texts, vocab_size, coverage=coverage, threads=threads)
    tokenizer = Tokenizer(SentencePieceCodec(model))
    tokenizer.save(out)
    checked = _check(out, files, tuple(field or ["text"]))
    facts: dict[str, Any] = {"out": str(out), "vocab_size": tokenizer.vocab_size, "read_bytes": read,
                             "fingerprint": tokenizer.fingerprint, "texts_compared": checked}
    if as_json:
        print_json(facts)
    else:
        typer.echo(f"{out}: {tokenizer.vocab_size} ids from {human_bytes(sum(read.values()))} of text; tokenizer.json "
                   f"gives the ids of tokenizer.model on {checked} texts")


def report(
    tokenizers: Annotated[list[str], typer.Argument(help="Folders, files, or names of models, such as ayllu-mini.")],
    text: Annotated[list[str] | None, typer.Option("--text", help="LANGUAGE=FILE, or LANGUAGE=FILE#FIELD for JSON "
                                                   "Lines; may be given several times. Without it: a few sentences "
                                                   "in eleven languages.")] = None,
    max_bytes: Annotated[int, typer.Option(help="Read at most so many bytes for each language.")] = 1_000_000,
    out: Annotated[Path | None, typer.Option(help="Write the report as JSON to this file too.")] = None,
    as_json: Json = False,
) -> None:
    """Compare tokenizers: bytes per token for each language (more is better: fewer tokens for a text)."""
    found = {_short(name, tokenizers): tokenizer_of(name) for name in tokenizers}
    texts = _languages(text, max_bytes) if text else report_.SAMPLES
    table = report_.compare(found, texts)
    facts = {"vocab_size": {name: t.vocab_size for name, t in found.items()}, "languages": {
        language: {name: {"bytes": s.bytes, "tokens": s.tokens, "bytes_per_token": round(s.bytes_per_token, 4),
                          "part_share": round(s.part_share, 4)} for name, s in row.items()}
        for language, row in table.items()}}
    if out:
        from ayllu.files import write_json
        write_json(out, facts)
    print_json(facts) if as_json else typer.echo("\n".join(_lines(found, table)))


def read_texts(files: list[Path], fields: tuple[str, ...], max_bytes: int, read: dict[str, int]) -> Iterator[str]:
    """The texts of files, up to so many bytes of each; `read` is told how many."""
    for path in files:
        for text in documents(path, fields):
            data = text.encode()[:max_bytes - read[str(path)]]
            read[str(path)] += len(data)
            yield data.decode("utf-8", "ignore")
            if read[str(path)] >= max_bytes:
                break
        say(f"{path}: {human_bytes(read[str(path)])} read")


def _check(folder: Path, files: list[Path], fields: tuple[str, ...]) -> int:
    """The two files that were written give the same ids: on texts of the corpus and on odd ones."""
    texts = report_.hard_texts(t[:2000] for path in files for t in islice(documents(path, fields), 50))
    different = report_.first_difference(Tokenizer.load(folder / "tokenizer.model"),
                                         Tokenizer.load(folder / "tokenizer.json"), texts)
    if different is not None:
        raise DataError(f"tokenizer.json and tokenizer.model in {folder} spell {different[:80]!r} differently: use "
                        "tokenizer.model only, and report this text")
    return len(texts)


def tokenizer_of(name: str) -> Tokenizer:
    """That of a folder, a file, or a named model."""
    path = Path(name)
    if path.exists() and path.suffix != ".gguf":
        return Tokenizer.load(path)
    from ayllu.checkpoint.load import open_checkpoint  # it brings torch, which plain tokenizer files don't need
    tokenizer = open_checkpoint(name).open_tokenizer()
    if tokenizer is None:
        raise ConfigError(f"{name} has no tokenizer: give the folder or file of one")
    return tokenizer


def _short(name: str, names: list[str]) -> str:
    """A column's title: the last part of the path where that is enough to tell the columns apart."""
    last = Path(name).name or name
    return last if [Path(n).name for n in names].count(last) == 1 else name


def _languages(texts: list[str], max_bytes: int) -> dict[str, list[str]]:
    out: dict[str, list[str]] = {}
    for item in texts:
        language, equals, rest = item.partition("=")
        path, _, field = rest.partition("#")
        if not equals or not path:
            raise ConfigError(f"--text {item!r} should read LANGUAGE=FILE, for example zh=book.txt")
        read = {path: 0}
        out.setdefault(language, []).extend(read_texts([Path(path)], (field or "text",), max_bytes, read))
    return out


def _lines(found: dict[str, Tokenizer], table: dict[str, dict[str, report_.Spelling]]) -> list[str]:
    width = max(12, *(len(name) + 2 for name in found))
    head = f"{'bytes per token':<16}" + "".join(f"{name:>{width}}" for name in found)
    rows = [f"{language:<16}" + "".join(f"{row[name].bytes_per_token:>{width}.2f}" for name in found)
            for language, row in table.items()]
    sizes = f"{'vocabulary':<16}" + "".join(f"{t.vocab_size:>{width}}" for t in found.values())
    parts = [f"{language}: {name} spells {row[name].part_share:.0%} of its tokens as parts of characters"
             for language, row in table.items() for name in found if row[name].part_share > 0.2]
    return [head, *rows, sizes, *([""] if parts else []), *parts]
