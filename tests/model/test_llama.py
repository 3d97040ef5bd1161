"""Llama against its slow twin in numpy, and what must hold without any reference."""

import pytest
import torch
from oracles import llama_numpy
from pydantic import ValidationError

from ayllu.model.attend import Causal, packed
from ayllu.model.config import LlamaConfig
from ayllu.model.llama import Llama, rope_frequencies

SHAPE = {"dim": 24, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "head_dim": 8, "hidden_dim": 40, "vocab_size": 61,
         "max_context": 16}
VARIANTS = {
    "plain": {},
    "one key/value head": {"n_kv_heads": 1},
    "a head for each": {"n_kv_heads": 4, "head_dim": 6},
    "odd widths": {"dim": 23, "hidden_dim": 17, "head_dim": 10, "n_heads": 3, "n_kv_heads": 3},
    "tied": {"tie_embeddings": True},
    "biases": {"qkv_bias": True, "out_bias": True, "mlp_bias": True},
    "window": {"sliding_window": 5},
    "window from layer 1": {"sliding_window": 5, "first_sliding_layer": 1},
    "linear": {"rope_scaling": {"kind": "linear", "factor": 3.0}},
    "dynamic": {"rope_scaling": {"kind": "dynamic", "factor": 3.0}},
    "yarn": {"rope_scaling": {"kind": "yarn", "factor": 4.0, "original_context": 16}},
    "yarn untruncated": {"rope_scaling": {"kind": "yarn", "factor": 4.0, "beta_fast": 2.0, "beta_slow": 0.3,
                                          "truncate": False}},
    "llama3": {"rope_scaling": {"kind": "llama3", "factor": 8.0}, "rope_theta": 500_000.0},
}


def random_model(**fields):
    """Weights under which every part matters: logits of std about 2, sharp attention, biases and norms off neutral."""
    torch.manual_seed(0)
    model = Llama(LlamaConfig(**{**SHAPE, **fields})).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape)
            if parameter.dim() == 1:
                parameter.copy_(0.5 * noise + (0 if name.endswith("bias") else 1))
            else:
                parameter.copy_(2 * noise / parameter.shape[1]**0.5)
    return model


def weights(model):
    return {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("fields", VARIANTS.values(), ids=VARIANTS)
def test_equals_the_numpy_twin(fields):
    model, ids = random_model(**fields), torch.randint(0, 61, (37,), generator=torch.Generator().manual_seed(1))
    expected = torch.tensor(llama_numpy.logits(model.config, weights(model), ids.tolist()))
    assert expected.std() >= 1
    with torch.inference_mode():
        found = model.double()(ids[None])[0]
    assert (found - expected).abs().max() < 1e-4 * expected.std()             # rotations are float32 in the model


def test_packed_documents_are_as_alone():
    model, ids = random_model(), torch.randint(0, 61, (1, 12), generator=torch.Generator().manual_seed(2))
    document = torch.tensor([[0] * 5 + [1] * 4 + [2] * 3])
    positions = torch.tensor([[*range(5), *range(4), *range(3)]])
    with torch.inference_mode():
        together = model(ids, positions, [packed(document)] * 2)
        alone = torch.cat([model(part) for part in ids.split([5, 4, 3], dim=1)], dim=1)
    torch.testing.assert_close(together, alone, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("fields", VARIANTS.values(), ids=VARIANTS)
def test_the_future_changes_nothing(fields):
    if fields.get("rope_scaling", {}).get("kind") == "dynamic":
        fields = {"rope_scaling": {**fields["rope_scaling"], "original_context": 64}}   # past it, length matters
    model, ids = random_model(**fields), torch.randint(0, 61, (1, 30), generator=torch.Generator().manual_seed(3))
    other = ids.clone()
    other[:, 20:] = (ids[:, 20:] + 1) % 61
    with torch.inference_mode():
        a, b = model(ids), model(other)
    assert torch.equal(a[:, :20], b[:, :20])
    assert not torch.allclose(a[:, 20:], b[:, 20:])


def test_rows_with_different_positions_are_as_alone():
    model, ids = random_model(), torch.randint(0, 61, (2, 9), generator=torch.Generator().manual_seed(4))
    positions = torch.stack((torch.arange(9), torch.arange(9) * 2 + 5))
    with torch.inference_mode():
        both = model(ids, positions)
        for row in range(2):
            torch.testing.assert_close(both[row], model(ids[row:row + 1], positions[row])[0], atol=2e-5, rtol=1e-5)


def test_the_three_verbs_compose():
    model, ids = random_model(), torch.randint(0, 61, (2, 9), generator=torch.Generator().manual_seed(5))
    hidden = model.trunk(model.embed(ids))
    assert hidden.shape == (2, 9, 24)
    assert torch.equal(model.logits(hidden), model(ids))
    assert model.logits(hidden[:, -1]).shape == (2, 61)


def test_attends_must_be_one_per_layer():
    with pytest.raises(ValueError, match="shorter"):
        random_model()(torch.zeros(1, 3, dtype=torch.long), None, [Causal()])


def test_dropout_in_training_only():
    model = random_model(attention_dropout=0.5, residual_dropout=0.5, embedding_dropout=0.5)
    ids = torch.randint(0, 61, (1, 9), generator=torch.Generator().manual_seed(6))
    assert torch.equal(model(ids), model(ids))
    plain = model(ids)
    for field in ("attention_dropout", "residual_dropout", "embedding_dropout"):
        one = random_model(**{field: 0.5})
        assert torch.equal(one(ids), plain)
        assert not torch.allclose(one.train()(ids), plain), field


def test_dynamic_frequencies_without_a_length_are_plain():
    config = LlamaConfig(**{**SHAPE, "rope_scaling": {"kind": "dynamic", "factor": 2.0}})
    plain = rope_frequencies(LlamaConfig(**SHAPE))[0]
    assert torch.equal(rope_frequencies(config)[0], plain)
    rows = rope_frequencies(config, torch.tensor([16, 17, 64]))[0]
    assert rows.shape == (3, 4)
    torch.testing.assert_close(rows[0], plain)
    assert (rows[1:, 1:] < rows[:-1, 1:]).all()


@pytest.mark.parametrize(("fields", "says"), [
    ({"n_kv_heads": 3}, "multiple of n_kv_heads"), ({"head_dim": 7}, "must be even"), ({"dim": 0}, "greater than 0"),
    ({"head_dim": 2, "rope_scaling": {"kind": "dynamic", "factor": 2.0}}, "head_dim of at least 4"),
    ({"rope_scaling": {"kind": "llama3", "factor": 2.0, "low_freq_factor": 4.0}}, "must be above"),
    ({"rope_scaling": {"kind": "ntk", "factor": 2.0}}, "linear"),
    ({"rope_scaling": {"kind": "longrope", "factor": 2.0}}, "short_factor needs")])
def test_impossible_shapes_are_refused(fields, says):
    with pytest.raises(ValidationError, match=says):
        LlamaConfig(**{**SHAPE, **fields})
