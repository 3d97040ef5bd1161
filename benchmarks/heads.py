"""Classification on real sets: the bundled model with a head, beside TF-IDF with logistic regression and beside the
original Transformer of the same size, trained in the same way.

`ours` and `original` are heads with ngrams=true: beside the model's hidden states stands a linear layer over words and
runs of characters. `ours_alone` and `original_alone` are the same runs without it.

Each set keeps its own split; where it has one file, every fifth row by a fixed hash of the text is tested on. Ours and
the original Transformer hold a tenth of the training rows back for calibration and early stopping; logistic regression
learns all of them. Its words (1-2-grams; rjieba's for Chinese) and characters (1-5-grams, those that occur twice) have
sublinear counts, and its C is the best of three in 3-fold cross-validation.

    python benchmarks/heads.py [--sets trec sst2 ...] [--seeds 3] [--sides ours tfidf original] [--quick]
                               [--related] [--baseline FOLDER] [--runs FILE] [--json FILE] [--data FOLDER]
                               [KEY=VALUE ...]

--related gives what stands beside a head the training rows of sets with the same labels (`data.related`).
KEY=VALUE changes the recipe of ours and of the original Transformer, as in `ayllu train-head`. Every run's predictions
are a line of --runs as soon as they are there, and what stands there isn't run again. --baseline names a trained
original Transformer (recipes/mini-baseline.toml); without it, one of that shape begins with first values. Needs the
extra `baselines`.
"""

import argparse
import json
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ayllu.checkpoint.load import open_checkpoint
from ayllu.config import build_recipe, load_recipe
from ayllu.data.label_loader import Texts
from ayllu.data.labelled import Labelled, names_of, position
from ayllu.data.readers import columns, records
from ayllu.data.rows import Reject
from ayllu.errors import DataError, MissingExtra
from ayllu.evaluate.intervals import bootstrap, bootstrap_mean
from ayllu.evaluate.metrics import macro_f1_of
from ayllu.files import write_json
from ayllu.log import say, setup
from ayllu.model.build import build_model
from ayllu.model.init import initialise
from ayllu.train.export import export
from ayllu.train.heads import train_head
from ayllu.train.heads_config import HeadRecipe
from ayllu.train.heads_lesson import as_words, prepared_head
from ayllu.train.heads_loss import logits_of
from ayllu.train.labeller import Labeller
from ayllu.train.pretrain import PretrainConfig

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
SETS = {                                                 # set: its files to train and to test on, None: a hash decides
    "trec": ("train", "test"), "sst2": ("train", "test"), "tnews": ("train", "test"), "movie_reviews": ("train", None),
    "chnsenticorp_htl": ("train", None), "waimai_10k": ("train", None), "ag_news_test": ("test", None),
    "banking77": ("train", "test"), "clinc150": ("train", "test"), "online_shopping_10_cats": ("train", None)}
RELATED = {                                              # set: others with its labels, for --related
    "sst2": ("movie_reviews",), "movie_reviews": ("sst2",),
    "chnsenticorp_htl": ("online_shopping_10_cats", "waimai_10k"),
    "waimai_10k": ("online_shopping_10_cats", "chnsenticorp_htl"),
    "online_shopping_10_cats": ("waimai_10k", "chnsenticorp_htl")}
SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")              # where one ends, in texts without capital letters
CHINESE = {"tnews", "chnsenticorp_htl", "waimai_10k", "online_shopping_10_cats"}
SIDES = ("ours", "tfidf", "original")
ALONE = {"ours": "ours_alone", "original": "original_alone"}
PAIRS = (("ours", "tfidf"), ("ours", "original"), ("ours_alone", "original_alone"))
SHOWN = ("ours", "ours_alone", "tfidf", "original", "original_alone")
RECIPE = ("ngrams=true", "epochs=4", "optim.lr=1e-3", "label_smoothing=0.1", "word_dropout=0.15", "dropout=0.1",
          "loop.patience=0", "loop.batch_size=32", "loop.precision=bf16_masters", "loop.eval_every=1000000",
          "loop.checkpoint_every=1000000", "data.too_long=ends", "context=512")
BESIDE = 3                    # of what stands beside a head: 2 knows the lexicon and corrects; 3: words by their share
CUT = 4                       # and the words of Chinese
Run = dict[str, Any]
Split = tuple[list[Labelled], list[Labelled]]


