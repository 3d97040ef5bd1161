"""`ayllu fewshot`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ayllu.cli.output import Json, print_json
from ayllu.errors import ConfigError


def fewshot(path: Annotated[str, typer.Argument(help="Labelled rows: .csv, .tsv, .jsonl or .parquet.")],
            model: Annotated[str, typer.Option(help="The model that is measured.")] = "ayllu-mini",
            text: Annotated[str, typer.Option(help="The texts' column.")] = "text",
            label: Annotated[str, typer.Option(help="The labels' column.")] = "label",
            test: Annotated[str | None, typer.Option(help="A file to measure on; without one, rows are kept apart by a "
                                                     "fixed hash.")] = None,
            rename: Annotated[list[str] | None, typer.Option(help="What prompts call a label: --rename 1=good; once "
                                                             "for each label.")] = None,
            template: Annotated[str | None, typer.Option(help="An example as a prompt writes it; \\n is a line "
                                                         "break.")] = None,
            shots: Annotated[str, typer.Option(help="Examples of each label.")] = "0,1,2,4,8,16",
            seeds: Annotated[int, typer.Option(min=1, help="Draws of examples.")] = 10,
            methods: Annotated[str, typer.Option(help="Of random, similar (prompts), probe, lora.")]
            = "random,similar,probe,lora",
            rows: Annotated[int, typer.Option(min=1, help="Rows to measure on, at most.")] = 200,
            out: Annotated[Path | None, typer.Option(help="The folder of results; a run that was stopped goes on "
                                                     "there.")] = None, as_json: Json = False) -> None:
    """Measure a model on few labelled rows: by prompt (random or similar examples, calibrated or not), by a probe of
    its hidden states, and by LoRA; over several draws, with intervals and calibration errors, as a table and a plot.

    Example: ayllu fewshot reviews.csv --rename 0=bad --rename 1=good
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from ayllu.config import validate
    from ayllu.files import write_json
    from ayllu.train.few_plot import plot, table
    from ayllu.train.few_shot import FewShot, opened, run, summary
    words: dict[str, Any] = {
        "path": path, "model": model, "text": text, "label": label, "test": test, "rows": rows, "seeds": seeds,
        "rename": dict(_pair(word) for word in rename or ()), "shots": [_number(word) for word in shots.split(",")],
        "sources": methods.split(",")}
    if template is not None:
        words["template"] = template.replace("\\n", "\n")
    folder = out or Path("runs") / f"{Path(path).name.partition('.')[0]}-fewshot"
    lesson = opened(validate(FewShot, words, where="the command line"))
    console = Console(stderr=True)
    with Progress(TextColumn("{task.completed:.0f}/{task.total:.0f} measurements"), BarColumn(), TimeRemainingColumn(),
                  console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("fewshot", total=None)
        found = summary(lesson, run(lesson, folder, lambda done, of: bar.update(task, completed=done, total=of)))
    result = {"table": found, "rows": len(lesson.asked), "labels": list(lesson.names)}
    write_json(folder / "table.json", result)
    picture = plot(found, folder / "fewshot.png", f"{Path(model).name}, {Path(path).name}, {len(lesson.asked)} rows")
    if as_json:
        print_json({**result, "plot": str(picture), "out": str(folder)})
    else:
        typer.echo(f"{table(found)}\nplot: {picture}")


def _pair(word: str) -> tuple[str, str]:
    name, equals, said = word.partition("=")
    if not equals or not said:
        raise ConfigError(f"--rename {word!r} should read LABEL=WORD, as in 1=good")
    return name, said


def _number(word: str) -> int:
    if not word.strip().isdecimal():
        raise ConfigError(f"--shots takes whole numbers with commas between, found {word!r}: as in 0,1,2,4")
    return int(word)
