"""A run on many ranks foreseen by arithmetic: what each rank will hold and send, whether that fits, what it will cost.

The formulas are those of model/spread.py; docs/scale.md says what is tested about them and what is assumed. Where each
rank holds whole models (adapters, preferences, rewards, heads), it is foreseen as a run by itself (memory.py).
"""

from typing import Any

import torch

from ayllu import dist
from ayllu.device import free_memory, pick_device
from ayllu.errors import ConfigError
from ayllu.model.account import n_parameters, parts
from ayllu.model.parallel import ParallelConfig, check_tensor
from ayllu.model.spread import Ranks, Spread, spread
from ayllu.train.costs import costs, gb, short
from ayllu.train.head_loss import CHUNK_NUMBERS, GPU_NUMBERS
from ayllu.train.memory import predict
from ayllu.train.method import TrainConfig, shape_of
from ayllu.train.pretrain import PretrainConfig
from ayllu.train.recipe import Recipe
from ayllu.train.rehearse import COPIES
from ayllu.train.sft_config import SftConfig

SHARE = 0.9                                              # of a rank's memory that a run may plan with
UNEQUAL = "loop.batch_size={} can't be dealt out to {} data ranks in equal parts: choose a multiple"
MOMENTS = {"adamw": 2, "schedule_free": 2, "prodigy": 4}


