"""An opened checkpoint: what every reader returns and every writer takes. No tensor is read until it is asked for.

Tensor names are those of ayllu/model/llama.py (Meta's), q and k in the half-split layout of Hugging Face.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ayllu.checkpoint.generation import GenerationDefaults
from ayllu.checkpoint.licence import Licence
from ayllu.errors import CheckpointError
from ayllu.model.config import LlamaConfig

if TYPE_CHECKING:
    from ayllu.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Entry:
    """One tensor that has not been read yet."""

    shape: tuple[int, ...]
    dtype: torch.dtype                                   # what `read` returns; Q8_0 gives float32
    read: Callable[[], Tensor]
    file: Path                                           # for messages
    stored_as: str                                       # for messages: F16, Q8_0, ...
    name: str = ""                                       # the tensor's name in the file, for messages


@dataclass(frozen=True)
class OpenCheckpoint:
    """A checkpoint that has been found, understood and checked against its config, but not read."""

    path: Path
    format: str                                          # hf, meta, llama2c, gguf or memory
    config: LlamaConfig
    entries: dict[str, Entry]
    open_tokenizer: Callable[[], "Tokenizer | None"] = lambda: None
    tokenizer_files: tuple[Path, ...] = ()               # files that travel along as they are
    generation: GenerationDefaults = field(default_factory=GenerationDefaults)
    chat_template: str | None = None
    licence: Licence | None = None
    licence_texts: dict[str, str] = field(default_factory=dict)  # LICENSE, USE_POLICY, NOTICE by file name

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """(name, tensor) one at a time, in the order of the model, each checked for NaN and infinity."""
        for name in self.entries:
            yield name, self.tensor(name)

    def tensor(self, name: str) -> Tensor:
        """One tensor as it is stored, on the CPU; where the format allows, a view of the file without a copy."""
        entry = self.entries[name]
        tensor = entry.read()
        if tuple(tensor.shape) != entry.shape:
            raise CheckpointError(f"{entry.file}: {entry.name or name} has shape {tuple(tensor.shape)}, its header "
                                  f"promised {entry.shape}: the file is damaged; fetch it again")
        check_finite(tensor, f"{entry.file}: {entry.name or name}")
        return tensor

    @property
    def dtype(self) -> torch.dtype:
        """The number format that holds most of the weights."""
        sizes: dict[torch.dtype, int] = {}
        for entry in self.entries.values():
            sizes[entry.dtype] = sizes.get(entry.dtype, 0) + count(entry.shape)
        return max(sizes, key=lambda dtype: sizes[dtype])


@dataclass(frozen=True)
class Names:
    """What another format calls our tensors: the parts of its layers, below `before` and their number, and the rest."""

    before: str
    layer: dict[str, str]                                # theirs: ours
    top: dict[str, str]

    def ours(self, name: str) -> str:
        """model.layers.0.self_attn.q_proj.weight -> layers.0.attention.wq.weight; others stay as they are."""
        stem, _, leaf = name.rpartition(".")
        if stem in self.top:
            return f"{self.top[stem]}.{leaf}"
        number, _, part = stem.removeprefix(f"{self.before}.").partition(".")
        known = stem.startswith(f"{self.before}.") and number.isdecimal() and part in self.layer
        return f"layers.{int(number)}.{self.layer[part]}.{leaf}" if known else name

    def theirs(self, name: str) -> str:
        """layers.0.attention.wq.weight -> model.layers.0.self_attn.q_proj.weight."""
        stem, _, leaf = name.rpartition(".")
        theirs = {ours: theirs for theirs, ours in (self.top | self.layer).items()}
        if not stem.startswith("layers."):
            return f"{theirs[stem]}.{leaf}"
        _, number, part = stem.split(".", 2)
        return f"{self.before}.{number}.{theirs[part]}.{leaf}"



def natural_dtype(source: OpenCheckpoint, name: str) -> torch.dtype:
    """What a tensor is written as where nobody asks for a dtype: its own. GGUF widens norms to float32: they go back to
    the dtype of the weights where that loses nothing."""
    entry = source.entries[name]
    if len(entry.shape) != 1 or entry.dtype == source.dtype:
        return entry.dtype
    tensor = source.tensor(name)
    return source.dtype if torch.equal(tensor.to(source.dtype).to(entry.dtype), tensor) else entry.dtype


def count(shape: tuple[int, ...]) -> int:
    """Number of elements, in exact integers: absurd shapes must not overflow."""
    total = 1
    for size in shape:
        total *= size
    return total


def check_finite(tensor: Tensor, where: str) -> None:
    """Refuse NaN and infinity: one such weight makes every answer nonsense."""
    if tensor.numel() == 0:
        return
    low, high = torch.aminmax(tensor.detach())           # one pass without a copy; NaN shows in both
    if not (torch.isfinite(low) and torch.isfinite(high)):
        bad = int((~torch.isfinite(tensor)).sum())
        raise CheckpointError(f"{where} holds {bad} values that are NaN or infinite: the file is damaged, or the "
                              "training that wrote it had diverged; fetch it again or take an earlier checkpoint")


def expected_shapes(config: LlamaConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """(name, shape) of each tensor of the model, in the order of its `named_parameters`."""
    D, F, V = config.dim, config.hidden_dim, config.vocab_size
    q_width, kv_width = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    yield "tok_embeddings.weight", (V, D)
    for i in range(config.n_layers):
        at = f"layers.{i}."
        yield at + "attention_norm.weight", (D,)
        for part, width in (("wq", q_width), ("wk", kv_width), ("wv", kv_width)):
            yield at + f"attention.{part}.weight", (width, D)
            if config.qkv_bias:
                yield at + f"attention.{part}.bias", (width,)
        yield at + "attention.wo.weight", (D, q_width)
        if config.out_bias:
            yield at + "attention.wo.bias", (D,)
        yield at + "ffn_norm.weight", (D,)
        for part, rows, columns in (("w1", F, D), ("w2", D, F), ("w3", F, D)):
            yield at + f"feed_forward.{part}.weight", (rows, columns)
            if config.mlp_bias:
                yield at + f"feed_forward.{part}.bias", (rows,)
    yield "norm.weight", (D,)
    if not config.tie_embeddings:
        yield "output.weight", (V, D)


def fit_entries(entries: dict[str, Entry], config: LlamaConfig, where: Path) -> dict[str, Entry]:
    """The entries in the order of the model; missing, extra and misshapen ones are refused by name."""
    if config.n_layers > len(entries):                   # before walking a config that promises a billion layers
        raise CheckpointError(f"{where}: the config says {config.n_layers} layers, but only {len(entries)} tensors are "
                              "there: the file is incomplete or the config belongs to another model")
    expected = dict(expected_shapes(config))
    entries = _without_tied_head(entries, config, where)
    missing = [name for name in expected if name not in entries]
    if missing:
        raise CheckpointError(f"{where}: {_some(missing)} missing: the download is incomplete, or the config belongs "
                              "to another model")
    extra = [entry.name or name for name, entry in entries.items() if name not in expected]
    if extra:
        raise CheckpointError(f"{where}: {_some(extra)} not expected: this model has parts that the config does not "
                              "name and Ayllu does not compute; check that config and weights belong together")
    for name, shape in expected.items():
        if entries[name].shape != shape:
            raise CheckpointError(
                f"{entries[name].file}: {entries[name].name or name} has shape {entries[name].shape}, the config says "
                f"{shape}: config and weights belong to different models, or the file was changed")
    return {name: entries[name] for name in expected}


def _without_tied_head(entries: dict[str, Entry], config: LlamaConfig, where: Path) -> dict[str, Entry]:
    """With tied embeddings some files store the head again: fine when equal, else the config is wrong."""
    head, embedding = entries.get("output.weight"), entries.get("tok_embeddings.weight")
    if not config.tie_embeddings or head is None or embedding is None:
        return entries
    if head.shape != embedding.shape or not torch.equal(head.read(), embedding.read()):
        raise CheckpointError(f"{where}: the config ties the output layer to the embedding, but the file holds a "
                              "different output layer: set tie_word_embeddings to false in config.json")
    return {name: entry for name, entry in entries.items() if name != "output.weight"}


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    if len(names) == 1:
        return f"tensor {shown} is"
    return f"{len(names)} tensors ({shown}{', ...' if len(names) > 3 else ''}) are"
