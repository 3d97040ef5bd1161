"""`ayllu pretrain`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from ayllu.cli.launch import is_launched, tell_of_devices, torchrun_line, torchrun_lines
from ayllu.cli.output import print_json
from ayllu.config import load_recipe
from ayllu.errors import ConfigError

Recipe = Annotated[str, typer.Argument(help="A TOML recipe, such as recipes/mini.toml, or a run's config.json.")]
Overrides = Annotated[list[str] | None, typer.Argument(help="Overrides: loop.steps=100 optim.lr=1e-3 out=runs/mine")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run in the recipe's `out` folder. "
                                      "`--resume auto` begins where there is none, and gets over a damaged checkpoint "
                                      "or shard.")]
Cooldown = Annotated[int | None, typer.Option(min=1, help="Lower the rate of a checkpoint over so many steps, as a "
                                              "new run beside the old one.")]
CheckpointToCool = Annotated[Path | None, typer.Option(help="The checkpoint to cool down; the newest by default.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Predict memory, rehearse the worst batch, and tell hours, "
                                      "energy and money; a run on many ranks is reckoned. Nothing is trained.")]
Devices = Annotated[int | None, typer.Option(min=1, help="Print the line that trains on so many devices of this "
                                             "machine; [parallel] in the recipe says how they share the work.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]


def pretrain(recipe: Recipe, overrides: Overrides = None,
             resume: Resume = False,
             cooldown: Cooldown = None, checkpoint: CheckpointToCool = None, dry_run: DryRun = False,
             devices: Devices = None,
             as_json: AsJson = False) -> None:
    """Train a model from text files by a recipe; Ctrl-C saves, and --resume goes on exactly where it stopped.

    Example: ayllu pretrain recipes/smoke.toml loop.steps=50 out=runs/try
    """
    from ayllu.dist import is_main
    from ayllu.train import plan
    from ayllu.train.pretrain import PretrainConfig, with_teacher
    from ayllu.train.pretrain import cooldown as cool
    from ayllu.train.pretrain import pretrain as train
    words, going_on = resumption([recipe, *(overrides or [])], resume)
    if not words:
        raise ConfigError("give a recipe: ayllu pretrain RECIPE --resume auto")
    path = Path(words[0])
    config = load_recipe(PretrainConfig, path, words[1:])
    if checkpoint and not cooldown:
        raise ConfigError("--checkpoint says where a cooldown begins: add --cooldown STEPS")
    config = with_teacher(cool(config, cooldown, checkpoint) if cooldown else config, path.parent)
    if dry_run:
        found = plan.dry_run(config)
        if "ranks" in found:
            found["start"] = torchrun_lines(found["ranks"], config.plan.machine.gpus, words)
        if is_main():
            show(found, as_json)
        return
    if devices and devices > 1 and not is_launched():
        # Typer gives no raw command line: these words say the same
        flags = (["--resume"] if resume else []) + (["--cooldown", str(cooldown)] if cooldown else [])
        flags += ["--checkpoint", str(checkpoint)] if checkpoint else []
        typer.echo(torchrun_line(devices, [*words, *flags, *(["auto"] if going_on == "auto" else [])]))
        return
    tell_of_devices(words)
    cooling = f" --cooldown {cooldown} --checkpoint {config.start_from}" if cooldown else ""
    ready = plan.ready(config, resume)
    assert isinstance(ready, PretrainConfig)
    with told_to_go_on(f"go on with: ayllu pretrain {' '.join(words)}{cooling} --resume"):
        result = train(ready, path.parent, going_on)
    if is_main():
        show(result, as_json)


def resumption(what: list[str], resume: bool) -> tuple[list[str], Any]:
    """The words without the `auto` of `--resume auto`, and True, False or "auto": Typer's options take a value always
    or never."""
    if not resume or "auto" not in what:
        return what, resume
    at = what.index("auto")
    return what[:at] + what[at + 1:], "auto"


@contextmanager
def told_to_go_on(how: str) -> Iterator[None]:
    """Around a training that Ctrl-C stops and saves."""
    from ayllu.train.loop import Interrupted
    try:
        yield
    except Interrupted as stop:
        typer.echo(f"stopped after step {stop.step}, saved in {stop.folder}; {how}", err=True)
        raise typer.Exit(130) from stop


def show(result: dict[str, Any], as_json: bool) -> None:
    """What was reached, in lines or as JSON."""
    if as_json:
        print_json(result)
    else:
        width = max([24, *(len(key) + 2 for key in result)])
        for key, value in result.items():
            typer.echo(f"{key:<{width}}{_number(value) if isinstance(value, float) else value}")


def _number(value: float) -> str:
    """Four decimals, but of a small one, such as a rate, its first digits."""
    return f"{value:.4f}" if not value or abs(value) >= 0.001 else f"{value:.3g}"
