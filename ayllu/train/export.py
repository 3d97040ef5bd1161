"""A trained model as files that everybody reads: a Hugging Face folder with tokenizer, licence and data manifest."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ayllu.checkpoint.generation import GenerationDefaults
from ayllu.checkpoint.hf import hf_name, write_hf
from ayllu.checkpoint.licence import licence_by_id, write_licence
from ayllu.checkpoint.source import Entry, OpenCheckpoint
from ayllu.errors import CheckpointError
from ayllu.files import atomic_folder, write_json
from ayllu.model.config import LlamaConfig, ModelSettings
from ayllu.text.tokenizer import Tokenizer


def export(model: nn.Module, config: ModelSettings, tokenizer: Tokenizer, out: Path,
           data: dict[str, Any], licence: str | None = None) -> None:
    """Write `out` whole or not at all. `data` is the manifest of the training data, kept beside the weights;
    `licence` is the id of what the weights are under (apache-2.0).

    The original Transformer has no Hugging Face form: its folder holds safetensors and `ayllu_config.json`.
    """
    weights = {name: p.detach().cpu() for name, p in model.named_parameters()}
    with atomic_folder(out) as temporary:
        if isinstance(config, LlamaConfig):
            write_hf(temporary, _in_memory(weights, config, tokenizer, out))
        else:
            save_file({name: w.contiguous() for name, w in weights.items()}, temporary / "model.safetensors")
            write_json(temporary / "ayllu_config.json", json.loads(config.model_dump_json()))
        write_licence(temporary, licence_by_id(licence) if licence else None, {})
        tokenizer.save(temporary)
        write_json(temporary / "data.json", data)
        _check(temporary / "model.safetensors", config, weights)


def _check(file: Path, config: ModelSettings, weights: dict[str, Tensor]) -> None:
    """What was written is what was trained, bit for bit; else nothing is exported."""
    with safe_open(file, "pt") as stored:
        for name, expected in weights.items():
            found = stored.get_tensor(hf_name(name) if isinstance(config, LlamaConfig) else name)
            if not torch.equal(found, expected):
                raise CheckpointError(f"{file}: {name} differs from the trained weights after writing: "
                                      "the disk may be failing; the run's checkpoints are intact")


def _in_memory(weights: dict[str, Tensor], config: LlamaConfig, tokenizer: Tokenizer, out: Path) -> OpenCheckpoint:
    """The weights as a checkpoint that the writers take."""
    entries = {name: Entry(shape=tuple(w.shape), dtype=w.dtype, read=partial(_itself, w), file=out, stored_as="float32",
                           name=name)
               for name, w in weights.items()}
    defaults = GenerationDefaults(bos_id=tokenizer.bos_id, eos_ids=tokenizer.eos_ids, pad_id=tokenizer.pad_id)
    return OpenCheckpoint(path=out, format="memory", config=config, entries=entries, generation=defaults)


def _itself(tensor: Tensor) -> Tensor:
    return tensor
