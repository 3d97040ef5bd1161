"""`ayllu align`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ayllu.cli.output import Json, print_json
from ayllu.cli.pretrain import Resume, told_to_go_on
from ayllu.errors import ConfigError

if TYPE_CHECKING:
    from ayllu.train.align_config import AlignRecipe


def align(what: Annotated[list[str], typer.Argument(help="A recipe (.toml, or a run's config.json). Overrides may "
                                                    "follow: optim.lr=1e-3")],
          resume: Resume = False, as_json: Json = False,
          inspect: Annotated[int, typer.Option(help="Train nothing: draw so many examples as the model gets them",
                                               min=0)] = 0,
          out: Annotated[Path, typer.Option(help="The page that --inspect writes")] = Path("align.html")) -> None:
    """Teach a Llama to see or hear: an encoder and a projector learn beside it, from rows with images or sounds. With
    method="contrast" images, sounds and texts come into one space, for `ayllu search`.

    Ctrl-C saves, and --resume goes on exactly where it stopped.

    Example: ayllu align recipes/senses.toml
    """
    from ayllu.config import load_recipe
    from ayllu.dist import is_main
    from ayllu.train.align import align as train
    from ayllu.train.align import prepared_media
    from ayllu.train.align_config import AlignRecipe
    from ayllu.train.contrast import ContrastRecipe, contrast_train
    recipe, *overrides = what
    if wrong := [word for word in overrides if "=" not in word]:
        raise ConfigError(f"{wrong[0]!r} is no override: write KEY=VALUE after the recipe")
    folder, is_contrast = Path(recipe).parent, method_of(recipe, overrides) == "contrast"
    if inspect:
        _drawn(load_recipe(AlignRecipe, recipe, overrides), folder, inspect, out, as_json)
        return
    with told_to_go_on("the same command with --resume goes on"):
        if is_contrast:
            result = contrast_train(load_recipe(ContrastRecipe, recipe, overrides), folder, resume)
        else:
            result = train(*prepared_media(load_recipe(AlignRecipe, recipe, overrides), folder), folder, resume)
    if not is_main():
        return
    if as_json:
        print_json(result)
    elif is_contrast:
        typer.echo(f"{result['steps']:,} steps; the right picture or sound among the first 5 for "
                   f"{result.get('text_to_media_top5', float('nan')):.1%} of held-out texts\nspace  {result['space']}")
    else:
        typer.echo(
            f"{result['steps']:,} steps; held-out loss {result.get('held_out', float('nan')):.4f}, "
            f"{result.get('answers_right', 0):.1%} of answers right\nsenses  {result['senses']}")


def _drawn(config: "AlignRecipe", folder: Path, n: int, out: Path, as_json: bool) -> None:
    """A page with examples, and nothing trained."""
    from ayllu.train.align import prepared_media
    from ayllu.train.align_look import looked_at
    counts = looked_at(*prepared_media(config, folder), n, out)
    print_json({**counts, "out": str(out)}) if as_json else typer.echo(
        f"{counts['examples']} examples, {counts['learned']} of {counts['tokens']} tokens learned\npage  {out}")


def method_of(recipe: str, overrides: list[str]) -> str:
    """What a recipe says before it is known which settings it may have."""
    said = [word.partition("=")[2] for word in overrides if word.startswith("method=")]
    path = Path(recipe)
    if said or not path.is_file():
        return said[-1].strip("\"'") if said else "align"
    from ayllu.config import read_table
    return str(read_table(path).get("method", "align"))
