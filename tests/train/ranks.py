"""Training cases that run in one process or on several ranks: `python ranks.py JOBS RANK WORLD FOLDER` is one rank."""

import json
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from train.observer import Remember

from ayllu.data.loader import Batch, WindowLoader
from ayllu.data.mask_marks import Marks
from ayllu.data.mask_schedule import ByLoss
from ayllu.data.masks import Causal, Mixture, Tokens
from ayllu.data.pack_loader import PackedLoader
from ayllu.model.build import build_model
from ayllu.model.config import LlamaConfig, TransformerConfig
from ayllu.model.init import initialise
from ayllu.model.parallel import ALONE, ParallelConfig, build_sharded, fill, first_values, gather, new_layout
from ayllu.train.adapt import AdaptConfig
from ayllu.train.average import new_average
from ayllu.train.control import Control
from ayllu.train.loop import LoopConfig, fit
from ayllu.train.losses import bits_per_byte, next_token_loss
from ayllu.train.objective import masked_loss
from ayllu.train.optim import OptimConfig, build_optimizer
from ayllu.train.state import TrainState, load

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
        model = build_sharded(config, layout, CPU, low_precision=case.get("autocast", False),
                              recomputes=case.get("recomputes", False))
        fill(model, first_values(model, config.n_layers, seed=0))
    else:
        model = build_model(config)
        initialise(model, config.n_layers, 0)
    optim = OptimConfig(**{"lr": 1e-2, "schedule": {"kind": "constant", "warmup_steps": 0}, **case.get("optim", {})})
    state = TrainState(model, build_optimizer(model, optim), layout=layout,
                       average=new_average(model) if case.get("ema") else None,
                       control=Control(AdaptConfig(**case["adapt"])) if "adapt" in case else None)
    return state, optim


def train(case, folder: Path, layout=ALONE):
    """Run one case; returns what every number of ranks must agree on."""
    state, optim = new_state(case, layout)
    if "resume" in case:
        load(state, Path(case["resume"]))
    loop = LoopConfig(steps=case.get("steps", 6), batch_size=8, micro_batch=2, eval_every=3, checkpoint_every=6,
                      log_every=1, autocast=case.get("autocast", False), ema=case.get("ema", 0.0))
    batches, loss = WindowLoader(TOKENS, 16, 8, seed=2, rank=layout.data_rank, world_size=layout.data), uneven
    if case.get("masks"):
        batches = state.follower = PackedLoader(documents(), MARKS, 24, 8, MASKS, rank=layout.data_rank,
                                                world_size=layout.data)
        loss = masked_loss
    observer = Remember()

    def evaluate(state):
        ids = torch.from_numpy(TOKENS[:100].astype("int64"))
        return {"held_out": bits_per_byte(state.model, ids, 100, 16, CPU, torch.bfloat16 if loop.autocast else None,
                                          rows=2, layout=state.layout)}

    fit(state, batches, partial(loss, chunk=case.get("chunk", 5)), loop=loop, optim=optim, run=folder,
        observer=observer, evaluate=evaluate, device=CPU)
    with state.averaged():
        whole = gather(state.model)
        weights = whole and {name: p.detach().clone() for name, p in whole.named_parameters()}
    found = {"losses": observer.losses, "norms": [r["grad_norm"] for r in observer.rows if "grad_norm" in r],
             "held_out": [r["held_out"] for r in observer.rows if "held_out" in r], "tokens": state.tokens,
             "decisions": [(r["step"], r["decision"], r["rate_factor"]) for r in observer.rows if "decision" in r]}
    return found, weights


def run_rank(jobs, rank: int, world: int, folder: Path):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world)
    for name, case in jobs.items():
        layout = new_layout(ParallelConfig(**case["parallel"]), MODELS[case.get("model", "llama")], CPU)
        found, weights = train(case, folder / name, layout)
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
