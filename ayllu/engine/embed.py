"""One vector for a text: the mean over its tokens of what the last layer gives."""

from collections.abc import Sequence

import torch

from ayllu.engine.engine import Engine
from ayllu.engine.runner import Batch


@torch.inference_mode()
def mean_hidden(engine: Engine, ids: Sequence[int], adapter: str | None = None) -> list[float]:
    """(D,) of length 1. A model that was not trained for it gives rough neighbours, no more."""
    runner, shelf = engine.runner, engine.adapters
    cache = runner.new_cache([0], len(ids))
    adapt = None if adapter is None else shelf.adapt([shelf.find(adapter)])
    hidden = runner.hidden(Batch(torch.tensor([list(ids)], device=runner.device), cache, adapt))[0]     # (T, D)
    mean = hidden.float().mean(dim=0)
    return (mean / mean.norm().clamp(min=1e-12)).tolist()
