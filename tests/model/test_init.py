"""Initial values depend on the parameter's name and the seed, and on nothing else."""

import math

import pytest
import torch

from ayllu.model.build import build_model
from ayllu.model.config import LlamaConfig, TransformerConfig
from ayllu.model.init import first_value, generator, initialise

SHAPE = {"dim": 64, "n_layers": 3, "n_heads": 4, "n_kv_heads": 4, "head_dim": 16, "hidden_dim": 96, "vocab_size": 211}


def values(seed=1, kind=LlamaConfig, n_layers_for_std=3, **fields):
    model = build_model(kind(**{**SHAPE, **fields}))
    initialise(model, n_layers_for_std, seed)
    return dict(model.named_parameters())


@pytest.mark.parametrize("kind", [LlamaConfig, TransformerConfig])
def test_same_seed_same_values_whatever_was_drawn_before(kind):
    first = values(kind=kind)
    torch.manual_seed(99)
    torch.rand(5)
    second = values(kind=kind)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_another_seed_and_another_name_give_other_values():
    one, two = values(seed=1), values(seed=2)
    matrices = [name for name in one if one[name].dim() == 2]
    assert not any(torch.equal(one[name], two[name]) for name in matrices)
    assert not torch.equal(one["layers.0.attention.wq.weight"], one["layers.1.attention.wq.weight"])
    assert not torch.equal(one["layers.0.attention.wq.weight"], one["layers.0.attention.wk.weight"])


def test_a_parameter_starts_alike_in_every_model_that_has_it():
    """Comparisons of architectures start from the same numbers, and so does a model with more layers or a tied head."""
    llama, deeper = values(), values(n_layers=5, tie_embeddings=True)
    transformer = values(kind=TransformerConfig, tie_embeddings=False)
    for other in (deeper, transformer):
        common = [name for name in llama if name in other and llama[name].dim() == 2]
        assert len(common) > 15
        assert all(torch.equal(llama[name], other[name]) for name in common)


def test_values_are_drawn_on_the_cpu_in_float32_for_every_dtype():
    single = values()
    model = build_model(LlamaConfig(**SHAPE)).bfloat16()
    initialise(model, 3, seed=1)
    assert all(torch.equal(single[name].bfloat16(), p) for name, p in model.named_parameters())


def test_widths():
    parameters = values(kind=TransformerConfig, tie_embeddings=False)
    for name, parameter in parameters.items():
        if name.endswith("bias"):
            assert (parameter == 0).all(), name
        elif parameter.dim() == 1:
            assert (parameter == 1).all(), name
        else:
            is_residual = name.endswith(("wo.weight", "w2.weight"))
            expected = 0.02 / math.sqrt(6) if is_residual else 0.02
            assert abs(parameter.std().item() / expected - 1) < 0.05, name


def test_generators_do_not_collide_over_many_names():
    names = [(seed, f"layers.{i}.wq") for seed in range(20) for i in range(50)]
    firsts = {torch.rand(1, generator=generator(seed, name)).item() for seed, name in names}
    assert len(firsts) > 990                             # rand has 2^24 values: a few may meet


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_drawn_on_a_gpu():
    first, again = (first_value("layers.0.attention.wq.weight", torch.Size((64, 64)), 3, 1, "cuda") for _ in range(2))
    assert first.device.type == "cuda"
    assert torch.equal(first, again)
    assert abs(first.std().item() / 0.02 - 1) < 0.05
