"""The recipes of the architecture comparison differ in one change each; size, data, steps and first values agree."""

from argparse import Namespace
from pathlib import Path

import pytest
from scripts import load_script

from ayllu.config import load_recipe
from ayllu.errors import ConfigError
from ayllu.model.build import build_model, count_parameters
from ayllu.train.pretrain import PretrainConfig

ROOT = Path(__file__).parents[1]
RECIPES = ROOT / "recipes/compare"
CHANGES = {"paper": set(), "pre_norm": {"norm_place"}, "rmsnorm": {"norm"}, "rope": {"positions"},
           "swiglu": {"feed_forward"}, "gqa": {"n_kv_heads"}, "literal": {"order"},
           "llama": {"norm_place", "norm", "positions", "feed_forward", "n_kv_heads"}}


def recipe(name):
    return load_recipe(PretrainConfig, RECIPES / f"{name}.toml")


@pytest.fixture(scope="module")
def benchmark_file():
    return load_script("benchmarks/architecture.py")


def test_every_recipe_is_compared_and_every_arm_has_a_recipe(benchmark_file):
    assert {path.stem for path in RECIPES.glob("*.toml")} == set(CHANGES) == set(benchmark_file.ARMS)


@pytest.mark.parametrize("name", CHANGES)
def test_one_change_and_nothing_else(name):
    paper, other = recipe("paper"), recipe(name)
    assert other.model_dump(exclude={"name", "out", "model"}) == paper.model_dump(exclude={"name", "out", "model"})
    ours, theirs = other.model.model_dump(), paper.model.model_dump()
    changed = {key for key in theirs if ours[key] != theirs[key]}
    assert changed - {"hidden_dim"} == CHANGES[name]
    assert abs(count_parameters(other.model) / count_parameters(paper.model) - 1) < 0.01


def test_the_paper_recipe_is_the_paper():
    """What the recipe doesn't say is the paper's: post-norm, LayerNorm, sinusoids, ReLU, a tied head, 4 D hidden."""
    model = recipe("paper").model
    assert (model.order, model.norm_place, model.norm, model.positions, model.feed_forward, model.tie_embeddings) == (
        "paper", "post", "layernorm", "sinusoidal", "relu", True)
    assert model.hidden_dim == 4 * model.dim
    assert model.n_heads * model.head_dim == model.dim
    assert sum(p.numel() for p in build_model(model).parameters()) == count_parameters(model)


def test_unequal_arms_are_refused(benchmark_file, tmp_path):
    """The benchmark checks before it trains: another size or other data end it with a message."""
    paper = recipe("paper")
    larger = paper.model_copy(update={"name": "larger", "model": paper.model.model_copy(update={"hidden_dim": 600})})
    with pytest.raises(SystemExit, match="over 1 % apart"):
        benchmark_file.same_shards({"paper": paper, "larger": larger}, tmp_path)
    longer = paper.model_copy(update={"name": "longer", "context": 256})
    with pytest.raises(SystemExit, match="longer differs from compare-paper"):
        benchmark_file.same_shards({"paper": paper, "longer": longer}, tmp_path)


def test_the_best_rate_of_each_arm_and_pairs_of_seeds(benchmark_file):
    """Rows take the learning rate that was best with the first seed, and compare runs of equal seeds."""
    def run(arm, lr, seed, bits):
        return benchmark_file.Run(arm, lr, seed, {"en": bits, "all": bits}, 1.0, 2.0, 100)

    runs = [run("paper", 1e-3, 0, 2.0), run("paper", 3e-3, 0, 3.0), run("paper", 1e-3, 1, 2.4),
            run("rope", 1e-3, 0, 2.5), run("rope", 3e-3, 0, 1.5), run("rope", 3e-3, 1, 2.1)]
    rows = [benchmark_file.row(arm, recipe(arm), runs) for arm in ("paper", "rope")]
    paper, rope = (benchmark_file.compared(row, rows[0]) for row in rows)
    assert (paper.lr, rope.lr, paper.difference) == (1e-3, 3e-3, None)
    assert (paper.mean, rope.mean, rope.difference) == pytest.approx((2.2, 1.8, -0.4))
    assert rope.difference_error == pytest.approx(0.1)   # pairs -0.5 and -0.3
    printed = benchmark_file.table([paper, rope], Namespace(steps=1, seeds=2, lrs=[1e-3, 3e-3]))
    assert "| + RoPE | 1,315,328 | 0.003 | 1.8000 ± 0.4243 | -0.4000 ± 0.1000 | 1.800 | 50 |" in printed


def test_a_misspelt_switch_is_named(tmp_path):
    (tmp_path / "paper.toml").write_text((RECIPES / "paper.toml").read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "bad.toml").write_text('extends = "paper.toml"\n[model]\nnorm_plce = "pre"\n', encoding="utf-8")
    with pytest.raises(ConfigError, match="did you mean 'norm_place'"):
        load_recipe(PretrainConfig, tmp_path / "bad.toml")
