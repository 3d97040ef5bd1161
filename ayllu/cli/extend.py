"""`ayllu tokenizer extend`."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ayllu.cli.output import Json, print_json

Files = Annotated[list[Path], typer.Argument(help="Texts of the new language or domain: .txt, .md, .jsonl, also .gz, "
                                             ".xz or .zst, or folders of them.")]
Field = Annotated[list[str] | None, typer.Option("--field", help="Field of JSON Lines rows that holds text; may be "
                                                 "given several times (default: text).")]


def extend(
    model: Annotated[str, typer.Argument(help="A model whose rows grow with its tokenizer, or a tokenizer alone.")],
    files: Files,
    out: Annotated[Path, typer.Option(help="Folder for the larger model, or the larger tokenizer.")],
    pieces: Annotated[int, typer.Option(min=1, help="Ids to add at most.")] = 2000,
    initial: Annotated[Literal["mean", "random"], typer.Option(help="New rows: made of the rows that spelled the piece "
                                                               "before, or drawn.")] = "mean",
    field: Field = None,
    max_bytes: Annotated[int, typer.Option(help="Read at most so many bytes of each file.")] = 20_000_000,
    as_json: Json = False,
) -> None:
    """Add the pieces that texts of another language or domain ask for; all old ids stay as they are.

    Go on training with init_from=OUT and tokenizer=OUT in a recipe of `ayllu pretrain`.
    """
    from ayllu.checkpoint.extend import extended
    from ayllu.checkpoint.load import open_checkpoint
    from ayllu.checkpoint.save import write_checkpoint
    from ayllu.cli.tokenizer import read_texts, tokenizer_of
    from ayllu.text.extend import extend as grow
    tokenizer = tokenizer_of(model)
    read = {str(path): 0 for path in files}
    texts = list(read_texts(files, tuple(field or ["text"]), max_bytes, read))
    found = grow(tokenizer, texts, pieces)
    if _has_weights(Path(model)):
        write_checkpoint(extended(open_checkpoint(model), found, initial), out)
    else:
        found.tokenizer.save(out)
    before, after = (sum(len(ids) for ids in one.encode_batch(texts)) for one in (tokenizer, found.tokenizer))
    facts: dict[str, Any] = {"out": str(out), "vocab_size": found.tokenizer.vocab_size, "added": len(found.parts),
                             "read_bytes": read, "tokens_before": before, "tokens_after": after,
                             "fingerprint": found.tokenizer.fingerprint}
    if as_json:
        print_json(facts)
    else:
        typer.echo(f"{out}: {len(found.parts):,} ids added, {found.tokenizer.vocab_size:,} in all; the texts take "
                   f"{after:,} tokens instead of {before:,}")


def _has_weights(path: Path) -> bool:
    """Whether it is a model: a name, or a folder or file that isn't a tokenizer's alone."""
    if path.is_file():
        return not path.name.startswith("tokenizer")
    return not path.is_dir() or any(path.glob("*.gguf")) or any((path / name).exists() for name in (
        "config.json", "params.json"))
