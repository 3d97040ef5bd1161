"""Classification on real sets: the bundled model with a head, beside TF-IDF with logistic regression and beside the
original Transformer of the same size, trained in the same way.

`ours` and `original` are heads with ngrams=true: beside the model's hidden states stands a linear layer over words and
runs of characters. `ours_alone` and `original_alone` are the same runs without it.

Each set keeps its own split; where it has one file, every fifth row by a fixed hash of the text is tested on. Ours and
the original Transformer hold a tenth of the training rows back for calibration and early stopping; logistic regression
learns all of them. Its words (1-2-grams; rjieba's for Chinese) and characters (1-5-grams, those that occur twice) have
sublinear counts, and its C is the best of three in 3-fold cross-validation.

    python benchmarks/heads.py [--sets trec sst2 ...] [--seeds 3] [--sides ours tfidf original] [--quick] [--related]
                               [--base NAME ...] [--baseline FOLDER ...] [--rates 1e-3 ...] [--logits FOLDER]
                               [--runs FILE] [--json FILE] [--data FOLDER] [KEY=VALUE ...]

--related gives what stands beside a head the training rows of sets with the same labels (`data.related`).
KEY=VALUE changes the recipe of ours and of the original Transformer, as in `ayllu train-head`. Every run's predictions
are a line of --runs as soon as they are there, and what stands there isn't run again. --base names the model of ours,
--baseline a trained original Transformer (recipes/mini-baseline.toml); without it, one of that shape begins with first
values. `{group}` in them stands for the kind of texts (benchmarks/adapt.py). Of several bases and --rates (optim.lr)
each set and side has those with which the model alone, with seed 0 and calibrated, has the lowest loss on the rows held
out. --logits keeps what the models say, so that a GPU may train them and another machine fit what stands beside them,
which is the same for all models and fitted once. Needs the extra `baselines`.
"""

import argparse
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from head_sets import CHINESE, DATA, GROUPS, RELATED, SETS, Split, load, parted, related
from torch import Tensor

from ayllu.checkpoint.load import open_checkpoint
from ayllu.config import build_recipe, load_recipe
from ayllu.data.label_loader import Texts, as_numbers
from ayllu.data.labelled import Labelled, names_of
from ayllu.errors import DataError, MissingExtra
from ayllu.evaluate.intervals import bootstrap, bootstrap_mean
from ayllu.evaluate.metrics import macro_f1_of
from ayllu.files import atomic_path, write_json
from ayllu.log import say, setup
from ayllu.model.build import build_model
from ayllu.model.init import initialise
from ayllu.train.calibrate import temperature
from ayllu.train.export import export
from ayllu.train.heads import train_head
from ayllu.train.heads_config import HeadRecipe
from ayllu.train.heads_lesson import prepared_head
from ayllu.train.heads_loss import logits_of
from ayllu.train.labeller import Labeller
from ayllu.train.pretrain import PretrainConfig
from ayllu.train.wide import Fits

ROOT = Path(__file__).resolve().parents[1]
SIDES = ("ours", "tfidf", "original")
ALONE = {"ours": "ours_alone", "original": "original_alone"}
PAIRS = (("ours", "tfidf"), ("ours", "original"), ("ours_alone", "original_alone"))
SHOWN = ("ours", "ours_alone", "tfidf", "original", "original_alone")
RECIPE = ("ngrams=true", "epochs=4", "optim.lr=1e-3", "label_smoothing=0.1", "word_dropout=0.15", "dropout=0.1",
          "loop.patience=0", "loop.batch_size=32", "loop.precision=bf16_masters", "loop.eval_every=1000000",
          "loop.checkpoint_every=1000000", "data.too_long=ends", "context=512")
BESIDE = 5                    # of what stands beside a head: 3 has words by their share; 5: what tells much may count
CUT = 6                       # and the words of Chinese, as 4
Run = dict[str, Any]


def tfidf(name: str, split: Split, quick: bool) -> list[str]:
    """What logistic regression over TF-IDF says of the test rows."""
    return [max(table, key=lambda label: table[label]) for table in tfidf_tables(name, split, quick)]


