"""Translation English to Chinese and back: the bundled Llama beside the original Transformer of the same size, both
decoders, both taught by the same pairs in the same order for the same number of steps.

Both begin with weights that were pretrained on the same tokens (recipes/mini.toml, recipes/mini-baseline.toml). Each
has its own rate of AdamW: of the two of RATES with the lowest held-out losses after a short training, the better one
after the whole. Both directions are one model. Decoded greedily and by beam search; BLEU and chrF with 95 % bootstrap
intervals, and ours minus the original over the same sentences.

    python benchmarks/translation.py --baseline FOLDER --out runs/translation [--epochs 3] [--best 2] [--quick]
                                     [--sides ours original] [--stages trial train decode] [--sets unseen]
                                     [--rates 2e-3] [--precision float32] [--base ayllu-small] [--seeds 3]
                                     [--json FILE] [--compare ayllu-mini-chat]

`unseen` are pairs of Tatoeba that pretraining left out, and of which neither sentence occurs twice. `test` is the test
side of the task tatoeba_en_zh; pretraining has read most of it, as it has for both. Neither set, nor any pair that
shares a sentence with one of them, is trained on. --compare asks another model of conversations for the same.
Runs are lines of OUT/runs.jsonl, and what stands there isn't run again; a training that was stopped goes on from its
last 200 steps. `--rates` trains these to the end, whatever the trials say. Lines without a precision are bf16_masters,
which a CPU without AMX takes many times longer for than float32; held-out losses are autocast in either.
"""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ayllu import LLM
from ayllu.checkpoint.load import load_checkpoint
from ayllu.checkpoint.transformer import is_transformer, open_transformer
from ayllu.config import validate
from ayllu.data.chat_loader import ChatLoader
from ayllu.data.chats import PLAIN, Chats, ChatSource, Gathered, gather
from ayllu.data.corpus import uniform
from ayllu.data.mask_marks import Marks
from ayllu.data.packed import open_binary
from ayllu.device import pick_device
from ayllu.engine.dialogue import as_prompt
from ayllu.engine.runner import make_runner
from ayllu.evaluate.intervals import Interval, bootstrap, compare
from ayllu.evaluate.task import Item, built_in, is_test, load_items, render
from ayllu.evaluate.translation import corpus
from ayllu.files import write_json
from ayllu.log import say, setup
from ayllu.model.build import CausalModel
from ayllu.model.generate import generate
from ayllu.model.sample import SamplingParams
from ayllu.text.tokenizer import Tokenizer
from ayllu.train.checkpoints import restore, save
from ayllu.train.export import export
from ayllu.train.loop import LoopConfig, step
from ayllu.train.optim import OptimConfig, build_optimizer
from ayllu.train.schedule import Schedule
from ayllu.train.sft import training_loss
from ayllu.train.sft_config import SftConfig
from ayllu.train.sft_loss import answer_loss
from ayllu.train.state import TrainState

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
TATOEBA, STORIES = "tatoeba_en_zh/train.jsonl.zst", "storybooks/pairs_en_zh.jsonl.zst"
BASE_SEED, BASE_HELD_OUT = 0, 0.02                       # of recipes/mini.toml: what the bases never saw
DIRECTIONS = {"en_zh": ("en", "zh"), "zh_en": ("zh", "en")}
ASKED = {"en_zh": "Translate into Chinese: {}", "zh_en": "翻译成英文：{}"}    # of a model of conversations
RATES = (5e-4, 1e-3, 2e-3)                               # of AdamW; a step of Muon takes twice the time
CONTEXT, ROWS, TRIAL_STEPS, BEAMS = 256, 8, 120, 4
STAGES = ("trial", "train", "decode")
DEVICE = pick_device()
CLOCK = time.process_time if DEVICE.type == "cpu" else time.perf_counter   # a GPU is waited for, not computed with
Row = dict[str, Any]
Score = Callable[[np.ndarray], float]                     # of the sentences with these numbers
Tests = dict[str, dict[str, list[Item]]]


