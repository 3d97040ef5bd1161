"""What stands between generation and a model: a `Runner` takes new ids and a cache, and gives the next logits.

Generation knows only this protocol, so a compiled, fused, CUDA-graph or native runner takes the eager one's place
without a change above. A runner makes its own caches, since some need buffers that never move.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from ayllu.model.adapt import Adapt, adapted
from ayllu.model.attend import Attend
from ayllu.model.cache import DenseCache
from ayllu.model.config import LlamaConfig, TransformerConfig
from ayllu.model.llama import Llama
from ayllu.model.shown import Shown
from ayllu.model.transformer import Transformer

Model = Llama | Transformer
CHUNK = 1024                                             # prompt tokens per pass: bounds the memory of masks and scores


@dataclass(frozen=True)
class Batch:
    """One step: new ids (B, T) for the rows of `cache`; in the first, rows are filled on the left as the cache says."""

    ids: Tensor
    cache: DenseCache
    adapt: Adapt | None = None                           # the same for all rows
    shown: Shown | None = None                           # images and sounds: (B, T), (B, T, L)


class Runner(Protocol):
    """Runs a model over a cache. `step` writes the batch's keys and values and gives logits (B, V) for what follows.

    `hidden` writes them too and gives what `logits` takes, (B, T, D), for every new token. `flat` does that for tokens
    of any rows side by side, whose `attends` know where their keys and values lie: (N,), positions (N,) -> (N, D); its
    `adapt` may treat each token in its own way, and what is `shown` takes the places of embeddings.
    """

    @property
    def config(self) -> LlamaConfig | TransformerConfig: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def dtype(self) -> torch.dtype: ...

    def new_cache(self, padding: Sequence[int], capacity: int) -> DenseCache: ...

    def step(self, batch: Batch) -> Tensor: ...

    def hidden(self, batch: Batch) -> Tensor: ...

    def flat(self, ids: Tensor, positions: Tensor, attends: Sequence[Attend], adapt: Adapt | None = None,
             shown: Shown | None = None) -> Tensor: ...

    def logits(self, h: Tensor) -> Tensor: ...


class EagerRunner:
    """The plain runner: the model file as it is, one operation after the other."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.config = model.config
        self.device, self.dtype = model.tok_embeddings.weight.device, model.tok_embeddings.weight.dtype

    def new_cache(self, padding: Sequence[int], capacity: int) -> DenseCache:
        """An empty cache for one row per entry of `padding` (slots left empty), with room for `capacity` slots."""
        return DenseCache(self.config, padding, capacity, dtype=self.dtype, device=self.device)

    def step(self, batch: Batch) -> Tensor:
        """Logits (B, V) after the last new token of each row."""
        for part in prompt_parts(batch, self.config):
            hidden = self._trunk(part)
        return self.model.logits(hidden[:, -1])

    def hidden(self, batch: Batch) -> Tensor:
        """The trunk's output (B, T, D) for all new tokens."""
        return torch.cat([self._trunk(part) for part in prompt_parts(batch, self.config)], dim=1)

    def flat(self, ids: Tensor, positions: Tensor, attends: Sequence[Attend], adapt: Adapt | None = None,
             shown: Shown | None = None) -> Tensor:                           # (N,), (N,) -> (N, D)
        """The trunk's output for tokens of any rows side by side."""
        with adapted(self.model, adapt):
            return self.model.trunk(self._embedded(ids[None], shown), positions[None], attends)[0]

    def logits(self, h: Tensor) -> Tensor:                                    # (..., D) -> (..., V)
        """The model's head, for what `hidden` gives."""
        return self.model.logits(h)

    def _trunk(self, batch: Batch) -> Tensor:
        with adapted(self.model, batch.adapt):
            return self.model.trunk(self._embedded(batch.ids, batch.shown), batch.cache.extend(batch.ids.shape[1]),
                                    batch.cache.attends)

    def _embedded(self, ids: Tensor, shown: Shown | None) -> Tensor:
        x = self.model.embed(ids)
        return x if shown is None else shown.over(x)


def prompt_parts(batch: Batch, config: LlamaConfig | TransformerConfig) -> Sequence[Batch]:
    """A step in the pieces that are computed one after the other."""
    scaling = config.rope_scaling
    if scaling is not None and scaling.follows_length:
        return [batch]                                                        # its rotation depends on a pass's length
    ids = batch.ids.split(CHUNK, dim=1)
    if len(ids) == 1:
        return [batch]
    shown = [None] * len(ids) if batch.shown is None else batch.shown.split(CHUNK)
    return [replace(batch, ids=part, shown=own) for part, own in zip(ids, shown, strict=True)]


def as_runner(model: Model | Runner) -> Runner:
    """A runner for a plain model; a runner is given back."""
    return EagerRunner(model) if isinstance(model, Model) else model
