"""`ayllu prefer`."""

from typing import Annotated

import typer

from ayllu.cli.pretrain import AsJson, DryRun, Resume, resumption
from ayllu.cli.sft import read_tuning, tune

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
    from ayllu.train.prefer import prefer as train
    from ayllu.train.prefer import prepared
    from ayllu.train.prefer_config import PreferConfig
    from ayllu.train.reward_model import train_reward
    words, going_on = resumption(what, resume)
    config, folder = read_tuning(PreferConfig, words, "ayllu prefer ayllu-mini pairs.jsonl")
    tune(config, folder, prepared, train_reward if config.method == "reward" else train, going_on, dry_run, as_json,
         f"ayllu prefer {' '.join(words)}")
