"""llama2.c's first format (version 0): seven int32, then every weight as float32, as its `run` program maps them.

Header: dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size (negative: the output layer is stored, too),
max_seq_len. After the last norm lie two tables of cosines and sines, which nothing reads any more.
"""

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from ayllu.checkpoint.licence import own_licence
from ayllu.checkpoint.rope_layout import to_half_split, to_interleaved, turned_heads
from ayllu.checkpoint.sidecar import fitting_tokenizer, generation_beside, template_beside, tokenizer_files
from ayllu.checkpoint.source import Entry, OpenCheckpoint, count, expected_shapes, fit_entries
from ayllu.errors import CheckpointError
from ayllu.model.config import LlamaConfig
from ayllu.model.llama import rope_frequencies

HEADER = struct.Struct("<7i")
_PER_LAYER = ("attention_norm", "attention.wq", "attention.wk", "attention.wv", "attention.wo", "ffn_norm",
              "feed_forward.w1", "feed_forward.w2", "feed_forward.w3")
_NEWER = 0x616B3432                                      # "ak42": versions 1 and 2


def looks_like_llama2c(path: Path) -> bool:
    """Whether the file's size is what its first seven numbers promise."""
    try:
        return _size(_header(path)) == path.stat().st_size
    except CheckpointError:
        return False


def open_llama2c(path: Path) -> OpenCheckpoint:
    """Open one .bin file; the weights are views of the mapped file, but for wq and wk."""
    config = _header(path)
    if _size(config) != path.stat().st_size:
        raise CheckpointError(f"{path}: its header promises {_size(config)} bytes, the file has {path.stat().st_size}: "
                              "the download broke off, or this is not llama2.c's version 0 format")
    data = np.memmap(path, dtype="<f4", mode="c", offset=HEADER.size)    # private pages: writing never reaches the file
    shapes = dict(expected_shapes(config))
    entries: dict[str, Entry] = {}
    at = 0
    for name in _order(config):
        if name is None:
            at += config.max_context * config.head_dim   # cosines and sines
            continue
        heads = turned_heads(name, config.n_heads, config.n_kv_heads)
        size = count(shapes[name])
        entries[name] = Entry(shapes[name], torch.float32, _reader(data, at, shapes[name], heads), path, "F32", name)
        at += size
    folder = path.parent
    tokenizer = fitting_tokenizer(folder, config.vocab_size)
    licence, texts = own_licence(folder)
    return OpenCheckpoint(
        path=path, format="llama2c", config=config, entries=fit_entries(entries, config, path),
        open_tokenizer=lambda: tokenizer, tokenizer_files=tokenizer_files(folder) if tokenizer else (),
        generation=generation_beside(folder), chat_template=template_beside(folder), licence=licence,
        licence_texts=texts)


def write_llama2c(path: Path, source: OpenCheckpoint) -> None:
    """Write one .bin file, in float32; what the format can't hold is refused by the field's name."""
    config = source.config
    check_llama2c(config)
    vocab = config.vocab_size if config.tie_embeddings else -config.vocab_size
    with open(path, "wb") as file:
        file.write(HEADER.pack(config.dim, config.hidden_dim, config.n_layers, config.n_heads, config.n_kv_heads, vocab,
                               config.max_context))
        for name in _order(config):
            if name is None:
                angles = torch.outer(torch.arange(config.max_context).float(), rope_frequencies(config)[0])
                tables = torch.stack((angles.cos(), angles.sin()))
                file.write(tables.numpy().astype("<f4").tobytes())
                continue
            heads = turned_heads(name, config.n_heads, config.n_kv_heads)
            tensor = source.tensor(name).float()
            tensor = tensor if heads is None else to_interleaved(tensor, heads)
            file.write(tensor.contiguous().numpy().astype("<f4", copy=False).tobytes())


def check_llama2c(config: LlamaConfig) -> None:
    """Refuse, by field, whatever the seven numbers of the header can't say."""
    fixed = {"qkv_bias": False, "out_bias": False, "mlp_bias": False, "rope_theta": 10_000.0, "rope_scaling": None,
             "head_dim": config.dim // config.n_heads, "sliding_window": None, "norm_eps": 1e-5}
    for field, wanted in fixed.items():
        if getattr(config, field) != wanted:
            raise CheckpointError(f"llama2.c's format has no place for {field}={getattr(config, field)!r} (it is "
                                  f"always {wanted!r}): convert to hf or gguf")
    if config.dim != config.head_dim * config.n_heads:
        raise CheckpointError(f"llama2.c's format has no place for head_dim={config.head_dim}: it is always dim / "
                              "n_heads")


def _header(path: Path) -> LlamaConfig:
    with open(path, "rb") as file:
        head = file.read(HEADER.size)
    if len(head) < HEADER.size:
        raise CheckpointError(f"{path} has {len(head)} bytes, too few for a header: the download broke off")
    dim, hidden, layers, heads, kv_heads, vocab, context = HEADER.unpack(head)
    if dim == _NEWER:
        raise CheckpointError(f"{path} is llama2.c's version {hidden} format; Ayllu reads version 0: export it again "
                              "with `--version 0`")
    if min(dim, hidden, layers, heads, kv_heads, context) <= 0 or vocab == 0 or dim % heads or layers > 10_000:
        raise CheckpointError(f"{path}: the header {HEADER.unpack(head)} (dim, hidden_dim, n_layers, n_heads, "
                              "n_kv_heads, vocab_size, max_seq_len) is not that of a llama2.c model")
    try:
        return LlamaConfig(dim=dim, hidden_dim=hidden, n_layers=layers, n_heads=heads, n_kv_heads=kv_heads,
                           head_dim=dim // heads, vocab_size=abs(vocab), max_context=context, norm_eps=1e-5,
                           tie_embeddings=vocab > 0)
    except ValidationError as error:
        raise CheckpointError(f"{path}: the header does not describe a Llama: {error.errors()[0]['msg']}") from error


def _order(config: LlamaConfig) -> list[str | None]:
    """Tensor names in the file's order; None stands for the tables of cosines and sines."""
    layers = [f"layers.{i}.{part}.weight" for part in _PER_LAYER for i in range(config.n_layers)]
    tail = [] if config.tie_embeddings else ["output.weight"]
    return ["tok_embeddings.weight", *layers, "norm.weight", None, *tail]


def _size(config: LlamaConfig) -> int:
    weights = sum(count(shape) for _, shape in expected_shapes(config))
    return HEADER.size + 4 * (weights + config.max_context * config.head_dim)


def _reader(data: np.memmap, at: int, shape: tuple[int, ...], heads: int | None) -> Callable[[], Tensor]:
    def read() -> Tensor:
        tensor = torch.from_numpy(data[at:at + count(shape)]).view(shape)
        return tensor if heads is None else to_half_split(tensor, heads)
    return read