def planned_ranks(config: Recipe) -> int:
    """How many processes the recipe is for: what [parallel] says, or those that torchrun has started."""
    parallel, world = config.parallel, dist.world_size()
    return parallel.tensor * (parallel.data or max(world // parallel.tensor, 1))


def may_share(config: TrainConfig) -> bool:
    """Whether ranks may hold shares of the weights: what else is trained, or read, is whole on each."""
    return isinstance(config, PretrainConfig) or (isinstance(config, SftConfig) and not config.beside)


def of_a_rank(config: TrainConfig) -> TrainConfig:
    """What one of the ranks does, as a run by itself; ConfigError where ranks can't do that."""
    parallel, rows, ranks = config.parallel, config.loop.batch_size, planned_ranks(config)
    if parallel.tensor > 1 or parallel.mode == "fsdp":
        raise ConfigError("what this recipe trains is shared out with whole models only so far: set parallel.mode=data "
                          "and parallel.tensor=1")
    if rows % ranks:
        raise ConfigError(UNEQUAL.format(rows, ranks))
    return config.with_loop(batch_size=rows // ranks).model_copy(update={"parallel": ParallelConfig()})


def ranks_of_plan(config: TrainConfig) -> Ranks:
    """How the planned ranks share the work; ConfigError where they can't."""
    parallel, loop, ranks = config.parallel, config.loop, planned_ranks(config)
    check_tensor(shape_of(config), parallel.tensor)
    data = ranks // parallel.tensor
    if loop.batch_size % data:
        raise ConfigError(UNEQUAL.format(loop.batch_size, data))
    rows = loop.batch_size // data
    return Ranks(data, parallel.tensor, loop.batch_size, rows if loop.micro_batch == "auto" else
                  min(loop.micro_batch, rows), config.context, parallel.mode, loop.activation_checkpointing,
                  loop.precision != "float32", _moments(config), _chunk(config))


def _chunk(config: TrainConfig) -> int:
    """Logits that exist at once."""
    if config.loss.chunk is not None:                    # 0: all
        return (config.loss.chunk or 1 << 40) * shape_of(config).vocab_size
    is_desk = dist.world_size() == 1                     # a plan for GPUs elsewhere
    numbers = GPU_NUMBERS if is_desk else CHUNK_NUMBERS.get(pick_device(config.device).type, GPU_NUMBERS)
    return numbers // (2 if config.loop.precision == "float32" else 1)


def _moments(config: TrainConfig) -> float:
    """Float32 numbers kept for each parameter beside its weight and gradient."""
    matrices = sum(p.parameters for p in parts(shape_of(config)) if p.in_matmul and p.name != "output")
    kept = MOMENTS.get(config.optim.kind, 2 - matrices / n_parameters(shape_of(config)))     # Muon: one of a matrix
    kept += config.loop.ema > 0
    return kept + COPIES * (1 + kept) * (config.adapt.kind == "follow")


def foresee(config: TrainConfig) -> Spread:
    """A step of the planned ranks."""
    return spread(shape_of(config), ranks_of_plan(config), config.plan.machine)


def needed(config: TrainConfig) -> float:
    """Bytes of a rank at the worst moment; a CPU's also hold the copy that is written while training goes on."""
    if not may_share(config):
        return predict(of_a_rank(config), dist.own_device(pick_device(config.device))).most
    step = foresee(config)
    return step.memory + (step.weights + step.moments if _copies(config) else 0)


def _copies(config: TrainConfig) -> bool:
    return config.loop.async_save and dist.world_size() > 1 and pick_device(config.device).type == "cpu"


def rank_limit(config: TrainConfig) -> float:
    """Bytes that one rank may have: plan.memory_gb, or a share of what this GPU has free, or of the planned GPU."""
    if config.plan.memory_gb:
        return config.plan.memory_gb * 1e9
    device, started = dist.own_device(pick_device(config.device)), dist.world_size()
    if device.type == "cpu" and started == 1:            # a plan made at a desk, for machines elsewhere
        return SHARE * config.plan.machine.memory
    return SHARE * free_memory(device) / (started if device.type == "cpu" else 1)


def settled_rows(config: TrainConfig) -> int:
    """The most rows at once that are foreseen to fit; ConfigError where one doesn't."""
    limit, rows = rank_limit(config), config.loop.batch_size * config.parallel.tensor // planned_ranks(config)
    while rows > 1 and needed(config.with_loop(micro_batch=rows)) > limit:
        rows = (rows + 1) // 2
    check_planned(config.with_loop(micro_batch=rows))
    return rows


def check_planned(config: TrainConfig) -> None:
    """ConfigError where a rank would end for want of memory, with what each change would bring."""
    most, limit = needed(config), rank_limit(config)
    if most <= limit:
        return
    told = []
    for name, changed in _changes(config).items():
        would = needed(changed)
        told.append(f"{name} takes {gb(would)}" + (" and fits" if would <= limit else ""))
    raise ConfigError(f"each of {planned_ranks(config)} ranks is foreseen to take {gb(most)}, and {gb(limit)} may "
                      f"be used: {'; '.join(told) or 'take a smaller model'}. Or set plan.memory_gb if there is more")


def _changes(config: TrainConfig) -> dict[str, TrainConfig]:
    """What takes less, by the words to type."""
    if not may_share(config):
        return {"loop.micro_batch=1": config.with_loop(micro_batch=1)} if config.loop.micro_batch != 1 else {}
    layout, out = ranks_of_plan(config), {}
    if layout.micro_batch > 1:
        out["loop.micro_batch=1"] = config.with_loop(micro_batch=1)
    if not layout.recomputes:
        out["loop.micro_batch=1 loop.activation_checkpointing=true"] = config.with_loop(
            micro_batch=1, activation_checkpointing=True)
    if _copies(config):
        out["loop.async_save=false"] = config.with_loop(async_save=False)
    for data, tensor in ((layout.data * 2, layout.tensor), (layout.data * 4, layout.tensor),
                         (layout.data, layout.tensor * 2), (layout.data, layout.tensor * 8)):
        dealt = config.model_copy(update={"parallel": config.parallel.model_copy(update={"data": data,
                                                                                         "tensor": tensor})})
        try:
            ranks_of_plan(dealt)
        except ConfigError:                              # heads or rows can't be dealt out so
            continue
        out[f"parallel.data={data} parallel.tensor={tensor} ({data * tensor} ranks)"] = dealt
    if layout.mode == "data":
        out["parallel.mode=fsdp"] = config.model_copy(update={"parallel": config.parallel.model_copy(
            update={"mode": "fsdp"})})
    return out


def plan_of(config: TrainConfig) -> dict[str, Any]:
    """What a dry run tells of a run on many ranks; ConfigError where it can't fit."""
    if config.loop.micro_batch == "auto":
        config = config.with_loop(micro_batch=settled_rows(config))
    check_planned(config)
    if not may_share(config):
        return _of_whole_models(config)
    layout, step, plan, steps = ranks_of_plan(config), foresee(config), config.plan, config.loop.steps
    machines = -(-layout.count // plan.machine.gpus)
    spent = steps * step.step_s / 3600
    watts = plan.watts * machines if plan.watts else plan.machine.watts * layout.count
    energy, money = costs(plan, spent, watts / machines)
    waits = step.step_s - step.compute_s
    return {"parameters": n_parameters(shape_of(config)), "tokens": steps * layout.rows * layout.context,
            "steps": steps, "ranks": layout.count,
            "layout": f"{layout.data} data ({layout.mode}) x {layout.tensor} tensor",
            "machines": machines, "micro_batch": layout.micro_batch, "micro_batches": layout.parts,
            "state_bytes": round(step.weights + step.gradients + step.moments), "gathered_bytes": round(step.gathered),
            "kept_bytes": round(step.kept), "working_bytes": round(step.working),
            "predicted_bytes": round(needed(config)), "limit_bytes": round(rank_limit(config)),
            "sent_data_bytes": round(step.sent_data), "sent_tensor_bytes": round(step.sent_tensor),
            "seconds_per_step": short(step.step_s),
            "waits_share": short(waits / step.step_s), "mfu": short(step.mfu), "hours": short(spent),
            "kwh": short(energy * machines), "money": short(money * machines), "currency": plan.currency,
            "checkpoint_bytes": round(4 * (1 + layout.moments) * n_parameters(shape_of(config))),
            "here": _here(layout.count), "assumptions": [
                f"{plan.machine.share:.0%} of {plan.machine.flops / 1e12:.0f} Tflop/s while computing, "
                f"{plan.machine.nvlink / 1e9:.0f} GB/s in a machine and {plan.machine.network / 1e9:.0f} GB/s from "
                "each GPU to other machines (plan.machine), which nobody measured",
                f"{watts / machines:.0f} W a machine",
                "without evaluations, saves and failures"]}


def _of_whole_models(config: TrainConfig) -> dict[str, Any]:
    """The same where it is foreseen as a run of one rank by itself."""
    ranks, loop = planned_ranks(config), config.loop
    return {"parameters": n_parameters(shape_of(config)), "tokens": loop.steps * loop.batch_size * config.context,
            "steps": loop.steps, "ranks": ranks, "layout": f"{ranks} data (data) x 1 tensor",
            "micro_batch": loop.micro_batch, "predicted_bytes": round(needed(config)),
            "limit_bytes": round(rank_limit(config)), "here": _here(ranks), "assumptions": [
                "each rank holds whole models; without what a process takes before its model, and without seconds: a "
                f"dry run with parallel.data=1 loop.batch_size={of_a_rank(config).loop.batch_size} rehearses one "
                "rank's step"]}


def _here(ranks: int) -> str:
    """Whether this machine could run it."""
    gpus = torch.cuda.device_count()
    have = f"{gpus} GPUs" if gpus else f"no GPU and {gb(free_memory(torch.device('cpu')))} of free memory"
    return f"this machine has {have}; " + ("the run can start here" if gpus >= ranks else
                                           f"the run needs {ranks} GPUs. To try the recipe here, set size=15m "
                                           "parallel.data=1 parallel.tensor=1")
