"""Ranks that compute in low precision or compiled train as one process does that is neither compiled nor spread.

Compiled blocks only sum in another order: the tolerance of test_parallel.py, 1e-5. In bfloat16 a number is rounded to
2^-9 of itself, and ranks round other partial sums: over six steps losses were found to part by 0.2 % at most, held-out
bits by 0.4 % and norms by 5 %, and get twice as much. The first loss, before any update, gets 1e-3.
"""

import shutil
import sys

import pytest
from train.ranks import launch, train
from train.test_parallel import SPREADS, assert_as_one_process

BOTH = {"2x2 data": {"mode": "data", "tensor": 2}, "2x2 fsdp": {"mode": "fsdp", "tensor": 2}}
SHORT = {"steps": 3, "watch": True}
LOW = ("autocast", "bf16_masters")


def low(models, spreads):
    return {f"{model} {precision} {name}": {"model": model, "precision": precision, "parallel": spread, **SHORT}
            for model in models for precision in LOW for name, spread in spreads.items()}


def assert_rounds_as_one_process(jobs, world, folder):
    found = launch(jobs, world, folder / "ranks")
    for name, case in jobs.items():
        alone, _ = train(case, folder / "alone" / name)
        ranks, _ = found[name]
        assert all(rank == ranks[0] for rank in ranks), f"{name}: ranks saw different numbers"
        assert ranks[0]["residual"] == alone["residual"], name   # its dtypes in training and in evaluation
        assert ranks[0]["losses"][0] == pytest.approx(alone["losses"][0], rel=1e-3), name
        for key, close in (("losses", 4e-3), ("held_out", 8e-3), ("norms", 0.1)):
            assert ranks[0][key] == pytest.approx(alone[key], rel=close), f"{name}: {key}"
        assert abs(alone["losses"][-1] - alone["losses"][0]) > 0.03, name      # moving, so errors would show


@pytest.mark.slow
def test_low_precision_on_two_ranks(tmp_path):
    tied = {"tied": {"model": "tied", "precision": "bf16_masters", "parallel": SPREADS["tensor"], **SHORT}}
    jobs = low(["llama"], SPREADS) | low(["transformer"], {"fsdp": SPREADS["fsdp"]}) | tied
    assert_rounds_as_one_process(jobs, 2, tmp_path)


@pytest.mark.slow
def test_low_precision_on_two_by_two_ranks(tmp_path):
    jobs = low(["llama"], BOTH) | {"recomputed": {"precision": "bf16_masters", "recomputes": True, **SHORT,
                                                  "parallel": BOTH["2x2 fsdp"]},
                                   "all logits": {"precision": "bf16_masters", "chunk": 0, **SHORT,
                                                  "parallel": BOTH["2x2 fsdp"]}}
    assert_rounds_as_one_process(jobs, 4, tmp_path)


def compiled(spreads, **options):
    return {f"compiled {name}": {"parallel": spread, "compiled": True, "steps": 3, **options}
            for name, spread in spreads.items()}


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler for inductor")
@pytest.mark.skipif(sys.version_info >= (3, 14), reason="Python is newer than torch.compile knows")
@pytest.mark.parametrize(("world", "spreads"), [
    (2, SPREADS), (4, {"fsdp": BOTH["2x2 fsdp"]}), (4, {"data": BOTH["2x2 data"]})], ids=["2", "2x2 fsdp", "2x2 data"])
def test_one_graph_serves_all_compiled_blocks_on_ranks(tmp_path, world, spreads):
    """Of the last norm there is one more, three where tensor ranks enter and leave it, and none under FSDP2: eager."""
    found = assert_as_one_process(compiled(spreads), world, tmp_path, timeout_s=500)   # to compile
    for name, (ranks, _) in found.items():
        of_norm = 0 if "fsdp" in name else 3 if spreads[name.removeprefix("compiled ")].get("tensor") else 1
        assert ranks[0]["graphs"] == 1 + of_norm, name
