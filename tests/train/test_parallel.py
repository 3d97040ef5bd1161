"""Many ranks train as one process does: data parallel, FSDP2, tensor parallel and both together, on gloo.

Sums run in another order on several ranks, so numbers agree to float32 rounding (6e-8), which some steps of training
let grow: losses, norms and held-out bits to 1e-5 of themselves. Weights get 1e-3: where a gradient is nearly nothing
AdamW divides it by its own size, and rounding shows as a share of the step of 1e-2.
"""

import pytest
import torch
from train.ranks import MODELS, launch, train

from ayllu.errors import ConfigError
from ayllu.model.parallel import ParallelConfig, check_tensor, new_layout

OPTIMISERS = {"muon": {"kind": "muon"}, "schedule_free": {"kind": "schedule_free"},
              "prodigy": {"kind": "prodigy", "lr": 1.0}}
SPREADS = {"data": {"mode": "data"}, "fsdp": {"mode": "fsdp"}, "tensor": {"tensor": 2}}
ON_TWO = {f"{model} {name}": {"model": model, "parallel": spread}
          for model in MODELS for name, spread in SPREADS.items()}
ON_TWO |= {f"{kind} fsdp": {"optim": optim, "parallel": SPREADS["fsdp"]} for kind, optim in OPTIMISERS.items()}
ON_TWO |= {f"{model} all logits": {"model": model, "chunk": 0, "parallel": SPREADS["tensor"]}
           for model in ("llama", "tied")}
FOLLOW = {"kind": "follow", "rounds": [{"factor": 4, "keep": 0.25}, {"at": 0.5, "factor": 2}], "trial_least": 4,
          "snapshot_every": 2}
ON_TWO |= {f"follow {name}": {"adapt": FOLLOW, "steps": 36, "parallel": spread} for name, spread in SPREADS.items()}
ON_TWO |= {f"packed {mode}": {"masks": True, "parallel": SPREADS[mode]} for mode in ("data", "fsdp")}
ON_FOUR = {f"{model} {mode}": {"model": model, "parallel": {"mode": mode, "tensor": 2}}
           for model, mode in (("llama", "data"), ("tied", "fsdp"), ("transformer", "fsdp"))}
ON_FOUR |= {f"{kind} fsdp": {"optim": optim, "parallel": {"tensor": 2}} for kind, optim in OPTIMISERS.items()}
ON_FOUR |= {"recomputed fsdp": {"recomputes": True, "parallel": {"tensor": 2}}}
ON_FOUR |= {"average fsdp": {"ema": 0.9, "parallel": {"tensor": 2}}}


def assert_as_one_process(jobs, world, folder, timeout_s=200):
    found = launch(jobs, world, folder / "ranks", timeout_s)
    for name, case in jobs.items():
        alone, weights = train({**case, "compiled": False}, folder / "alone" / name)
        ranks, gathered = found[name]
        assert all(rank == ranks[0] for rank in ranks), f"{name}: ranks saw different numbers"
        assert ranks[0]["tokens"] == alone["tokens"], name
        assert ranks[0]["decisions"] == [list(d) for d in alone["decisions"]], name
        for key in ("losses", "norms", "held_out"):
            assert ranks[0][key] == pytest.approx(alone[key], rel=1e-5), f"{name}: {key}"
        assert alone["losses"][-1] < alone["losses"][0] - 0.01 or "prodigy" in name      # moving, so errors would show
        for key, value in weights.items():
            torch.testing.assert_close(gathered[key], value, rtol=0, atol=1e-3, msg=f"{name}: {key}")
    return found


@pytest.mark.slow
def test_two_ranks_give_the_losses_of_one_process(tmp_path):
    assert_as_one_process(ON_TWO, 2, tmp_path)


@pytest.mark.slow
def test_two_by_two_ranks_give_the_losses_of_one_process(tmp_path):
    assert_as_one_process(ON_FOUR, 4, tmp_path)


@pytest.mark.slow
def test_a_checkpoint_of_two_ranks_resumes_on_one_and_on_four(tmp_path):
    """The last half of an undisturbed run, from a checkpoint in shares; the ranks that read it are dealt out anew."""
    whole, weights = train({"optim": OPTIMISERS["muon"], "ema": 0.9}, tmp_path / "whole")
    case = {"optim": OPTIMISERS["muon"], "ema": 0.9, "steps": 3, "parallel": {"mode": "fsdp"}}
    launch({"cut": case}, 2, tmp_path)
    rest = {**case, "steps": 6, "resume": str(tmp_path / "cut" / "checkpoints" / "step-00000003")}
    found = {1: train(rest, tmp_path / "one")}
    for world, jobs in ((2, {"two": {**rest, "parallel": {"tensor": 2}}}),
                        (4, {"four": {**rest, "parallel": {"tensor": 2}}})):
        ranks, gathered = launch(jobs, world, tmp_path / f"on {world}")[next(iter(jobs))]
        found[world] = ranks[0], gathered
    for world, (numbers, gathered) in found.items():
        assert numbers["losses"] == pytest.approx(whole["losses"][3:], rel=1e-5), world
        assert numbers["tokens"] == whole["tokens"], world
        for key, value in weights.items():
            torch.testing.assert_close(gathered[key], value, rtol=0, atol=1e-3, msg=f"{world} ranks: {key}")


@pytest.mark.parametrize(("tensor", "named"), [(4, "n_kv_heads=2"), (3, "n_kv_heads=2")])
def test_a_tensor_size_that_cuts_heads_is_refused(tensor, named):
    with pytest.raises(ConfigError, match=named):
        check_tensor(MODELS["llama"], tensor)


@pytest.mark.parametrize(("parallel", "wanted"), [({"data": 2}, 2), ({"data": 2, "tensor": 2}, 4), ({"tensor": 2}, 2)])
def test_a_wrong_number_of_processes_is_refused_with_the_line_to_start(parallel, wanted):
    with pytest.raises(ConfigError, match=f"--nproc-per-node {wanted} -m ayllu pretrain"):
        new_layout(ParallelConfig(**parallel), MODELS["llama"], torch.device("cpu"))
