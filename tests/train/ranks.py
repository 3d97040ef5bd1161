"""Training cases that run in one process or on several ranks: `python ranks.py JOBS RANK WORLD FOLDER` is one rank."""

import json
import os
import subprocess
import sys
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.checkpoint import FileSystemWriter
from train.observer import Remember

from ayllu.data.loader import Batch, WindowLoader
from ayllu.data.mask_marks import Marks
from ayllu.data.mask_schedule import ByLoss
from ayllu.data.masks import Causal, Mixture, Tokens
from ayllu.data.pack_loader import PackedLoader
from ayllu.errors import CheckpointError
from ayllu.model.build import build_model
from ayllu.model.config import LlamaConfig, TransformerConfig
from ayllu.model.init import initialise
from ayllu.model.parallel import ALONE, ParallelConfig, build_sharded, fill, first_values, gather, new_layout
from ayllu.train import checkpoints
from ayllu.train.adapt import AdaptConfig
from ayllu.train.average import new_average
from ayllu.train.control import Control
from ayllu.train.loop import LoopConfig, fit
from ayllu.train.losses import bits_per_byte, next_token_loss
from ayllu.train.objective import masked_loss
from ayllu.train.optim import OptimConfig, build_optimizer
from ayllu.train.state import TrainState, load
from ayllu.train.trainee import TraineeLoss

CPU = torch.device("cpu")
SHAPE = {"dim": 32, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "head_dim": 8, "hidden_dim": 48, "vocab_size": 64,
         "max_context": 32}
MODELS = {"llama": LlamaConfig(**SHAPE), "tied": LlamaConfig(**SHAPE, tie_embeddings=True, qkv_bias=True),
          "transformer": TransformerConfig(**SHAPE, dropout=0.0)}
TOKENS = (torch.arange(3000) % 61).numpy().astype("<u2")      # the next id is one more: learned within a few steps
MARKS = Marks(vocab_size=64, bos=61, eos=62, mask=63, special=frozenset((61, 62, 63)))
MASKS = Mixture(parts=(Causal(), Tokens(ratio=ByLoss(start=0.6, end=0.2, high=4.2, low=3.0), predicts="next")),
                smoothing=0.5)


def uneven(model, batch: Batch, **options):
    """The loss with a number of labels per row that differs: rank means of rank means would be wrong."""
    labels = batch.labels.clone()
    for row, first in enumerate(batch.ids[:, 0].tolist()):
        labels[row, 2 + first % 13:] = -100
    return next_token_loss(model, Batch(batch.ids, labels), **options)


def documents():
    """Runs of TOKENS of 5 to 20 ids, each between BOS and EOS."""
    runs = [TOKENS[i:i + 5 + i % 16] for i in range(0, 2900, 13)]
    return np.concatenate([[61, *run, 62] for run in runs])


def new_state(case, layout):
    config = MODELS[case.get("model", "llama")]
    if layout.is_sharded:
        model = build_sharded(config, layout, CPU, case.get("precision", "float32"), case.get("compiled", False),
                              case.get("recomputes", False))
        fill(model, first_values(model, config.n_layers, seed=0))
    else:
        model = build_model(config)
        initialise(model, config.n_layers, 0)
    optim = OptimConfig(**{"lr": 1e-2, "schedule": {"kind": "constant", "warmup_steps": 0}, **case.get("optim", {})})
    state = TrainState(model, build_optimizer(model, optim), layout=layout,
                       average=new_average(model) if case.get("ema") else None,
                       control=Control(AdaptConfig(**case["adapt"])) if "adapt" in case else None)
    return state, optim


def trained_on(loss, case):
    """The loss as `training_loss` of pretrain.py wraps it."""
    return TraineeLoss(partial(loss, chunk=case.get("chunk", 5)), case.get("precision", "float32"),
                       case.get("compiled", False), case.get("recomputes", False))


def watched(model):
    """The dtypes in which the first block is entered, in training and elsewhere."""
    seen = set()
    model.layers[0].register_forward_pre_hook(lambda block, inputs: seen.add(f"{block.training} {inputs[0].dtype}"))
    return seen


class Looking(Remember):
    """Also notes at each step whether a checkpoint has been published."""

    def __init__(self, folder):
        super().__init__()
        self.pointer, self.published = folder / "checkpoints" / "latest", []

    def advance(self, state, row):
        super().advance(state, row)
        self.published.append(self.pointer.exists())


