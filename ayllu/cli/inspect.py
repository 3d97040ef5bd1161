"""`ayllu data inspect`: one training batch as the model will see it."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ayllu.cli.output import Json, is_terminal, print_json
from ayllu.config import load_recipe, read_table
from ayllu.errors import ConfigError
from ayllu.log import say


def inspect(
    source: Annotated[Path, typer.Argument(help="A recipe of `ayllu pretrain` or `ayllu sft`, a folder of token "
                                           "shards, or a file of conversations.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Overrides of the recipe: context=256")] = None,
    objective: Annotated[Literal["causal", "prefix", "spans", "ul2", "fim", "tokens"] | None, typer.Option(
        help="Pack whole documents and mask them with this objective; without it, exactly the batches that "
             "`ayllu pretrain` trains on by this recipe.")] = None,
    masks: Annotated[Path | None, typer.Option(help="A mixture of objectives as TOML ([[parts]]) instead.")] = None,
    step: Annotated[int, typer.Option(min=0, help="The step whose batch is shown.")] = 0,
    loss: Annotated[float | None, typer.Option(help="The loss that loss-driven schedules see; by default what the "
                                                "recipe's run has logged for this step.")] = None,
    rows: Annotated[int, typer.Option(min=1, help="Rows shown.")] = 4,
    context: Annotated[int, typer.Option(min=2, help="Places of a window; a recipe has its own.")] = 512,
    reserve: Annotated[float | None, typer.Option(min=0, help="Room for marks as a share of a document; without it, "
                                                  "as much as the masks can ever need.")] = None,
    tokenizer: Annotated[str | None, typer.Option(help="A tokenizer's file or folder, or a model: shards need one, "
                                                  "conversations the model.")]
    = None,
    out: Annotated[Path | None, typer.Option(help="Write one HTML page, readable offline.")] = None,
    zh: Annotated[bool, typer.Option("--zh", help="Explanations in Chinese (the page has both).")] = False,
    as_json: Json = False,
) -> None:
    """Show what the model will really see: tokens, document borders, masks, and what counts in the loss.

    Prints coloured rows; with --out writes one HTML page instead, with --json prints the same facts as one object.

    Examples: ayllu data inspect recipe.toml --step 100 --out batch.html

    ayllu data inspect shards --tokenizer ayllu-mini --objective fim

    ayllu data inspect chats.jsonl --tokenizer ayllu-mini
    """
    from ayllu.explain.inspect import as_table
    if objective and masks:
        raise ConfigError("--objective and --masks both say how to mask: give one of them")
    if (sft := _sft_words(source, overrides, tokenizer, context)) is not None:
        view = _conversations(sft, step, rows)
    else:
        view = _view(_opened(source, overrides, tokenizer, context, rows), _mixture(objective, masks), step, loss, rows,
                     reserve)
    if out is not None:
        from ayllu.explain.inspect_page import page
        from ayllu.files import write_text
        write_text(out, page(view))
        say(f"written: {out}")
    if as_json:
        print_json(as_table(view))
    elif out is None:
        from rich.console import Console

        from ayllu.explain.inspect_terminal import show
        show(view, Console(file=sys.stdout, highlight=False, width=None if is_terminal() else 120), zh)


def _opened(source: Path, overrides: list[str] | None, tokenizer: str | None, context: int,
            rows: int) -> dict[str, Any]:
    if source.is_dir():
        return _open_shards(source, overrides, tokenizer, context, rows)
    return _open_recipe(source, overrides, tokenizer)


def _sft_words(source: Path, overrides: list[str] | None, model: str | None, context: int) -> list[str] | None:
    """What to give to `ayllu sft`, where the source is its recipe or a file of conversations."""
    from ayllu.data.chat_rows import KINDS
    from ayllu.data.folders import kind_of
    if source.suffix == ".toml" or source.name == "config.json":
        table = read_table(source)
        parent = read_table(source.parent / table["extends"]) if "extends" in table else {}
        return [str(source), *(overrides or [])] if "base" in table | parent else None
    if source.is_dir() or kind_of(source) not in KINDS:
        return None
    if model is None:
        raise ConfigError(f"{source} holds conversations: name the model that is to learn them with --tokenizer MODEL")
    return [model, str(source), f"context={context}", *(overrides or [])]


def _conversations(words: list[str], step: int, rows: int) -> Any:
    from ayllu.cli.sft import read_sft
    from ayllu.explain.inspect import look_at_packed
    from ayllu.train.lesson import prepared
    config, lesson = prepared(*read_sft(words))
    return look_at_packed(lesson.loader(config), lesson.tokenizer.id_to_piece, step, rows)


def _view(read: dict[str, Any], mixture: Any, step: int, loss: float | None, rows: int, reserve: float | None) -> Any:
    from ayllu.data.loader import WindowLoader
    from ayllu.data.mask_marks import Marks
    from ayllu.explain.inspect import look_at_packed, look_at_windows
    feed, shards, tokenizer = read["feed"], read["shards"], read["tokenizer"]
    marks = Marks.of(tokenizer)
    if mixture is not None:
        feed = replace(feed, masks=mixture, packing=feed.packing.model_copy(update={"kind": "best_fit",
                                                                                    "reserve": reserve}))
    loader = feed.batches(shards, marks)
    if isinstance(loader, WindowLoader):
        return look_at_windows(loader.batch(step), marks, tokenizer.id_to_piece, step, rows)
    loss = _logged(read["run"], step) if loss is None else loss
    if loss is not None:
        loader.observe(loss)
    return look_at_packed(loader, tokenizer.id_to_piece, step, rows)


def _logged(run: Path | None, step: int) -> float | None:
    """The loss that the masks of a step were drawn by, where the recipe's run has logged it."""
    path = run / "metrics.jsonl" if run else None
    if path is None or not path.exists():
        return None
    for row in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
        if row["step"] == step + 1 and "masks/loss" in row:
            say(f"loss-driven schedules see {row['masks/loss']:.4f}, as in {path}")
            return float(row["masks/loss"])
    return None


