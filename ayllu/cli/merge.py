"""`ayllu merge`: an adapter into its base's weights."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from ayllu.cli.output import Json, print_json


def merge(base: Annotated[str, typer.Argument(help="The model: a folder, a file of any format, a hub name.")],
          adapter: Annotated[Path, typer.Argument(help="Its adapter: a PEFT folder.")],
          out: Annotated[Path, typer.Option(help="A new folder for the merged model (Hugging Face).")],
          dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16; else the base's own.")] = None,
          overwrite: Annotated[bool, typer.Option(help="Replace a checkpoint that Ayllu wrote.")] = False,
          json: Json = False) -> None:
    """Add an adapter to its base's weights, with a comparison that refuses a bad merge.

    Logits with the adapter beside the weights are compared with those of the merged model.

    Example: ayllu merge base stories --out merged
    """
    from ayllu.adapters.merge import merge as run
    from ayllu.adapters.store import read_adapter
    from ayllu.checkpoint.load import build_model, open_checkpoint
    from ayllu.checkpoint.save import source_from_model, write_checkpoint

    source = open_checkpoint(base)
    model = build_model(source, dtype=dtype)
    done = run(model, read_adapter(adapter, source.config)).comparison
    whole = replace(source, entries=source_from_model(model).entries)         # tokenizer and licence stay the base's
    path = write_checkpoint(whole, out, dtype=dtype, overwrite=overwrite)
    if json:
        return print_json({"out": str(path), "effect": done.effect, "error": done.error, "loss": done.loss})
    print(f"{path}: of what the adapter changes, merging spoilt {done.loss:.2%}")
    return None
