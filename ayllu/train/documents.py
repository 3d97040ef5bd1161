"""Held-out bits per byte of whole documents, each by itself and read causally: what packed and masked runs compare."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ayllu.data.loader import Batch
from ayllu.data.shards import Shards
from ayllu.model.build import CausalModel
from ayllu.model.parallel import Layout
from ayllu.text.tokenizer import Tokenizer
from ayllu.train.losses import IGNORED, bits_of

ROWS = 8


def held_out_documents(model: CausalModel, shards: Shards, tokenizer: Tokenizer, context: int, limit: int | None,
                       device: torch.device, autocast: torch.dtype | None,
                       layout: Layout | None = None) -> dict[str, float]:
    """Bits per byte for each language, over its documents up to the first that begins past `limit` ids, or over all."""
    out = {}
    for language, (ids, n_bytes) in shards.held_out().items():
        documents, n = [], 0
        for document in shards.documents(ids):
            if limit is None or n < limit:
                documents.append(torch.from_numpy(document.astype(np.int64)))
                n += len(document)
        spelled = n_bytes if n == len(ids) else spelled_bytes(tokenizer, np.concatenate(documents))
        bits = document_bits(model, documents, context, device, autocast, layout)
        out[f"bits_per_byte_{language}"] = bits / spelled
    return out


def spelled_bytes(tokenizer: Tokenizer, ids: np.ndarray) -> int:
    """The bytes of the text that ids (N,) stand for; where they were cut within a letter, its bytes may be missed."""
    return len(tokenizer.decode(ids.tolist(), skip_special=True).encode())


def document_bits(model: CausalModel, documents: list[Tensor], context: int, device: torch.device,
                  autocast: torch.dtype | None = None, layout: Layout | None = None) -> float:
    """-log2 p of every id but each document's first, given what came before it in its document.

    Documents longer than `context` are read in windows that overlap by half, as in `bits_per_byte`.
    """
    return bits_of(model, list(rows(documents, context)), device, autocast, layout)


def rows(documents: list[Tensor], context: int) -> Iterator[Batch]:
    """Batches of windows of about equal length, in which each id but a document's first is a label exactly once."""
    windows = sorted((window for ids in documents for window in _windows(ids, context)), key=lambda w: -len(w[0]))
    for i in range(0, len(windows), ROWS):
        some = windows[i:i + ROWS]
        pad = torch.nn.utils.rnn.pad_sequence
        yield Batch(pad([ids for ids, _ in some], True, 0), pad([labels for _, labels in some], True, IGNORED))


def _windows(ids: Tensor, context: int) -> Iterator[tuple[Tensor, Tensor]]:
    """(ids, labels) of one document; a later window learns only what the one before it hadn't."""
    half, done = max(context // 2, 1), 0                                     # labels that earlier windows had
    for start in range(0, len(ids) - 1, half):
        labels = ids[start + 1:start + context + 1].clone()
        labels[:max(done - start, 0)] = IGNORED
        yield ids[start:start + len(labels)], labels
        done = start + len(labels)
        if done >= len(ids) - 1:
            return
