"""Find out what a tokenizer's file or folder holds, by content, and read it."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ayllu.errors import CheckpointError
from ayllu.files import sha256
from ayllu.text import llama2c_bin, tiktoken_ranks
from ayllu.text.codec import Codec, Control, Named
from ayllu.text.hf import HfCodec
from ayllu.text.save import EQUAL_FILES
from ayllu.text.spm import SentencePieceCodec


@dataclass(frozen=True)
class Loaded:
    """What the files say: ids, names of ids, tokenizer_config.json and the chat template's source."""

    codec: Codec
    named: Named
    settings: dict[str, Any]
    chat_template: str | None


def load(path: Path) -> Loaded:
    """Read a folder or a single file."""
    folder = path if path.is_dir() else path.parent
    settings = _read_json(folder / "tokenizer_config.json")
    file = _file_in(path, settings) if path.is_dir() else path
    if not file.is_file():
        raise CheckpointError(f"no tokenizer at {path}: expected a folder or one of the files "
                              "tokenizer.json, tokenizer.model")
    codec = read_codec(file, settings)
    return Loaded(codec, _named(codec, settings, folder), settings, _chat_template(folder, settings))


def read_codec(file: Path, settings: dict[str, Any] | None = None) -> Codec:
    """The codec of one file, told apart by its first bytes."""
    data = file.read_bytes()
    try:
        if data.lstrip()[:1] == b"{":
            return HfCodec(data.decode())
        if tiktoken_ranks.looks_like(data):
            return tiktoken_ranks.codec(data)
        if llama2c_bin.looks_like(data):
            return llama2c_bin.codec(data)
        if data[:4] == b"GGUF":
            raise CheckpointError("this is a GGUF file: load it as a checkpoint, its tokenizer comes along")
        return _sentencepiece(data, settings or {})
    except CheckpointError as error:
        raise CheckpointError(f"{file}: {error}") from error
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{file} is not UTF-8 text ({error}): fetch the file again") from error


def _file_in(folder: Path, settings: dict[str, Any]) -> Path:
    """tokenizer.json has everything that was added later, so it comes first.

    Where Ayllu wrote it from a tokenizer.model and both are still as written, that one is the original.
    """
    equal = settings.get(EQUAL_FILES)
    if isinstance(equal, dict) and "tokenizer.model" in equal and all(
            (folder / n).is_file() and sha256(folder / n) == digest for n, digest in equal.items()):
        return folder / "tokenizer.model"
    names = ("tokenizer.json", "tokenizer.model", "original/tokenizer.model", "tokenizer.bin")
    found = [folder / name for name in names if (folder / name).is_file()]
    if not found:
        raise CheckpointError(f"no tokenizer in {folder}: expected {', '.join(names[:2])}")
    return found[0]


def _sentencepiece(data: bytes, settings: dict[str, Any]) -> SentencePieceCodec:
    bare = SentencePieceCodec(data)
    added = []
    for key, token in (settings.get("added_tokens_decoder") or {}).items():
        id = int(key)
        if id >= bare.size or bare.piece(id) != token["content"]:
            added.append(Control(id, token["content"], special=bool(token.get("special", False)),
                                 lstrip=bool(token.get("lstrip", False)), rstrip=bool(token.get("rstrip", False))))
    # transformers means legacy=True where tokenizer_config.json of a LlamaTokenizer says nothing.
    each = settings.get("legacy") is not False
    return SentencePieceCodec(data, added=added, prefix_each_segment=each) if added or not each else bare


def _named(codec: Codec, settings: dict[str, Any], folder: Path) -> Named:
    """The codec's own names, corrected by what the folder's files say."""
    named = codec.named
    ids = {key: codec.piece_id(text) for key in ("bos_token", "eos_token", "pad_token", "unk_token")
           if (text := _token_text(settings.get(key))) is not None}
    eos = [i for i in [ids.get("eos_token"), *_eos_ids(folder), *named.eos_ids] if i is not None]
    no_bos = "bos_token" in settings and settings["bos_token"] is None
    return replace(
        named,
        bos_id=None if no_bos else ids.get("bos_token", named.bos_id),
        eos_ids=tuple(dict.fromkeys(i for i in eos if i < codec.size)),
        pad_id=ids.get("pad_token", named.pad_id),
        unk_id=ids.get("unk_token", named.unk_id),
        add_bos=bool(_either(settings.get("add_bos_token"), named.add_bos)) and not no_bos,
        add_eos=bool(_either(settings.get("add_eos_token"), named.add_eos)))


def _eos_ids(folder: Path) -> list[int]:
    """The ids that the model's own files name: generation_config.json may list several."""
    found: list[int] = []
    for name in ("generation_config.json", "config.json"):
        eos = _read_json(folder / name).get("eos_token_id")
        found += eos if isinstance(eos, list) else [eos] if isinstance(eos, int) else []
    return found


def _chat_template(folder: Path, settings: dict[str, Any]) -> str | None:
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    template = settings.get("chat_template")
    if isinstance(template, list):                       # several, by name
        by_name = {t.get("name"): t.get("template") for t in template}
        template = by_name.get("default")
    return template if isinstance(template, str) else None


def _token_text(token: Any) -> str | None:
    return token.get("content") if isinstance(token, dict) else token


def _either(value: Any, otherwise: Any) -> Any:
    return otherwise if value is None else value


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is not valid JSON ({error}): fetch the file again") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} should hold a JSON object, found {type(data).__name__}")
    return data
