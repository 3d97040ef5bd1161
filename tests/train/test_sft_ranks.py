"""Fine-tuning on two ranks, with the model in shares: the losses, the evaluations and the weights of one process."""

import json
import subprocess
import sys

import pytest
import torch
from train import sft_ranks
from train.ranks import environment, wait

from ayllu.checkpoint.load import load_checkpoint


def metrics(folder, key):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [row[key] for row in rows if key in row]


@pytest.mark.slow
def test_two_ranks_learn_as_one_does(tmp_path, tiny_checkpoint):
    """Sums run in another order: 1e-5 of each number, as in test_parallel.py."""
    rows = tmp_path / "chats.jsonl"
    said = [{"prompt": f"the fox {i}", "completion": ["the river", "the stars and the bird"][i % 2]} for i in range(30)]
    rows.write_text("".join(json.dumps(row) + "\n" for row in said), encoding="utf-8")
    logs = [tmp_path / f"{rank}.log" for rank in range(2)]
    ranks = [subprocess.Popen([sys.executable, sft_ranks.__file__, str(rank), "2", tmp_path, tiny_checkpoint, rows],
                              stderr=log.open("w"), env=environment()) for rank, log in enumerate(logs)]
    try:
        sft_ranks.run(str(tiny_checkpoint), str(rows), tmp_path / "one", "loop.steps=4")
        wait(ranks, 400)
    finally:
        for process in ranks:
            process.kill()
    assert not any(process.returncode for process in ranks), "".join(log.read_text()[-3000:] for log in logs)
    alone = dict(load_checkpoint(tmp_path / "one" / "model", dtype="float32").model.named_parameters())
    losses = metrics(tmp_path / "one", "loss")
    assert abs(losses[-1] - losses[0]) > 0.01            # moving, so that errors would show
    for name in sft_ranks.HOW:
        first, second = (json.loads((tmp_path / f"{name}.{rank}.json").read_text()) for rank in range(2))
        assert first["model"] == second["model"] == str(tmp_path / name / "model")
        assert first["steps"] == 4
        for key in ("loss", "grad_norm", "held_out"):    # the last two: the first runs ended with one of their own
            assert metrics(tmp_path / name, key)[-2:] == pytest.approx(metrics(tmp_path / "one", key)[-2:], rel=1e-5)
        found = dict(load_checkpoint(tmp_path / name / "model", dtype="float32").model.named_parameters())
        for key, value in alone.items():                 # 1e-3: AdamW divides gradients of nearly nothing by their size
            torch.testing.assert_close(found[key], value, rtol=0, atol=1e-3, msg=f"{name} {key}")
    for rank in range(2):
        assert "is shared out with whole models only" in (
            tmp_path / f"adapter.{rank}.txt").read_text()
