"""What masks buy: causal training alone, a fixed mixture of objectives, and the same mixture on a schedule.

Trains the model of recipes/masks.toml for equal steps and places from equal first values, with several seeds, and
measures on held-out documents: bits per byte; the share of tokens of held-out holes that greedy decoding gives back,
with the text before and after the hole (fill-in-the-middle) and with the text before it alone; and bits per byte when
10 % of the input tokens are replaced by random ones. The schedule begins with 10 % causal prediction and ends with
90 %; on average it has the shares of the fixed mixture. Needs ../shared/data.

    python benchmarks/masks.py [--quick] [--seeds 3] [--steps 1500] [--runs FILE] [--json FILE]
"""

import argparse
import hashlib
import json
import math
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ayllu.config import load_recipe
from ayllu.data.mask_marks import Marks
from ayllu.data.mask_schedule import Ramp
from ayllu.data.masks import Mixture
from ayllu.data.pack_loader import PackedLoader
from ayllu.data.shards import Shards, prepare
from ayllu.files import cache_folder, write_json
from ayllu.log import say, setup
from ayllu.model.build import CausalModel, count_parameters
from ayllu.model.init import initialise
from ayllu.text.tokenizer import Tokenizer
from ayllu.train.compiled import missing_compiler
from ayllu.train.documents import rows
from ayllu.train.loop import step
from ayllu.train.losses import next_token_loss
from ayllu.train.objective import masked_loss
from ayllu.train.optim import build_optimizer
from ayllu.train.pretrain import PretrainConfig, find_tokenizer, new_state
from ayllu.train.run_folder import environment
from ayllu.train.state import TrainState

RECIPE = Path(__file__).resolve().parents[1] / "recipes" / "masks.toml"
ARMS = {"causal": "causal alone", "fixed": "fixed mixture", "scheduled": "scheduled mixture"}
MEASURES = {"clean": "bits per byte", "corrupted": "bits per byte, 10 % replaced", "infilling": "infilling accuracy",
            "before_only": "infilling from the text before alone"}
LOWER_IS_BETTER = {"clean", "corrupted"}
T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}         # Student's t for a 95 % interval, by the number of seeds
AROUND, LONGEST_HOLE, REPLACED = 48, 5, 0.1              # ids before and after a hole; ids in it; the share replaced
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Run:
    """One training run and what it reached."""

    arm: str
    seed: int
    steps: int
    measures: dict[str, float]                           # by MEASURES
    languages: dict[str, float]                          # bits per byte
    learned: int                                         # places that taught
    seconds: float


@dataclass(frozen=True)
class Study:
    """What all runs share."""

    config: PretrainConfig
    shards: Shards
    marks: Marks
    held: dict[str, tuple[list[Tensor], int]]            # by language: documents and the bytes that they spell
    holes: Tensor                                        # (holes, 1 + AROUND + LONGEST_HOLE + AROUND) ids
    lengths: Tensor                                      # (holes,) ids in each hole, 1 to LONGEST_HOLE
    loss: Any
    model: CausalModel                                   # one for all runs, so that it is compiled once


def main() -> None:
    """Parse, run, print."""
    args = parse()
    setup()
    torch.set_num_threads(args.threads)
    study = prepare_study(args)
    runs = [run(study, arm, seed, args) for seed in range(args.seeds) for arm in ARMS]
    table = summary(runs)
    places = args.steps * study.config.loop.batch_size * study.config.context
    print(f"{count_parameters(study.config.model):,} parameters, {args.steps} steps, {places:,} places, {args.seeds} "
          "seeds; mean ± half of the 95 % interval over seeds; differences are over pairs of equal seeds\n")
    print(markdown(table, runs))
    if args.json:
        write_json(args.json, {"settings": {"steps": args.steps, "seeds": args.seeds, "quick": args.quick},
                               "environment": environment(CPU), "data": study.shards.manifest["sources"],
                               "table": table, "runs": [asdict(r) for r in runs]})
    print("worst ratio: {:.3f} ({})".format(*worst(table)))


