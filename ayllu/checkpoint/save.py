"""Write a checkpoint in any format: weights, config, tokenizer, chat template, generation config, licence and manifest.

Everything is written under a temporary name and takes its place only when whole, and, in `convert`, when checked.
"""

from collections.abc import Callable
from pathlib import Path
from shutil import copyfile
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import nn

from ayllu.checkpoint.generation import GenerationDefaults, generation_to_hf
from ayllu.checkpoint.gguf import GgufType, write_gguf
from ayllu.checkpoint.hf import write_hf
from ayllu.checkpoint.licence import Licence, write_licence
from ayllu.checkpoint.llama2c import write_llama2c
from ayllu.checkpoint.manifest import FILE as MANIFEST
from ayllu.checkpoint.manifest import Manifest, write_manifest
from ayllu.checkpoint.meta import write_meta
from ayllu.checkpoint.safefile import NAMES
from ayllu.checkpoint.source import Entry, OpenCheckpoint, fit_entries
from ayllu.device import pick_dtype
from ayllu.errors import CheckpointError, ConfigError
from ayllu.files import atomic_folder, atomic_path, write_json
from ayllu.model.llama import Llama

if TYPE_CHECKING:
    from ayllu.text.tokenizer import Tokenizer

Format = Literal["hf", "meta", "llama2c", "gguf"]
FORMATS: tuple[str, ...] = get_args(Format)
GGUF_FILE, LLAMA2C_FILE = "model.gguf", "model.bin"
_GGUF_NAMES: dict[torch.dtype, GgufType] = {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16"}
Check = Callable[[Path], None]


def save_checkpoint(path: str | Path, model: Llama, *, tokenizer: "Tokenizer | None" = None,
                    generation: GenerationDefaults | None = None, chat_template: str | None = None,
                    licence: Licence | None = None, licence_texts: dict[str, str] | None = None, to: Format = "hf",
                    dtype: str | None = None, overwrite: bool = False) -> Path:
    """Write a model from memory; `dtype` is float32, float16, bfloat16 or, for GGUF, q8_0 (None: the model's own)."""
    source = source_from_model(model, tokenizer=tokenizer, generation=generation, chat_template=chat_template,
                               licence=licence, licence_texts=licence_texts, name=Path(path).stem)
    return write_checkpoint(source, path, to=to, dtype=dtype, overwrite=overwrite)


def source_from_model(model: Llama, *, tokenizer: "Tokenizer | None" = None,
                      generation: GenerationDefaults | None = None, chat_template: str | None = None,
                      licence: Licence | None = None,
                      licence_texts: dict[str, str] | None = None, name: str = "model") -> OpenCheckpoint:
    """A model in memory as something that writers take."""
    place = Path(name)
    entries = {key: _entry(key, parameter, place) for key, parameter in model.named_parameters()}
    if generation is None and tokenizer is not None:
        generation = GenerationDefaults(bos_id=tokenizer.bos_id, eos_ids=tokenizer.eos_ids, pad_id=tokenizer.pad_id)
    return OpenCheckpoint(
        path=place, format="memory", config=model.config, entries=fit_entries(entries, model.config, place),
        open_tokenizer=lambda: tokenizer, generation=generation or GenerationDefaults(), chat_template=chat_template,
        licence=licence, licence_texts=licence_texts or {})


def write_checkpoint(source: OpenCheckpoint, path: str | Path, *, to: Format = "hf", dtype: str | None = None,
                     overwrite: bool = False, check: Check | None = None) -> Path:
    """Write `source` as a folder, or as one file where `path` ends in .gguf. `check` sees the result before it takes
    its place; when it raises, nothing is left behind."""
    path = Path(path)
    stored = stored_dtype(source, to, dtype)
    if to == "gguf" and path.suffix == ".gguf":
        _refuse_existing(path, overwrite, may_replace=path.is_file())
        with atomic_path(path) as temporary:
            write_gguf(temporary, source, _gguf_type(stored), name=path.stem)
            if check is not None:
                check(temporary)
        return path
    if path.suffix in (".bin", ".pth", ".safetensors", ".gguf"):
        raise ConfigError(f"{path}: --to {to} writes a folder, in which tokenizer and licence lie beside the weights: "
                          "name a folder")
    _refuse_existing(path, overwrite, may_replace=(path / MANIFEST).is_file())
    with atomic_folder(path) as temporary:
        _write_folder(temporary, source, to, stored if dtype else None, path.name)
        if check is not None:
            check(temporary)
    return path


def stored_dtype(source: OpenCheckpoint, to: str, dtype: str | None) -> str:
    """The full name of what matrices will be stored as: float32, float16, bfloat16 or q8_0."""
    if to not in FORMATS:
        raise ConfigError(f"format {to!r} is unknown: use one of {', '.join(FORMATS)}")
    if dtype is not None and dtype.lower() == "q8_0":
        if to != "gguf":
            raise ConfigError(f"q8_0 is a type of GGUF files; {to} holds float32, float16 or bfloat16")
        return "q8_0"
    chosen = source.dtype if dtype is None else pick_dtype(dtype)
    if to == "llama2c":
        if dtype is not None and chosen != torch.float32:
            raise ConfigError(f"llama2.c's format holds float32 only, not {dtype}")
        return "float32"
    return str(chosen).removeprefix("torch.")


def _write_folder(folder: Path, source: OpenCheckpoint, to: Format, dtype: str | None, name: str) -> None:
    copied = _write_tokenizer(folder, source, to)
    stored = stored_dtype(source, to, dtype)
    keep = pick_dtype(dtype) if dtype and to in ("hf", "meta") else None      # None: each tensor keeps its own
    match to:
        case "hf":
            write_hf(folder, source, keep)
        case "meta":
            write_meta(folder, source, keep)
        case "llama2c":
            write_llama2c(folder / LLAMA2C_FILE, source)
        case "gguf":
            write_gguf(folder / GGUF_FILE, source, _gguf_type(stored), name=name)
    if source.chat_template is not None and to != "gguf" and "chat_template.jinja" not in copied:
        (folder / "chat_template.jinja").write_text(source.chat_template, encoding="utf-8")
    if to in ("meta", "llama2c") and generation_to_hf(source.generation):
        write_json(folder / "generation_config.json", generation_to_hf(source.generation))
    if to != "hf":                                       # write_hf did it
        write_licence(folder, source.licence, source.licence_texts)
    write_manifest(folder, Manifest(format=to, source_format=source.format, source=source.path.name, dtype=stored,
                                    n_tensors=len(source.entries)))


def _write_tokenizer(folder: Path, source: OpenCheckpoint, to: Format) -> set[str]:
    """The tokenizer's files as they were, else as the tokenizer writes them; GGUF holds it inside."""
    if to == "gguf":
        return set()
    for file in source.tokenizer_files:
        copyfile(file, folder / file.name)
    tokenizer = source.open_tokenizer()
    if tokenizer is None:
        return {file.name for file in source.tokenizer_files}
    if not source.tokenizer_files:
        tokenizer.save(folder)
    if to == "llama2c" and not (folder / "tokenizer.bin").exists():
        from ayllu.text import llama2c_bin

        (folder / "tokenizer.bin").write_bytes(llama2c_bin.write(tokenizer.codec))
    return {file.name for file in folder.iterdir()}


def _refuse_existing(path: Path, overwrite: bool, may_replace: bool) -> None:
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not overwrite:
        raise ConfigError(f"{path} exists: name another place, or pass --overwrite to replace a checkpoint that Ayllu "
                          "wrote")
    if not may_replace:
        raise ConfigError(f"{path} holds something that Ayllu did not write ({MANIFEST} is missing): it is not "
                          "replaced; remove it yourself or name another place")


def _gguf_type(stored: str) -> GgufType:
    return "q8_0" if stored == "q8_0" else _GGUF_NAMES[pick_dtype(stored)]


def _entry(name: str, parameter: nn.Parameter, place: Path) -> Entry:
    if parameter.dtype not in NAMES:
        raise CheckpointError(f"{name} holds {parameter.dtype}: only float weights can be written; merge or "
                              "dequantise first")
    dtype = parameter.dtype
    return Entry(tuple(parameter.shape), dtype, lambda: parameter.detach().cpu(), place, NAMES[dtype], name)
