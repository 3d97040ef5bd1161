"""Positions stretched on request: what `--rope-scaling yarn:4` and `--context` make of a model's config.

Nothing is trained. What a scaling is worth beyond the trained length, docs/long-context.md shows for models at hand.
"""

from typing import get_args

from ayllu.config import validate
from ayllu.errors import ConfigError
from ayllu.model.config import LlamaConfig, RopeScaling

KINDS = tuple(kind for kind in get_args(RopeScaling.model_fields["kind"].annotation) if kind != "longrope")   # + lists
FORM = f"expected none, or KIND:FACTOR with KIND one of {', '.join(KINDS)} and a factor of at least 1, such as yarn:4"


def stretched(config: LlamaConfig, scaling: str | None = None, context: int | None = None) -> LlamaConfig:
    """The config with another scaling ("yarn:4", "none") of the trained context, and at most `context` tokens.

    A kind without a factor takes the one that `context` needs. Without a scaling, `context` can only lower what the
    model takes.
    """
    if scaling is not None:
        config = _scaled(config, scaling, context)
    if context is None or context == config.max_context:
        return config
    if not 0 < context < config.max_context:
        raise ConfigError(f"context {context}: the model takes {config.max_context} tokens; ask for fewer, or stretch "
                          "its positions with --rope-scaling yarn, which may cost quality")
    old = config.rope_scaling                            # its rotation stays what it was
    pinned = old and old.model_copy(update={"original_context": trained_context(config)})
    return config.model_copy(update={"max_context": context, "rope_scaling": pinned})


def trained_context(config: LlamaConfig) -> int:
    """The length before the config's own scaling, where it says."""
    scaling = config.rope_scaling
    return (scaling and scaling.original_context) or config.max_context


def _scaled(config: LlamaConfig, text: str, context: int | None) -> LlamaConfig:
    original = trained_context(config)
    if text == "none":
        return config.model_copy(update={"rope_scaling": None, "max_context": original})
    kind, _, number = text.partition(":")
    try:
        factor = float(number) if number else max(1.0, context / original if context else 0.0)
    except ValueError:
        factor = 0.0
    if kind not in KINDS or not 1 <= factor < 1e6 or not (number or context):
        raise ConfigError(f"rope scaling {text!r}: {FORM}")
    table = {"kind": kind, "factor": factor, "original_context": original}
    return validate(LlamaConfig, {**config.model_dump(), "rope_scaling": table,
                                  "max_context": round(original * factor)}, where="rope scaling")