def parse() -> argparse.Namespace:
    """The command line; --quick only shows that everything runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="3 steps, 2 seeds, few holes: shows that it runs, no more")
    parser.add_argument("--seeds", type=int, default=3, choices=sorted(T_95))
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--holes", type=int, default=400)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--eager", action="store_true", help="don't compile")
    parser.add_argument("--runs", type=Path, metavar="FILE", help="keeps each finished run, so that none is repeated")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.quick:
        args.steps, args.seeds, args.holes, args.eager = 3, 2, 16, True
    return args


def prepare_study(args: argparse.Namespace) -> Study:
    """Shards, held-out documents and holes, the same for every run."""
    config = load_recipe(PretrainConfig, RECIPE, [f"loop.steps={args.steps}",
                                                  f"optim.schedule.warmup_steps={max(1, args.steps // 10)}"])
    folder = cache_folder() / "masks" / hashlib.sha256(repr((config.tokenizer, config.data)).encode()).hexdigest()[:12]
    folder.mkdir(parents=True, exist_ok=True)
    path = find_tokenizer(config, RECIPE.parent, folder)
    shards = prepare(config.data, RECIPE.parent, path, folder / "shards", workers=1)
    held = {}
    for language, (ids, n_bytes) in shards.held_out().items():
        documents = [torch.from_numpy(d.astype(np.int64)) for d in shards.documents(ids)]
        few = documents[:2] if args.quick else documents
        held[language] = few, round(n_bytes * sum(map(len, few)) / len(ids))
    holes, lengths = cut_holes([d for documents, _ in held.values() for d in documents], args.holes)
    eager = args.eager or missing_compiler(CPU) is not None
    model = new_state(config, shards, RECIPE.parent, CPU).model
    return Study(config, shards, Marks.of(Tokenizer.load(path)), held, holes, lengths,
                 masked_loss if eager else torch.compile(masked_loss), model)


def masks(study: Study, arm: str) -> Mixture:
    """The objectives of one arm."""
    fixed = study.config.masks
    if arm == "causal":
        return Mixture()
    if arm == "fixed":
        return fixed
    steps, out = study.config.loop.steps, []
    for part in fixed.parts:
        assert isinstance(part.weight, float)
        start, end = (0.2, 1.8) if part.kind == "causal" else (1.8, 0.2)     # its mean is the fixed weight
        out.append(part.model_copy(update={"weight": Ramp(kind="linear", start=start * part.weight,
                                                          end=end * part.weight, steps=steps)}))
    return fixed.model_copy(update={"parts": tuple(out)})


def run(study: Study, arm: str, seed: int, args: argparse.Namespace) -> Run:
    """Train one model and measure it. The seed decides first values and order, alike for every arm."""
    if known := kept(arm, seed, args):
        return known
    config, model = study.config, study.model
    initialise(model, config.model.n_layers, seed)
    state = TrainState(model, build_optimizer(model, config.optim))
    batches = PackedLoader(study.shards.train(), study.marks, config.context, config.loop.batch_size, masks(study, arm),
                           seed, reserve=config.packing.reserve)
    started = time.perf_counter()
    for number in range(args.steps):
        row = step(state, batches.batch(number), study.loss, config.loop, config.optim, CPU)
        if number % 250 == 249:
            say(f"  {arm} seed {seed}: step {number + 1}, loss {row['loss']:.3f}, "
                f"{time.perf_counter() - started:.0f} s")
    seconds = time.perf_counter() - started
    model.eval()
    languages = {name: bits(study, documents, 0.0) / n for name, (documents, n) in study.held.items()}
    n_bytes = sum(n for _, n in study.held.values())
    measures = {"clean": sum(languages[name] * n for name, (_, n) in study.held.items()) / n_bytes,
                "corrupted": sum(bits(study, documents, REPLACED) for documents, _ in study.held.values()) / n_bytes,
                "infilling": accuracy(study, fill_in_prompts(study)),
                "before_only": accuracy(study, study.holes[:, :1 + AROUND])}
    model.train()
    done = Run(arm, seed, args.steps, measures, languages, state.tokens, seconds)
    if args.runs:
        with args.runs.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(done)) + "\n")
    say(f"{arm} seed {seed}: " + ", ".join(f"{name} {value:.4f}" for name, value in measures.items())
        + f", {seconds:.0f} s")
    return done


def kept(arm: str, seed: int, args: argparse.Namespace) -> Run | None:
    """The same run of an interrupted study, out of the file that --runs names."""
    lines = args.runs.read_text(encoding="utf-8").splitlines() if args.runs and args.runs.exists() else []
    found = [Run(**record) for record in map(json.loads, lines)]
    return next((r for r in found if (r.arm, r.seed, r.steps) == (arm, seed, args.steps)), None)


@torch.no_grad()
def bits(study: Study, documents: list[Tensor], replaced: float) -> float:
    """-log2 p of the documents, where each input but a document's first is another id with the chance `replaced`."""
    draw, total = np.random.default_rng(0), 0.0
    for batch in rows(documents, study.config.context):
        hit = torch.from_numpy(draw.random(batch.ids.shape) < replaced) & (batch.ids != study.marks.bos)
        other = torch.from_numpy(draw.choice(study.marks.ordinary, batch.ids.shape))
        ids = torch.where(hit, other, batch.ids)
        total += next_token_loss(study.model, type(batch)(ids, batch.labels)).total.item() / math.log(2)
    return total


