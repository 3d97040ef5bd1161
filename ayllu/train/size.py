"""One dial: `size=15m` sets shape, batch, rates and horizon together by published rules. Free of torch.

    horizon          20 tokens per parameter, all parameters counted (Chinchilla, arXiv:2203.15556; arXiv:2406.12907)
    width and depth  width / depth = 64, on the flat bottom of Kaplan et al. 2020 (arXiv:2001.08361, figure 5)
    hidden width     8/3 of the width (arXiv:2002.05202; 4 for ReLU, arXiv:1706.03762), then moved to meet the size
    batch, rate      0.2920 C^0.3271 tokens and 0.3118 C^-0.1250 (DeepSeek LLM, arXiv:2401.02954, eq. 1)
    weight decay     B / (rate tau D), tau = 1.084 (D/N)^-0.527 (Power Lines, arXiv:2505.13738)
    warm-up          as many tokens as parameters (Porian et al. 2024, arXiv:2406.19146)

C = M D operations, where M counts no embedding and no head (arXiv:2401.02954, eq. 2), N parameters, D tokens, B tokens
per step. The rules were fitted on larger models: what lies outside a fit's range says so. A key of the recipe wins
over the dial, and what follows from it follows from the recipe's value.
"""

import math
import re
from collections.abc import Iterator
from typing import Any

from ayllu.config import Settings, validate
from ayllu.errors import ConfigError
from ayllu.model.account import Config, n_parameters, parts
from ayllu.model.config import LlamaConfig, TransformerConfig

TOKENS_PER_PARAMETER = 20
ASPECT, LEAST_LAYERS = 64, 4
WIDEST_STEP = (0.7, 1.35)                                # how far the hidden width may leave its rule
TIED_BELOW = 4e9                                         # as in Llama 3.2, Qwen2.5 and SmolLM
GROUPED_FROM = 2048                                      # width from which 4 query heads share keys, as in Llama 3 8B
FITTED = {"compute": (1e17, 2e19), "parameters": (111e6, 3.3e9)}     # of arXiv:2401.02954 and of arXiv:2505.13738
KEYS = ("model.dim", "model.n_layers", "model.n_heads", "model.n_kv_heads", "model.head_dim", "model.hidden_dim",
        "model.tie_embeddings", "loop.steps", "loop.batch_size", "optim.lr", "optim.weight_decay",
        "optim.schedule.warmup_steps")
Table = dict[str, Any]


def parse_size(size: str | int | float) -> int:
    """A number of parameters: 15m, 1.1b, 800k, or a plain number."""
    found = re.fullmatch(r"([0-9.]+(?:e[0-9]+)?)\s*([kmbKMB]?)", str(size).strip())
    try:
        number = float(found[1]) if found else 0.0
    except ValueError:
        number = 0.0
    scale = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9}[found[2].lower() if found else ""]
    if not 1 <= number * scale < 1e14:
        raise ConfigError(f"size={size!r} is no number of parameters: write size=15m, size=1.1b or size=800_000 "
                          "(k, m and b are thousands, millions and billions)")
    return round(number * scale)


def fill(recipe: Table, context: int) -> Table:
    """A recipe's table with every key of the dial that it doesn't set itself; `sized` says where each comes from.

    `context` counts where the recipe sets none.
    """
    table = {name: _plain(value) for name, value in recipe.items()}
    missing = [key for key in KEYS if _get(table, key) is None]
    if not missing:
        return table
    asked = parse_size(table["size"])
    shape, values, notes = _shape(asked, table)
    more, reasons = _training(table, shape, int(table.get("context", context)))
    values, notes = {**values, **more}, {**notes, **reasons}
    chosen = {key: notes[key] for key in missing if values.get(key) is not None}
    for key in chosen:
        _set(table, key, values[key])
    _set(table, "model.vocab_size", shape.vocab_size)
    return {**table, "sized": {**table.get("sized", {}), **chosen}}


def without(table: Table, top: Table) -> Table:
    """What a table keeps when `top` is laid over it: a new size replaces all of the dial, a key its reason."""
    kept = {name: _plain(value) for name, value in table.items()}
    reasons = dict(kept.pop("sized", {}))
    for key in KEYS if "size" in top else ():
        _drop(kept, key)
        reasons.pop(key, None)
    reasons = {key: reason for key, reason in reasons.items() if _get(top, key) is None}
    return {**kept, "sized": reasons} if reasons else kept


