"""The Llama inside a published model that sees or hears: LLaVA-1.5, in its own layout and in that of transformers, and
Ultravox. Its config and the names of its tensors become those of a plain Llama; eye, ear and projector are left out."""

import re
from typing import Any

from ayllu.errors import CheckpointError

KINDS = ("llava", "llava_llama", "ultravox")
SENSES = re.compile(r"(^|\.)(vision_tower|audio_tower|mm_projector|multi_modal_projector)\.")
# what transformers leaves out of a config because it is a Llama's usual number
USUAL = {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "intermediate_size": 11008,
         "vocab_size": 32000}


def text_config(raw: dict[str, Any], where: str) -> dict[str, Any]:
    """The config.json of the Llama alone. LLaVA's own layout keeps its numbers at the top, the others in a table."""
    if raw.get("model_type") not in KINDS:
        return raw
    table = raw.get("text_config")
    if isinstance(table, dict):
        tied = {"tie_word_embeddings": raw["tie_word_embeddings"]} if "tie_word_embeddings" in raw else {}
        return {"model_type": "llama", **USUAL, **tied, **table}
    if raw.get("text_model_id"):
        raise CheckpointError(f"{where}: this file holds an ear for {raw['text_model_id']}, whose weights are not in "
                              "it: load that model, and make senses of this one with ayllu convert --to senses")
    return {**raw, "model_type": "llama"}


def text_name(name: str) -> str | None:
    """A tensor's name in a plain Llama, None for what belongs to eye or ear."""
    if SENSES.search(name):
        return None
    if name.startswith("model.language_model."):         # transformers from 4.52 on
        return "model." + name.removeprefix("model.language_model.")
    return name.removeprefix("language_model.")