def cut_holes(documents: list[Tensor], n: int) -> tuple[Tensor, Tensor]:
    """Stretches of held-out documents, each an id, AROUND before the hole, the hole and what follows it."""
    draw, size = np.random.default_rng(1), 1 + AROUND + LONGEST_HOLE + AROUND
    room = [(d, len(ids) - size - 1) for d, ids in enumerate(documents) if len(ids) > size + 1]
    chances = np.array([left for _, left in room], dtype=np.float64)
    stretches = []
    for i in draw.choice(len(room), n, p=chances / chances.sum()):
        number, left = room[i]
        at = int(draw.integers(0, left + 1))
        stretches.append(documents[number][at:at + size])
    return torch.stack(stretches), torch.from_numpy(draw.integers(1, LONGEST_HOLE + 1, n))


def fill_in_prompts(study: Study) -> Tensor:
    """(holes, prompt) id <PRE> before <SUF> after <MID>, as in training."""
    pre, suf, mid, _ = study.marks.fim
    after = torch.stack([row[1 + AROUND + n:1 + 2 * AROUND + n]
                         for row, n in zip(study.holes, study.lengths.tolist(), strict=True)])
    mark = torch.ones(len(after), 1, dtype=torch.int64)
    return torch.cat([study.holes[:, :1], pre * mark, study.holes[:, 1:1 + AROUND], suf * mark, after, mid * mark], 1)


@torch.no_grad()
def accuracy(study: Study, prompts: Tensor) -> float:
    """The share of the holes' tokens that greedy decoding gives at their place."""
    ids = prompts
    for _ in range(LONGEST_HOLE):
        newest = [study.model(part)[:, -1].argmax(-1) for part in ids.split(50)]
        ids = torch.cat([ids, torch.cat(newest)[:, None]], 1)
    true = study.holes[:, 1 + AROUND:1 + AROUND + LONGEST_HOLE]
    inside = torch.arange(LONGEST_HOLE) < study.lengths[:, None]
    return float((ids[:, prompts.shape[1]:] == true)[inside].float().mean())


def summary(runs: list[Run]) -> dict[str, dict[str, dict[str, float]]]:
    """By measure and arm: mean over the seeds, half of its interval, and both for the difference from causal alone."""
    out: dict[str, dict[str, dict[str, float]]] = {}
    for measure in MEASURES:
        values = {arm: [r.measures[measure] for r in runs if r.arm == arm] for arm in ARMS}
        out[measure] = {}
        for arm, mine in values.items():
            out[measure][arm] = dict(zip(("mean", "half"), interval(mine), strict=True))
            for other in ("causal", "fixed"):
                pairs = [a - b for a, b in zip(mine, values[other], strict=True)]
                out[measure][arm] |= dict(zip((f"from_{other}", f"from_{other}_half"), interval(pairs), strict=True))
    return out


def interval(values: list[float]) -> tuple[float, float]:
    """The mean and half of its 95 % interval by Student's t."""
    return statistics.fmean(values), T_95[len(values)] * statistics.stdev(values) / math.sqrt(len(values))


def markdown(table: dict[str, dict[str, dict[str, float]]], runs: list[Run]) -> str:
    """One row for each measure and arm."""
    lines = ["| measured | training | mean | difference from causal alone | from the fixed mixture |",
             "| --- | --- | --- | --- | --- |"]
    for measure, arms in table.items():
        for arm, cell in arms.items():
            differences = [f"{cell[f'from_{other}']:+.4f} ± {cell[f'from_{other}_half']:.4f}" if arm != other else ""
                           for other in ("causal", "fixed")]
            lines.append(f"| {MEASURES[measure]} | {ARMS[arm]} | {cell['mean']:.4f} ± {cell['half']:.4f} | "
                         f"{differences[0]} | {differences[1] if arm == 'scheduled' else ''} |")
    learned = ", ".join(f"{ARMS[arm]} {statistics.fmean(r.learned for r in runs if r.arm == arm):,.0f}" for arm in ARMS)
    return "\n".join([*lines, "", f"places that taught: {learned}"])


def worst(table: dict[str, dict[str, dict[str, float]]]) -> tuple[float, str]:
    """Where the schedule does worst beside the other two, in bits per byte, infilling and robustness."""
    ratios = []
    for measure in ("clean", "corrupted", "infilling"):
        for other in ("causal", "fixed"):
            source = "before_only" if (measure, other) == ("infilling", "causal") else measure   # no marks were taught
            a, b = table[measure]["scheduled"]["mean"], table[source][other]["mean"]
            ratio = b / a if measure in LOWER_IS_BETTER else a / b if b else math.inf
            ratios.append((ratio, f"{MEASURES[measure]}, scheduled mixture beside {ARMS[other]}"))
    return min(ratios)


if __name__ == "__main__":
    main()
