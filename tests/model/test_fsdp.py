"""The three verbs under FSDP2: two gloo ranks give exactly the logits and gradients of one process."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F

from ayllu.model.build import build_model
from ayllu.model.config import LlamaConfig, TransformerConfig
from ayllu.model.init import initialise

SHAPE = {"dim": 64, "n_layers": 4, "n_heads": 4, "n_kv_heads": 2, "head_dim": 16, "hidden_dim": 96, "vocab_size": 101}
KINDS = {"llama": LlamaConfig(**SHAPE), "transformer": TransformerConfig(**SHAPE, dropout=0.0)}


def fresh(kind):
    model = build_model(KINDS[kind])
    initialise(model, 4, seed=1)
    return model


def ids_of(rank):
    return torch.randint(0, 101, (2, 24), generator=torch.Generator().manual_seed(rank))


def backward(model, ids):
    """The loss by the verbs, never by `forward`: exactly what training calls."""
    logits = model.logits(model.trunk(model.embed(ids)))
    F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
    return logits.detach()


def run_rank(kind, rank, folder):
    """One process: shard, run, save this rank's logits and the gathered gradients."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    mesh, model = init_device_mesh("cpu", (2,)), fresh(kind)
    for block in model.layers:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    for verb in ("embed", "trunk", "logits"):
        register_fsdp_forward_method(model, verb)
    logits = backward(model, ids_of(rank))
    gradients = {name: p.grad.full_tensor() for name, p in model.named_parameters()}
    torch.save({"logits": logits, "gradients": gradients}, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.skipif(not dist.is_available() or sys.platform == "win32", reason="this torch has no gloo")
@pytest.mark.parametrize("kind", KINDS)
def test_two_ranks_equal_one_process(kind, tmp_path):
    threads = str(torch.get_num_threads())               # sums depend on their number in the last bit
    ranks = [subprocess.Popen([sys.executable, __file__, kind, str(rank), tmp_path, threads], stderr=subprocess.PIPE,
                              text=True) for rank in range(2)]
    for process in ranks:
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors[-2000:]
    alone = []
    for rank in range(2):
        model = fresh(kind)
        alone.append((backward(model, ids_of(rank)), {name: p.grad for name, p in model.named_parameters()}))
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    for rank in range(2):
        assert torch.equal(found[rank]["logits"], alone[rank][0])
        for name, gradient in found[rank]["gradients"].items():
            assert torch.equal(gradient, (alone[0][1][name] + alone[1][1][name]) / 2), name


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[4]))
    run_rank(sys.argv[1], int(sys.argv[2]), sys.argv[3])
