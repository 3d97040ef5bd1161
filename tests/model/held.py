"""What a rank of parallel.py really holds and sends in a micro-batch: `python held.py CASES RANK WORLD FOLDER` on gloo.

Without gloo, `without_data` counts the same on torch's fake processes and fake tensors, for models and numbers of ranks
that no machine here has.
"""

import gc
import json
import sys
import weakref
from collections import Counter
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.tensor import DTensor
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ayllu.data.loader import Batch
from ayllu.model.config import LlamaConfig
from ayllu.model.parallel import ParallelConfig, build_sharded, fill, first_values, new_layout
from ayllu.train.loop import LoopConfig, accumulate
from ayllu.train.losses import next_token_loss
from ayllu.train.trainee import TraineeLoss

CPU = torch.device("cpu")
RINGS = {"_allgather_base_": "gather", "all_gather_into_tensor": "gather", "_reduce_scatter_base_": "scatter",
         "allreduce_": "sum", "all_reduce": "sum"}


class Held(TorchDispatchMode):
    """Bytes of all living storages at their highest, and what collectives are given, by kind and group."""

    def __init__(self):
        super().__init__()
        self.storages, self.peak, self.given = {}, 0, Counter()

    def live(self):
        """FSDP2 empties storages and fills them again, so all are asked anew."""
        return sum(s.nbytes() for ref in self.storages.values() if (s := ref()) is not None)

    def note(self, tensor):
        tensor = tensor.to_local() if isinstance(tensor, DTensor) else tensor
        if tensor.device.type != "meta":
            storage = tensor.untyped_storage()
            self.storages[storage._cdata] = weakref.ref(storage)

    def begin(self):
        gc.collect()
        self.given.clear()
        self.peak = base = self.live()
        return base

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._local_scalar_dense.default:
            return 1.0
        out = func(*args, **(kwargs or {}))
        kind = RINGS.get(func.__name__.partition(".")[0])
        if kind:
            tensors = [t for t in tree_leaves(args) if isinstance(t, torch.Tensor)]
            whole = max(t.nbytes for t in tensors)
            if func.__name__.startswith("all_gather"):   # of these only the own share is handed in
                whole *= args[1]
            if whole > 8:                                # not the sums of loss and weight
                axis = "data" if "_base_" in func.__name__ or "allreduce" in func.__name__ else "tensor"
                self.given[f"{kind} {axis}"] += whole
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self.note(leaf)
        self.peak = max(self.peak, self.live())
        return out


def one_step(config, parallel, rows, context, precision, recomputes, mode):
    """The second micro-batch of a rank: its parameters' bytes, the highest point above them, and what was sent."""
    layout = new_layout(ParallelConfig(**parallel), config, CPU)
    is_fake = isinstance(mode, FakeTensorMode)
    model = build_sharded(config, layout, torch.device("meta") if is_fake else CPU, precision,
                          recomputes=recomputes)
    with mode, Held() as held:
        if is_fake:
            model.to_empty(device=CPU)
        else:
            fill(model, first_values(model, config.n_layers, 0))
        for parameter in model.parameters():
            held.note(parameter)
        ids = torch.zeros(rows, context, dtype=torch.int64)
        loop = LoopConfig(steps=1, batch_size=rows * layout.data, micro_batch=rows, precision=precision)
        loss = TraineeLoss(partial(next_token_loss, chunk=8384), precision, False, recomputes)    # of a GPU
        run = partial(accumulate, model, Batch(ids, ids.clone()), loss, loop, CPU, layout)
        run()
        base = held.begin()
        run()
        shares = sum((p.to_local() if isinstance(p, DTensor) else p).nbytes for p in model.parameters())
        ring = {"data": (layout.data - 1) / layout.data, "tensor": (layout.tensor - 1) / layout.tensor}
        sent = {axis: sum(ring[axis] * size * (2 if kind == "sum" else 1)
                          for (kind, found), size in ((k.split(), v) for k, v in held.given.items()) if found == axis)
                for axis in ring}
    return {"weights": shares, "state": base, "over": held.peak - base, "sent": sent}


def without_data(world, **case):
    """`one_step` of the first of `world` ranks, as if they were there."""
    dist.init_process_group("fake", rank=0, world_size=world, store=FakeStore())
    try:
        return one_step(**case, mode=FakeTensorMode(allow_non_fake_inputs=True))
    finally:
        dist.destroy_process_group()


def run_rank(cases, rank, world, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world)
    found = {name: one_step(**{**case, "config": LlamaConfig(**case["config"])}, mode=torch.enable_grad())
             for name, case in cases.items()}
    (folder / f"{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    run_rank(json.loads(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
