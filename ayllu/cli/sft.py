"""`ayllu sft`."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from ayllu.cli.pretrain import AsJson, DryRun, Resume, resumption, show, told_to_go_on
from ayllu.config import S, build_recipe, load_recipe
from ayllu.errors import ConfigError

What = Annotated[list[str], typer.Argument(help="A recipe (.toml, or a run's config.json); or a model, and then files "
                                           "or folders of conversations (.jsonl, .json, .csv, .parquet). Overrides "
                                           "follow: epochs=2 context=1024 out=runs/mine")]


def sft(what: What, resume: Resume = False, dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Teach a model by conversations: messages, ShareGPT, Alpaca, or prompts with completions.

    Only answers are learned. A row that teaches nothing, or is longer than a window, stops the run with its file and
    number until the recipe says what to do with it. Ctrl-C saves, and --resume goes on exactly where it stopped.

    Examples: ayllu sft ayllu-mini chats.jsonl epochs=2 out=runs/chat

    ayllu sft recipes/sft.toml --dry-run
    """
    from ayllu.train.lesson import prepared
    from ayllu.train.sft import sft as train
    words, going_on = resumption(what, resume)
    tune(*read_sft(words), prepared, train, going_on, dry_run, as_json, f"ayllu sft {' '.join(words)}")


def tune(config: Any, folder: Path, prepared: Callable[..., Any], train: Callable[..., Any], resume: bool | str,
         dry_run: bool, as_json: bool, again: str) -> None:
    """Foresee a run or train it: what the commands share that begin with a trained model. `again` starts it again."""
    from ayllu.dist import is_main
    from ayllu.train import plan
    if dry_run:
        known = config.model is not None and config.loop.steps
        show(plan.dry_run(config if known else prepared(config, folder)[0]), as_json)
        return
    config, lesson = prepared(config, folder)
    with told_to_go_on(f"go on with: {again} --resume"):
        result = train(plan.ready(config, bool(resume)), lesson, folder, resume)
    if is_main():
        show(result, as_json)


def read_sft(words: list[str]) -> tuple[Any, Path]:
    """The settings that the words of a command line mean, and the folder that their paths are relative to."""
    from ayllu.train.sft_config import SftConfig
    return read_tuning(SftConfig, words, "ayllu sft ayllu-mini chats.jsonl")


def read_tuning(kind: type[S], words: list[str], example: str, more: dict[str, Any] | None = None) -> tuple[S, Path]:
    """The same for every command that begins with a model and files, or with a recipe of this kind; `more` is what
    options say over it."""
    overrides = [word for word in words if "=" in word and not Path(word).exists()]
    names = [word for word in words if word not in overrides]
    columns = [word for word in overrides if word.startswith("columns.")]    # of every file that is named here
    if len(names) == 1 and Path(names[0]).suffix in (".toml", ".json"):
        return load_recipe(kind, names[0], overrides, more), Path(names[0]).parent
    if len(names) < 2:
        raise ConfigError(f"give a recipe, or a model and what it learns from: {example}")
    base, *files = names
    name = f"{Path(base).stem}-{Path(files[0]).name.partition('.')[0]}"
    named = dict(word.removeprefix("columns.").split("=", 1) for word in columns)
    sources = [{"path": file} | ({"columns": named} if named else {}) for file in files]
    table = {"name": name, "out": f"runs/{name}", "base": base, "data": {"sources": sources}}
    overrides = [word for word in overrides if word not in columns]
    return build_recipe(kind, table | (more or {}), overrides, where="the command line"), Path(".")
