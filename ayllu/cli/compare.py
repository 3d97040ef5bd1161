"""`ayllu compare`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from ayllu.cli.evaluate import BatchSize, Data, Limit, Seed, Tasks, TooLongOption, run_tasks
from ayllu.cli.output import Json, print_json
from ayllu.errors import ConfigError


def compare(a: Annotated[str, typer.Argument(help="A folder that `ayllu evaluate` made, or a model.")],
            b: Annotated[str, typer.Argument(help="Another one.")],
            task: Tasks = None, data: Data = None, limit: Limit = None, seed: Seed = 0, batch: BatchSize = 16,
            too_long: TooLongOption = "error",
            out: Annotated[Path, typer.Option(help="Where models are evaluated, in the folders a and b.")] =
            Path("runs/compare"),
            language: Annotated[Literal["en", "zh"], typer.Option(help="Of the sentences.")] = "en",
            as_json: Json = False) -> None:
    """Say whether B is better than A over the same items, by how much, and how sure that is.

    Examples: ayllu compare runs/before runs/after

    ayllu compare ayllu-mini checkpoints/mine --task tasks.toml --limit 500
    """
    from ayllu.evaluate.compare import compare_runs
    from ayllu.evaluate.subject import Subject
    from ayllu.evaluate.task import find_tasks
    folders = Path(a), Path(b)
    if task:
        folders = out / "a", out / "b"
        tasks = find_tasks(task, data)
        for model, folder in zip((a, b), folders, strict=True):
            run_tasks(Subject.load(model, batch=batch), tasks, folder,
                      {"limit": limit, "seed": seed, "batch": batch, "too_long": too_long})
    elif not all((folder / "run.json").is_file() for folder in folders):
        raise ConfigError("give two folders that `ayllu evaluate` made, or two models and a --task")
    found = compare_runs(*folders, seed=seed)
    if as_json:
        print_json(found)
        return
    for name in found["not_in_both"]:
        typer.echo(f"{name}: only one of the two has it", err=True)
    for name, one in found["tasks"].items():
        typer.echo(name)
        if one["other_prompts"]:
            typer.echo(f"  ({one['other_prompts']:,} of {one['n']:,} items were asked by other prompts)")
        for measure in one["metrics"].values():
            typer.echo(f"  {measure[language]}")
