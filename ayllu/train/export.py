"""A trained model as files that everybody reads: a Hugging Face folder with tokenizer, licence and data manifest."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ayllu.checkpoint.hf import hf_name
from ayllu.checkpoint.licence import Licence, licence_by_id, write_licence
from ayllu.checkpoint.save import source_from_model, write_checkpoint
from ayllu.checkpoint.source import OpenCheckpoint
from ayllu.errors import CheckpointError
from ayllu.files import atomic_folder, write_json
from ayllu.model.build import CausalModel
from ayllu.model.llama import Llama
from ayllu.model.transformer import Transformer
from ayllu.text.tokenizer import Tokenizer


def export(model: CausalModel, tokenizer: Tokenizer, out: Path, data: dict[str, Any], licence: str | None) -> None:
    """Write `out` whole or not at all, and check it bit for bit.

    `data` is the manifest of the training data, kept beside the weights; `licence` is the id of what the weights are
    under (apache-2.0).
    """
    record = licence_by_id(licence) if licence else None
    if isinstance(model, Llama):
        return export_as(source_from_model(model, tokenizer=tokenizer, licence=record, name=out.name), model, out, data)
    _export_transformer(model, tokenizer, out, record)
    return write_json(out / "data.json", data)


def export_as(source: OpenCheckpoint, model: Llama, out: Path, data: dict[str, Any]) -> None:
    """Write `source`, whose weights are the model's, with what it says of tokenizer, template and licence."""
    write_checkpoint(source, out, overwrite=True, check=lambda folder: _check(folder, model))
    write_json(out / "data.json", data)


def _export_transformer(model: Transformer, tokenizer: Tokenizer, out: Path, licence: Licence | None) -> None:
    """The original Transformer has no Hugging Face form: safetensors and `ayllu_config.json`."""
    with atomic_folder(out) as temporary:
        weights = {name: p.detach().cpu().contiguous() for name, p in model.named_parameters()}
        save_file(weights, temporary / "model.safetensors")
        write_json(temporary / "ayllu_config.json", json.loads(model.config.model_dump_json()))
        tokenizer.save(temporary)
        write_licence(temporary, licence, {})
        _check(temporary, model)


def _check(folder: Path, model: CausalModel) -> None:
    """What was written is what was trained, bit for bit; else nothing is exported."""
    file = folder / "model.safetensors"
    with safe_open(file, "pt") as stored:
        for name, parameter in model.named_parameters():
            found = stored.get_tensor(hf_name(name) if isinstance(model, Llama) else name)
            if not torch.equal(found, parameter.detach().cpu()):
                raise CheckpointError(f"{file}: {name} differs from the trained weights after writing: "
                                      "the disk may be failing; the run's checkpoints are intact")
