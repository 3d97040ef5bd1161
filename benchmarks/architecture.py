"""What each of Llama's changes to the Transformer buys, at equal parameters, data, steps and first values.

Trains every recipe of recipes/compare at each learning rate with the first seed, takes the rate that did best for that
recipe, and repeats it with the other seeds. Prints held-out bits per byte (lower is better): mean and spread over the
seeds, and the difference from the paper's model seed by seed. Needs ../shared/data.

    python benchmarks/architecture.py [--quick] [--seeds 3] [--steps 800] [--lrs 1e-3,3e-3] [--runs FILE] [--json FILE]
"""

import argparse
import json
import math
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ayllu.config import load_recipe
from ayllu.data.loader import WindowLoader
from ayllu.data.shards import Shards, prepare
from ayllu.files import cache_folder, write_json
from ayllu.log import say, setup
from ayllu.model.build import count_parameters
from ayllu.text.tokenizer import Tokenizer
from ayllu.train.loop import step
from ayllu.train.losses import next_token_loss
from ayllu.train.pretrain import PretrainConfig, find_tokenizer, held_out, new_state
from ayllu.train.run_folder import environment

RECIPES = Path(__file__).resolve().parents[1] / "recipes" / "compare"
ARMS = {"paper": "the original Transformer", "pre_norm": "+ pre-norm", "rmsnorm": "+ RMSNorm", "rope": "+ RoPE",
        "swiglu": "+ SwiGLU", "gqa": "+ grouped-query attention", "llama": "all five (Llama)",
        "literal": "the literal order of parts"}
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Run:
    """One training run and what it reached."""

    arm: str
    lr: float
    seed: int
    bits_per_byte: dict[str, float]                      # by language, and "all": over all held-out bytes
    train_loss: float                                    # nats per token, mean of the last tenth of the steps
    seconds: float
    tokens: int


@dataclass(frozen=True)
class Row:
    """One arm over its seeds, at its best learning rate."""

    arm: str
    what: str
    parameters: int
    lr: float
    mean: float                                          # bits per byte
    spread: float                                        # standard deviation over the seeds
    difference: float | None                             # from the paper's model: mean over seeds of the pairs
    difference_error: float | None                       # standard error of that mean
    tokens_per_s: float
    runs: list[dict[str, Any]]


def main() -> None:
    """Parse, run, print."""
    args = parse()
    setup()
    torch.set_num_threads(args.threads)
    folder = cache_folder() / "compare"
    configs = {arm: load_arm(arm, args) for arm in args.only}
    shards, tokenizer = same_shards(configs, folder)
    runs: list[Run] = []
    for arm, config in configs.items():
        tries = [train(arm, config, shards, tokenizer, lr, 0, args) for lr in args.lrs]
        best = min(tries, key=lambda run: run.bits_per_byte["all"])
        runs += [*tries, *(train(arm, config, shards, tokenizer, best.lr, seed, args) for seed in range(1, args.seeds))]
    rows = [row(arm, configs[arm], runs) for arm in configs]
    baseline = next((r for r in rows if r.arm == "paper"), None)
    rows = [compared(r, baseline) for r in rows]
    print(table(rows, args))
    if args.json:
        settings = {"steps": args.steps, "seeds": args.seeds, "lrs": args.lrs, "quick": args.quick}
        write_json(args.json, {"settings": settings, "environment": environment(CPU),
                               "data": shards.manifest["sources"], "rows": [asdict(r) for r in rows],
                               "runs": [asdict(r) for r in runs]})
    llama = next((r for r in rows if r.arm == "llama"), None)
    if baseline and llama:
        print(f"worst ratio: {baseline.mean / llama.mean:.2f} (bits per byte, the original Transformer's over Llama's)")