def load(name: str, data: Path, quick: bool) -> Split:
    """The rows to learn and those to test."""
    train, test = (None if part is None else _read(data / name / f"{part}.jsonl.zst") for part in SETS[name])
    assert train is not None
    if test is None:
        train, test = [[r for r in train if (position(r.text) < 0.2) is tested] for tested in (False, True)]
    return (train[::len(train) // 200], test[::len(test) // 100]) if quick else (train, test)


def related(name: str, split: Split, data: Path) -> list[Labelled]:
    """The rows to learn of related sets, each sentence of a long English review by itself; those of which a third of
    the runs of 10 characters stands in this set are left out, since some sets have reviews of each other."""
    known = {run for part in split for row in part for run in _runs(row)}
    rows = [row for other in RELATED[name] for row in load(other, data, False)[0]]
    if "movie_reviews" in RELATED[name]:
        rows = [replace(row, text=text) for row in rows for text in SENTENCE.split(str(row.text))
                if len(text.split()) > 3]
    kept = [row for row in rows if 3 * sum(run in known for run in _runs(row)) < len(_runs(row))]
    say(f"{name}: {len(kept):,} related rows; {len(rows) - len(kept):,} more are much like its own and left out")
    return kept


def _runs(row: Labelled) -> set[str]:
    text = as_words(row.text)
    return {text[i:i + 10] for i in range(max(len(text) - 9, 1))}


def _read(file: Path) -> list[Labelled]:
    """As `read_labelled`; a title stands above its text."""
    rows = []
    for record in records(file, (), file.name):
        if isinstance(record, Reject):
            raise DataError(f"{record.file}, row {record.line}: {record.reason}")
        row: Any = columns(record)
        text = f"{row['title']}\n{row['text']}" if "title" in row else row["text"]
        rows.append(Labelled(file.name, record.line, text, str(row["label"])))
    return rows


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


def headed(split: Split, base: str, seed: int, changes: Sequence[str], quick: bool,
           more: Sequence[Labelled] = ()) -> dict[str, list[str]]:
    """What a head says that was trained on the training rows: with its grams (`predicted`), and the model `alone`."""
    both, texts = trained(split, base, seed, changes, quick, more), [str(row.text) for row in split[1]]
    known = Known(both)
    return {name: [answer.labels[0] for answer in replace(both, packed=known, wide=wide)(texts)]
            for name, wide in (("predicted", both.wide), ("alone", None))}


class Known:
    """What a head's model gives for some texts, computed once."""

    def __init__(self, labeller: Labeller) -> None:
        self.labeller, self.found = labeller, list[Tensor]()

    def logits(self, texts: Texts) -> list[Tensor]:
        """They are the same texts each time."""
        if not self.found:
            packed, model = self.labeller.packed, self.labeller.model
            self.found = packed.logits(texts) if packed else logits_of(model, texts, 32, self.labeller.device)
        return self.found


def trained(split: Split, base: str, seed: int, changes: Sequence[str], quick: bool,
            more: Sequence[Labelled] = ()) -> Labeller:
    """A head that learned the training rows; what stands beside the model, related ones, too."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        held = [position(f"held out {row.text}") < 0.1 for row in split[0]]
        parts = {"train": [row for row, out in zip(split[0], held, strict=True) if not out],
                 "held_out": [row for row, out in zip(split[0], held, strict=True) if out], "test": split[1],
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


def measure(side: str, name: str, split: Split, seed: int, options: argparse.Namespace,
            folder: Path) -> dict[str, list[str]]:
    """The answers of one side."""
    if side == "tfidf":
        return {"predicted": tfidf(name, split, options.quick)}
    base = "ayllu-mini" if side == "ours" else str(options.baseline or untrained(folder, seed))
    more = related(name, split, options.data) if options.related and name in RELATED else ()
    return headed(split, base, seed, options.changes, options.quick, more)


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
    parser.add_argument("--baseline", type=Path, help="the folder of a trained original Transformer")
    parser.add_argument("--related", action="store_true", help="rows of related sets help what stands beside a head")
    parser.add_argument("--runs", type=Path, help="JSON lines: read at first, and written to after each run")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--data", type=Path, default=DATA)
    options = parser.parse_args()
    how = {"ours": {"changes": [*RECIPE, *options.changes], "beside": BESIDE, "quick": options.quick},
           "tfidf": {"quick": options.quick}}
    how["original"] = {**how["ours"], "baseline": str(options.baseline) if options.baseline else None}
    lines = options.runs.read_text(encoding="utf-8").splitlines() if options.runs and options.runs.exists() else []
    runs: list[Run] = [json.loads(line) for line in lines]
    table = []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.sets:
            split = load(name, options.data, options.quick)
            mine = []
            for side in options.sides:
                for seed in range(1 if side == "tfidf" else options.seeds):
                    key = {"set": name, "side": side, "seed": seed, **how[side]}
                    if side != "tfidf" and name in CHINESE:
                        key["beside"] = CUT
                    if side != "tfidf":
                        key["related"] = list(RELATED[name]) if options.related and name in RELATED else None
                    run = next((run for run in runs if {k: run.get(k) for k in key} == key), None)
                    if run is None:
                        start = time.perf_counter()
                        found = measure(side, name, split, seed, options, Path(folder))
                        run = {**key, "seconds": round(time.perf_counter() - start, 1), **found}
                        if options.runs:
                            with open(options.runs, "a", encoding="utf-8") as file:
                                file.write(json.dumps(run, ensure_ascii=False) + "\n")
                    mine.append(run)
            table.append(table_row(name, split, mine))
            print(shown(table[-1]), flush=True)
    result = {"table": table, "recipe": how["ours"]["changes"],
              "baseline": how["original"]["baseline"] or "from first values"}
    if options.json:
        write_json(options.json, result)
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
