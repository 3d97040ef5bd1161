"""Hugging Face folders: config.json, safetensors (one or many) or .bin, tokenizer, generation config, chat template."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from ayllu.checkpoint.generation import generation_from_hf, generation_to_hf
from ayllu.checkpoint.hf_config import config_from_hf, config_to_hf
from ayllu.checkpoint.licence import licence_of, write_licence
from ayllu.checkpoint.picklefile import read_pickle
from ayllu.checkpoint.safefile import read_safetensors, write_safetensors
from ayllu.checkpoint.sidecar import open_tokenizer, template_beside, tokenizer_files
from ayllu.checkpoint.source import Entry, Names, OpenCheckpoint, count, fit_entries, natural_dtype
from ayllu.checkpoint.text_side import text_config, text_name
from ayllu.errors import CheckpointError
from ayllu.folder import inside, read_json, read_json_if_there

SHARD_BYTES = 5 * 10**9
_IGNORED = ("rotary_emb.inv_freq", "masked_bias")        # buffers that old files carry; both follow from the config
NAMES = Names("model.layers", layer={
    "input_layernorm": "attention_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attention.wq",
    "self_attn.k_proj": "attention.wk", "self_attn.v_proj": "attention.wv", "self_attn.o_proj": "attention.wo",
    "mlp.gate_proj": "feed_forward.w1", "mlp.down_proj": "feed_forward.w2", "mlp.up_proj": "feed_forward.w3"},
    top={"model.embed_tokens": "tok_embeddings", "model.norm": "norm", "lm_head": "output"})
our_name, hf_name = NAMES.ours, NAMES.theirs


def open_hf(folder: Path) -> OpenCheckpoint:
    """Open a folder with config.json; only headers are read."""
    where = str(inside(folder, "config.json"))
    raw = text_config(read_json(folder / "config.json"), where)
    config = config_from_hf(raw, where)
    entries = {our_name(inner): entry for name, entry in all_entries(folder).items()
               if not name.endswith(_IGNORED) and (inner := text_name(name)) is not None}
    generation = read_json_if_there(folder, "generation_config.json")
    licence, texts = licence_of(folder)
    return OpenCheckpoint(
        path=folder, format="hf", config=config, entries=fit_entries(entries, config, folder),
        open_tokenizer=lambda: open_tokenizer(folder), tokenizer_files=tokenizer_files(folder),
        generation=generation_from_hf(generation, raw, str(folder)), chat_template=template_beside(folder),
        licence=licence, licence_texts=texts)


def write_hf(folder: Path, source: OpenCheckpoint, dtype: torch.dtype | None = None) -> None:
    """Write config, weights and generation config into an existing folder; `dtype` None keeps each tensor's own."""
    table = config_to_hf(source.config)
    name = str(dtype or source.dtype).removeprefix("torch.")
    table |= {"torch_dtype": name, "dtype": name}        # transformers 4 and 5
    generation = generation_to_hf(source.generation)
    table |= {key: generation[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id") if key in generation}
    _dump(folder / "config.json", table)
    if generation:
        _dump(folder / "generation_config.json", generation)
    if source.chat_template is not None:
        (folder / "chat_template.jinja").write_text(source.chat_template, encoding="utf-8")
    write_licence(folder, source.licence, source.licence_texts)
    _write_weights(folder, source, dtype)


def all_entries(folder: Path) -> dict[str, Entry]:
    """The tensors of whichever files hold the weights; safetensors go before pickles."""
    for single, index, read in (("model.safetensors", "model.safetensors.index.json", read_safetensors),
                                ("pytorch_model.bin", "pytorch_model.bin.index.json", read_pickle)):
        if inside(folder, index).is_file():
            return _sharded(folder, index, read)
        if inside(folder, single).is_file():
            return read(inside(folder, single))
    raise CheckpointError(f"{folder} has a config.json but no model.safetensors or pytorch_model.bin: the download is "
                          "incomplete")


def _sharded(folder: Path, index: str, read: Any) -> dict[str, Entry]:
    where = read_json(folder / index).get("weight_map")
    if not isinstance(where, dict) or not where:
        raise CheckpointError(f"{folder / index} has no weight_map: fetch it again")
    shards: dict[str, dict[str, Entry]] = {}
    for file in dict.fromkeys(str(name) if isinstance(name, str) else "" for name in where.values()):
        path = inside(folder, file)
        if not path.is_file():
            raise CheckpointError(f"{path} is missing, which {index} names: the download is incomplete")
        shards[file] = read(path)
    entries: dict[str, Entry] = {}
    for name, file in where.items():
        if name not in shards[file]:
            raise CheckpointError(f"{folder / file}: tensor {name!r} is missing, which {index} promises: fetch it "
                                  "again")
        entries[name] = shards[file][name]
    return entries


def _write_weights(folder: Path, source: OpenCheckpoint, dtype: torch.dtype | None) -> None:
    shards = list(_split(source.entries, dtype))
    single = len(shards) == 1
    weight_map: dict[str, str] = {}
    for i, names in enumerate(shards, start=1):
        file = "model.safetensors" if single else f"model-{i:05}-of-{len(shards):05}.safetensors"
        rows = [(hf_name(name), lambda name=name: source.tensor(name), source.entries[name].shape) for name in names]
        dtypes = {hf_name(name): dtype or natural_dtype(source, name) for name in names}
        write_safetensors(folder / file, rows, dtypes.__getitem__)
        weight_map |= {hf_name(name): file for name in names}
    if not single:
        total = sum(count(e.shape) * (dtype or natural_dtype(source, n)).itemsize for n, e in source.entries.items())
        _dump(folder / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": weight_map})


def _split(entries: dict[str, Entry], dtype: torch.dtype | None) -> Iterator[list[str]]:
    """Names in groups of at most SHARD_BYTES (one tensor may be larger)."""
    group: list[str] = []
    room: float = SHARD_BYTES
    for name, entry in entries.items():
        size = math.prod(entry.shape) * (dtype or entry.dtype).itemsize
        if group and size > room:
            yield group
            group, room = [], SHARD_BYTES
        group.append(name)
        room -= size
    yield group


def _dump(path: Path, table: dict[str, Any]) -> None:
    path.write_text(json.dumps(table, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