def main() -> int:
    setup()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="ayllu-mini", help="the pretrained Llama")
    parser.add_argument("--baseline", type=Path, help="the folder of a trained original Transformer")
    parser.add_argument("--out", type=Path, default=ROOT / "runs/translation")
    parser.add_argument("--sides", nargs="+", choices=("ours", "original"), default=["ours", "original"])
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument("--sets", nargs="+", choices=("unseen", "test"), default=["unseen", "test"])
    parser.add_argument("--epochs", type=float, default=3.0)
    parser.add_argument("--best", type=int, default=2, help="so many of the rates are trained to the end")
    parser.add_argument("--seeds", type=int, default=1, help="trainings with the best rate, in orders of their own")
    parser.add_argument("--rates", nargs="+", type=float, help="train these to the end, not the best of the trials")
    parser.add_argument("--precision", choices=("bf16_masters", "float32"), default="bf16_masters")
    parser.add_argument("--compare", help="another model, which is asked in conversation")
    parser.add_argument("--quick", action="store_true", help="a few steps and sentences: whether it works")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--data", type=Path, default=DATA)
    options = parser.parse_args()
    if "original" in options.sides and set(options.stages) & {"trial", "train"} and not options.baseline:
        parser.error("the original's side needs --baseline; what was run already is shown with --sides ours")
    bases = {"ours": options.base, "original": str(options.baseline)}
    options.out.mkdir(parents=True, exist_ok=True)
    study = Study(options, bases)
    for side in options.sides:
        for stage in options.stages:
            getattr(study, stage)(side)
    if options.compare:
        study.ask(options.compare)
    result = study.table()
    if options.json:
        write_json(options.json, result)
    print(json.dumps(result))
    return 0


