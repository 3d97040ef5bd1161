"""`ayllu grpo`."""

from typing import Annotated

import typer

from ayllu.cli.pretrain import AsJson, DryRun, Resume, resumption
from ayllu.cli.sft import read_tuning, tune

What = Annotated[list[str], typer.Argument(help="A recipe (.toml, or a run's config.json); or a model, and then files "
                                           "or folders of prompts (.jsonl, .json, .csv, .parquet). Overrides follow: "
                                           "group=16 max_tokens=128 out=runs/mine")]
Rewarded = Annotated[list[str] | None, typer.Option("--reward", help="exact (the last number is that of the column "
                                                    "`answer`), regex:PATTERN, length:IDS, model:FOLDER of a reward "
                                                    "model, or module:function of your own. May be "
                                                    "repeated: rewards are added up.")]


def grpo(what: What, reward: Rewarded = None, resume: Resume = False, dry_run: DryRun = False,
         as_json: AsJson = False) -> None:
    """Teach a model by rewards: it answers each prompt several times and learns which answers are better.

    A function of your own is called with prompt, completion and row, a dictionary of all columns, and gives a number.
    Answers are drawn in the same process from the weights in training. Ctrl-C saves, and --resume goes on exactly.

    Example: ayllu grpo ayllu-mini sums.jsonl --reward exact lora.r=16 out=runs/sums
    """
    from ayllu.train.grpo import grpo as train
    from ayllu.train.grpo import prepared
    from ayllu.train.grpo_config import GrpoConfig
    from ayllu.train.rewards import Reward
    words, going_on = resumption(what, resume)
    given = [Reward.of(text).model_dump() for text in reward or []]
    config, folder = read_tuning(GrpoConfig, words, "ayllu grpo ayllu-mini prompts.jsonl --reward exact",
                                 {"rewards": given} if given else {})
    flags = "".join(f" --reward '{text}'" for text in reward or [])
    tune(config, folder, prepared, train, going_on, dry_run, as_json, f"ayllu grpo {' '.join(words)}{flags}")
