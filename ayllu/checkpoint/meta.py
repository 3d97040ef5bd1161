"""Meta's own folders: params.json, one or many consolidated.*.pth (model-parallel shards), tokenizer.model.

Field names follow ModelArgs of github.com/meta-llama/llama and llama-models. Wq and wk are interleaved there.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from ayllu.checkpoint.licence import licence_of
from ayllu.checkpoint.own_config import FILE, read_own, refined
from ayllu.checkpoint.picklefile import read_pickle
from ayllu.checkpoint.rope_layout import to_half_split, to_interleaved, turned_heads
from ayllu.checkpoint.sidecar import generation_beside, open_tokenizer, template_beside, tokenizer_files
from ayllu.checkpoint.source import Entry, OpenCheckpoint, fit_entries, natural_dtype
from ayllu.errors import CheckpointError
from ayllu.folder import inside, read_json
from ayllu.model.config import LlamaConfig, RopeScaling

_KNOWN = {"dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "multiple_of", "ffn_dim_multiplier", "norm_eps",
          "rope_theta", "use_scaled_rope", "rope_scaling_factor", "max_seq_len", "max_batch_size"}
_ROWS = ("wq", "wk", "wv", "w1", "w3", "output")         # shards hold some of the rows of these
_COLUMNS = ("wo", "w2")                                  # and some of the columns of these


def open_meta(folder: Path) -> OpenCheckpoint:
    """Open a folder with params.json; shards are mapped, merged one tensor at a time."""
    params = read_json(inside(folder, "params.json"))
    shards = _shards(folder)
    if "tok_embeddings.weight" not in shards[0]:
        raise CheckpointError(f"{folder}: tok_embeddings.weight is missing from the first consolidated.*.pth: this is "
                              "no Llama, or the download is incomplete")
    found = config_from_meta(params, shards, str(folder / "params.json"))
    config = refined(found, read_own(folder), folder, free=("max_context", "tie_embeddings", "rope_scaling"))
    entries = {name: _merged(name, [s.get(name) for s in shards], config, folder)
               for name in shards[0] if name != "rope.freqs"}
    licence, texts = licence_of(folder)
    return OpenCheckpoint(
        path=folder, format="meta", config=config, entries=fit_entries(entries, config, folder),
        open_tokenizer=lambda: open_tokenizer(folder), tokenizer_files=tokenizer_files(folder),
        generation=generation_beside(folder), chat_template=template_beside(folder),
        licence=licence, licence_texts=texts)


def write_meta(folder: Path, source: OpenCheckpoint, dtype: torch.dtype | None = None) -> None:
    """Write params.json and consolidated.00.pth; what ModelArgs has no field for is refused by name."""
    config = source.config
    params = config_to_meta(config)
    tensors: dict[str, Tensor] = {}
    for name, tensor in source.tensors():
        heads = turned_heads(name, config.n_heads, config.n_kv_heads)
        tensor = tensor if heads is None else to_interleaved(tensor, heads)
        cast = tensor.to(dtype or natural_dtype(source, name))
        tensors[name] = cast.contiguous().clone()        # torch.save would write the whole storage of a view
    if config.tie_embeddings:
        tensors["output.weight"] = tensors["tok_embeddings.weight"]      # Meta's model has no tying: one storage, twice
    torch.save(tensors, folder / "consolidated.00.pth")
    _dump(folder / "params.json", params)
    _dump(folder / FILE, json.loads(config.model_dump_json()))


def config_from_meta(params: dict[str, Any], shards: list[dict[str, Entry]], where: str) -> LlamaConfig:
    """Our config. ModelArgs leaves out the context and sometimes the vocabulary: the latter is read off the tensors."""
    unknown = sorted(set(params) - _KNOWN)
    if unknown:
        raise CheckpointError(f"{where}: {unknown[0]!r} is a field of a model that Ayllu does not compute (it reads "
                              "Meta's text Llamas 1 to 3.2, not vision models or mixtures of experts)")
    try:
        dim, n_heads = int(params["dim"]), int(params["n_heads"])
        hidden = hidden_dim(dim, int(params.get("multiple_of", 256)), params.get("ffn_dim_multiplier"))
        table = {"dim": dim, "n_layers": params["n_layers"], "n_heads": n_heads,
                 "n_kv_heads": params.get("n_kv_heads") or n_heads, "head_dim": dim // n_heads, "hidden_dim": hidden,
                 "vocab_size": _vocab_size(dim, shards), "max_context": _context(params),
                 "norm_eps": params.get("norm_eps", 1e-5), "rope_theta": params.get("rope_theta", 10_000.0),
                 "rope_scaling": _scaling(params, dim),
                 "tie_embeddings": "output.weight" not in shards[0]}
        return LlamaConfig(**table)
    except KeyError as error:
        raise CheckpointError(f"{where}: {error.args[0]} is missing") from error
    except (ValidationError, TypeError, ValueError, ZeroDivisionError, OverflowError) as error:
        raise CheckpointError(f"{where} does not describe a Llama: {error}") from error


def config_to_meta(config: LlamaConfig) -> dict[str, Any]:
    """The content of params.json."""
    for field, wanted in (("qkv_bias", False), ("out_bias", False), ("mlp_bias", False), ("sliding_window", None)):
        if getattr(config, field) != wanted:
            raise CheckpointError(f"Meta's format has no place for {field}={getattr(config, field)}: convert to hf or "
                                  "gguf")
    if config.head_dim * config.n_heads != config.dim:
        raise CheckpointError(f"Meta's format has no place for head_dim={config.head_dim}: it is always dim / n_heads "
                              f"= {config.dim / config.n_heads:g}; convert to hf or gguf")
    multiple_of, multiplier = _solve_hidden(config.dim, config.hidden_dim)
    params = {"dim": config.dim, "n_layers": config.n_layers, "n_heads": config.n_heads,
              "n_kv_heads": config.n_kv_heads,
              "vocab_size": config.vocab_size, "multiple_of": multiple_of, "norm_eps": config.norm_eps,
              "rope_theta": config.rope_theta}
    if multiplier is not None:
        params["ffn_dim_multiplier"] = multiplier
    if config.rope_scaling is not None:
        params["use_scaled_rope"] = True
        known = _scaling(params, config.dim)
        wanted_scaling = config.rope_scaling.model_copy(
            update={"original_context": config.rope_scaling.original_context or config.max_context})
        if known != wanted_scaling:
            raise CheckpointError(f"Meta's format has no place for rope_scaling={wanted_scaling}: it knows {known} "
                                  "only; convert to hf or gguf")
    return params


def hidden_dim(dim: int, multiple_of: int, multiplier: float | None) -> int:
    """Meta's rule for the feed-forward width: 2/3 of 4 D, times a multiplier, rounded up to a multiple."""
    hidden = int(2 * (4 * dim) / 3)
    if multiplier is not None:
        hidden = int(multiplier * hidden)
    return multiple_of * ((hidden + multiple_of - 1) // multiple_of)


def _solve_hidden(dim: int, wanted: int) -> tuple[int, float | None]:
    """(multiple_of, ffn_dim_multiplier) for which Meta's rule gives `wanted`; the usual ones are tried first."""
    for multiplier in (None, 1.3, 1.5, 1.4, 1.0, 1.2):
        for multiple_of in (256, 1024, 4096, 512, 128, 64, 32):
            if hidden_dim(dim, multiple_of, multiplier) == wanted:
                return multiple_of, multiplier
    multiplier = (wanted - 0.5) / int(2 * (4 * dim) / 3)      # rounded down, then up to a multiple of 1
    for candidate in (multiplier, (wanted + 0.5) / int(2 * (4 * dim) / 3)):
        if hidden_dim(dim, 1, candidate) == wanted:
            return 1, candidate
    raise CheckpointError(f"Meta's format can't express hidden_dim={wanted} with dim={dim}: convert to hf or gguf")


def _scaling(params: dict[str, Any], dim: int) -> RopeScaling | None:
    """Llama 3.1 stretches 8-fold, the 3.2 models of 1B and 3B 32-fold, from 8,192 tokens."""
    if not params.get("use_scaled_rope"):
        return None
    small = (dim, params["n_layers"]) in ((2048, 16), (3072, 28))
    factor = params.get("rope_scaling_factor") or (32.0 if small else 8.0)
    return RopeScaling(kind="llama3", factor=float(factor), original_context=8192, low_freq_factor=1.0,
                       high_freq_factor=4.0)


def _context(params: dict[str, Any]) -> int:
    """Not in params.json: what the model family was trained with, told apart by theta and epsilon."""
    if params.get("max_seq_len"):
        return int(params["max_seq_len"])
    if params.get("use_scaled_rope"):
        return 131_072                                   # Llama 3.1 and 3.2
    theta = params.get("rope_theta", 10_000.0)
    if theta == 500_000.0:
        return 8192                                      # Llama 3
    if theta == 1_000_000.0:
        return 16_384                                    # Code Llama
    return 2048 if params.get("norm_eps") == 1e-6 else 4096      # Llama 1, Llama 2


def _vocab_size(dim: int, shards: list[dict[str, Entry]]) -> int:
    """Rows of the embedding. Llama 1 and 2 cut it by columns, Llama 3 by rows; params.json may say -1."""
    rows, columns = shards[0]["tok_embeddings.weight"].shape
    return rows if columns != dim or len(shards) == 1 else rows * len(shards)


def _shards(folder: Path) -> list[dict[str, Entry]]:
    files = sorted(folder.glob("consolidated.*.pth"))
    if not files:
        raise CheckpointError(f"{folder} has params.json but no consolidated.*.pth: the download is incomplete")
    for i, file in enumerate(files):
        if file.name != f"consolidated.{i:02}.pth":
            raise CheckpointError(f"{folder}: consolidated.{i:02}.pth is missing (found {file.name}): the download is "
                                  "incomplete")
    return [read_pickle(inside(folder, file.name)) for file in files]


def _merged(name: str, parts: list[Entry | None], config: LlamaConfig, folder: Path) -> Entry:
    """One tensor of the whole model from its shards, which differ in what they hold by the kind of layer."""
    have = [part for part in parts if part is not None]
    if len(have) != len(parts):
        raise CheckpointError(f"{folder}: tensor {name!r} is in {len(have)} of {len(parts)} shards: fetch the others "
                              "again")
    axis = _axis(name, have, config)
    first = have[0]
    if axis is not None and len(have) > 1:
        have = _unrepeated(name, have, config)
        others = {part.shape[:axis] + part.shape[axis + 1:] for part in have}
        if len(others) > 1:
            raise CheckpointError(f"{folder}: the shards of tensor {name!r} don't fit together: "
                                  f"{[p.shape for p in have]}")
    else:
        have = have[:1]
    shape = list(first.shape)
    if axis is not None:
        shape[axis] = sum(part.shape[axis] for part in have)
    heads = turned_heads(name, config.n_heads, config.n_kv_heads)
    return Entry(tuple(shape), first.dtype, _merge(have, axis or 0, heads), first.file, first.stored_as, name)


def _axis(name: str, parts: list[Entry], config: LlamaConfig) -> int | None:
    layer = name.split(".")[-2] if "." in name else name
    if parts[0].shape == () or len(parts[0].shape) != 2:
        return None                                      # norms are the same in every shard
    if layer == "tok_embeddings":
        return 0 if parts[0].shape[1] == config.dim else 1
    return 0 if layer in _ROWS else 1 if layer in _COLUMNS else None


def _unrepeated(name: str, parts: list[Entry], config: LlamaConfig) -> list[Entry]:
    """With more shards than key/value heads each head is stored several times."""
    repeats = len(parts) // config.n_kv_heads
    return parts[::repeats] if repeats > 1 and name.split(".")[-2] in ("wk", "wv") else parts


def _merge(parts: list[Entry], axis: int, heads: int | None) -> Callable[[], Tensor]:
    def read() -> Tensor:
        whole = parts[0].read() if len(parts) == 1 else torch.cat([part.read() for part in parts], dim=axis)
        return whole if heads is None else to_half_split(whole, heads)
    return read


def _dump(path: Path, table: dict[str, Any]) -> None:
    path.write_text(json.dumps(table, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
