"""Checkpoints that several ranks write while training goes on: the same as at once, whole on all ranks or not there."""

import pytest
import torch
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict
from train.ranks import ALONE, launch, new_state
from train.test_parallel import SPREADS

from ayllu.train.state import load

BOTH = {"2x2 fsdp": {"mode": "fsdp", "tensor": 2}, "2x2 data": {"mode": "data", "tensor": 2}}


def read(folder):
    """All tensors of a checkpoint, as one process sees them."""
    state, _ = new_state({"ema": 0.9}, ALONE)
    load(state, folder)
    moments = get_optimizer_state_dict(state.model, state.optimizer)["state"]
    return {**dict(state.model.named_parameters()), **{f"average {n}": t for n, t in state.average.items()},
            **{f"{name} {n}": t for name, found in moments.items() for n, t in found.items()}}


def assert_as_at_once(folder, spreads, world):
    shared = {"save_every": 2, "ema": 0.9}
    jobs = {f"{name} {way}": {**shared, "parallel": spread, "async_save": way == "behind",
                              **({"late": 3} if way == "behind" else {})}
            for name, spread in spreads.items() for way in ("behind", "at once")}
    found = launch(jobs, world, folder)
    for name in spreads:
        behind, once = (found[f"{name} {way}"][0] for way in ("behind", "at once"))
        assert behind[0]["losses"] == once[0]["losses"], name      # bit for bit: what is written can't change training
        assert {tuple(rank["published"][:3]) for rank in behind} == {(False, False, False)}, name
        assert {tuple(rank["published"][:3]) for rank in once} == {(False, False, True)}, name
        for step in (4, 6):
            one, two = (read(folder / f"{name} {way}" / "checkpoints" / f"step-{step:08d}")
                        for way in ("behind", "at once"))
            assert one.keys() == two.keys()
            assert all(torch.equal(one[key], two[key]) for key in one), name
        assert (folder / f"{name} behind" / "checkpoints" / "latest").read_text(encoding="utf-8") == "step-00000006\n"


@pytest.mark.slow
def test_two_ranks_train_on_while_one_of_them_is_late_to_write(tmp_path):
    """`latest` isn't there before the shards of the late rank are."""
    assert_as_at_once(tmp_path, SPREADS, 2)


@pytest.mark.slow
def test_two_by_two_ranks_train_on_while_three_of_them_are_late(tmp_path):
    assert_as_at_once(tmp_path, BOTH, 4)


def test_a_full_disk_of_one_rank_ends_training_on_all_and_the_checkpoint_before_is_intact(tmp_path):
    jobs = {"full": {"parallel": SPREADS["fsdp"], "save_every": 2, "full": 4}}
    (one, two), _ = launch(jobs, 2, tmp_path)["full"]
    for found in (one, two):
        assert "step-00000004 could not be written: " in found["error"]
        assert "No space left on device" in found["error"]
        assert "step-00000002 is untouched, and --resume auto goes on from it" in found["error"]
    folder = tmp_path / "full" / "checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == ["latest", "step-00000002"]
    assert read_step(folder / "step-00000002") == 2


def read_step(folder):
    state, _ = new_state({}, ALONE)
    load(state, folder)
    return state.step
