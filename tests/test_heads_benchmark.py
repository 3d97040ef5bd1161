"""The benchmark of heads measures what the package's heads say, and adapts a base to nothing that it tests on."""

import json
import sys
from argparse import Namespace

import pytest
import zstandard
from scripts import ROOT, load_script

RECIPE = ["loop.precision=float32", "loop.steps=4", "context=32", "threads=1", "label_smoothing=0.1"]


@pytest.fixture(scope="module")
def benchmark():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    yield load_script("benchmarks/heads.py")
    sys.path.remove(str(ROOT / "benchmarks"))


@pytest.fixture
def data(tmp_path):
    """Three small sets in the place of these."""
    kinds = {"water": "the boat drifts slowly down the river", "sky": "the stars stand quietly above the hills"}
    for name, sizes in {"trec": {"train": 80, "test": 20}, "banking77": {"train": 40, "test": 10},
                        "clinc150": {"train": 40, "test": 10}}.items():
        for part, size in sizes.items():
            rows = [{"text": f"{said} {name} {part} {i * 7919 % 997}", "label": label}
                    for i in range(size) for label, said in kinds.items()]
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / f"{part}.jsonl.zst").write_bytes(zstandard.compress(lines.encode()))
    return tmp_path


def test_what_stands_beside_is_what_the_package_fits(benchmark, data, tiny_checkpoint):
    """The slow twin: a head with ngrams=true, which fits its own layer of words."""
    split = benchmark.load("trec", data, False)
    deep = benchmark.said(split, str(tiny_checkpoint), 1, RECIPE, False)
    found = benchmark.answers(deep, split, benchmark.fits_of(split))
    head = benchmark.trained(split, str(tiny_checkpoint), 1, [*RECIPE, "ngrams=true"], False)
    assert found["predicted"] == [answer.labels[0] for answer in head([str(row.text) for row in split[1]])]
    assert found["held_out"]["accuracy"] > 0.9
    assert found["held_out"]["loss_alone"] == deep.loss > 0


def test_what_a_model_says_is_kept(benchmark, data, tiny_checkpoint, tmp_path):
    split = benchmark.load("trec", data, False)
    options = Namespace(quick=False, related=False, logits=tmp_path / "kept")
    key = benchmark.key_of("ours", "trec", 0, benchmark.Way(str(tiny_checkpoint), tuple(RECIPE)), options)
    first = benchmark.deep_of(key, split, options)
    (kept,) = options.logits.iterdir()
    again = benchmark.deep_of({**key, "beside": 99}, [], options)            # not trained: there are no rows
    assert again.held.equal(first.held)
    assert again.tested.equal(first.tested)
    assert (again.loss, again.seconds, again.device) == (first.loss, first.seconds, "cpu")
    assert kept.name.startswith("trec.ours.0.")


def test_the_way_that_is_best_on_the_rows_held_out_has_the_other_seeds(benchmark):
    losses = {"a": 0.5, "b": 0.4, "c": 0.6}
    several = [benchmark.Way(base) for base in losses]
    asked = []

    def run(way, seed):
        asked.append((way.base, seed))
        return {"set": "trec", "base": way.base, "seed": seed, "held_out": {"loss_alone": losses[way.base]}}

    runs = benchmark.runs_of("ours", [], several, 3, run)
    assert [(one["base"], one["seed"]) for one in runs] == [("b", 0), ("b", 1), ("b", 2)]
    assert asked == [("a", 0), ("b", 0), ("c", 0), ("b", 1), ("b", 2)]
    with pytest.raises(benchmark.DataError, match="take it out of --runs"):
        benchmark.runs_of("ours", [], several, 1, lambda way, seed: {"set": "trec"})


def test_published_runs_are_known_again(benchmark):
    options = Namespace(quick=False, related=False, base=["ayllu-small"], baseline=None, rates=["1e-3"],
                        changes=["loop.precision=float32"])
    (way,) = benchmark.ways("ours", "trec", options)
    key = benchmark.key_of("ours", "trec", 0, way, options)
    lines = (ROOT / "benchmarks" / "runs" / "heads.jsonl").read_text(encoding="utf-8").splitlines()
    assert sum({k: run.get(k) for k in key} == key for run in map(json.loads, lines)) == 1
    other = benchmark.ways("ours", "trec", Namespace(**{**vars(options), "base": ["ayllu-mini", "to/{group}/model"],
                                                        "rates": ["1e-3", "5e-4"]}))
    assert [one.base for one in other] == [None, None, "to/questions_en/model", "to/questions_en/model"]


def test_a_base_is_not_adapted_to_what_is_tested_or_held_out(benchmark, data):
    adapt = load_script("benchmarks/adapt.py")
    for part in ("train", "test"):
        path = data / "trec" / f"{part}.jsonl.zst"
        rows = [{"text": f"{part} alone says {i}", "label": "sky"} for i in range(30)]
        if part == "train":
            rows += [{"text": "Quite other words begin here! test alone says 7", "label": "sky"}]
        path.write_bytes(zstandard.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    texts = list(adapt.texts_of("questions_en", data))
    assert not any("test alone" in text for text in texts)
    held = benchmark.parted(benchmark.load("trec", data, False)[0])[1]
    assert "Quite other words begin here!" in texts or any(row.text.startswith("Quite") for row in held)
    assert not {row.text for row in held} & set(texts)
