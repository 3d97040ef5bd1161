"""An adapter beside the weights and in them: what is trained, what comes back, and merges that are refused."""

import pytest
import torch
from adapters.small import CONFIG, filled, small_model, some_ids

from ayllu.adapters.config import LoraConfig
from ayllu.adapters.lora import Adapter, attach, attached, detach, fingerprint, new_adapter
from ayllu.adapters.merge import merge
from ayllu.errors import CheckpointError, ConfigError
from ayllu.model.fused import why_not_fused


def weights_of(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("dora", [False, True])
def test_a_new_adapter_changes_nothing_and_only_it_is_trained(dora):
    model, ids = small_model(), some_ids()
    plain, before = model(ids), weights_of(model)
    config = LoraConfig(r=8, use_dora=dora, lora_dropout=0.1)
    attach(model, new_adapter(model, config))
    # DoRA divides by a norm and multiplies by it again: float32 rounds twice
    torch.testing.assert_close(model(ids), plain, atol=2e-5 if dora else 0, rtol=1e-5 if dora else 0)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.02)
    losses = []
    for _ in range(40):
        loss = torch.nn.functional.cross_entropy(model(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    adapter = detach(model, config)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert all(p.requires_grad for p in model.parameters())
    assert not list(attached(model))
    assert sum(p.numel() for p in trained) == sum(t.numel() for pair in adapter.pairs.values() for t in pair.tensors)
    attach(model.eval(), adapter)
    loss = torch.nn.functional.cross_entropy(model(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    assert loss.item() < 0.7 * losses[0]                   # so what was detached is what was trained


def test_new_adapters_follow_name_and_seed():
    model = small_model()
    one, same, other = (new_adapter(model, LoraConfig(r=2), seed) for seed in (0, 0, 1))
    assert one.digest == same.digest != other.digest
    few = new_adapter(model, LoraConfig(r=2, target_modules=("v_proj",)), 0)
    assert all(torch.equal(pair.a, one.pairs[name].a) for name, pair in few.pairs.items())


def test_an_adapted_model_says_so():
    model = small_model()
    attach(model, filled(model, r=2))
    assert "adapted" in str(why_not_fused(model))
    with pytest.raises(ConfigError, match="has an adapter already"):
        attach(model, filled(small_model(), r=2))
    with pytest.raises(ConfigError, match="detach it"):
        merge(model, filled(small_model(), r=2))


def test_an_adapter_for_another_base_is_refused():
    model, other = small_model(), small_model()
    with torch.no_grad():
        other.layers[1].attention.wq.weight[0, 0] += 1
    adapter = filled(model, r=2)
    attach(model, Adapter(adapter.config, adapter.pairs, base=fingerprint(small_model())))
    assert fingerprint(model) == fingerprint(small_model())                   # also while one is attached
    with pytest.raises(ConfigError, match="made for the base"):
        attach(other, Adapter(adapter.config, adapter.pairs, base=fingerprint(model)))
    wide = small_model(CONFIG.model_copy(update={"hidden_dim": 64}))
    with pytest.raises(ConfigError, match="another base"):
        attach(wide, adapter)
    assert fingerprint(small_model(dtype=torch.bfloat16)) == fingerprint(small_model(dtype=torch.bfloat16).float())


@pytest.mark.parametrize("dora", [False, True])
def test_merging_gives_the_same_and_can_be_undone(dora):
    model, ids = small_model(), some_ids()
    before, adapter = weights_of(model), filled(small_model(), r=3, use_dora=dora)
    with torch.no_grad():
        attach(model, adapter)
        beside = model(ids)
        detach(model, adapter.config)
        merged = merge(model, adapter)
        torch.testing.assert_close(model(ids), beside, atol=2e-4, rtol=1e-5)  # weights are rounded once more
    assert merged.comparison.loss < 1e-4
    assert why_not_fused(model) is None or "adapted" not in str(why_not_fused(model))
    merged.undo()
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


@pytest.mark.parametrize(("dtype", "size", "says"), [(torch.bfloat16, 1e-3, "too coarse"),
                                                     (torch.float32, float("inf"), "nan")])
def test_a_bad_merge_is_refused_and_leaves_the_base(dtype, size, says):
    model = small_model(dtype=dtype)
    before = weights_of(model)
    with pytest.raises(CheckpointError, match=says):
        merge(model, filled(small_model(), r=2, size=size))
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert merge(small_model(dtype=torch.bfloat16), filled(small_model(), r=2)).comparison.loss < 0.1


def test_a_model_that_only_reads_drops_nothing_out():
    model, ids = small_model(), some_ids()
    adapter = filled(model, r=4, lora_dropout=0.5)
    attach(model, adapter)
    assert torch.equal(model(ids), model(ids))
    detach(model, adapter.config)
    model.train()
    attach(model, adapter)
    assert not torch.equal(model(ids), model(ids))
