"""A trained original Transformer as Ayllu writes it: model.safetensors under our names, and ayllu_config.json.

No other format holds this model, so it has no place among the readers of `load_checkpoint`, which give a Llama.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from ayllu.checkpoint.own_config import FILE
from ayllu.checkpoint.safefile import read_safetensors
from ayllu.checkpoint.sidecar import open_tokenizer
from ayllu.checkpoint.source import Entry, check_finite
from ayllu.config import validate
from ayllu.device import pick_dtype
from ayllu.errors import CheckpointError
from ayllu.folder import read_json
from ayllu.model.config import TransformerConfig
from ayllu.model.init import Uninitialised
from ayllu.model.transformer import Transformer

if TYPE_CHECKING:
    from ayllu.text.tokenizer import Tokenizer


def is_transformer(path: str | Path) -> bool:
    """Whether this is such a folder, and not another format's with our config beside it."""
    folder = Path(path)
    return (folder / FILE).is_file() and not any((folder / n).exists() for n in ("config.json", "params.json"))


@dataclass(frozen=True)
class OpenTransformer:
    """The folder, understood and checked, but not read."""

    path: Path
    config: TransformerConfig
    entries: dict[str, Entry]
    format: str = "ayllu"
    licence: None = None
    chat_template: None = None

    def build(self, dtype: str = "float32") -> Transformer:
        """The model in eval mode, on the CPU."""
        with torch.device("meta"), Uninitialised():
            model = Transformer(self.config)
        for name, entry in self.entries.items():
            tensor = entry.read()
            check_finite(tensor, f"{entry.file}: {name}")
            owner, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(owner), leaf, nn.Parameter(tensor.to(pick_dtype(dtype))))
        return model.eval()

    def open_tokenizer(self) -> "Tokenizer | None":
        """The tokenizer beside the weights, or None."""
        return open_tokenizer(self.path)


def open_transformer(path: str | Path) -> OpenTransformer:
    """Read config and header; tensors that are missing, extra or misshapen are refused by name."""
    folder = Path(path)
    config = validate(TransformerConfig, read_json(folder / FILE), where=str(folder / FILE))
    file = folder / "model.safetensors"
    if not file.is_file():
        raise CheckpointError(f"{file} is missing: the folder holds a config without weights")
    entries = read_safetensors(file)
    with torch.device("meta"), Uninitialised():
        expected = {name: tuple(p.shape) for name, p in Transformer(config).named_parameters()}
    for name in expected | entries:
        stored, wanted = entries[name].shape if name in entries else "nothing", expected.get(name, "nothing")
        if stored != wanted:
            raise CheckpointError(f"{file}: {name} is {stored}, the config says {wanted}: config and weights belong to "
                                  "different models")
    return OpenTransformer(folder, config, entries)
