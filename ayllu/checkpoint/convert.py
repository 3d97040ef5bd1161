"""Convert a checkpoint and prove it: reload what was written, compare every tensor and the logits of a probe.

Where the numbers keep their format the difference must be 0; a cast must be the nearest value; Q8_0 must be within the
rounding of its blocks. A result that fails is removed.
"""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ayllu.checkpoint import q8
from ayllu.checkpoint.gguf import stored_kind
from ayllu.checkpoint.load import build_model, open_checkpoint
from ayllu.checkpoint.own_config import same_mathematics
from ayllu.checkpoint.save import Format, stored_dtype, write_checkpoint
from ayllu.checkpoint.source import OpenCheckpoint
from ayllu.device import pick_dtype
from ayllu.errors import CheckpointError

PROBE = "Once upon a time there was a 小女孩 who had 2 cats."
PROBE_TOKENS = 32
LOGIT_TOLERANCE = 1e-5                                   # of the logits' deviation, where no weight was rounded


@dataclass(frozen=True)
class Conversion:
    """What was written, and how far it is from its source."""

    source: str
    source_format: str
    path: str
    format: str
    dtype: str
    n_tensors: int
    n_bytes: int
    largest_weight_difference: float
    differs_most: str                                    # the tensor with that difference, empty where all are equal
    largest_logit_difference: float
    logit_deviation: float                               # standard deviation of the source's logits
    same_next_token: float                               # share of positions with the same likeliest token
    probe_tokens: int
    licence: str | None
    seconds: float

    def as_table(self) -> dict[str, Any]:
        """For --json."""
        return asdict(self)


def convert(name_or_path: str | Path, path: str | Path, *, to: Format, dtype: str | None = None,
            overwrite: bool = False) -> Conversion:
    """Convert and check. `dtype` None keeps the source's own number format (llama2.c holds float32 only)."""
    began = time.perf_counter()
    source = open_checkpoint(name_or_path)
    stored = stored_dtype(source, to, dtype)
    found: dict[str, Any] = {}

    def check(written: Path) -> None:
        again = open_checkpoint(written)
        found.update(compare_weights(source, again, stored))
        _compare_rest(source, again)
        found.update(_compare_logits(source, again, exact=found["largest_weight_difference"] == 0))

    done = write_checkpoint(source, path, to=to, dtype=dtype, overwrite=overwrite, check=check)
    files = [done] if done.is_file() else [p for p in done.iterdir() if p.is_file()]
    return Conversion(
        source=str(source.path), source_format=source.format, path=str(done), format=to, dtype=stored,
        n_tensors=len(source.entries), n_bytes=sum(p.stat().st_size for p in files),
        licence=None if source.licence is None else source.licence.id, seconds=time.perf_counter() - began, **found)


def compare_weights(source: OpenCheckpoint, again: OpenCheckpoint, stored: str) -> dict[str, Any]:
    """The largest difference over all tensors; each must be what the stored format allows."""
    if not same_mathematics(source.config, again.config):
        raise CheckpointError(f"the reloaded config differs: wrote {source.config}, read {again.config}. Please "
                              "report this")
    largest, where = 0.0, ""
    for name, before in source.tensors():
        after = again.tensor(name)
        wanted = before.to(_kept(again, name, before, stored))
        if stored == "q8_0" and stored_kind(tuple(before.shape), "q8_0") == "q8_0":
            difference = _q8_difference(before, after, name)
        else:
            if not torch.equal(wanted.float(), after.float()):
                raise CheckpointError(f"{name} was read back different from what was written. Please report this")
            difference = _largest(before, after)
        if difference > largest:
            largest, where = difference, name
    return {"largest_weight_difference": largest, "differs_most": where}


def _kept(again: OpenCheckpoint, name: str, before: Tensor, stored: str) -> torch.dtype:
    """The number format a tensor had to be rounded to; norms may be kept in a wider one, which loses nothing."""
    wanted = torch.float16 if stored == "q8_0" else pick_dtype(stored)
    actual = again.entries[name].dtype
    return actual if actual.itemsize > wanted.itemsize or before.dim() == 1 else wanted


def _q8_difference(before: Tensor, after: Tensor, name: str) -> float:
    difference = (before.float() - after.float()).abs().reshape(-1, q8.BLOCK).amax(1)
    bound = torch.from_numpy(q8.rounding_bound(before.float().numpy()))
    if (difference > bound).any():
        raise CheckpointError(f"{name}: Q8_0 changed a value by {difference.max():.3g}, more than rounding explains. "
                              "Please report this")
    return float(difference.max())


def _largest(before: Tensor, after: Tensor) -> float:
    return float((before.float() - after.float()).abs().max()) if before.numel() else 0.0


def _compare_rest(source: OpenCheckpoint, again: OpenCheckpoint) -> None:
    """Tokenizer, chat template, end ids and licence must have come along."""
    mine, other = source.open_tokenizer(), again.open_tokenizer()
    if (mine is None) != (other is None) or (mine and other and mine.encode(PROBE) != other.encode(PROBE)):
        raise CheckpointError(f"the tokenizer did not survive the conversion to {again.format}: the same text gives "
                              "other ids. Please report this")
    if source.chat_template != again.chat_template:
        raise CheckpointError(f"the chat template did not survive the conversion to {again.format}. Please report this")
    if source.generation.eos_ids and set(source.generation.eos_ids) != set(again.generation.eos_ids):
        raise CheckpointError(f"the end ids {source.generation.eos_ids} came back as {again.generation.eos_ids}. "
                              "Please report this")
    if (source.licence and source.licence.id) != (again.licence and again.licence.id):
        raise CheckpointError("the licence record did not survive the conversion. Please report this")


def probe_ids(source: OpenCheckpoint) -> Tensor:
    """(1, T) ids of the probe text, or, without a tokenizer, ids spread over the vocabulary."""
    vocab = source.config.vocab_size
    length = min(PROBE_TOKENS, source.config.max_context)
    tokenizer = source.open_tokenizer()
    ids = [] if tokenizer is None else [i for i in tokenizer.encode(PROBE, bos=True) if i < vocab][:length]
    if len(ids) < 2:
        ids = [(1 + 7919 * i) % vocab for i in range(length)]
    return torch.tensor([ids])


def _compare_logits(source: OpenCheckpoint, again: OpenCheckpoint, exact: bool) -> dict[str, Any]:
    ids = probe_ids(source)
    before, after = _logits(source, ids, source.dtype), _logits(again, ids, source.dtype)      # one model at a time
    largest, deviation = float((before - after).abs().max()), float(before.std())
    if not torch.isfinite(after).all() or (exact and largest > LOGIT_TOLERANCE * deviation):
        raise CheckpointError(f"the reloaded model's logits differ by {largest:.3g} (deviation {deviation:.3g}) "
                              "although all weights are equal. Please report this")
    agree = float((before.argmax(-1) == after.argmax(-1)).float().mean())
    return {"largest_logit_difference": largest, "logit_deviation": deviation, "same_next_token": agree,
            "probe_tokens": ids.shape[1]}


def _logits(source: OpenCheckpoint, ids: Tensor, dtype: torch.dtype) -> Tensor:
    with torch.inference_mode():
        return build_model(source, dtype=dtype)(ids).float()