def hinder(case, observer):
    """The second rank writes its shards only after so many steps of training, or never at a step: its disk is full."""
    real = checkpoints.write

    def write(parts, folder, group):
        deadline = time.monotonic() + 60
        while len(observer.published) < case.get("late", 0):
            assert time.monotonic() < deadline, "training did not go on"
            time.sleep(0.01)
        if parts["step"] == case.get("full"):
            with mock.patch.object(FileSystemWriter, "write_data", side_effect=OSError(28, "No space left on device")):
                return real(parts, folder, group)
        return real(parts, folder, group)

    is_hindered = dist.is_initialized() and dist.get_rank() > 0
    return mock.patch.object(checkpoints, "write", write) if is_hindered else nullcontext()


def train(case, folder: Path, layout=ALONE):
    """Run one case; returns what every number of ranks must agree on."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    state, optim = new_state(case, layout)
    residual = watched(state.model) if case.get("watch") else set()
    if "resume" in case:
        load(state, Path(case["resume"]))
    loop = LoopConfig(steps=case.get("steps", 6), batch_size=8, micro_batch=2, eval_every=3, log_every=1,
                      checkpoint_every=case.get("save_every", 6), async_save=case.get("async_save", True),
                      precision=case.get("precision", "float32"), ema=case.get("ema", 0.0))
    batches, loss = WindowLoader(TOKENS, 16, 8, seed=2, rank=layout.data_rank, world_size=layout.data), uneven
    if case.get("masks"):
        batches = state.follower = PackedLoader(documents(), MARKS, 24, 8, MASKS, rank=layout.data_rank,
                                                world_size=layout.data)
        loss = masked_loss
    observer = Looking(folder)

    def evaluate(state):
        ids = torch.from_numpy(TOKENS[:100].astype("int64"))
        low = torch.bfloat16 if loop.precision != "float32" else None
        return {"held_out": bits_per_byte(state.model, ids, 100, 16, CPU, low, rows=2, layout=state.layout)}

    with hinder(case, observer):
        fit(state, batches, trained_on(loss, case), loop=loop, optim=optim, run=folder, observer=observer,
            evaluate=evaluate, device=CPU)
    with state.averaged():
        whole = gather(state.model)
        weights = whole and {name: p.detach().clone() for name, p in whole.named_parameters()}
    found = {"losses": observer.losses, "norms": [r["grad_norm"] for r in observer.rows if "grad_norm" in r],
             "held_out": [r["held_out"] for r in observer.rows if "held_out" in r], "tokens": state.tokens,
             "published": observer.published if "save_every" in case else [],
             "residual": sorted(residual), "graphs": torch._dynamo.utils.counters["stats"]["unique_graphs"],
             "decisions": [(r["step"], r["decision"], r["rate_factor"]) for r in observer.rows if "decision" in r]}
    return found, weights


def run_rank(jobs, rank: int, world: int, folder: Path):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world)
    for name, case in jobs.items():
        layout = new_layout(ParallelConfig(**case["parallel"]), MODELS[case.get("model", "llama")], CPU)
        try:
            found, weights = train(case, folder / name, layout)
        except CheckpointError as error:
            found, weights = {"error": str(error)}, {}
        (folder / f"{name}.{rank}.json").write_text(json.dumps(found))
        if rank == 0:
            torch.save(weights, folder / f"{name}.pt")
    dist.destroy_process_group()


def wait(ranks, timeout_s: float):
    """Until all are done or the first one fails: the others would wait for it."""
    end = time.monotonic() + timeout_s
    while any(r.poll() is None for r in ranks) and not any(r.poll() for r in ranks):
        assert time.monotonic() < end, f"ranks still run after {timeout_s} s"
        time.sleep(0.05)


def environment():
    """Of a child process that imports the tests and the package from here."""
    tests = Path(__file__).parents[1]
    paths = [str(tests), str(tests.parent), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}


def launch(jobs, world: int, folder: Path, timeout_s: float = 200):
    """Run all jobs on `world` ranks; returns {name: (what each rank found, the weights)}."""
    folder.mkdir(parents=True, exist_ok=True)
    logs = [folder / f"{rank}.log" for rank in range(world)]
    ranks = [subprocess.Popen([sys.executable, __file__, json.dumps(jobs), str(rank), str(world), str(folder)],
                              stderr=log.open("w"), env=environment()) for rank, log in enumerate(logs)]
    try:
        wait(ranks, timeout_s)
    finally:
        for process in ranks:
            process.kill()
    failed = [log.read_text()[-3000:] for process, log in zip(ranks, logs, strict=True) if process.returncode]
    assert not failed, "\n".join(failed)
    return {name: ([json.loads((folder / f"{name}.{rank}.json").read_text()) for rank in range(world)],
                   torch.load(folder / f"{name}.pt", weights_only=True)) for name in jobs}


if __name__ == "__main__":
    run_rank(json.loads(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
