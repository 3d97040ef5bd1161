"""Before a run starts: whether it fits, what to change where it doesn't, and what it will cost.

`--dry-run` predicts the memory, rehearses the worst batch with an evaluation and a save, and gives hours, energy and
money. `loop.micro_batch=auto` takes the largest part of a batch that is predicted to fit.
"""

import json
from pathlib import Path
from typing import Any

import torch

from ayllu import dist
from ayllu.device import free_memory, pick_device
from ayllu.errors import ConfigError
from ayllu.log import say
from ayllu.model.account import n_parameters, saved_bytes
from ayllu.model.config import LlamaConfig
from ayllu.model.parallel import check_processes
from ayllu.train.costs import Times, costs, gb, hours, short, watts_of
from ayllu.train.memory import predict, process_bytes
from ayllu.train.method import TrainConfig, least_bytes, looks, shape_of
from ayllu.train.planned import (
    SHARE,
    check_planned,
    may_share,
    of_a_rank,
    plan_of,
    planned_ranks,
    rank_limit,
    settled_rows,
)
from ayllu.train.pretrain import PretrainConfig
from ayllu.train.rehearse import measure_apart

ASSUMED = {"grpo": ("every prompt and every answer as long as they may be; without what the rewards take",),
           "head": ("every text as long as the longest; without what ngrams=true takes",)}


def dry_run(config: TrainConfig) -> dict[str, Any]:
    """Predict, rehearse and count; ConfigError where the run can't fit. A run on many ranks is reckoned only."""
    if planned_ranks(config) > 1:
        return plan_of(config)
    device = pick_device(config.device)
    config = settled(config, device, None)
    limit, base = memory_limit(config, device), process_bytes(device)
    _refuse_at_once(config, base, limit)
    peaks = predict(config, device)
    if base + peaks.most > limit:
        raise ConfigError(_too_much(config, device, base + peaks.most, limit))
    say(f"predicted: {gb(base + peaks.most)} at most, in {peaks.worst}; {gb(limit)} may be used")
    say("rehearsing the worst batch, an evaluation and a save")
    found = measure_apart(config)
    times = Times(**{name: found[name] for name in Times.__dataclass_fields__})
    spent = hours(config.loop, times, looks(config))
    rate = watts_of(config.plan, device.type, torch.get_num_threads())
    energy, money = costs(config.plan, spent, rate)
    tokens = config.loop.steps * config.loop.batch_size * config.context
    assumed = [f"{rate:.0f} W" + ("" if config.plan.watts else " (plan.watts isn't set: an assumption)"),
               f"{config.plan.price_per_kwh} {config.plan.currency} per kWh, {config.plan.price_per_hour} per hour",
               "every step as fast as the rehearsed one; without the last evaluation, over all held-out text",
               *ASSUMED.get(config.method if not isinstance(config, PretrainConfig) else "", ())]
    return {"parameters": n_parameters(shape_of(config)), "tokens": tokens, "steps": config.loop.steps,
            "micro_batch": config.loop.micro_batch, "predicted_bytes": found["base"] + peaks.most,
            "measured_bytes": found["peak"], "base_bytes": found["base"], "limit_bytes": int(limit),
            "worst": peaks.worst, "seconds_per_step": round(times.step_s, 4), "hours": short(spent),
            "kwh": short(energy), "money": short(money), "currency": config.plan.currency,
            "assumptions": assumed}


def ready(config: TrainConfig, resume: bool = False) -> TrainConfig:
    """The settings with which training begins: `auto` settled, and known to fit; ConfigError where they can't."""
    check_processes(config.parallel)
    device = pick_device(config.device)
    config = settled(config, device, Path(config.out) if resume else None)
    if dist.world_size() == 1:
        check_fits(config, device)
    elif may_share(config):
        check_planned(config)
    else:
        check_fits(of_a_rank(config), dist.own_device(device), rank_limit(config))
    return config


