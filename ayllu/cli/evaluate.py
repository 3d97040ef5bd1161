"""`ayllu evaluate`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ayllu.cli.leak import show_leak, show_overfitting
from ayllu.cli.output import Json, print_json
from ayllu.errors import ConfigError

Model = Annotated[str | None, typer.Argument(help="A model: a name, a folder or a file.")]
Tasks = Annotated[list[str] | None, typer.Option("--task", help="A built-in task, or a TOML file of tasks; may be "
                                                 "given several times. `--task list` names the built-in ones.")]
Data = Annotated[Path | None, typer.Option(help="The folder that the tasks' files lie in.")]
Limit = Annotated[int | None, typer.Option(min=1, help="So many items of each task, drawn by the seed.")]
Seed = Annotated[int, typer.Option(min=0, help="Of the draw of items, of sampled answers and of the intervals.")]
BatchSize = Annotated[int, typer.Option("--batch", min=1, help="Rows computed at a time.")]
Out = Annotated[Path | None, typer.Option(help="The folder for prompts, answers and scores; "
                                          "runs/evaluate-MODEL by default.")]
TooLongOption = Annotated[str, typer.Option("--too-long", help="What is done with prompts that don't fit: error, "
                                            "drop-examples or truncate-left. All are counted.")]
Adapter = Annotated[Path | None, typer.Option(help="An adapter beside the model's weights.")]
Harness = Annotated[str | None, typer.Option(help="Tasks of lm-evaluation-harness, with commas between.")]
IncludePath = Annotated[Path | None, typer.Option(help="A folder of the harness's task files of your own.")]
TrainedOn = Annotated[list[Path] | None, typer.Option("--trained-on", help="Shards or files that the model was trained "
                                                      "on; items that they hold are counted. By default those that "
                                                      "the model's data.json names.")]
Leak = Annotated[Path | None, typer.Option(help="Texts that the model was trained on: how much of them does it give "
                                           "away?")]
HeldOut = Annotated[Path | None, typer.Option(help="With --leak: texts of the same kind that it was not trained on.")]
Canaries = Annotated[Path | None, typer.Option(help="Secrets that were planted in the training text: rows with format "
                                               "(with {} in it) and secret.")]
Overfit = Annotated[Path | None, typer.Option(help="A training run's folder: the gap between its training and held-out "
                                              "loss, why, and the setting to change.")]
Repeat = Annotated[Path | None, typer.Option(help="Run this folder's evaluation again, and say whether it is equal.")]


def evaluate(model: Model = None, task: Tasks = None, data: Data = None, limit: Limit = None, seed: Seed = 0,
             batch: BatchSize = 16, out: Out = None, too_long: TooLongOption = "error", adapter: Adapter = None,
             dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16; the file's own by "
                                                       "default.")] = None,
             device: Annotated[str, typer.Option(help="cpu, cuda, mps or auto.")] = "auto",
             trained_on: TrainedOn = None, harness: Harness = None, include_path: IncludePath = None,
             leak: Leak = None, held_out: HeldOut = None, canaries: Canaries = None, overfit: Overfit = None,
             repeat: Repeat = None, as_json: Json = False) -> None:
    """Score a model on tasks, each score with its 95 % interval; prompts and answers are kept beside it.

    Ctrl-C keeps what is done, and the same command goes on.

    Examples: ayllu evaluate ayllu-mini --task cmrc2018.qa --data ../shared/data --limit 100

    ayllu evaluate ayllu-mini --task tasks.toml --out runs/mine

    ayllu evaluate --repeat runs/mine

    ayllu evaluate runs/mine/model --leak train.jsonl --held-out others.jsonl

    ayllu evaluate --overfit runs/mine
    """
    if repeat is not None:
        return _repeat(repeat, out, as_json)
    if task == ["list"]:
        return _list(as_json)
    if overfit is not None:
        return show_overfitting(overfit, as_json)
    if model is not None and (leak or canaries):
        return show_leak(model, adapter, dtype, device, batch, (leak, held_out, canaries), limit, seed, out, as_json)
    if model is None or not (task or harness):
        raise ConfigError("give a model and a task: ayllu evaluate ayllu-mini --task cmrc2018.qa --data FOLDER; "
                          "--task list names the tasks")
    from ayllu.evaluate.subject import Subject
    folder = out or Path("runs") / f"evaluate-{Path(model).stem}"
    tasks = _tasks(task, data)                           # a wrong name is better known before the model is loaded
    subject = Subject.load(model, adapter=None if adapter is None else str(adapter), dtype=dtype, device=device,
                           batch=batch)
    found: dict[str, Any] = {"model": model, "tasks": {}}
    if harness:
        from ayllu.evaluate.harness import run_harness
        found = run_harness(subject, harness.split(","), folder, include_path=include_path, limit=limit, seed=seed)
    if tasks:
        more = run_tasks(subject, tasks, folder, {"limit": limit, "seed": seed, "batch": batch, "too_long": too_long},
                         trained_on)
        found["tasks"].update(more["tasks"])
    if as_json:
        print_json({**found, "out": str(folder)})
        return None
    for name, one in found["tasks"].items():
        _show(name, one)
    typer.echo(f"prompts and answers: {folder}")
    return None


def _tasks(names: list[str] | None, data: Path | None) -> dict[str, Any]:
    from ayllu.evaluate.task import find_tasks
    return find_tasks(names or [], data)


def run_tasks(subject: Any, tasks: dict[str, Any], folder: Path, how: dict[str, Any],
              trained: list[Path] | None = None) -> dict[str, Any]:
    """Evaluate; Ctrl-C says where to go on."""
    from ayllu.config import validate
    from ayllu.evaluate.contamination import trained_on
    from ayllu.evaluate.run import How, Stopped, evaluate
    try:
        return evaluate(subject, tasks, folder, validate(How, how, where="the command line"),
                        trained or trained_on(Path(subject.facts["path"])))
    except Stopped as stop:
        typer.echo(f"stopped: {stop} in {folder}; the same command goes on", err=True)
        raise typer.Exit(130) from stop


def _show(name: str, one: dict[str, Any]) -> None:
    from ayllu.evaluate.scores import Measure
    grouped = f" in {one['groups']:,} groups" if one.get("groups") else ""
    typer.echo(f"{name}   {one['n']:,} items{grouped}")
    for metric, found in one["metrics"].items():
        scale = Measure(metric, lambda items: 0.0).scale
        value, low, high = (f"{scale * found.get(key, 0.0):.{2 if scale > 1 or metric in ('bleu', 'chrf') else 4}f}"
                            for key in ("value", "low", "high"))
        interval = f"95 % interval {low} to {high}" if "low" in found else "no interval: the harness gives none"
        typer.echo(f"  {metric:<20}{value:>9}   {interval}, n = {found['n']:,}")
    _show_contamination(one)
    for what, n in one.get("cut", {}).items():
        typer.echo(f"  {n:,} prompts didn't fit: {what} {'examples' if what == 'dropped' else 'from the left'}")


def _show_contamination(one: dict[str, Any]) -> None:
    found = one.get("contamination")
    if found is None:
        typer.echo("  contamination: not checked, for the training data isn't known here (--trained-on)")
        return
    line = f"  contamination: {found['dirty']:,} of {found['checked']:,} items share 13 words with the training text"
    if found["too_short"]:
        line += f", {found['too_short']:,} are too short to tell"
    if "clean" in found:
        line += (f"; over the others {found['clean']['value']:.4f} ({found['clean']['low']:.4f} to "
                 f"{found['clean']['high']:.4f})")
    typer.echo(line)


def _repeat(folder: Path, out: Path | None, as_json: bool) -> None:
    from ayllu.evaluate.repeat import repeat
    found = repeat(folder, out)
    if as_json:
        print_json(found)
    else:
        for name, one in found["tasks"].items():
            typer.echo(f"{name}: {one['different']:,} of {one['n']:,} records differ"
                       + (f", first {one['first']}" if one["first"] else ""))
        typer.echo("equal" if found["equal"] else f"not equal: compare {folder} with {found['out']}")
    if not found["equal"]:
        raise typer.Exit(1)


def _list(as_json: bool) -> None:
    from ayllu.evaluate.task import built_in
    tasks = {name: {"kind": one.kind, "file": one.file} for name, one in built_in().items()}
    if as_json:
        return print_json({"tasks": tasks})
    for name, one in tasks.items():
        typer.echo(f"{name:<28}{one['kind']:<12}{one['file']}")
    return None
