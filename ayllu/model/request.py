"""What may be asked of generation and what it gives: the checks of prompts, and the records of tokens and outputs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ayllu.errors import ContextTooLong, RequestError
from ayllu.model.config import LlamaConfig, TransformerConfig
from ayllu.model.sample import SamplingParams

Finish = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True)
class Token:
    """One chosen id of one row. `logprob` and `top` are the model's own, before penalties and temperature."""

    prompt: int                                          # which prompt
    sample: int                                          # which of its n samples
    id: int
    finish: Finish | None = None                         # set on a row's last token
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()              # (id, log-probability), likeliest first


@dataclass
class Output:
    """One finished sequence. `ids` are what was generated, with the end id that stopped it."""

    ids: list[int]
    finish: Finish
    seed: int
    logprobs: list[float] | None = None
    top_logprobs: list[tuple[tuple[int, float], ...]] | None = None
    score: float | None = None                           # beams: sum of log-probabilities / length ** length_penalty


def same_for_all(params: SamplingParams | Sequence[SamplingParams], n: int) -> list[SamplingParams]:
    """One setting per prompt."""
    each = [params] * n if isinstance(params, SamplingParams) else list(params)
    if n == 0:
        raise RequestError("there is no prompt: give at least one")
    if len(each) != n:
        raise RequestError(f"{n} prompts but {len(each)} settings: give one setting for all, or one for each")
    return each


def check_prompt(prompt: Sequence[int], params: SamplingParams, config: LlamaConfig | TransformerConfig) -> int:
    """How many tokens may follow this prompt; raises where it is empty, too long or names ids that don't exist."""
    n, limit = len(prompt), config.max_context
    check_ids(prompt, config)
    if n >= limit:
        raise ContextTooLong(f"the prompt has {n} tokens and the model's context takes {limit}, of which one at least "
                             f"must be left for the answer: shorten the prompt to {limit - 1} tokens")
    room = limit - n
    if params.max_tokens is not None and params.max_tokens > room:
        raise ContextTooLong(f"the prompt has {n} tokens and max_tokens={params.max_tokens} asks for more than "
                             f"the model's context of {limit} takes: set max_tokens to at most {room}, or shorten the "
                             "prompt")
    return room if params.max_tokens is None else params.max_tokens


def check_ids(ids: Sequence[int], config: LlamaConfig | TransformerConfig) -> None:
    """Raises where there are no ids, or some that the vocabulary hasn't."""
    if not ids:
        raise RequestError("the prompt has no tokens: give some text, or let it begin with the BOS id")
    low, high = min(ids), max(ids)
    if low < 0 or high >= config.vocab_size:
        raise RequestError(f"the prompt holds id {low if low < 0 else high}, but the model's vocabulary has ids 0 to "
                           f"{config.vocab_size - 1}: is this the tokenizer of this model?")
