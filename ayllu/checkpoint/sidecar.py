"""The files beside the weights: tokenizer and licence texts, which travel along through every conversion."""

from pathlib import Path
from typing import TYPE_CHECKING

from ayllu.checkpoint.generation import GenerationDefaults, generation_from_hf
from ayllu.folder import inside, read_json_if_there
from ayllu.log import warn

if TYPE_CHECKING:
    from ayllu.text.tokenizer import Tokenizer

TOKENIZER = ("tokenizer.json", "tokenizer.model", "tokenizer.tiktoken", "tokenizer.bin")
TOKENIZER_EXTRA = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt")


def tokenizer_files(folder: Path) -> tuple[Path, ...]:
    """Those of the tokenizer's files that the folder has."""
    return tuple(inside(folder, name) for name in (*TOKENIZER, *TOKENIZER_EXTRA) if inside(folder, name).is_file())


def open_tokenizer(folder: Path) -> "Tokenizer | None":
    """The folder's tokenizer, or None where it has none."""
    if not any(inside(folder, name).is_file() for name in TOKENIZER):
        return None
    from ayllu.text.tokenizer import Tokenizer
    return Tokenizer.load(folder)


def fitting_tokenizer(folder: Path, vocab_size: int) -> "Tokenizer | None":
    """The tokenizer beside a lone file, if its ids fit the model: another model's may lie there."""
    tokenizer = open_tokenizer(folder)
    if tokenizer is not None and tokenizer.vocab_size > vocab_size:
        warn(f"the tokenizer in {folder} has {tokenizer.vocab_size} ids, the model {vocab_size}: it belongs to another "
             "model and is not used")
        return None
    return tokenizer


def generation_beside(folder: Path) -> GenerationDefaults:
    """What generation_config.json says; nothing where there is none."""
    return generation_from_hf(read_json_if_there(folder, "generation_config.json"), {}, str(folder))


def template_beside(folder: Path) -> str | None:
    """The chat template in chat_template.jinja, chat_template.json or tokenizer_config.json, in this order."""
    path = inside(folder, "chat_template.jinja")
    if path.is_file():
        return path.read_text(encoding="utf-8")
    for name in ("chat_template.json", "tokenizer_config.json"):
        found = (read_json_if_there(folder, name) or {}).get("chat_template")
        if isinstance(found, list):                      # several by name: the default one
            named = {row.get("name"): row.get("template") for row in found if isinstance(row, dict)}
            found = named.get("default")
        if isinstance(found, str):
            return found
    return None
