"""Our exact config, kept beside formats whose own fields round it or lack parts of it (Meta: context; GGUF: float32).

It is believed only where it agrees with the format's own fields: somebody may have edited those.
"""

import json
import math
from pathlib import Path

from pydantic import ValidationError

from ayllu.folder import read_json_if_there
from ayllu.log import warn
from ayllu.model.config import LlamaConfig

FILE = "ayllu_config.json"
_TRAINING_ONLY = ("attention_dropout", "residual_dropout", "embedding_dropout")


def read_own(folder: Path) -> str | None:
    """The JSON text of ayllu_config.json, if it is there."""
    table = read_json_if_there(folder, FILE)
    return None if table is None else json.dumps(table)


def refined(found: LlamaConfig, own: str | None, where: Path, free: tuple[str, ...] = ()) -> LlamaConfig:
    """`found` from the format's fields, or our exact config where it says the same but for rounding and `free`."""
    if own is None:
        return found
    try:
        exact = LlamaConfig.model_validate_json(own)
    except ValidationError:
        warn(f"{where}: the exact config that Ayllu keeps there is not readable; the format's own fields are used")
        return found
    ignored = {*free, *_TRAINING_ONLY}
    a, b = found.model_dump(exclude=ignored), exact.model_dump(exclude=ignored)
    if not _agree(a, b):
        changed = [key for key in a if not _agree(a[key], b[key])]
        warn(f"{where}: {', '.join(changed)} were changed since Ayllu wrote the file; the changed values are used")
        return found
    return exact


def same_mathematics(a: LlamaConfig, b: LlamaConfig) -> bool:
    """Whether two configs compute the same; dropout matters to training only."""
    return a.model_dump(exclude=set(_TRAINING_ONLY)) == b.model_dump(exclude=set(_TRAINING_ONLY))


def _agree(a: object, b: object) -> bool:
    if isinstance(a, dict) and isinstance(b, dict):
        return all(_agree(a[key], b.get(key)) for key in a)
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=1e-6)          # what float32 keeps
    return a == b
