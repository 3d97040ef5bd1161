"""GGUF files: one file with weights (F32, F16, BF16 or Q8_0), config, tokenizer, chat template and licence."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from ayllu.checkpoint import q8
from ayllu.checkpoint.generation import GenerationDefaults, generation_from_hf
from ayllu.checkpoint.gguf_config import EXACT, architecture, config_from_gguf, config_to_gguf, rope_factors
from ayllu.checkpoint.gguf_container import GgufFile, GgufTensor, read_gguf
from ayllu.checkpoint.licence import Licence, licence_from_gguf, licence_to_gguf, own_licence
from ayllu.checkpoint.own_config import refined
from ayllu.checkpoint.rope_layout import to_half_split, to_interleaved, turned_heads
from ayllu.checkpoint.sidecar import fitting_tokenizer, template_beside
from ayllu.checkpoint.source import Entry, Names, OpenCheckpoint, fit_entries
from ayllu.errors import CheckpointError
from ayllu.model.config import LlamaConfig

if TYPE_CHECKING:
    from ayllu.text.tokenizer import Tokenizer

GgufType = Literal["f32", "f16", "bf16", "q8_0"]
NAMES = Names("blk", layer={
    "attn_norm": "attention_norm", "attn_q": "attention.wq", "attn_k": "attention.wk", "attn_v": "attention.wv",
    "attn_output": "attention.wo", "ffn_norm": "ffn_norm", "ffn_gate": "feed_forward.w1",
    "ffn_down": "feed_forward.w2", "ffn_up": "feed_forward.w3"},
    top={"token_embd": "tok_embeddings", "output_norm": "norm", "output": "output"})
our_name, gguf_name = NAMES.ours, NAMES.theirs
_TORCH = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "Q8_0": torch.float32}
_FILE_TYPES = {"f32": 0, "f16": 1, "q8_0": 7, "bf16": 32}
GENERATION, LICENCE_TEXTS, N_TOKENS = "ayllu.generation_config", "ayllu.licence_texts", "ayllu.tokenizer_size"
_COLUMNS = ("tokenizer.ggml.tokens", "tokenizer.ggml.scores", "tokenizer.ggml.token_type")


def open_gguf(path: Path) -> OpenCheckpoint:
    """Open one file; F32, F16 and BF16 tensors are views of the mapped file, Q8_0 becomes float32 when read."""
    file = read_gguf(path)
    if file.metadata.get("split.count", 1) not in (0, 1):
        raise CheckpointError(f"{path} is one of {file.metadata['split.count']} parts: put them together first "
                              "(llama-gguf-split --merge)")
    if not file.tensors:
        raise CheckpointError(f"{path} holds a vocabulary and no weights: take the file of the whole model")
    found = {our_name(name): _entry(file, name, tensor) for name, tensor in file.tensors.items()}
    config = refined(config_from_gguf(file.metadata, found, str(path)), file.metadata.get(EXACT), path)
    found.pop("rope_freqs.weight", None)
    if file.metadata["general.architecture"] == "llama":
        found = {name: _turned(name, entry, config) for name, entry in found.items()}
    licence, texts = _licence(file)
    return OpenCheckpoint(
        path=path, format="gguf", config=config, entries=fit_entries(found, config, path),
        open_tokenizer=lambda: _tokenizer(file, config.vocab_size), generation=_generation(file),
        chat_template=file.metadata.get("tokenizer.chat_template") or template_beside(path.parent),
        licence=licence, licence_texts=texts)


def write_gguf(path: Path, source: OpenCheckpoint, kind: GgufType, name: str | None = None) -> None:
    """Write one file: matrices as `kind`, norms and biases as F32, which is what llama.cpp expects."""
    from gguf import GGUFWriter

    arch = architecture(source.config)
    writer = GGUFWriter(path, arch)
    writer.add_string("general.type", "model")
    writer.add_string("general.name", name or source.path.stem or "model")
    writer.add_uint32("general.file_type", _FILE_TYPES[kind])
    writer.add_uint32("general.quantization_version", 2)
    for key, value in _metadata(source).items():
        _add(writer, key, value)
    rows = list(_rows(source, kind, arch))
    for label, shape, raw, n_bytes, _ in rows:
        writer.add_tensor_info(label, shape, np.dtype(np.float32), n_bytes, raw_dtype=raw)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for _, _, _, _, read in rows:
        writer.write_tensor_data(read())
    writer.close()


def _metadata(source: OpenCheckpoint) -> dict[str, Any]:
    table = {**config_to_gguf(source.config), **_tokenizer_keys(source), **licence_to_gguf(source.licence),
             GENERATION: source.generation.model_dump_json()}
    if source.chat_template is not None:
        table["tokenizer.chat_template"] = source.chat_template
    if source.licence_texts:
        table[LICENCE_TEXTS] = json.dumps(source.licence_texts, ensure_ascii=False)
    return table


def stored_kind(shape: tuple[int, ...], kind: GgufType) -> GgufType:
    """How a tensor of this shape is stored in a file of this kind; Q8_0 needs rows of whole blocks, else F16 as in
    llama.cpp."""
    if len(shape) == 1:
        return "f32"
    return "f16" if kind == "q8_0" and shape[-1] % q8.BLOCK else kind


def _rows(source: OpenCheckpoint, kind: GgufType, arch: str) -> Iterator[tuple[str, tuple[int, ...], Any, int, Any]]:
    """(name, shape, type, bytes, read) of each tensor to write."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    config = source.config
    factors = rope_factors(config)
    if factors is not None:
        yield ("rope_freqs.weight", tuple(factors.shape), GGMLQuantizationType.F32, factors.numel() * 4,
               lambda: factors.numpy())
    for name, entry in source.entries.items():
        stored = stored_kind(entry.shape, kind)
        raw = GGMLQuantizationType[stored.upper()]
        items, block_bytes = GGML_QUANT_SIZES[raw]
        heads = turned_heads(name, config.n_heads, config.n_kv_heads) if arch == "llama" else None
        n_bytes = int(np.prod(entry.shape, dtype=np.int64)) // items * block_bytes
        yield gguf_name(name), entry.shape, raw, n_bytes, _encoder(source, name, stored, heads)


