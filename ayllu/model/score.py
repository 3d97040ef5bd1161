"""How probable given continuations are: whole words of several tokens, scored in one batch over a shared prefix.

A text and its continuation are tokenised together, because the border between them need not be a border between
tokens. Where it is not, p(candidate | text) = p(text + candidate) / p(text), both along their own tokenisation from
the last id that they share. That is the model's probability of these spellings: other spellings of the same text
have some too, and are not summed, so a ratio can even pass 1 where the text alone is spelled in an unlikely way.

B candidates  T tokens  V vocabulary
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

import torch

from ayllu.errors import ContextTooLong, RequestError
from ayllu.model.cache import DenseCache
from ayllu.model.config import LlamaConfig, TransformerConfig
from ayllu.model.request import check_ids
from ayllu.model.shown import Passage, shown_in
from ayllu.model.step import Batch, Model, Runner, as_runner

ROWS = 16                                                # candidates per pass: bounds the memory of the logits


@dataclass(frozen=True)
class CandidateScore:
    """log p(candidate | prompt). `is_merged`: the candidate changed how the prompt's own end is tokenised."""

    logprob: float
    n_tokens: int                                        # tokens of the candidate, from the last id shared on
    is_merged: bool


@torch.inference_mode()
def score_candidates(model: Model | Runner, prompt: Sequence[int],
                     joint: Sequence[Sequence[int]]) -> list[CandidateScore]:
    """Score candidates; each of `joint` is the ids of prompt and candidate tokenised together (BOS included)."""
    prompt, full, runner = list(prompt), [list(ids) for ids in joint], as_runner(model)
    _check(runner.config, prompt, full)
    shared = [_common(prompt, ids) for ids in full]
    base = min(shared)
    rows = [*full, prompt]                               # the prompt's own end is scored too, where one needs it
    logprobs = tail_logprobs(runner, rows, base)
    own = logprobs.pop()
    return [CandidateScore(sum(tail[n - base:]) - sum(own[n - base:]), len(ids) - n, n < len(prompt))
            for tail, ids, n in zip(logprobs, full, shared, strict=True)]


def tail_logprobs(runner: Runner, rows: list[list[int]], base: int,
                  passages: Sequence[Passage] = ()) -> list[list[float]]:
    """For each row, the log-probability of each id from place `base` on; all rows agree before it. `passages` are shown
    in what they agree on, before its last id."""
    cache = runner.new_cache([0], max(len(ids) for ids in rows))
    if base > 1:
        shown = shown_in([passages], [0], base - 1, runner.dtype, runner.device)
        runner.hidden(Batch(torch.tensor([rows[0][:base - 1]], device=runner.device), cache, shown=shown))
    out: list[list[float]] = []
    scaling = runner.config.rope_scaling
    size = 1 if scaling is not None and scaling.follows_length else ROWS    # filling would count as length there
    for start in range(0, len(rows), size):
        out += _pass(runner, cache, rows[start:start + size], base)
        cache.truncate(base - 1)
    return out


def _pass(runner: Runner, cache: DenseCache, rows: list[list[int]], base: int) -> list[list[float]]:
    """One batch, filled on the right: what follows a row's end is computed for nothing and never looked at."""
    cache.select([0] * len(rows))
    width = max(len(ids) for ids in rows)
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows], device=runner.device)
    hidden = runner.hidden(Batch(ids[:, base - 1:], cache))                   # (B, T, D)
    logp = runner.logits(hidden[:, :-1]).float().log_softmax(-1)              # (B, T - 1, V)
    chosen = logp.gather(-1, ids[:, base:, None])[..., 0].double().tolist()
    return [values[:len(row) - base] for values, row in zip(chosen, rows, strict=True)]


def _common(a: list[int], b: list[int]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False)))


def _check(config: LlamaConfig | TransformerConfig, prompt: list[int], full: list[list[int]]) -> None:
    limit = config.max_context
    if not full:
        raise RequestError("there are no candidates: give at least one")
    for ids in (prompt, *full):
        check_ids(ids, config)
        if len(ids) > limit:
            raise ContextTooLong(f"prompt and candidate have {len(ids)} tokens and the model's context takes {limit}: "
                                 "shorten the prompt")
    if any(ids == prompt for ids in full):
        raise RequestError("a candidate adds nothing to the prompt: leave out empty candidates")
    if any(_common(prompt, ids) == 0 for ids in full):
        raise RequestError("a candidate changes the very first token of the prompt, and nothing stands before it to "
                           "predict it from: let the prompt begin with the BOS id, or make it longer")
