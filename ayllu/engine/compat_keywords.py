"""Keywords of transformers that the drop-in names know and do not do: accepted at the values that ask for nothing.

Scripts often state a default (`return_dict=True`, `stopping_criteria=None`); only a value that asks for something is
an error, which says what does the same here.
"""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from ayllu.errors import ConfigError

# keyword -> (values besides None that ask for nothing, what to do instead)
FORWARD: dict[str, tuple[tuple[Any, ...], str]] = {
    "use_cache": ((False,), "no cache is returned; generate() has its own"),
    "past_key_values": ((), "give the whole text in input_ids; generate() has its own cache"),
    "cache_position": ((), "give the whole text in input_ids"),
    "return_dict": ((True,), "the result has .logits and .loss, and [0] works too"),
    "output_hidden_states": ((False,), "model.model.embed and model.model.trunk give hidden states"),
    "output_attentions": ((False,), "`ayllu walk` shows attention weights"),
    "position_ids": ((), "positions follow from attention_mask"),
    "inputs_embeds": ((), "give input_ids; model.model.trunk takes embeddings"),
    "logits_to_keep": ((0,), "cut the logits yourself: output.logits[:, -1:]"),
}
GENERATE: dict[str, tuple[tuple[Any, ...], str]] = {
    "stopping_criteria": (([],), "LLM.load(path).stream(prompt) can be left at any token"),
    "logits_processor": (([],), "LLM.load(path).generate takes penalties and logit_bias"),
    "stop_strings": (([],), "use LLM.load(path).generate(prompt, stop=[...])"),
    "return_dict_in_generate": ((False,), "the tensor of ids is returned"),
    "output_scores": ((False,), "LLM.load(path).generate(prompt, logprobs=5) gives log-probabilities"),
    "output_logits": ((False,), "call the model on the finished ids for their logits"),
    "output_attentions": ((False,), "`ayllu walk` shows attention weights"),
    "output_hidden_states": ((False,), "model.model.embed and model.model.trunk give hidden states"),
    "synced_gpus": ((False,), "each process generates by itself"),
    "assistant_model": ((), "leave it out"),
}


def drop_neutral(options: Mapping[str, Any], table: Mapping[str, tuple[tuple[Any, ...], str]],
                 where: str) -> dict[str, Any]:
    """The options without those of `table`; one that asks for something is an error with its cure."""
    for name in options.keys() & table.keys():
        neutral, cure = table[name]
        value = options[name]
        if value is not None and not any(type(value) is type(n) and value == n for n in neutral):
            accepted = " or ".join(repr(n) for n in (None, *neutral))
            raise ConfigError(f"{where}: {name} is not done here, only {accepted} is accepted; {cure}")
    return {name: value for name, value in options.items() if name not in table}


def generation_settings(config: Any) -> dict[str, Any]:
    """What a `generation_config` states: a table, a transformers GenerationConfig or the model's own object."""
    if isinstance(config, Mapping):
        return dict(config)
    if hasattr(config, "to_dict"):
        return dict(config.to_dict())
    if isinstance(config, SimpleNamespace):
        return dict(vars(config))
    raise ConfigError(f"generation_config is a {type(config).__name__}, expected a GenerationConfig or a dict of its "
                      "settings")
