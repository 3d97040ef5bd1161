"""`ayllu walk`: one text through every step of a real run."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ayllu import log
from ayllu.cli.output import Json, is_terminal, print_json
from ayllu.errors import AylluError, RequestError

MOST = 48                                                # tokens: beyond, no page can be read


def walk(
    text: Annotated[str, typer.Argument(help="The text; the shorter, the easier to read.")] = "",
    model: Annotated[str, typer.Option("--model", "-m", help="A checkpoint: folder, file, name.")] = "ayllu-mini",
    layer: Annotated[int, typer.Option(help="The layer shown in full; -1 is the last.")] = 0,
    top: Annotated[int, typer.Option(min=1, help="How many candidates for what comes next.")] = 10,
    ids: Annotated[str | None, typer.Option(help="Ids instead of a text: 1,461,401.")] = None,
    dtype: Annotated[str, typer.Option(help="Number format to compute in.")] = "float32",
    out: Annotated[Path | None, typer.Option(help="Write one HTML page, readable offline.")] = None,
    zh: Annotated[bool, typer.Option("--zh", help="Explanations in Chinese (the page has both).")] = False,
    as_json: Json = False,
) -> None:
    """Go through one real run step by step: ids, embeddings, positions, attention, feed-forward, distribution.

    Every step is computed a second time, slowly; exit code 1 says that one of them disagrees.
    """
    from ayllu.explain.walk import walk as walk_through
    network, tokenizer = _load(model, dtype)
    numbers, pieces, vocabulary = _read(text, ids, tokenizer)
    done = walk_through(network, numbers, pieces, vocabulary, layer=layer, top=top)
    if out is not None:
        from ayllu.explain.page import page
        from ayllu.files import write_text
        write_text(out, page(done))
        log.say(f"written: {out}")
    if as_json:
        from ayllu.explain.walk_json import as_table
        print_json(as_table(done))
    elif out is None:
        from rich.console import Console

        from ayllu.explain.terminal import show
        show(done, Console(file=sys.stdout, highlight=False, width=None if is_terminal() else 120), zh)
    if not done.agrees:
        raise AylluError("a step differs from its slow computation: see the step marked ✗")


def _load(name: str, dtype: str) -> tuple[Any, Any]:
    """A Llama from any checkpoint, or an original Transformer that Ayllu trained; with its tokenizer."""
    from ayllu.checkpoint.load import load_checkpoint
    from ayllu.checkpoint.transformer import is_transformer, open_transformer
    if is_transformer(name):
        baseline = open_transformer(name)
        return baseline.build(dtype), baseline.open_tokenizer()
    checkpoint = load_checkpoint(name, dtype=dtype)
    return checkpoint.model, checkpoint.tokenizer


def _read(text: str, ids: str | None, tokenizer: Any) -> tuple[list[int], list[str], Any]:
    """Ids, their pieces, and the function that names a piece."""
    if ids is not None:
        try:
            numbers = [int(word) for word in ids.replace(",", " ").split()]
        except ValueError as error:
            raise RequestError(f"--ids {ids!r} should be numbers with commas between: 1,461,401") from error
    elif tokenizer is None:
        raise RequestError("this checkpoint has no tokenizer: give numbers with --ids 1,461,401")
    else:
        numbers = tokenizer.encode(text, bos=tokenizer.add_bos)
    if not numbers:
        raise RequestError('no text was given: ayllu walk "Once upon a time"')
    if len(numbers) > MOST:
        raise RequestError(f"the text has {len(numbers)} tokens, a walk shows at most {MOST}: give a shorter one")
    name = tokenizer.id_to_piece if tokenizer else str
    return numbers, [name(number) for number in numbers], name
