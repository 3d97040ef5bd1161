"""`ayllu align`."""

from pathlib import Path
from typing import Annotated

import typer

from ayllu.cli.output import Json, print_json
from ayllu.cli.pretrain import Resume
from ayllu.errors import ConfigError


def align(what: Annotated[list[str], typer.Argument(help="A recipe (.toml, or a run's config.json). Overrides may "
                                                    "follow: optim.lr=1e-3")],
          resume: Resume = False, as_json: Json = False) -> None:
    """Teach a Llama to see or hear: an encoder and a projector learn beside it, from rows with images or sounds.

    Ctrl-C saves, and --resume goes on exactly where it stopped.

    Example: ayllu align recipes/senses.toml
    """
    from ayllu.config import load_recipe
    from ayllu.dist import is_main
    from ayllu.train.align import align as train
    from ayllu.train.align import prepared_media
    from ayllu.train.align_config import AlignRecipe
    from ayllu.train.loop import Interrupted
    recipe, *overrides = what
    if wrong := [word for word in overrides if "=" not in word]:
        raise ConfigError(f"{wrong[0]!r} is no override: write KEY=VALUE after the recipe")
    config = load_recipe(AlignRecipe, recipe, overrides)
    folder = Path(recipe).parent
    try:
        result = train(*prepared_media(config, folder), folder, resume)
    except Interrupted as stop:
        typer.echo(f"stopped after step {stop.step}, saved in {stop.folder}; the same command with --resume goes on",
                   err=True)
        raise typer.Exit(130) from stop
    if is_main():
        print_json(result) if as_json else typer.echo(
            f"{result['steps']:,} steps; held-out loss {result.get('held_out', float('nan')):.4f}, "
            f"{result.get('answers_right', 0):.1%} of answers right\nsenses  {result['senses']}")
