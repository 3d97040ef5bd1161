"""A model with rows for a larger vocabulary: the old ones as they are, the new ones made of them.

V old ids  W new ids  D width
"""

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from ayllu.checkpoint.source import Entry, OpenCheckpoint
from ayllu.errors import ConfigError
from ayllu.model.init import STD, generator
from ayllu.text.extend import Extended

First = Literal["mean", "random"]
SHARE = 0.5                                              # of the mean: measured by benchmarks/vocabulary.py


def extended(source: OpenCheckpoint, found: Extended, first: First = "mean", seed: int = 0) -> OpenCheckpoint:
    """The checkpoint with the larger tokenizer. A new row is half the mean of the rows that spelled its piece, in
    the head as in the embeddings: it points where they do, and takes less of the probability before it has been
    learned. `random` rows are there to compare with."""
    size, new = source.config.vocab_size, found.tokenizer.vocab_size
    if min(found.parts) > size:
        raise ConfigError(f"{source.path}: the tokenizer has {min(found.parts)} ids and the model {size}: the last "
                          "ones have no weights, so that there are no rows to begin with")
    entries = {name: _grown(entry, found, max(new, size), first, seed) if name in (
        "tok_embeddings.weight", "output.weight") else entry for name, entry in source.entries.items()}
    return replace(source, config=source.config.model_copy(update={"vocab_size": max(new, size)}), entries=entries,
                   open_tokenizer=lambda: found.tokenizer, tokenizer_files=(),
                   licence=source.licence and source.licence.derived(source.path.name))


def _grown(entry: Entry, found: Extended, size: int, first: First, seed: int) -> Entry:
    def read() -> Tensor:
        return rows(entry.read(), found, size, first, generator(seed, str(entry.name)))

    return replace(entry, shape=(size, *entry.shape[1:]), read=read)


def rows(old: Tensor, found: Extended, size: int, first: First, drawn: torch.Generator) -> Tensor:
    """(V, D) -> (W, D)."""
    out = torch.empty(size, old.shape[1], dtype=torch.float32)
    out[:len(old)] = old.float()
    for id, parts in found.parts.items():
        out[id] = (SHARE * old[list(parts)].float().mean(0) if first == "mean" else
                   torch.empty(old.shape[1]).normal_(0.0, STD, generator=drawn))
    return out.to(old.dtype)
