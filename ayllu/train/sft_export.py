"""What a fine-tuning leaves behind: a model, or an adapter and, where asked for, the base with it in its weights."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ayllu.adapters.lora import taken
from ayllu.adapters.merge import merge
from ayllu.adapters.store import Manner, write_adapter
from ayllu.checkpoint.licence import licence_by_id
from ayllu.checkpoint.load import build_model
from ayllu.checkpoint.save import source_from_model
from ayllu.checkpoint.source import OpenCheckpoint
from ayllu.data.chats import ends
from ayllu.log import say
from ayllu.model.llama import Llama
from ayllu.text.chat import ChatTemplate
from ayllu.text.tokenizer import Tokenizer
from ayllu.train.export import export_as
from ayllu.train.sft_config import Tuning

COMPARED = 256                                           # ids of what is held out that a merge is compared on


@dataclass(frozen=True)
class Taught:
    """What is learned from, known before the first weight is read, as far as it goes along with the weights."""

    source: OpenCheckpoint
    tokenizer: Tokenizer
    template: ChatTemplate | None

    @property
    def compared(self) -> np.ndarray:
        """Ids that a merge is compared on."""
        raise NotImplementedError

    def stops(self) -> tuple[int, ...]:
        """Ids that end an answer: those that are taught, which are often not what ended a text for the base."""
        return ends(self.tokenizer) if self.template is not None else tuple(self.tokenizer.eos_ids)


def write(config: Tuning, model: Llama, base: str, lesson: Taught, run: Path) -> dict[str, Any]:
    """Write what was trained below the run; gives the folders by their kind. `base` is the base's fingerprint."""
    if config.lora is None:
        _whole(config, model, lesson, run)
        say(f"trained: {run / 'model'} (try: ayllu chat --model {run / 'model'})")
        return {"model": str(run / "model")}
    adapter = taken(model, config.lora.own(), base)
    manner = Manner(lesson.template.source if lesson.template else None, lesson.stops())
    write_adapter(run / "adapter", adapter, base_name=str(lesson.source.path), overwrite=True, manner=manner)
    say(f"trained: {run / 'adapter'} (try: ayllu chat --model {config.base} --adapter {run / 'adapter'})")
    if not config.merge:
        return {"adapter": str(run / "adapter")}
    kind = lesson.source.dtype if lesson.source.dtype.itemsize <= 4 else torch.float32
    plain = build_model(lesson.source, dtype=kind)
    size = min(COMPARED, plain.config.max_context)
    ids = torch.from_numpy(lesson.compared[:size].astype("int64"))[None]
    done = merge(plain, adapter, ids).comparison
    say(f"merged: {done.loss:.2%} of what the adapter changes was spoilt by {str(kind).removeprefix('torch.')}")
    _whole(config, plain, lesson, run)
    return {"adapter": str(run / "adapter"), "model": str(run / "model"), "merge_loss": done.loss}


def _whole(config: Tuning, model: Llama, lesson: Taught, run: Path) -> None:
    """The model with the template that it was taught in, the ids that end its answers, and the base's licence."""
    source, tokenizer = lesson.source, lesson.tokenizer
    if lesson.template is not None:
        tokenizer.chat_template = lesson.template.source
    licence = licence_by_id(config.licence) if config.licence else source.licence
    generation = source.generation.model_copy(update={"eos_ids": lesson.stops()})
    taught = replace(source, entries=source_from_model(model).entries, generation=generation,
                     chat_template=tokenizer.chat_template, open_tokenizer=lambda: tokenizer,
                     licence=licence and licence.derived(source.path.name))
    export_as(taught, model, run / "model", json.loads((run / "data.json").read_text(encoding="utf-8")))
