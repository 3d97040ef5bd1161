"""Ids in, ids out, over the dense cache: greedy and sampled continuations of a batch of prompts.

`Generation` is the loop as an object whose `step` gives one token per living row, so that a caller can stream, stop
rows early (stop strings are text, which this file knows nothing of) or drop the whole. `generate` runs it to the end.
The slow twin, without a cache and one sequence at a time, is tests/oracles/generate.py.

B rows  T tokens  V vocabulary
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ayllu.errors import ConfigError
from ayllu.model.beam import beam_search
from ayllu.model.cache import DenseCache, left_padded
from ayllu.model.request import Finish, Output, Token, check_prompt, same_for_all
from ayllu.model.sample import Sampler, SamplingParams, new_seed, top_logprobs
from ayllu.model.shown import Passage, shown_in
from ayllu.model.step import Batch, Model, Runner, as_runner

FIRST_ROOM = 512                                         # answer tokens that a new cache has room for; it may grow


@dataclass
class _Row:
    prompt: int
    sample: int
    params: SamplingParams
    seed: int
    stop_ids: frozenset[int]
    room: int                                            # tokens it may still get
    is_done: bool = False
    tokens: list[Token] = field(default_factory=list)


class Generation:
    """The decoding of a batch. Rows leave the batch when they are done; the prompt of n samples is computed once."""

    def __init__(self, model: Model | Runner, prompts: Sequence[Sequence[int]],
                 params: SamplingParams | Sequence[SamplingParams], eos_ids: Sequence[int] = (),
                 shows: Sequence[Sequence[Passage]] | None = None) -> None:
        """`shows`: for each prompt, the features that take the places of its ids' embeddings."""
        self.runner, self._shows = as_runner(model), shows or [()] * len(prompts)
        each = same_for_all(params, len(prompts))
        if any(p.num_beams > 1 for p in each):
            raise ConfigError("beam search knows its text only at the end: call generate() or beam_search(), "
                              "or set num_beams=1 to stream")
        config = self.runner.config
        rooms = [check_prompt(prompt, p, config) for prompt, p in zip(prompts, each, strict=True)]
        self.prompts = [list(prompt) for prompt in prompts]
        self.rows: list[_Row] = []
        for number, (p, room) in enumerate(zip(each, rooms, strict=True)):
            seed = new_seed() if p.seed is None else p.seed
            stop_ids = frozenset(p.stop_ids) | (frozenset() if p.ignore_eos else frozenset(eos_ids))
            self.rows += [_Row(number, sample, p, seed, stop_ids, room) for sample in range(p.n)]
        self._live = list(self.rows)                     # the rows of the cache, in its order
        self._ids: Tensor | None = None                  # what they chose last
        self.cache: DenseCache | None = None             # made by the first step
        rows = self.rows
        self.sampler = Sampler([r.params for r in rows], [r.seed for r in rows], [r.sample for r in rows],
                               [self.prompts[r.prompt] for r in rows], config.vocab_size, self.runner.device)

    @property
    def is_done(self) -> bool:
        """Whether no row goes on."""
        return all(row.is_done for row in self._live)

    @torch.inference_mode()
    def step(self) -> list[Token]:
        """One more token for each living row, in the order of the rows; [] when all are done."""
        if self.is_done:
            return []
        logits = self._prefill() if self.cache is None or self._ids is None else self._decode(self.cache, self._ids)
        ids = self.sampler.choose(logits)
        details = self._details(logits, ids)
        self._ids = ids
        return [self._accept(row, *detail) for row, detail in zip(self._live, details, strict=True)]

    def cancel(self, prompt: int, sample: int) -> None:
        """The caller needs no more of this row (it found a stop string, or its reader left)."""
        for row in self._live:
            if (row.prompt, row.sample) == (prompt, sample):
                row.is_done = True

    def _prefill(self) -> Tensor:
        ids, padding = left_padded(self.prompts)
        room = max(row.room for row in self.rows)
        cache = self.runner.new_cache(padding, ids.shape[1] + min(room, FIRST_ROOM))
        shown = shown_in(self._shows, padding, ids.shape[1], self.runner.dtype, self.runner.device)
        logits = self.runner.step(Batch(ids.to(self.runner.device), cache, shown=shown))
        if len(self.rows) > len(self.prompts):
            origin = [row.prompt for row in self.rows]
            cache.select(origin)
            logits = logits[torch.tensor(origin, device=logits.device)]
        self.cache = cache
        return logits

    def _decode(self, cache: DenseCache, ids: Tensor) -> Tensor:
        going = [i for i, row in enumerate(self._live) if not row.is_done]
        if len(going) < len(self._live):
            self._live = [self._live[i] for i in going]
            cache.select(going)
            self.sampler.select(going)
            ids = ids[torch.tensor(going, device=ids.device)]
        return self.runner.step(Batch(ids[:, None], cache))

    def _details(self, logits: Tensor, ids: Tensor) -> list[tuple[int, float | None, tuple[tuple[int, float], ...]]]:
        chosen = ids.tolist()
        wanted = [row.params.logprobs for row in self._live]
        if all(k is None for k in wanted):
            return [(token, None, ()) for token in chosen]
        logprob, values, top = (t.tolist() for t in top_logprobs(logits, ids, max(k or 0 for k in wanted)))
        return [(token, None, ()) if k is None else (token, logprob[i], tuple(zip(top[i], values[i], strict=True))[:k])
                for i, (token, k) in enumerate(zip(chosen, wanted, strict=True))]

    @staticmethod
    def _accept(row: _Row, token: int, logprob: float | None, top: tuple[tuple[int, float], ...]) -> Token:
        row.room -= 1
        finish: Finish | None = "stop" if token in row.stop_ids else None if row.room else "length"
        row.is_done = finish is not None
        row.tokens.append(Token(row.prompt, row.sample, token, finish, logprob, top))
        return row.tokens[-1]


def generate(model: Model | Runner, prompts: Sequence[Sequence[int]],
             params: SamplingParams | Sequence[SamplingParams] | None = None,
             eos_ids: Sequence[int] = ()) -> list[list[Output]]:
    """Continue every prompt: for each, its n outputs. `params` is one setting for all prompts or one for each."""
    each = same_for_all(params or SamplingParams(), len(prompts))
    if any(p.num_beams > 1 for p in each):
        return [beam_search(model, prompt, p, eos_ids) if p.num_beams > 1 else generate(model, [prompt], p, eos_ids)[0]
                for prompt, p in zip(prompts, each, strict=True)]
    generation = Generation(model, prompts, each, eos_ids)
    while generation.step():
        pass
    outputs: list[list[Output]] = [[] for _ in prompts]
    for row in generation.rows:
        outputs[row.prompt].append(_output(row))
    return outputs


def stream(model: Model | Runner, prompts: Sequence[Sequence[int]],
           params: SamplingParams | Sequence[SamplingParams] | None = None,
           eos_ids: Sequence[int] = ()) -> Iterator[list[Token]]:
    """The steps of a generation: at each, one token for every row that still goes on."""
    generation = Generation(model, prompts, params or SamplingParams(), eos_ids)
    while tokens := generation.step():
        yield tokens


def _output(row: _Row) -> Output:
    wants = row.params.logprobs
    return Output(
        ids=[t.id for t in row.tokens], finish=row.tokens[-1].finish or "cancelled", seed=row.seed,
        logprobs=None if wants is None else [t.logprob for t in row.tokens if t.logprob is not None],
        top_logprobs=[t.top for t in row.tokens] if wants else None)
