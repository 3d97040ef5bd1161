"""Checkpoints of a run: atomic, the newest kept, and refused when they can't give an exact resume."""

import pytest
import torch

from ayllu.errors import CheckpointError
from ayllu.model.build import build_model
from ayllu.model.config import LlamaConfig
from ayllu.model.init import initialise
from ayllu.train.optim import OptimConfig, build_optimizer
from ayllu.train.state import TrainState, random_state, restore, save, set_random_state

CONFIG = LlamaConfig(dim=16, n_layers=1, n_heads=2, n_kv_heads=1, head_dim=8, hidden_dim=24, vocab_size=50)


def state(**facts):
    model = build_model(CONFIG)
    initialise(model, 1, 0)
    return TrainState(model, build_optimizer(model, OptimConfig()), facts=facts)


def test_only_the_newest_are_kept_and_latest_names_the_last(tmp_path):
    trained = state()
    for step in (1, 2, 3, 4):
        trained.step = step
        save(trained, tmp_path, keep=2)
    names = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
    assert names == ["latest", "step-00000003", "step-00000004"]
    fresh = state()
    assert restore(fresh, tmp_path)
    assert fresh.step == 4


def test_nothing_to_restore(tmp_path):
    assert not restore(state(), tmp_path)


def test_other_threads_or_data_are_refused_by_name(tmp_path):
    save(state(threads=1, data="a"), tmp_path, keep=1)
    with pytest.raises(CheckpointError, match="trained with data='a', now it is 'b'"):
        restore(state(threads=1, data="b"), tmp_path)


@pytest.mark.parametrize("damage", ["truncate", "remove metadata"])
def test_a_damaged_checkpoint_says_so(tmp_path, damage):
    folder = save(state(), tmp_path, keep=1)
    if damage == "truncate":
        shard = next(folder.glob("*.distcp"))
        shard.write_bytes(shard.read_bytes()[:1000])
    else:
        (folder / ".metadata").unlink()
    with pytest.raises(CheckpointError, match="can't be resumed from"):
        restore(state(), tmp_path)


def test_a_save_that_fails_leaves_the_last_one(tmp_path, monkeypatch):
    trained = state()
    trained.step = 1
    save(trained, tmp_path, keep=2)
    trained.step = 2

    def full_disk(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ayllu.train.state.dcp.save", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save(trained, tmp_path, keep=2)
    assert [p.name for p in sorted((tmp_path / "checkpoints").iterdir())] == ["latest", "step-00000001"]
    assert restore(state(), tmp_path)


def test_random_numbers_come_back():
    before = random_state()
    drawn = torch.rand(3)
    set_random_state(before)
    assert torch.equal(torch.rand(3), drawn)


def test_matrices_decay_and_the_rest_does_not():
    model = build_model(CONFIG)
    decayed, stays = build_optimizer(model, OptimConfig(weight_decay=0.3)).param_groups
    assert (decayed["weight_decay"], stays["weight_decay"]) == (0.3, 0.0)
    names = {id(p): n for n, p in model.named_parameters()}
    assert {names[id(p)] for p in stays["params"]} == {
        "tok_embeddings.weight", "norm.weight", "layers.0.attention_norm.weight", "layers.0.ffn_norm.weight"}
