"""A trained model as files that everybody reads: a Hugging Face folder with tokenizer, licence and data manifest."""

import json
from functools import partial
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn

from ayllu.checkpoint.generation import GenerationDefaults
from ayllu.checkpoint.hf import write_hf
from ayllu.checkpoint.source import Entry, OpenCheckpoint
from ayllu.files import atomic_folder, write_json
from ayllu.model.config import LlamaConfig, ModelSettings
from ayllu.text.tokenizer import Tokenizer


def export(model: nn.Module, config: ModelSettings, tokenizer: Tokenizer, out: Path,
           data: dict[str, Any]) -> None:
    """Write `out` whole or not at all. `data` is the manifest of the training data, kept beside the weights.

    The original Transformer has no Hugging Face form: its folder holds safetensors and `ayllu_config.json`.
    """
    weights = {name: p.detach().cpu() for name, p in model.named_parameters()}
    with atomic_folder(out) as temporary:
        if isinstance(config, LlamaConfig):
            write_hf(temporary, _in_memory(weights, config, tokenizer, out))
        else:
            save_file({name: w.contiguous() for name, w in weights.items()}, temporary / "model.safetensors")
            write_json(temporary / "ayllu_config.json", json.loads(config.model_dump_json()))
        tokenizer.save(temporary)
        write_json(temporary / "data.json", data)


def _in_memory(weights: dict[str, Tensor], config: LlamaConfig, tokenizer: Tokenizer, out: Path) -> OpenCheckpoint:
    """The weights as a checkpoint that the writers take."""
    entries = {name: Entry(shape=tuple(w.shape), dtype=w.dtype, read=partial(_itself, w), file=out, stored_as="float32",
                           name=name)
               for name, w in weights.items()}
    defaults = GenerationDefaults(bos_id=tokenizer.bos_id, eos_ids=tokenizer.eos_ids, pad_id=tokenizer.pad_id)
    return OpenCheckpoint(path=out, format="memory", config=config, entries=entries, generation=defaults)


def _itself(tensor: Tensor) -> Tensor:
    return tensor