def tfidf_tables(name: str, split: Split, quick: bool) -> list[dict[str, float]]:
    """Its probabilities of each label."""
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import GridSearchCV
        from sklearn.pipeline import make_union
    except ImportError as error:
        raise MissingExtra("TF-IDF needs scikit-learn and rjieba: pip install 'ayllu[baselines]'") from error
    words: dict[str, Any] = {"token_pattern": r"(?u)\b\w+\b"}
    if name in CHINESE:
        import rjieba
        words = {"tokenizer": rjieba.cut, "token_pattern": None}
    features = make_union(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, **words),
                          TfidfVectorizer(analyzer="char", ngram_range=(1, 5), sublinear_tf=True, min_df=2))
    train, test = split
    x, y = features.fit_transform([str(row.text) for row in train]), [row.label for row in train]
    solver = "liblinear" if len(set(y)) == 2 else "lbfgs"
    search = GridSearchCV(LogisticRegression(max_iter=50 if quick else 300, tol=1e-3, solver=solver),
                          {"C": [1.0, 10.0, 100.0]}, cv=3)
    search.fit(x, y)
    say(f"{name}: C={search.best_params_['C']}, {x.shape[1]:,} features")
    p = search.predict_proba(features.transform([str(row.text) for row in test]))
    return [dict(zip(map(str, search.classes_), row, strict=True)) for row in p.tolist()]


@dataclass(frozen=True)
class Deep:
    """What a model says by itself, its head trained on the training rows; rounded as --logits keeps it."""

    held: Tensor                                         # (n, N) logits of the rows held out
    tested: Tensor                                       # (m, N) of those to test
    loss: float                                          # on the rows held out, after calibration
    seconds: float
    device: str

    def write(self, path: Path) -> None:
        """One file, whole or not at all."""
        parts = {"held": self.held.half().numpy(), "tested": self.tested.half().numpy()}
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, allow_pickle=False, facts=json.dumps([self.loss, self.seconds, self.device]), **parts)

    @classmethod
    def read(cls, path: Path) -> "Deep":
        """What `write` wrote."""
        with np.load(path) as found:
            held, tested = (torch.from_numpy(found[name]).float() for name in ("held", "tested"))
            return cls(held, tested, *json.loads(str(found["facts"])))


def said(split: Split, base: str, seed: int, changes: Sequence[str], quick: bool) -> Deep:
    """Train a head, and ask it."""
    start = time.perf_counter()
    labeller = trained(split, base, seed, [*changes, "ngrams=false"], quick)
    held = parted(split[0])[1]
    ids = [labeller.reading.fit(labeller.reading.ids(str(row.text))[0]) for row in (*held, *split[1])]
    many = Texts(ids, [0] * len(ids))
    logits = torch.stack(labeller.packed.logits(many) if labeller.packed else
                         logits_of(labeller.model, many, 32, labeller.device)).half().float()
    labels = as_numbers(held, labeller.facts.names, "single")
    loss = F.cross_entropy(logits[:len(held)] / temperature(logits[:len(held)], labels, "single"), labels).item()
    device = torch.cuda.get_device_name() if labeller.device.type == "cuda" else labeller.device.type
    return Deep(logits[:len(held)], logits[len(held):], loss, round(time.perf_counter() - start, 1), device)


def fits_of(split: Split, more: Sequence[Labelled] = ()) -> Fits:
    """What may stand beside any model of a set."""
    names = names_of(split[0])
    near, own, *others = (([str(row.text) for row in rows], as_numbers(rows, names, "single"))
                          for rows in (*reversed(parted(split[0])), more) if rows)
    return Fits(*near, *own, "single", len(names), *others)


def answers(deep: Deep, split: Split, fits: Fits) -> dict[str, Any]:
    """What a model says with what stands beside it (`predicted`), and `alone`."""
    wide, before, _ = fits.beside(list(deep.held))
    names, texts = names_of(split[0]), [str(row.text) for row in split[1]]
    right = {key: (logits.argmax(-1) == fits.held_labels).float().mean().item()
             for key, logits in (("accuracy", torch.stack(before)), ("alone", deep.held))}
    return {"held_out": {"loss_alone": deep.loss, **right}, "seconds": deep.seconds, "device": deep.device,
            **{key: [names[i] for i in torch.stack(list(logits)).argmax(-1).tolist()]
               for key, logits in (("predicted", wide.beside(list(deep.tested), texts)), ("alone", deep.tested))}}