def _encoder(source: OpenCheckpoint, name: str, kind: GgufType, heads: int | None) -> Callable[[], np.ndarray]:
    def read() -> np.ndarray:
        tensor = source.tensor(name)
        tensor = tensor if heads is None else to_interleaved(tensor, heads)
        if kind == "bf16":
            return tensor.to(torch.bfloat16).contiguous().view(torch.uint8).numpy()
        if kind == "q8_0":
            return q8.quantise(tensor.float().numpy())
        cast = tensor.to(_TORCH[kind.upper()]).contiguous()
        if kind == "f16" and not torch.isfinite(cast).all():
            raise CheckpointError(f"{source.path}: {name} holds values up to {tensor.abs().max().item():.3g}, float16 "
                                  "ends at 65504: convert with --dtype bf16")
        return cast.numpy()
    return read


def _entry(file: GgufFile, name: str, tensor: GgufTensor) -> Entry:
    return Entry(tensor.shape, _TORCH[tensor.kind], _decoder(file, tensor), file.path, tensor.kind, name)


def _decoder(file: GgufFile, tensor: GgufTensor) -> Callable[[], Tensor]:
    def read() -> Tensor:
        stored = file.data[tensor.start:tensor.start + tensor.n_bytes]
        if tensor.kind == "Q8_0":
            return torch.from_numpy(q8.dequantise(stored, tensor.shape))
        return torch.from_numpy(stored).view(_TORCH[tensor.kind]).view(tensor.shape)
    return read


def _turned(name: str, entry: Entry, config: LlamaConfig) -> Entry:
    heads = turned_heads(name, config.n_heads, config.n_kv_heads)
    if heads is None or entry.shape[0] % (2 * heads):    # a wrong shape is reported when shapes are compared
        return entry
    return Entry(entry.shape, entry.dtype, lambda: to_half_split(entry.read(), heads), entry.file, entry.stored_as,
                 entry.name)


