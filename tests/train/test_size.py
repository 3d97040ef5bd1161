"""One dial: the size that was asked for, monotone in all it sets, each key overridable, and it reproduces itself."""

import json
from itertools import pairwise

import pytest

from ayllu.config import load_recipe
from ayllu.errors import ConfigError
from ayllu.model.build import count_parameters
from ayllu.train.pretrain import PretrainConfig
from ayllu.train.size import KEYS, fill, parse_size

SIZES = [10**6 * m for m in (0.4, 0.5, 0.7, 1, 1.5, 2, 3, 5, 7, 10, 15, 20, 30, 42, 60, 85, 110, 135, 200, 300, 360,
                             500, 700, 1000, 1100, 1300, 1700, 2000, 3000, 5000, 7000, 8000, 13_000, 30_000, 70_000)]
BARE = {"name": "n", "out": "o", "data": {"sources": [{"path": "p"}]}}


def sized(size, vocab=1024, **more):
    """The settings of a recipe that says nothing but its size."""
    return PretrainConfig.model_validate({**BARE, "size": size, "tokenizer": {"vocab_size": vocab}, **more})


@pytest.mark.parametrize("vocab", [256, 1024, 16_000, 32_000, 128_256])
@pytest.mark.parametrize("kind", ["llama", "transformer"])
def test_the_model_has_the_size_that_was_asked_for(vocab, kind):
    for size in (s for s in SIZES if s > 100 * vocab):
        config = sized(size, vocab, model={"kind": kind})
        assert count_parameters(config.model) == pytest.approx(size, rel=0.1), size
        assert config.model.n_heads * config.model.head_dim == config.model.dim


@pytest.mark.parametrize("vocab", [256, 32_000])
def test_a_larger_size_never_means_less_of_anything_but_the_rate(vocab):
    found = [sized(size, vocab, context=1024) for size in SIZES if size > 100 * vocab]
    for small, large in pairwise(found):
        assert small.model.dim <= large.model.dim
        assert small.model.n_layers <= large.model.n_layers
        assert small.loop.batch_size <= large.loop.batch_size
        assert small.loop.steps * small.loop.batch_size < large.loop.steps * large.loop.batch_size
        assert small.optim.lr >= large.optim.lr


def test_the_numbers_are_those_of_the_papers():
    config = sized("1b", 32_000, context=2048)
    N, batch = count_parameters(config.model), config.loop.batch_size * 2048
    tokens = config.loop.steps * batch
    assert tokens == pytest.approx(20 * N, rel=1e-3)                         # Chinchilla
    assert config.model.dim / config.model.n_layers == pytest.approx(64, rel=0.1)
    D, L = config.model.dim, config.model.n_layers
    blocks = N - 32_000 * D - (2 * L + 1) * D
    operations = (6 * blocks + 12 * L * D * 2048) * tokens                   # DeepSeek's M D, written out once more
    assert batch == pytest.approx(0.2920 * operations**0.3271, rel=0.01)
    assert config.optim.lr == pytest.approx(0.3118 * operations**-0.125, rel=0.01)
    tau = batch / (config.optim.lr * config.optim.weight_decay * tokens)
    assert tau == pytest.approx(1.084 * 20**-0.527, rel=0.01)                # Power Lines
    assert config.optim.schedule.warmup_steps * batch == pytest.approx(N, rel=0.01)


def test_every_key_of_the_recipe_wins_and_the_rest_follows_from_it():
    own = {"model": {"dim": 192, "n_heads": 6, "n_kv_heads": 2}, "loop": {"batch_size": 4},
           "optim": {"lr": 0.5, "schedule": {"kind": "constant"}}}
    config = sized("5m", context=128, **own)
    assert (config.model.dim, config.model.n_heads, config.model.n_kv_heads, config.model.head_dim) == (192, 6, 2, 32)
    assert count_parameters(config.model) == pytest.approx(5e6, rel=0.1)     # met by the depth and the hidden width
    assert config.loop.steps * 4 * 128 == pytest.approx(20 * count_parameters(config.model), rel=1e-3)
    assert (config.optim.lr, config.optim.schedule.kind) == (0.5, "constant")
    assert config.optim.schedule.warmup_steps > 100
    assert not {"model.dim", "optim.lr", "loop.batch_size"} & set(config.sized)
    assert config.sized.keys() <= set(KEYS)
    short = sized("5m", context=128, loop={"steps": 100})
    assert short.loop.steps == 100
    assert short.loop.batch_size < sized("5m", context=128).loop.batch_size  # fewer operations: a smaller batch
    assert sized("5m", optim={"kind": "prodigy"}).optim.lr == 1.0            # finds the rate itself


def test_what_lies_outside_a_fit_says_so():
    assert "extrapolated" in sized("15m").sized["optim.lr"]
    assert "extrapolated" not in sized("150m", 32_000).sized["optim.lr"]


def test_resolved_settings_reproduce_themselves_and_take_another_size(tmp_path):
    first = sized("2m", context=128, model={"rope_theta": 5000.0})
    path = tmp_path / "config.json"
    path.write_text(json.dumps(first.model_dump()), encoding="utf-8")
    assert load_recipe(PretrainConfig, path) == first
    larger = load_recipe(PretrainConfig, path, ["size=4m"])
    assert count_parameters(larger.model) == pytest.approx(4e6, rel=0.1)
    assert larger.model.rope_theta == 5000.0             # not the dial's
    assert larger.loop.steps != first.loop.steps
    other = load_recipe(PretrainConfig, path, ["optim.lr=0.7"])
    assert other.model == first.model
    assert "optim.lr" not in other.sized                 # that rule isn't where it comes from any more


def test_a_size_on_the_command_line_replaces_the_shape_of_the_recipe(tmp_path):
    (tmp_path / "base.toml").write_text('name = "n"\nout = "o"\n[tokenizer]\nvocab_size = 1024\n[model]\ndim = 32\n'
                                        'n_layers = 9\nmax_context = 512\n[data]\nsources = [{path = "p"}]\n')
    (tmp_path / "top.toml").write_text('extends = "base.toml"\nsize = "3m"\n[model]\nn_layers = 5\n')
    config = load_recipe(PretrainConfig, tmp_path / "base.toml", ["model.n_layers=6", "size=3m"])
    assert count_parameters(config.model) == pytest.approx(3e6, rel=0.1)
    assert (config.model.n_layers, config.model.max_context) == (6, 512)     # beside the size: kept, in any order
    assert load_recipe(PretrainConfig, tmp_path / "top.toml").model.n_layers == 5


@pytest.mark.parametrize(("text", "number"), [("15m", 15_000_000), ("1.1B", 1_100_000_000), ("800k", 800_000),
                                              (2_000_000, 2_000_000), (1e6, 1_000_000), ("250000", 250_000)])
def test_sizes_are_read(text, number):
    assert parse_size(text) == number


@pytest.mark.parametrize("text", ["", "m", "15q", "1.2.3m", -5, 0, "1e99b"])
def test_what_is_no_size_says_how_to_write_one(text):
    with pytest.raises(ConfigError, match="size=15m"):
        parse_size(text)


def test_impossible_sizes_and_missing_vocabularies_say_what_to_do():
    with pytest.raises(ConfigError, match=r"32,000.*embedding"):
        sized("500k", 32_000)
    with pytest.raises(ConfigError, match="vocab_size"):
        fill({**BARE, "size": "5m", "tokenizer": "some.model"}, 512)
