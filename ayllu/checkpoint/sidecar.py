"""The files beside the weights: tokenizer and licence texts, which travel along through every conversion."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ayllu.checkpoint.folder import inside
from ayllu.checkpoint.licence import Licence

if TYPE_CHECKING:
    from ayllu.text.tokenizer import Tokenizer

TOKENIZER = ("tokenizer.json", "tokenizer.model", "tokenizer.tiktoken")
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


def licence_of(folder: Path, raw: dict[str, Any]) -> tuple[Licence | None, tuple[Path, ...]]:
    return None, ()
