"""Checkpoints of a run: whole or absent, the newest and the best kept, damage named, and refused when not exact."""

import json
import shutil

import pytest
import torch

from ayllu.errors import CheckpointError, DamagedCheckpoint
from ayllu.model.build import build_model
from ayllu.model.config import LlamaConfig
from ayllu.model.init import initialise
from ayllu.train.best import Best
from ayllu.train.checkpoints import clean, restore, save, save_best, step_folder, take_best
from ayllu.train.optim import OptimConfig, build_optimizer
from ayllu.train.sealed import check_seal
from ayllu.train.state import TrainState

CONFIG = LlamaConfig(dim=16, n_layers=1, n_heads=2, n_kv_heads=1, head_dim=8, hidden_dim=24, vocab_size=50)


def state(dim=16, **facts):
    model = build_model(CONFIG.model_copy(update={"dim": dim}))
    initialise(model, 1, 0)
    return TrainState(model, build_optimizer(model, OptimConfig()), facts=facts, best=Best())


def saved(run, *steps, keep=9):
    trained = state()
    for step in steps:
        trained.step = step
        with torch.no_grad():
            trained.model.norm.weight.fill_(step)
        save(trained.state_dict(), run, keep)
    return step_folder(run, step)


def names(run):
    return sorted(p.name for p in (run / "checkpoints").iterdir())


def test_only_the_newest_are_kept_and_latest_names_the_last(tmp_path):
    saved(tmp_path, 1, 2, 3, 4, keep=2)
    assert names(tmp_path) == ["latest", "step-00000003", "step-00000004"]
    fresh = state()
    assert restore(fresh, tmp_path)
    assert fresh.step == 4


def test_the_best_stays_while_a_kept_checkpoint_knows_it(tmp_path):
    trained = state()
    for step, loss in enumerate([3.0, 2.0, 9.0, 9.0, 1.0, 9.0, 9.0], 1):
        trained.step = step
        with torch.no_grad():
            trained.model.norm.weight.fill_(step)
        trained.best = trained.best.judge(loss, step)
        if trained.best.since == 0:
            save_best(trained.state_dict(), tmp_path)
        save(trained.state_dict(), tmp_path, keep=2)
        if step == 5:                                    # whoever resumes at 4 still has the best of then
            assert names(tmp_path) == ["best", "best-00000002", "best-00000005", "latest", "step-00000004",
                                       "step-00000005"]
    assert names(tmp_path) == ["best", "best-00000005", "latest", "step-00000006", "step-00000007"]
    assert (tmp_path / "checkpoints" / "best").read_text(encoding="utf-8") == "best-00000005\n"
    take_best(trained, tmp_path)
    assert (trained.step, trained.model.norm.weight[0]) == (7, 5)


def test_nothing_to_restore(tmp_path):
    assert not restore(state(), tmp_path)


def test_other_threads_or_data_are_refused_by_name(tmp_path):
    save(state(threads=1, data="a").state_dict(), tmp_path, keep=1)
    for fall_back in (False, True):                      # an older checkpoint would be no better
        with pytest.raises(CheckpointError, match="trained with data='a', now it is 'b'"):
            restore(state(threads=1, data="b"), tmp_path, fall_back)


def test_another_model_is_no_damage(tmp_path):
    saved(tmp_path, 1)
    with pytest.raises(CheckpointError, match="the settings must have changed") as error:
        restore(state(dim=32), tmp_path, fall_back=True)
    assert not isinstance(error.value, DamagedCheckpoint)


def shard(folder):
    return next(folder.glob("*.distcp"))