def settled(config: TrainConfig, device: torch.device, run: Path | None) -> TrainConfig:
    """The settings with a number for `loop.micro_batch=auto`; one that a run has begun with stays."""
    if config.loop.micro_batch != "auto":
        return config
    rows = config.loop.batch_size
    stored = _stored(run)
    if stored is not None:
        return config.with_loop(micro_batch=stored)
    if dist.world_size() > 1:
        return config.with_loop(micro_batch=settled_rows(config))
    limit, base = memory_limit(config, device), process_bytes(device)
    while True:
        needed = base + predict(config.with_loop(micro_batch=rows), device).most
        if needed <= limit:
            say(f"loop.micro_batch=auto: {rows} of {config.loop.batch_size} rows at once take {gb(needed)} "
                f"of {gb(limit)}")
            return config.with_loop(micro_batch=rows)
        if rows == 1:
            raise ConfigError(_too_much(config.with_loop(micro_batch=1), device, needed, limit))
        rows = (rows + 1) // 2


def check_fits(config: TrainConfig, device: torch.device, limit: float = 0) -> None:
    """ConfigError where a run would end for want of memory; a run far below the limit isn't predicted at all."""
    limit = limit or memory_limit(config, device)
    rows = min(int(config.loop.micro_batch), config.loop.batch_size)
    rough = 4 / 3 * least_bytes(config)              # float32 weights, gradients and two moments
    if isinstance(shape := shape_of(config), LlamaConfig):
        rough += saved_bytes(shape, rows * config.context, config.loop.precision != "float32")
    if rough < limit / 4:
        return
    _refuse_at_once(config, 0, limit)
    needed = process_bytes(device) + predict(config, device).most
    if needed > limit:
        raise ConfigError(_too_much(config, device, needed, limit))


def _refuse_at_once(config: TrainConfig, base: float, limit: float) -> None:
    """ConfigError where weights, gradients and one moment alone are too many bytes, which no setting makes fewer."""
    state = least_bytes(config)
    if base + state > limit:
        raise ConfigError(f"weights, gradients and one moment of {n_parameters(shape_of(config)):,} parameters take "
                          f"{gb(state)}, and {gb(limit)} may be used: take a smaller model, or share it among GPUs "
                          f"with parallel.data={_power(2 * state / limit)} or more (docs/scale.md)")


def _power(least: float) -> int:
    """The next power of two."""
    return 1 << max(int(least) - 1, 0).bit_length()


def memory_limit(config: TrainConfig, device: torch.device) -> float:
    """Bytes that this process may have in all."""
    if config.plan.memory_gb:
        return config.plan.memory_gb * 1e9
    return SHARE * (free_memory(device) + process_bytes(device))


def _too_much(config: TrainConfig, device: torch.device, needed: float, limit: float) -> str:
    """What was predicted, what there is, and what each change would bring."""
    loop, base = config.loop, process_bytes(device)
    one, changes = config.with_loop(micro_batch=1), dict[str, TrainConfig]()
    if int(loop.micro_batch) > 1:
        changes["loop.micro_batch=1"] = one
    if not loop.activation_checkpointing:
        changes["loop.micro_batch=1 loop.activation_checkpointing=true"] = one.with_loop(activation_checkpointing=True)
    if config.context >= 128:
        half = config.context // 2
        changes[f"loop.micro_batch=1 context={half}"] = one.model_copy(update={"context": half})
    if loop.async_save and device.type == "cpu":
        changes["loop.async_save=false"] = config.with_loop(async_save=False)
    told = []
    for name, changed in changes.items():
        would = base + predict(changed, device).most
        told.append(f"{name} takes {gb(would)}" + (" and fits" if would <= limit else ""))
    return (f"this run is predicted to take {gb(needed)}, and {gb(limit)} may be used on {device}: "
            f"{'; '.join(told) or 'take a smaller model'}. Or set another size, or plan.memory_gb if there is more")


def _stored(run: Path | None) -> int | None:
    """The rows that a run began with."""
    path = run / "config.json" if run else None
    if path is None or not path.exists():
        return None
    rows = json.loads(path.read_text(encoding="utf-8"))["loop"]["micro_batch"]
    return rows if isinstance(rows, int) else None
