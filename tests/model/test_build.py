"""The model that settings name, its size, and models made equal in size."""

import pytest
import torch

from ayllu.config import Settings, validate
from ayllu.errors import ConfigError
from ayllu.model.build import ModelSettings, build_model, count_parameters, match_hidden_dim
from ayllu.model.config import LlamaConfig, TransformerConfig
from ayllu.model.llama import Llama
from ayllu.model.transformer import Transformer

SHAPE = {"dim": 48, "n_layers": 2, "n_heads": 4, "n_kv_heads": 4, "head_dim": 12, "hidden_dim": 96, "vocab_size": 101}


class Recipe(Settings):
    model: ModelSettings


@pytest.mark.parametrize(("table", "config", "model"), [
    ({}, LlamaConfig, Llama), ({"kind": "llama"}, LlamaConfig, Llama),
    ({"kind": "transformer"}, TransformerConfig, Transformer)])
def test_kind_chooses_and_llama_is_the_default(table, config, model):
    recipe = validate(Recipe, {"model": SHAPE | table}, "x.toml")
    assert type(recipe.model) is config
    assert type(build_model(recipe.model)) is model
    assert validate(Recipe, recipe.model_dump(), "again") == recipe           # a run's resolved recipe is read back


@pytest.mark.parametrize(("model", "says"), [
    (SHAPE | {"kind": "gpt"}, "'llama' .* or 'transformer'"), (5, "'llama' .* or 'transformer'"),
    (SHAPE | {"kind": "transformer", "norm_plaec": "pre"}, "did you mean 'norm_place'"),
    (SHAPE | {"norm_place": "pre"}, "unknown key 'model.llama.norm_place'"),
    (SHAPE | {"kind": "transformer", "rope_theta": 5.0}, "unknown key"),
    (SHAPE | {"kind": "transformer", "order": "literal", "norm_place": "pre"}, "leave norm_place='post'"),
    (SHAPE | {"kind": "transformer", "dim": 47}, "dim=47 must be even"),
    (SHAPE | {"kind": "transformer", "head_dim": 9, "positions": "rope"}, "head_dim=9 must be even"),
    (SHAPE | {"kind": "transformer", "n_kv_heads": 3}, "multiple of n_kv_heads"),
    (SHAPE | {"kind": "transformer", "dropout": 1.0}, "less than 1")])
def test_bad_settings_are_explained(model, says):
    with pytest.raises(ConfigError, match=says):
        validate(Recipe, {"model": model}, "x.toml")


@pytest.mark.parametrize("config", [LlamaConfig(**SHAPE), LlamaConfig(**SHAPE, tie_embeddings=True),
                                    TransformerConfig(**SHAPE), TransformerConfig(**SHAPE, order="literal")])
def test_count_is_what_the_model_has(config):
    assert count_parameters(config) == sum(p.numel() for p in build_model(config).parameters())


@pytest.mark.parametrize("fields", [{}, {"feed_forward": "swiglu"}, {"n_kv_heads": 1}, {"order": "literal"},
                                    {"norm_place": "pre", "norm": "rmsnorm"}])
def test_matched_sizes_agree_within_one_percent(fields):
    target = count_parameters(TransformerConfig(**SHAPE))
    matched = match_hidden_dim(TransformerConfig(**{**SHAPE, "hidden_dim": 7, **fields}), target)
    assert abs(count_parameters(matched) - target) <= 0.01 * target
    assert matched.model_copy(update={"hidden_dim": 7}) == TransformerConfig(**{**SHAPE, "hidden_dim": 7, **fields})
    llama = match_hidden_dim(LlamaConfig(**SHAPE, tie_embeddings=True), target)
    assert abs(count_parameters(llama) - target) <= 0.01 * target


def test_sizes_out_of_reach_are_refused():
    with pytest.raises(ConfigError, match="no hidden_dim brings this llama to 1,000 parameters"):
        match_hidden_dim(LlamaConfig(**SHAPE), 1000)


def test_counting_allocates_nothing():
    huge = LlamaConfig(dim=16384, n_layers=126, n_heads=128, n_kv_heads=8, head_dim=128, hidden_dim=53248,
                       vocab_size=128256)
    assert round(count_parameters(huge) / 1e9) == 406    # Llama 3.1 405B
    assert torch.get_default_device().type == "cpu"
