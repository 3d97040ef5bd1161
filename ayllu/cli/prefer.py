"""`ayllu prefer`."""

from typing import Annotated

import typer

from ayllu.cli.pretrain import AsJson, DryRun, Resume, show
from ayllu.cli.sft import read_tuning

What = Annotated[list[str], typer.Argument(help="A recipe (.toml, or a run's config.json); or a model, and then files "
                                           "or folders of preferences (.jsonl, .json, .csv, .parquet). Overrides "
                                           "follow: method=simpo beta=2 out=runs/mine")]


def prefer(what: What, resume: Resume = False, dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Teach a model which answer is better: method=dpo (the default), ipo, kto, orpo or simpo;
    method=reward trains a model that gives answers a number.

    Rows have prompt, chosen and rejected: texts or messages; for kto also prompt, completion and label. At the end,
    how often the better answer is the likelier one on held-out pairs, before and after, with 95 % intervals.

    Examples: ayllu prefer ayllu-mini pairs.jsonl lora.r=16 out=runs/preferred

    ayllu prefer recipes/dpo.toml --dry-run
    """
    from ayllu.dist import is_main
    from ayllu.train import plan
    from ayllu.train.loop import Interrupted
    from ayllu.train.prefer import prefer as train
    from ayllu.train.prefer import prepared
    from ayllu.train.prefer_config import PreferConfig
    from ayllu.train.reward_model import train_reward
    words = list(what)
    auto = resume and "auto" in words                    # Typer's options take a value always or never
    if auto:
        words.remove("auto")
    config, folder = read_tuning(PreferConfig, words, "ayllu prefer ayllu-mini pairs.jsonl")
    if dry_run:
        known = config.model is not None and config.loop.steps
        return show(plan.dry_run(config if known else prepared(config, folder)[0]), as_json)
    config, lesson = prepared(config, folder)
    ready = plan.ready(config, resume)
    assert isinstance(ready, PreferConfig)
    run = train_reward if config.method == "reward" else train
    try:
        result = run(ready, lesson, folder, "auto" if auto else resume)
    except Interrupted as stop:
        typer.echo(f"stopped after step {stop.step}, saved in {stop.folder}; go on with: "
                   f"ayllu prefer {' '.join(words)} --resume", err=True)
        raise typer.Exit(130) from stop
    if is_main():
        show(result, as_json)
    return None
