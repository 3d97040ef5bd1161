"""Go on training a base, without labels, on texts like those that its heads are to learn; for heads.py's --base.

Of each kind of texts (GROUPS in head_sets.py) the rows that the sets' heads learn make one base, and tnews' rows that
have no label with them. What is held out or tested on isn't there, nor is a sentence of which a third of the runs of 10
characters stands in one of those rows. The original Transformer is adapted in the same way, on the same batches; both
begin with a fifth of the rate that they were trained with, by Muon and by AdamW.

    python benchmarks/adapt.py BASE --out FOLDER [--groups reviews_zh ...] [--passes 3] [--data FOLDER] [KEY=VALUE ...]
    python benchmarks/heads.py --base BASE 'FOLDER/{group}/model'
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from head_sets import DATA, GROUPS, SENTENCE, load, parted, read, runs_of_ten

from ayllu.checkpoint.resolve import BUNDLED
from ayllu.config import build_recipe
from ayllu.data.labelled import position
from ayllu.files import write_text
from ayllu.log import say, setup
from ayllu.model.config import LlamaConfig
from ayllu.text.tokenizer import Tokenizer
from ayllu.train.heads_lesson import open_base
from ayllu.train.pretrain import PretrainConfig, pretrain

UNLABELLED = {"news_zh": ("tnews/unlabeled.jsonl.zst",)}
LOOP = {"batch_size": 16, "micro_batch": 16, "checkpoint_every": 1_000_000, "eval_every": 1_000_000,
        "precision": "bf16_masters"}
SCHEDULE = {"kind": "cosine", "floor": 0.05}
OPTIM: dict[bool, dict[str, Any]] = {                    # of a Llama, of the original Transformer
    True: {"kind": "muon", "lr": 6e-4}, False: {"kind": "adamw", "lr": 2e-4}}


def texts_of(group: str, data: Path) -> Iterator[str]:
    """What a base may be adapted to."""
    known, learned = set[str](), list[str]()
    for name in GROUPS[group]:
        train, test = load(name, data, False)
        own, held = parted(train)
        known |= {run for row in (*held, *test) for run in runs_of_ten(row.text)}
        learned += [str(row.text) for row in own]
    learned += [text for file in UNLABELLED.get(group, ()) for text in read(data / file)]
    n = 0
    for text in learned:
        parts = SENTENCE.split(text)
        kept = [part for part in parts if part.strip() and not _is_known(part, known)]
        n += len(parts) - len(kept)
        if kept:
            yield " ".join(kept)
    say(f"{group}: {n:,} sentences are much like some that are held out or tested on, and left out")


def _is_known(text: str, known: set[str]) -> bool:
    runs = runs_of_ten(text)
    return 3 * sum(run in known for run in runs) >= len(runs)


def adapt(base: str, group: str, out: Path, data: Path, passes: float = 3, changes: Sequence[str] = ()) -> str:
    """The folder of the adapted model."""
    source = open_base(base, Path())
    tokenizer = source.open_tokenizer()
    assert isinstance(tokenizer, Tokenizer)
    texts = sorted(texts_of(group, data), key=position)      # by a hash: neighbours are of all sets and labels
    folder = out / group
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "texts.jsonl", "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts))
    context = min(512, source.config.max_context)
    tokens = sum(len(tokenizer.encode(text)) + 2 for text in texts)
    steps = max(round(passes * tokens / (context * LOOP["batch_size"])), 1)
    say(f"{group}: {len(texts):,} texts, {tokens:,} tokens, {steps:,} steps")
    shape = source.config.model_dump(exclude_none=True)
    table = {"name": f"adapted-{group}", "out": str(folder), "folder": str(folder.resolve()), "context": context,
             "tokenizer": base if base == BUNDLED else str(Path(base).resolve()), "model": shape, "samples": [],
             "init_from": base if base == BUNDLED else str(Path(base).resolve()), "seed": 1,
             "data": {"root": ".", "held_out": 0.02, "sources": [{"path": "texts.jsonl"}]},
             "loop": {**LOOP, "steps": steps},
             "optim": {**OPTIM[isinstance(source.config, LlamaConfig)],
                       "schedule": {**SCHEDULE, "warmup_steps": max(steps // 20, 1)}}}
    return str(pretrain(build_recipe(PretrainConfig, table, list(changes), where="adapt"), folder)["model"])


def main() -> int:
    setup()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", help="a folder, or ayllu-mini")
    parser.add_argument("changes", nargs="*", metavar="KEY=VALUE", help="of the recipe, as in `ayllu pretrain`")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--groups", nargs="+", choices=GROUPS, default=list(GROUPS), metavar="GROUP")
    parser.add_argument("--passes", type=float, default=3)
    parser.add_argument("--data", type=Path, default=DATA)
    options = parser.parse_intermixed_args()
    for group in options.groups:
        print(adapt(options.base, group, options.out, options.data, options.passes, options.changes), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