def trained(split: Split, base: str, seed: int, changes: Sequence[str], quick: bool,
            more: Sequence[Labelled] = ()) -> Labeller:
    """A head that learned the training rows; what stands beside the model, related ones, too."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        parts = {**dict(zip(("train", "held_out"), parted(split[0]), strict=True)), "test": split[1],
                 **({"related": more} if more else {})}
        for file, rows in parts.items():
            lines = (json.dumps({"text": row.text, "label": row.label}, ensure_ascii=False) + "\n" for row in rows)
            (place / f"{file}.jsonl").write_text("".join(lines), encoding="utf-8")
        table = {"name": "heads", "out": str(place / "run"), "base": base, "seed": seed,
                 "data": {"path": str(place / "train.jsonl"), "held_out": str(place / "held_out.jsonl"),
                          "test": str(place / "test.jsonl"),
                          "related": [str(place / "related.jsonl")] if more else []}}
        fast = ["loop.steps=3", "context=64"] if quick else []
        recipe = build_recipe(HeadRecipe, table, [*RECIPE, *changes, *fast], where="heads")
        config, lesson = prepared_head(recipe, place)
        made = train_head(config, lesson, place)
        return Labeller.load(made["head"], config.device, is_fast=True)


def untrained(folder: Path, seed: int) -> str:
    """An original Transformer of the size of the bundled model, with first values."""
    config = load_recipe(PretrainConfig, ROOT / "recipes" / "mini-baseline.toml").model
    model = build_model(config)
    initialise(model, config.n_layers, seed)
    tokenizer = open_checkpoint("ayllu-mini").open_tokenizer()
    assert tokenizer is not None
    export(model, tokenizer, folder / f"original-{seed}", {}, None)
    return str(folder / f"original-{seed}")


@dataclass(frozen=True)
class Way:
    """On what and how the heads of a side are trained."""

    base: str | None                                     # None: the bundled model; the original with first values
    changes: tuple[str, ...] = ()


def ways(side: str, name: str, options: argparse.Namespace) -> list[Way]:
    """All that are to be tried."""
    group = next(group for group, sets in GROUPS.items() if name in sets)
    bases = [None if base in (None, "ayllu-mini") else base.format(group=group)
             for base in (options.base if side == "ours" else options.baseline) or [None]]
    rates: list[Any] = [[f"optim.lr={rate}"] for rate in options.rates] or [[]]
    return [Way(base, (*RECIPE, *options.changes, *rate)) for base, rate in product(bases, rates)]


def key_of(side: str, name: str, seed: int, way: Way, options: argparse.Namespace) -> dict[str, Any]:
    """What makes a run the same as another."""
    key = {"set": name, "side": side, "seed": seed, "quick": options.quick}
    if side == "tfidf":
        return key
    return {**key, "changes": list(way.changes), "beside": CUT if name in CHINESE else BESIDE,
            "related": list(RELATED[name]) if options.related and name in RELATED else None,
            "base" if side == "ours" else "baseline": way.base}


def deep_of(key: dict[str, Any], split: Split, options: argparse.Namespace) -> Deep:
    """What a run's model says, read where it was kept."""
    way = {k: v for k, v in key.items() if k not in ("beside", "related")}
    name = ".".join(str(way[k]) for k in ("set", "side", "seed"))
    path = options.logits and options.logits / f"{name}.{hashlib.sha256(json.dumps(way).encode()).hexdigest()[:8]}.npz"
    if path and path.exists():
        return Deep.read(path)
    with tempfile.TemporaryDirectory() as folder:
        base = key["base"] or "ayllu-mini" if key["side"] == "ours" else key["baseline"] or untrained(Path(folder),
                                                                                                    key["seed"])
        deep = said(split, base, key["seed"], key["changes"], key["quick"])
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        deep.write(path)
    return deep


def runs_of(side: str, split: Split, several: Sequence[Way], seeds: int, run: Callable[[Way, int], Run]) -> list[Run]:
    """A side's runs of a set: seed 0 in each way, and the other seeds in the best of them."""
    if side == "tfidf":
        return [run(several[0], 0)]
    first, best = [run(way, 0) for way in several], 0
    if len(first) > 1:
        if old := [one for one in first if "held_out" not in one]:
            raise DataError(f"a run of {old[0]['set']} from before the held-out loss was kept can't be compared with "
                            "others: take it out of --runs")
        best = min(range(len(first)), key=lambda i: first[i]["held_out"]["loss_alone"])
    return [first[best], *(run(several[best], seed) for seed in range(1, seeds))]


def table_row(name: str, split: Split, runs: Sequence[Run]) -> dict[str, Any]:
    """Each side's scores over its seeds, and what ours has over each of the others, paired over the test rows."""
    names = names_of([*split[0], *split[1]])
    number = {label: i for i, label in enumerate(names)}
    expected = np.array([number[str(row.label)] for row in split[1]])
    by_side: dict[str, list[np.ndarray]] = {side: [] for side in SHOWN}
    for run in runs:
        for key, side in (("predicted", run["side"]), ("alone", ALONE.get(run["side"], ""))):
            if key in run:
                by_side[side].append(np.array([number[label] for label in run[key]]))
    out: dict[str, Any] = {"set": name, "train": len(split[0]), "test": len(expected), "labels": len(names)}
    for side, predicted in by_side.items():
        if predicted:
            right = [float((p == expected).mean()) for p in predicted]
            out[side] = {"seeds": len(predicted), "accuracy": float(np.mean(right)),
                         "macro_f1": float(np.mean([macro_f1_of(expected, p, len(names)) for p in predicted]))}
    for ours, other in PAIRS:
        if by_side[ours] and by_side[other]:
            out[f"{ours}_minus_{other}"] = _difference(expected, by_side[ours], by_side[other], len(names))
    return out