def _shape(asked: int, table: Table) -> tuple[Config, Table, dict[str, str]]:
    model = _plain(table.get("model", {}))
    tokenizer = _plain(table.get("tokenizer", {}))
    vocab = model.get("vocab_size") or (tokenizer.get("vocab_size") if isinstance(tokenizer, dict) else None)
    if not vocab:
        raise ConfigError("size= needs to know the vocabulary: set model.vocab_size to the tokenizer's number of ids")
    model = {**model, "vocab_size": vocab}
    tied = model.setdefault("tie_embeddings", asked < TIED_BELOW)
    config = min((_config(model, dim, layers) for dim, layers in _ladder(model)),
                 key=lambda c: abs(math.log(n_parameters(c.model_copy(update={"tie_embeddings": True})) / asked)))
    config = config if model.get("hidden_dim") else _meet(config, asked)
    found = n_parameters(config)
    is_free = not model.get("hidden_dim") and not (model.get("dim") and model.get("n_layers"))
    if is_free and abs(found - asked) > 0.1 * asked:
        embedding = vocab * config.dim
        raise ConfigError(f"no shape with a vocabulary of {vocab:,} has {asked:,} parameters; the nearest has "
                          f"{found:,}, {embedding:,} of them in the embedding: choose another size or vocabulary, or "
                          "set model.dim and model.n_layers")
    ratio = f"{config.hidden_dim / config.dim:.2f} of the width"
    return config, {f"model.{name}": getattr(config, name) for name in config.model_fields_set}, {
        "model.dim": f"width / depth near {ASPECT} (arXiv:2001.08361, figure 5), {found:,} parameters in all",
        "model.n_layers": f"width / {ASPECT}, at least {LEAST_LAYERS} (arXiv:2001.08361, figure 5)",
        "model.n_heads": "width / head width", "model.head_dim": "near 64; 128 from a width of 2048, as in Llama",
        "model.n_kv_heads": f"one per query head; per 4 of them from a width of {GROUPED_FROM} (arXiv:2305.13245)",
        "model.hidden_dim": f"{ratio}: {_ratio(config):.2f} (arXiv:2002.05202) moved to meet the size",
        "model.tie_embeddings": f"{'tied below' if tied else 'untied from'} 4 billion, as in Llama 3.2 and Qwen2.5"}