def parse() -> argparse.Namespace:
    """The command line; --quick only shows that everything runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="3 steps, 2 seeds, one rate: shows that it runs, no more")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--lrs", type=lambda text: [float(x) for x in text.split(",")], default=[1e-3, 3e-3])
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(ARMS), help=", ".join(ARMS))
    parser.add_argument("--eval-tokens", type=int, help="held-out tokens for each language (default: all)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=Path, metavar="FILE", help="keeps each finished run, so that none is repeated")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if unknown := set(args.only) - set(ARMS):
        parser.error(f"unknown arm {', '.join(sorted(unknown))}; known: {', '.join(ARMS)}")
    if args.quick:
        args.steps, args.seeds, args.lrs, args.eval_tokens = 3, 2, args.lrs[:1], 500
    return args


def load_arm(arm: str, args: argparse.Namespace) -> PretrainConfig:
    """One recipe with the number of steps asked for; its warm-up stays a tenth of them."""
    warmup = max(1, args.steps // 10)
    return load_recipe(PretrainConfig, RECIPES / f"{arm}.toml",
                       [f"loop.steps={args.steps}", f"optim.schedule.warmup_steps={warmup}"])


def same_shards(configs: dict[str, PretrainConfig], folder: Path) -> tuple[Shards, Tokenizer]:
    """Token shards and tokenizer of all arms, after checking that they ask for the same data and have the same size."""
    first, *others = configs.values()
    wanted = count_parameters(first.model)
    for config in others:
        if (config.data, config.tokenizer, config.loop, config.context) != (
                first.data, first.tokenizer, first.loop, first.context):
            sys.exit(f"{config.name} differs from {first.name} in data, tokenizer, loop or context: not comparable")
        size = count_parameters(config.model)
        if abs(size - wanted) > 0.01 * wanted:
            sys.exit(f"{config.name} has {size:,} parameters, {first.name} {wanted:,}: over 1 % apart")
    folder.mkdir(parents=True, exist_ok=True)
    path = find_tokenizer(first, RECIPES, folder)
    return prepare(first.data, RECIPES, path, folder / "shards", workers=1), Tokenizer.load(path)


def train(arm: str, config: PretrainConfig, shards: Shards, tokenizer: Tokenizer, lr: float, seed: int,
          args: argparse.Namespace) -> Run:
    """Train one model and measure it. The seed decides first values and the order of the data, alike for every arm."""
    if known := kept(arm, lr, seed, args):
        return known
    config = config.model_copy(update={"seed": seed, "optim": config.optim.model_copy(update={"lr": lr})})
    torch.manual_seed(seed)
    state = new_state(config, shards, RECIPES, CPU)
    batches = WindowLoader(shards.train(), config.context, config.loop.batch_size, seed)
    losses, started = [], time.perf_counter()
    for number in range(config.loop.steps):
        losses.append(step(state, batches.batch(number), next_token_loss, config.loop, config.optim, CPU)["loss"])
    seconds = time.perf_counter() - started
    found = {name.removeprefix("bits_per_byte_"): value
             for name, value in held_out(state, shards, tokenizer, config, CPU, args.eval_tokens).items()}
    sizes = {name: shards.manifest["held_out"][name]["bytes"] for name in found}
    found["all"] = sum(found[name] * size for name, size in sizes.items()) / sum(sizes.values())
    last = losses[-max(1, len(losses) // 10):]
    run = Run(arm, lr, seed, found, statistics.fmean(last), seconds, state.tokens)
    if args.runs:
        with args.runs.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**asdict(run), "steps": args.steps}) + "\n")
    say(f"{arm:9} lr {lr:g} seed {seed}: {found['all']:.4f} bits per byte, loss {run.train_loss:.3f}, {seconds:.0f} s")
    return run


def kept(arm: str, lr: float, seed: int, args: argparse.Namespace) -> Run | None:
    """The same run of an interrupted study, out of the file that --runs names."""
    lines = args.runs.read_text(encoding="utf-8").splitlines() if args.runs and args.runs.exists() else []
    for record in map(json.loads, lines):
        if (record["arm"], record["lr"], record["seed"], record.pop("steps")) == (arm, lr, seed, args.steps):
            return Run(**record)
    return None


def row(arm: str, config: PretrainConfig, runs: list[Run]) -> Row:
    """The seeds of one arm at its best rate."""
    mine = [run for run in runs if run.arm == arm]
    lr = min((run for run in mine if run.seed == 0), key=lambda run: run.bits_per_byte["all"]).lr
    chosen = [run for run in mine if run.lr == lr]
    values = [run.bits_per_byte["all"] for run in chosen]
    return Row(arm, ARMS[arm], count_parameters(config.model), lr, statistics.fmean(values),
               statistics.stdev(values) if len(values) > 1 else 0.0, None, None,
               sum(run.tokens for run in chosen) / sum(run.seconds for run in chosen), [asdict(run) for run in chosen])


def compared(one: Row, baseline: Row | None) -> Row:
    """The same row with its difference from the baseline, seed by seed."""
    if baseline is None or one.arm == baseline.arm:
        return one
    mine, theirs = ([run["bits_per_byte"]["all"] for run in r.runs] for r in (one, baseline))
    pairs = [a - b for a, b in zip(mine, theirs, strict=True)]
    error = statistics.stdev(pairs) / math.sqrt(len(pairs)) if len(pairs) > 1 else 0.0
    return Row(**{**vars(one), "difference": statistics.fmean(pairs), "difference_error": error})


def table(rows: list[Row], args: argparse.Namespace) -> str:
    """A Markdown table."""
    head = (f"{args.steps} steps, {args.seeds} seeds, the best of {len(args.lrs)} learning rates for each; "
            "bits per byte of held-out text (mean ± standard deviation over seeds), and the difference from the "
            "paper's model (mean over pairs of equal seeds ± standard error)\n")
    languages = [name for name in rows[0].runs[0]["bits_per_byte"] if name != "all"]
    lines = [head, "| model | parameters | learning rate | bits per byte | difference | "
             + " | ".join(languages) + " | tokens/s |", "| --- " * (6 + len(languages)) + "|"]
    for r in rows:
        difference = "" if r.difference is None else f"{r.difference:+.4f} ± {r.difference_error:.4f}"
        each = [f"{statistics.fmean(run['bits_per_byte'][name] for run in r.runs):.3f}" for name in languages]
        lines.append(f"| {r.what} | {r.parameters:,} | {r.lr:g} | {r.mean:.4f} ± {r.spread:.4f} | {difference} | "
                     f"{' | '.join(each)} | {r.tokens_per_s:,.0f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
