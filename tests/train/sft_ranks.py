"""One rank of a fine-tuning: `python sft_ranks.py RANK WORLD FOLDER BASE ROWS`, which test_sft_ranks.py starts."""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from ayllu.cli.sft import read_sft
from ayllu.errors import ConfigError
from ayllu.train import plan
from ayllu.train.lesson import prepared
from ayllu.train.sft import sft

HOW = {"fsdp": ["parallel.mode=fsdp"], "tensor": ["parallel.tensor=2"], "data": ["parallel.mode=data"]}
QUICK = ["data.template=plain", "data.held_out=0.3", "context=32", "compile=off", "threads=1", "loop.batch_size=4",
         "loop.micro_batch=2", "loop.eval_every=2", "loop.checkpoint_every=2", "loop.precision=float32",
         "loop.log_every=1", "optim.lr=3e-3", "optim.schedule.kind=constant", 'samples=["the fox"]']


def run(base, rows, out, *words, resume=False):
    config, folder = read_sft([base, rows, *QUICK, f"out={out}", *words])
    config, lesson = prepared(config, folder)
    return sft(plan.ready(config), lesson, folder, resume)


def main(rank, world, folder, base, rows):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world)
    for name, how in HOW.items():
        run(base, rows, folder / name, *how, "loop.steps=2")
        found = run(base, rows, folder / name, *how, "loop.steps=4", resume=True)
        (folder / f"{name}.{rank}.json").write_text(json.dumps(found), encoding="utf-8")
    try:
        run(base, rows, folder / "adapter", *HOW["fsdp"], "lora.r=2", "loop.steps=1")
        told = ""
    except ConfigError as error:
        told = str(error)
    (folder / f"adapter.{rank}.txt").write_text(told, encoding="utf-8")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4], sys.argv[5])