def _config(model: Table, dim: int, layers: int) -> Config:
    """The model's table with all that follows from a width and a depth."""
    kind: type[Settings] = TransformerConfig if model.get("kind") == "transformer" else LlamaConfig
    E = model.get("head_dim") or (dim // model["n_heads"] if model.get("n_heads") else _head_dim(dim))
    H = model.get("n_heads") or max(dim // E, 1)
    group = 4 if dim >= GROUPED_FROM and H % 4 == 0 else 1
    draft = {"dim": dim, "n_layers": layers, "n_heads": H, "n_kv_heads": H // group, "head_dim": E, "hidden_dim": 1}
    config: Config = validate(kind, {**draft, **model}, where="model")     # type: ignore[assignment]
    hidden = model.get("hidden_dim") or _rounded(_ratio(config) * dim)
    return config.model_copy(update={"hidden_dim": hidden})


def _ladder(model: Table) -> Iterator[tuple[int, int]]:
    """(width, depth) from small to large, one of them a step up each time, or those that the recipe leaves open."""
    if model.get("dim") and model.get("n_layers"):
        yield model["dim"], model["n_layers"]
    elif model.get("dim"):
        yield from ((model["dim"], layers) for layers in range(1, 257))
    elif model.get("n_layers"):
        yield from ((dim, model["n_layers"]) for dim in _widths())
    else:
        before = LEAST_LAYERS
        for dim in _widths():
            layers = max(round(dim / ASPECT), LEAST_LAYERS)
            yield from ((dim, between) for between in range(before, layers + 1))
            before = layers


def _widths() -> Iterator[int]:
    """Widths that even heads divide: steps of 16, then of 64 or 96, then of whole groups of four heads."""
    yield from range(32, 256, 16)
    yield from (dim for dim in range(256, 2048, 32) if dim % 64 == 0 or dim % 96 == 0)
    yield from range(2048, 32_769, 512)


def _head_dim(dim: int) -> int:
    if dim >= GROUPED_FROM:
        return 128
    return next((e for e in ((64, 48, 96, 80) if dim >= 256 else ()) + (32, 16) if dim % e == 0), 2)


def _ratio(config: Config) -> float:
    """Hidden width over width, by the feed-forward part's kind."""
    return 4.0 if isinstance(config, TransformerConfig) and config.feed_forward == "relu" else 8 / 3


def _rounded(width: float) -> int:
    return max(round(width / 16) * 16, 16)


def _meet(config: Config, asked: int) -> Config:
    """Move the hidden width, within its bounds, to where the size is nearest to what was asked."""
    one, two = (n_parameters(config.model_copy(update={"hidden_dim": width})) for width in (1, 2))
    wanted, rule = (asked - one) / (two - one) + 1, _ratio(config) * config.dim
    bounded = min(max(wanted, WIDEST_STEP[0] * rule), WIDEST_STEP[1] * rule)
    return config.model_copy(update={"hidden_dim": _rounded(bounded)})


def _training(table: Table, config: Config, context: int) -> tuple[Table, dict[str, str]]:
    """Horizon, batch, rate, decay and warm-up of a shape; each follows from the recipe's own values where set."""
    N, steps, rows = n_parameters(config), _get(table, "loop.steps"), _get(table, "loop.batch_size")
    blocks = sum(part.parameters for part in parts(config) if part.in_matmul and part.name != "output")
    M = 6 * blocks + 12 * config.n_layers * config.n_heads * config.head_dim * context       # operations per token
    if not rows:                                         # with C = M steps B where the steps are given
        B = (0.2920 * (M * steps)**0.3271) ** (1 / (1 - 0.3271)) if steps else 0.2920 * (
            M * TOKENS_PER_PARAMETER * N)**0.3271
        rows = max(round(B / context), 1)
    steps = steps or math.ceil(TOKENS_PER_PARAMETER * N / (rows * context))
    B, D = rows * context, steps * rows * context
    C = M * D
    kind = _get(table, "optim.kind") or "adamw"
    lr = _get(table, "optim.lr") or (None if kind == "prodigy" else round(0.3118 * C**-0.1250, 6))
    tau = 1.084 * (D / N)**-0.527
    decay = None if lr is None or kind == "prodigy" else round(B / (lr * tau * D), 4)
    on_compute, on_size = _outside("compute", C, "operations"), _outside("parameters", N, "parameters")
    values = {"loop.steps": steps, "loop.batch_size": rows, "optim.lr": lr, "optim.weight_decay": decay,
              "optim.schedule.warmup_steps": min(max(math.ceil(N / B), 1), max(steps // 10, 1))}
    return values, {
        "loop.steps": f"{TOKENS_PER_PARAMETER} tokens per parameter, {D:,} tokens (arXiv:2203.15556)",
        "loop.batch_size": f"0.292 C^0.3271 = {B:,} tokens, C = {C:.2g} (arXiv:2401.02954, eq. 1{on_compute})",
        "optim.lr": f"0.3118 C^-0.125 (arXiv:2401.02954, eq. 1{on_compute})",
        "optim.weight_decay": f"batch / (rate tau tokens), tau = {tau:.2f} (arXiv:2505.13738{on_size})",
        "optim.schedule.warmup_steps": "as many tokens as parameters, a tenth of the run at most (arXiv:2406.19146)"}


def _outside(name: str, value: float, unit: str) -> str:
    low, high = FITTED[name]
    return "" if low <= value <= high else f"; extrapolated from {low:.2g} to {high:.2g} {unit}"


def _plain(value: Any) -> Any:
    return value.model_dump(exclude_unset=True) if isinstance(value, Settings) else value


def _get(table: Table, key: str) -> Any:
    """The value at `a.b.c`, None where there is none."""
    value: Any = table
    for name in key.split("."):
        value = _plain(value).get(name) if isinstance(_plain(value), dict) else None
    return value


def _set(table: Table, key: str, value: Any) -> None:
    """Set `a.b.c`, with new tables on the way: those of the caller stay as they are."""
    *path, last = key.split(".")
    for name in path:
        table[name] = dict(_plain(table.get(name, {})))
        table = table[name]
    table[last] = value


def _drop(table: Table, key: str) -> None:
    if _get(table, key) is not None:
        _set(table, key, None)
        *path, last = key.split(".")
        for name in path:
            table = table[name]
        del table[last]
