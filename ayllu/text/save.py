"""Write a tokenizer's files into a folder, readable by Ayllu, transformers and llama.cpp's converter."""

import hashlib
from pathlib import Path
from typing import Any

from ayllu.files import write_bytes, write_json
from ayllu.text.codec import Codec, Named


def save(folder: Path, codec: Codec, named: Named, settings: dict[str, Any], chat_template: str | None) -> None:
    """The codec's own files, tokenizer_config.json and special_tokens_map.json."""
    folder.mkdir(parents=True, exist_ok=True)
    files = codec.files()
    for name, data in files.items():
        write_bytes(folder / name, data)
    config = settings_for(codec, named, settings, chat_template)
    config.pop(EQUAL_FILES, None)
    if len(files) > 1:
        config[EQUAL_FILES] = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    write_json(folder / "tokenizer_config.json", config)
    write_json(folder / "special_tokens_map.json", {k: config[k] for k in NAMES if config.get(k) is not None})


EQUAL_FILES = "equal_files"                               # names and SHA-256 of files that give the same ids
NAMES = ("bos_token", "eos_token", "unk_token", "pad_token")


def settings_for(codec: Codec, named: Named, settings: dict[str, Any], chat_template: str | None) -> dict[str, Any]:
    """tokenizer_config.json: what the folder's own file said, completed by the named ids."""
    eos = next(iter(named.eos_ids), None)
    ids = dict(zip(NAMES, (named.bos_id, eos, named.unk_id, named.pad_id), strict=True))
    config: dict[str, Any] = {name: None if id is None else codec.piece(id) for name, id in ids.items()}
    config |= {"add_bos_token": named.add_bos, "add_eos_token": named.add_eos, "clean_up_tokenization_spaces": False,
               "model_max_length": int(1e30), "tokenizer_class": "PreTrainedTokenizerFast"}
    if chat_template is not None:
        config["chat_template"] = chat_template
    return config | settings