class Study:
    """The pairs, and what has been run so far."""

    def __init__(self, options: argparse.Namespace, bases: dict[str, str]) -> None:
        self.options, self.bases = options, bases
        self.file = options.out / "runs.jsonl"
        lines = self.file.read_text(encoding="utf-8").splitlines() if self.file.exists() else []
        self.runs: list[Row] = [{"precision": "bf16_masters", "seed": 0} | json.loads(line) for line in lines]
        found = tests(options.data, 8 if options.quick else None)
        self.tests = {name: found[name] for name in options.sets}
        self.pairs = options.out / "pairs.jsonl"
        n = write_pairs(options.data, self.pairs)
        say(f"{n:,} pairs to learn, both ways; " + ", ".join(
            f"{name} {way}: {len(items):,}" for name, ways in self.tests.items() for way, items in ways.items()))

    def run(self, **key: Any) -> Row | None:
        """What stands in the file already."""
        return next((run for run in self.runs if all(run.get(k) == v for k, v in key.items())), None)

    def keep(self, **row: Any) -> Row:
        """One more line."""
        self.runs.append(row)
        with open(self.file, "a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
        return row

    def trial(self, side: str) -> None:
        """A short training with each rate."""
        for rate in RATES[:2] if self.options.quick else RATES:
            key = {"stage": "trial", "side": side, "rate": rate, "precision": self.options.precision}
            if not self.run(**key):
                _, _, found = self.taught(side, rate, 2 if self.options.quick else TRIAL_STEPS)
                self.keep(**key, **found)

    def train(self, side: str) -> None:
        """The trainings with the best of them, or with the rates that were asked for."""
        trials = [run for run in self.runs if run["stage"] == "trial" and run["side"] == side
                  and run["precision"] == self.options.precision]
        best = sorted(trials, key=lambda run: run["held_out"])[:self.options.best]
        for rate in self.options.rates or [trial["rate"] for trial in best]:
            self.trained(side, rate, 0)
        chosen = self.best(side)
        for seed in range(1, self.options.seeds):
            if chosen is not None:
                self.trained(side, chosen["rate"], seed)

    def trained(self, side: str, rate: float, seed: int) -> None:
        """One training to the end, kept."""
        key = {"stage": "train", "side": side, "epochs": self.options.epochs, "rate": rate,
               "precision": self.options.precision, "seed": seed}
        if not self.run(**key):
            model, tokenizer, found = self.taught(side, rate, 3 if self.options.quick else None, seed)
            export(model, tokenizer, self.folder(key), {"sources": [TATOEBA, STORIES]}, None)
            self.keep(**key, **found)

    def folder(self, run: Row) -> Path:
        """Where the weights of a training lie."""
        apart = "" if run["precision"] == "bf16_masters" else f"-{run['precision']}"
        apart += f"-seed-{run['seed']}" if run["seed"] else ""
        return self.options.out / f"{run['side']}-{run['epochs']:g}-{run['rate']:g}{apart}"

    def best(self, side: str) -> Row | None:
        """The training of a side with the lowest held-out loss, of those with the first seed."""
        done = [run for run in self.runs if run["stage"] == "train" and run["side"] == side
                and run["epochs"] == self.options.epochs and run["seed"] == 0]
        return min(done, key=lambda run: run["held_out"], default=None)

    def taught(self, side: str, rate: float, steps: int | None, seed: int = 0) -> tuple[CausalModel, Tokenizer, Row]:
        """The base after so many steps, by default all epochs, with its held-out loss and its seconds, a CPU's own."""
        torch.manual_seed(seed)
        model, tokenizer = opened(self.bases[side])
        for parameter in model.parameters():
            parameter.data = parameter.data.clone()      # what a file lends must not be written to
        pairs: Gathered = gather(Chats(sources=(ChatSource(path=self.pairs.name),), template=PLAIN, held_out=0.01,
                                       too_long="drop"), self.options.out, tokenizer, None, CONTEXT)
        batches = ChatLoader(pairs.train, Marks.of(tokenizer), CONTEXT, ROWS, seed)
        steps = steps or round(self.options.epochs * len(batches.packing) / ROWS)
        schedule = Schedule(kind="linear", warmup_steps=min(50, steps // 3), floor=0.02)
        optim = OptimConfig(lr=rate, schedule=schedule)
        loop = LoopConfig(steps=steps, batch_size=ROWS, micro_batch=ROWS, precision=self.options.precision)
        state = TrainState(model, build_optimizer(model, optim))
        run = self.options.out / f"unfinished-{side}-{rate:g}-{loop.precision}-{steps}-{seed}"
        if restore(state, run):
            say(f"{side} {rate:g}: goes on at step {state.step:,}")
        # what `ayllu sft` computes the loss with; its own checks want a Llama, and the loss doesn't
        how = validate(SftConfig, {"name": side, "out": "", "base": self.bases[side], "data": {"sources": [
            {"path": self.pairs.name}]}, "loop": loop.model_dump()}, where="translation")
        loss = training_loss(how, DEVICE, model)
        began = state.step
        while state.step < steps:
            used = CLOCK()
            last = step(state, batches.batch(state.step), loss, loop, optim, DEVICE)
            if state.step > began + 3:                   # compiled by now
                state.seconds += CLOCK() - used
            if state.step % 20 == 0 or state.step == steps:
                say(f"{side} {rate:g}: step {state.step:,}/{steps:,}, loss {last['loss']:.3f}, "
                    f"{state.seconds / state.step:.2f} s a step")
            if state.step % 200 == 0:
                save(state.state_dict(), run, 1)
        seconds = state.seconds                          # over all its stretches
        held = ChatLoader(pairs.held_out, Marks.of(tokenizer), CONTEXT, 1)
        model.eval()
        left = answer_loss(model, held.in_order(ROWS), DEVICE, torch.bfloat16, state.layout)
        found = {"held_out": left, "steps": steps, "tokens": steps * ROWS * CONTEXT, "device": DEVICE.type,
                 "cpu_seconds": round(seconds, 1),
                 "parameters": sum(p.numel() for p in model.parameters())}
        say(f"{side} {rate:g}: held-out loss {found['held_out']:.4f}, {steps:,} steps, {seconds:,.0f} s")
        return model.eval(), tokenizer, found

    def decode(self, side: str) -> None:
        """All test sentences, greedily and by beam search."""
        best = self.best(side)
        if best is None:
            return
        for run in list(self.runs):
            same = run["stage"] == "train" and all(run[k] == best[k] for k in ("side", "epochs", "rate", "precision"))
            if same and run["seed"] < self.options.seeds:
                self.decoded(run)

    def decoded(self, best: Row) -> None:
        """All test sentences of one training."""
        side = best["side"]
        keys = [{"stage": "decode", "side": side, "epochs": best["epochs"], "rate": best["rate"], "set": name,
                 "way": way, "beams": beams, "n": len(items), "precision": best["precision"], "seed": best["seed"]}
                for name, ways in self.tests.items() for way, items in ways.items() for beams in (1, BEAMS)]
        keys = [key for key in keys if not self.run(**key)]
        if not keys:
            return
        model, tokenizer = opened(str(self.folder(best)))
        runner = make_runner(model)
        assert tokenizer.eos_ids
        for key in keys:
            prompts = [tokenizer.encode(item.prompt, bos=True) for item in self.tests[key["set"]][key["way"]]]
            params = SamplingParams(max_tokens=96, temperature=0, num_beams=key["beams"])
            outputs = [out for i in range(0, len(prompts), 32)
                       for out in generate(runner, prompts[i:i + 32], params, tokenizer.eos_ids)]
            self.keep(**key, written=[tokenizer.decode(out[0].ids, skip_special=True).strip().split("\n")[0]
                                      for out in outputs])
            say(f"{side} {key['set']} {key['way']}, {key['beams']} beams: done")

    def ask(self, model: str) -> None:
        """The same of a model that converses, greedily."""
        llm = LLM.load(model)
        for name, ways in self.tests.items():
            for way, items in ways.items():
                key = {"stage": "decode", "side": model, "epochs": self.options.epochs, "set": name, "way": way,
                       "beams": 1, "n": len(items)}
                if self.run(**key):
                    continue
                asked = [as_prompt([{"role": "user", "content": ASKED[way].format(item.row[DIRECTIONS[way][0]])}],
                                   llm.tokenizer, llm.checkpoint.chat_template) for item in items]
                found = llm.generate([p.ids for p in asked], max_tokens=96, temperature=0, stop=asked[0].stop)
                self.keep(**key, written=[f.text.strip().split("\n")[0] for f in found])

    def table(self) -> Row:
        """Scores of all that was decoded, and ours minus the original."""
        rows = []
        for name, ways in self.tests.items():
            for way, items in ways.items():
                for beams in (1, BEAMS):
                    rows.append(self.row(name, way, items, beams))
                    print(shown(rows[-1]), flush=True)
        return {"rows": rows, "runs": [run for run in self.runs if run["stage"] != "decode"]}

    def row(self, name: str, way: str, items: Sequence[Item], beams: int) -> Row:
        key = {"stage": "decode", "epochs": self.options.epochs, "set": name, "way": way, "beams": beams,
               "n": len(items)}
        best = {side: (run["rate"], run["precision"]) for side in self.bases if (run := self.best(side))}
        done: dict[str, list[list[str]]] = {}            # of each side, what each seed wrote
        for run in self.runs:
            if all(run.get(k) == v for k, v in key.items()) and run["seed"] < self.options.seeds and (
                    run["side"] not in best or (run["rate"], run["precision"]) == best[run["side"]]):
                done.setdefault(run["side"], []).append(run["written"])
        found: Row = {"set": name, "way": way, "beams": beams, "n": len(items)}
        for metric in ("chrf", "bleu"):
            score = {side: mean_of([corpus(metric, one, [item.expected for item in items],
                                           "zh" if way == "en_zh" else "13a") for one in written])
                     for side, written in done.items()}
            found[metric] = {side: _table(bootstrap(one, len(items), samples=1000)) for side, one in score.items()}
            for other in done:
                if other != "ours" and "ours" in done:
                    paired = compare(score[other], score["ours"], len(items), samples=1000)
                    found[f"{metric}_ours_minus_{other}"] = _table(paired.difference)
        return found


def opened(base: str) -> tuple[CausalModel, Tokenizer]:
    """A Llama or an original Transformer in float32, with its tokenizer."""
    if is_transformer(base):
        source = open_transformer(base)
        model: CausalModel = source.build()
        tokenizer = source.open_tokenizer()
    else:
        loaded = load_checkpoint(base, dtype="float32")
        model, tokenizer = loaded.model, loaded.tokenizer
    assert tokenizer is not None
    return model.to(DEVICE), tokenizer


def mean_of(scores: Sequence[Score]) -> Score:
    """Over seeds, on the same sentences."""
    return lambda items: float(np.mean([score(items) for score in scores]))


def rows_of(data: Path, path: str) -> list[tuple[Row, bool]]:
    """Each row of a source, and whether pretraining left it out."""
    with open_binary(data / path) as stream:
        return [(json.loads(line), uniform(f"{BASE_SEED}/{path}/{number}") < BASE_HELD_OUT)
                for number, line in enumerate(stream)]


def tests(data: Path, limit: int | None) -> Tests:
    """The two sets in both directions, as items of the built-in task."""
    tasks = {way: built_in()[f"tatoeba_en_zh.{way}"] for way in DIRECTIONS}
    rows = rows_of(data, TATOEBA)
    times = Counter(row[side] for row, _ in rows for side in ("en", "zh"))
    unseen = [row for row, apart in rows if apart and times[row["en"]] == times[row["zh"]] == 1]
    return {"unseen": {way: [Item(str(i), row, render(task.prompt, row), [row[DIRECTIONS[way][1]]])
                             for i, row in enumerate(unseen[:limit])] for way, task in tasks.items()},
            "test": {way: load_items(f"tatoeba_en_zh.{way}", task, data, limit) for way, task in tasks.items()}}


def write_pairs(data: Path, out: Path) -> int:
    """The training side as prompts and completions, in the very words of the task; how many pairs."""
    task = built_in()["tatoeba_en_zh.en_zh"]
    rows = rows_of(data, TATOEBA)
    kept_out = {row[side] for row, apart in rows if apart or is_test(task, row) for side in ("en", "zh")}
    pairs = [row for row, _ in rows if row["en"] not in kept_out and row["zh"] not in kept_out]
    stories = ({side: " ".join(row[side].split()) for side in ("en", "zh")} for row, apart in rows_of(data, STORIES)
               if not apart)
    pairs += [row for row in stories if row["en"] not in kept_out and row["zh"] not in kept_out]
    with open(out, "w", encoding="utf-8") as file:
        for way, (source, target) in DIRECTIONS.items():
            task = built_in()[f"tatoeba_en_zh.{way}"]
            for row in pairs:
                line = {"prompt": render(task.prompt, {source: row[source]}), "completion": task.join + row[target]}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
    return len(pairs)


def shown(row: Row) -> str:
    """A line for people."""
    parts = [f"{row['set']:<7}{row['way']:<6} {row['beams']} beams, n = {row['n']}:"]
    for metric in ("chrf", "bleu"):
        parts += [f"{metric} {side} {_said(found)}" for side, found in row[metric].items()]
        parts += [f"{key} {_said(found)}" for key, found in row.items() if key.startswith(f"{metric}_ours")]
    return "  ".join(parts)


def _said(found: Row) -> str:
    return f"{found['value']:.1f} ({found['low']:.1f} to {found['high']:.1f})"


def _table(found: Interval) -> Row:
    return {"value": found.value, "low": found.low, "high": found.high}


if __name__ == "__main__":
    sys.exit(main())