def _difference(expected: np.ndarray, ours: list[np.ndarray], theirs: list[np.ndarray], n: int) -> dict[str, Any]:
    def right(sides: list[np.ndarray]) -> np.ndarray:
        return np.mean([p == expected for p in sides], axis=0)

    def f1(sides: list[np.ndarray], items: np.ndarray) -> float:
        return float(np.mean([macro_f1_of(expected[items], p[items], n) for p in sides]))

    accuracy = bootstrap_mean(right(ours) - right(theirs))
    macro = bootstrap(lambda items: f1(ours, items) - f1(theirs, items), len(expected), samples=1000)
    return {key: {"value": found.value, "low": found.low, "high": found.high}
            for key, found in (("accuracy", accuracy), ("macro_f1", macro))}


def shown(row: dict[str, Any]) -> str:
    """A line of the table, in percent."""
    cells = [f"{row['set']:<24}{row['train']:>6}{row['test']:>6}{row['labels']:>5}"]
    cells += [f"{side} {100 * row[side]['accuracy']:.1f} / {100 * row[side]['macro_f1']:.1f}" for side in SHOWN
              if side in row]
    for key in (f"{ours}_minus_{other}" for ours, other in PAIRS):
        if key in row:
            cells.append(key + " " + " / ".join(f"{100 * d['value']:+.1f} ({100 * d['low']:+.1f} to "
                                                f"{100 * d['high']:+.1f})" for d in row[key].values()))
    return "  ".join(cells)


def main() -> int:
    setup()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("changes", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS), metavar="SET")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES), metavar="SIDE")
    parser.add_argument("--quick", action="store_true", help="200 rows, 3 steps: whether it works, not how well")
    parser.add_argument("--base", nargs="+", metavar="NAME", help="models of ours; the best on rows held out is taken")
    parser.add_argument("--baseline", nargs="+", metavar="FOLDER", help="trained original Transformers, likewise")
    parser.add_argument("--rates", nargs="+", default=[], metavar="RATE", help="rates of learning to choose from")
    parser.add_argument("--logits", type=Path, help="a folder that keeps what the models say")
    parser.add_argument("--related", action="store_true", help="rows of related sets help what stands beside a head")
    parser.add_argument("--runs", type=Path, help="JSON lines: read at first, and written to after each run")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--data", type=Path, default=DATA)
    options = parser.parse_args()
    lines = options.runs.read_text(encoding="utf-8").splitlines() if options.runs and options.runs.exists() else []
    known: list[Run] = [json.loads(line) for line in lines]
    table = []
    for name in options.sets:
        split = load(name, options.data, options.quick)
        fits: list[Fits] = []                            # for all of a set's models; none where all runs are known

        def run(way: Way, seed: int, side: str, name: str = name, split: Split = split,
                fits: list[Fits] = fits) -> Run:
            key = key_of(side, name, seed, way, options)
            if (found := next((run for run in known if {k: run.get(k) for k in key} == key), None)) is not None:
                return found
            start = time.perf_counter()
            if side == "tfidf":
                made: Run = {"predicted": tfidf(name, split, options.quick)}
            else:
                deep = deep_of(key, split, options)
                if not fits:
                    fits.append(fits_of(split, related(name, split, options.data) if key["related"] else ()))
                made = answers(deep, split, fits[0])
            made = {"seconds": round(time.perf_counter() - start, 1), **key, **made}
            if options.runs:
                with open(options.runs, "a", encoding="utf-8") as file:
                    file.write(json.dumps(made, ensure_ascii=False) + "\n")
            return made

        runs = [one for side in options.sides
                for one in runs_of(side, split, ways(side, name, options), options.seeds, partial(run, side=side))]
        table.append(table_row(name, split, runs))
        print(shown(table[-1]), flush=True)
    result = {"table": table, "recipe": [*RECIPE, *options.changes], "base": options.base or ["ayllu-mini"],
              "baseline": options.baseline or "from first values"}
    if options.json:
        write_json(options.json, result)
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