def _tokenizer(file: GgufFile, vocab_size: int) -> "Tokenizer | None":
    """The tokenizer inside the file, else one that lies beside it."""
    if "tokenizer.ggml.tokens" not in file.metadata:
        return fitting_tokenizer(file.path.parent, vocab_size)
    from ayllu.text.tokenizer import Tokenizer

    table = {key: value for key, value in file.metadata.items() if key.startswith("tokenizer.")}
    n_tokens = file.metadata.get(N_TOKENS)
    if isinstance(n_tokens, int):                        # without the rows that only fill the embedding up
        table |= {key: table[key][:n_tokens] for key in _COLUMNS if key in table}
    return Tokenizer.from_gguf(table)


def _tokenizer_keys(source: OpenCheckpoint) -> dict[str, Any]:
    """The tokenizer's metadata; llama.cpp wants as many tokens as the embedding has rows."""
    tokenizer = source.open_tokenizer()
    if tokenizer is None:
        return {}
    missing = source.config.vocab_size - tokenizer.vocab_size
    if missing < 0:
        raise CheckpointError(f"{source.path}: the tokenizer has {tokenizer.vocab_size} ids, the model only "
                              f"{source.config.vocab_size}: they don't belong together, or the embedding was never "
                              "enlarged")
    table = tokenizer.gguf_metadata()
    if missing:
        first = tokenizer.vocab_size
        fill: dict[str, list[Any]] = {"tokens": [f"[PAD{first + i}]" for i in range(missing)],
                                      "scores": [-1e9] * missing, "token_type": [5] * missing}      # 5: unused
        table |= {key: [*table[key], *fill[key.rsplit(".", 1)[1]]] for key in _COLUMNS if key in table}
        table[N_TOKENS] = first
    return table


def _generation(file: GgufFile) -> GenerationDefaults:
    """Ours where Ayllu wrote the file; else the special ids and the general.sampling.* keys."""
    meta = file.metadata
    if GENERATION in meta:
        try:
            return GenerationDefaults.model_validate_json(meta[GENERATION])
        except ValueError as error:
            raise CheckpointError(f"{file.path}: the key {GENERATION} is not readable: {error}") from error
    names = {"temperature": "temp", "top_k": "top_k", "top_p": "top_p", "min_p": "min_p",
             "repetition_penalty": "penalty_repeat"}
    raw = {theirs: meta.get(f"general.sampling.{key}") for theirs, key in names.items()}
    raw = {key: value for key, value in raw.items() if value is not None}
    if raw:
        raw["do_sample"] = True
    ends = [meta.get(f"tokenizer.ggml.{key}_token_id") for key in ("eos", "eot", "eom")]
    raw["eos_token_id"] = list(dict.fromkeys(end for end in ends if end is not None)) or None
    raw |= {"bos_token_id": meta.get("tokenizer.ggml.bos_token_id"),
            "pad_token_id": meta.get("tokenizer.ggml.padding_token_id")}
    return generation_from_hf({key: value for key, value in raw.items() if value is not None}, {}, str(file.path))


def _licence(file: GgufFile) -> tuple[Licence | None, dict[str, str]]:
    """From the metadata; a record that Ayllu left beside the file counts where the metadata says nothing."""
    found = licence_from_gguf(file.metadata, file.path)
    if found is None:
        return own_licence(file.path.parent)
    try:
        texts = json.loads(file.metadata.get(LICENCE_TEXTS, "{}"))
        return found, {str(name): str(text) for name, text in texts.items()}
    except (ValueError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{file.path}: the key {LICENCE_TEXTS} is not readable: {error}") from error


def _add(writer: Any, key: str, value: Any) -> None:
    """One key with the type that llama.cpp expects: ids and counts unsigned, scores float32."""
    from gguf import GGUFValueType

    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    elif isinstance(value, bytes):
        writer.add_key_value(key, value, GGUFValueType.ARRAY, sub_type=GGUFValueType.UINT8)
    else:
        writer.add_array(key, value)