def flip_a_bit(folder):
    data = bytearray(shard(folder).read_bytes())
    data[len(data) // 2] ^= 4
    shard(folder).write_bytes(data)


DAMAGE = {
    "is damaged: .* has 1,000 bytes, the manifest says": lambda f: shard(f).write_bytes(shard(f).read_bytes()[:1000]),
    "the SHA-256 of __0_0.distcp differs": flip_a_bit,
    "metadata is missing": lambda f: (f / ".metadata").unlink(),
    r"manifest.json can't be read \(No such file": lambda f: (f / "manifest.json").unlink(),
    "manifest.json is no manifest": lambda f: (f / "manifest.json").write_bytes(b'{"step": 3, "fi'),
    "it doesn't exist": shutil.rmtree,
}


@pytest.mark.parametrize("message", DAMAGE)
def test_damage_is_named_and_the_one_before_is_taken_on_request(tmp_path, message, caplog):
    DAMAGE[message](saved(tmp_path, 1, 2, 3))
    untouched = state()
    with pytest.raises(DamagedCheckpoint, match=f"{message}.*--resume auto goes on"):
        restore(untouched, tmp_path)
    assert untouched.step == 0
    assert torch.equal(untouched.model.norm.weight, torch.ones(16))
    fresh = state()
    assert restore(fresh, tmp_path, fall_back=True)
    assert (fresh.step, fresh.model.norm.weight[0]) == (2, 2)
    assert "step-00000003" in caplog.text


def test_when_all_are_damaged_nothing_is_begun_anew_in_silence(tmp_path):
    saved(tmp_path, 1, 2)
    for folder in (tmp_path / "checkpoints").glob("step-*"):
        flip_a_bit(folder)
    with pytest.raises(CheckpointError, match="all 2 checkpoints are damaged"):
        restore(state(), tmp_path, fall_back=True)


def test_a_lost_pointer_and_a_line_that_was_left(tmp_path):
    saved(tmp_path, 1, 2, 3)
    pointer = tmp_path / "checkpoints" / "latest"
    pointer.write_text("step-00000001\n", encoding="utf-8")        # by hand: back to an older one
    fresh = state()
    restore(fresh, tmp_path, fall_back=True)
    assert fresh.step == 1
    pointer.unlink()                                     # killed between the first folder and its pointer
    restore(fresh, tmp_path)
    assert fresh.step == 3
    pointer.write_text("step-00000001\n", encoding="utf-8")
    trained = state()
    trained.step = 2
    save(trained.state_dict(), tmp_path, keep=1)
    assert names(tmp_path) == ["latest", "step-00000002", "step-00000003"]      # what lies ahead isn't ours to remove


def test_a_save_that_fails_leaves_the_last_one(tmp_path, monkeypatch):
    saved(tmp_path, 1)

    def full_disk(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ayllu.train.state.dcp.save", full_disk)
    with pytest.raises(OSError, match="No space left"):
        saved(tmp_path, 2)
    assert names(tmp_path) == ["latest", "step-00000001"]
    assert restore(state(), tmp_path)


def test_latest_moves_only_when_everything_is_synced(tmp_path, monkeypatch):
    """The order of calls that a power failure can't turn round: files, folder, rename, its parent, then the pointer."""
    import os
    saved(tmp_path, 1)
    done = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)

        def seen(*args, name=name, real=real):
            what = os.readlink(f"/proc/self/fd/{args[0]}") if name == "fsync" else str(args[1])
            done.append((name, os.path.basename(what)))
            return real(*args)

        monkeypatch.setattr(os, name, seen)
    folder = saved(tmp_path, 2)
    place = done.index(("replace", folder.name))
    before = [name for call, name in done[:place] if call == "fsync"]
    assert {".metadata", "__0_0.distcp", "manifest.json"} <= set(before)
    assert before[-1].startswith(".step-00000002")       # the folder itself, with its names
    after = done[place + 1:]
    assert after[0] == ("fsync", "checkpoints")
    assert ("replace", "latest") in after


def test_the_seal_covers_every_file(tmp_path):
    folder = saved(tmp_path, 7)
    manifest = check_seal(folder)
    assert (manifest["step"], manifest["best"]) == (7, 0)
    assert set(manifest["files"]) == {p.name for p in folder.iterdir()} - {"manifest.json"}
    assert json.loads((folder / "manifest.json").read_text(encoding="utf-8")) == manifest


def test_what_a_killed_process_left_is_removed(tmp_path):
    saved(tmp_path, 1)
    (tmp_path / "checkpoints" / ".step-00000002.abc.part").mkdir()
    (tmp_path / "checkpoints" / ".step-00000002.abc.part" / "__0_0.distcp").write_bytes(b"half")
    (tmp_path / ".metrics.jsonl.x.part").write_bytes(b"half")
    clean(tmp_path)
    assert names(tmp_path) == ["latest", "step-00000001"]
    assert not list(tmp_path.glob(".*"))