def _mixture(objective: str | None, masks: Path | None) -> Any:
    from ayllu.data.masks import Causal, FillIn, Mixture, Prefix, Spans, Tokens, ul2
    if masks:
        return load_recipe(Mixture, masks)
    match objective:
        case "causal":
            return Mixture(parts=(Causal(),))
        case "prefix":
            return Mixture(parts=(Prefix(),))
        case "spans":
            return Mixture(parts=(Spans(),))
        case "ul2":
            return Mixture(parts=ul2())
        case "fim":
            return Mixture(parts=(FillIn(),))
        case "tokens":
            return Mixture(parts=(Tokens(),))
    return None


def _open_recipe(recipe: Path, overrides: list[str] | None, tokenizer: str | None) -> dict[str, Any]:
    """The shards that a training by this recipe would read, made now where they are missing."""
    from ayllu.data.shards import prepare
    from ayllu.files import cache_folder
    from ayllu.text.tokenizer import Tokenizer
    from ayllu.train.pretrain import PretrainConfig, find_tokenizer, tokenizer_at
    config = load_recipe(PretrainConfig, recipe, overrides)
    folder = Path(config.folder or recipe.parent)
    run = Path(config.out)
    path = tokenizer_at(tokenizer, Path(), run) if tokenizer else find_tokenizer(config, folder, run)
    shards = prepare(config.data, folder, path, cache_folder() / "shards")
    return {"feed": config.feed, "shards": shards, "tokenizer": Tokenizer.load(path), "run": run}


def _open_shards(folder: Path, overrides: list[str] | None, tokenizer: str | None, context: int,
                 rows: int) -> dict[str, Any]:
    from ayllu.checkpoint.load import open_checkpoint
    from ayllu.data.batches import Feed, PackingConfig
    from ayllu.data.corpus import Corpus, Source
    from ayllu.data.masks import Mixture
    from ayllu.data.shards import open_shards
    from ayllu.text.tokenizer import Tokenizer
    if overrides:
        raise ConfigError(f"{folder} is a folder of shards, which has no settings to override: {overrides[0]!r}")
    shards = open_shards(folder)
    if tokenizer is None:
        raise ConfigError(f"{folder} holds ids only: name their tokenizer with --tokenizer FILE_OR_MODEL")
    path = Path(tokenizer)
    found = Tokenizer.load(path) if path.exists() and path.suffix != ".gguf" else open_checkpoint(
        tokenizer).open_tokenizer()
    if found is None or found.fingerprint != shards.manifest["tokenizer"]:
        raise ConfigError(f"{tokenizer} is not the tokenizer that made {folder}: its ids would be read as other text")
    corpus = Corpus(sources=(Source(path=str(folder)),))         # one part, whatever the shards were made from
    feed = Feed(corpus, PackingConfig(), Mixture(), context, rows, 0)
    return {"feed": feed, "shards": shards, "tokenizer": found, "run": None}
