"""`Engine`: many requests at once over one model. Ids in, ids out; synchronous and deterministic.

    engine = Engine(checkpoint.model)                    # or a runner: Engine(make_runner(checkpoint.model))
    number = engine.submit(Request(ids=(1, 5, 7), params=SamplingParams(max_tokens=20)))
    while not engine.is_idle:
        for token in engine.step():                      # tokens of all requests, in the order of their choice
            print(token.request, token.sample, token.id, token.finish)

`submit` raises RequestError (or ContextTooLong) for what can't be done and Overloaded when the queue is full. `cancel`
frees a request's pages at once; its last tokens, with finish "cancelled", come with the next step. For asyncio there is
`Service` (service.py). An engine is used from one thread.

N new tokens of all rows  C tokens that choose  D width  V vocabulary
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from ayllu.config import Settings
from ayllu.engine.batch import FlatBatch, flat_batch
from ayllu.engine.paged import PagedCache
from ayllu.engine.request import Finish, Request, Start, Token
from ayllu.engine.sampling import SamplingTables
from ayllu.engine.scheduler import Chosen, Row, Scheduler, SchedulerSettings, Work
from ayllu.engine.tiles import TiledSteps
from ayllu.errors import ConfigError, RequestError
from ayllu.model.config import LlamaConfig, TransformerConfig
from ayllu.model.request import check_prompt
from ayllu.model.sample import new_seed, top_logprobs
from ayllu.model.step import Model, Runner, as_runner

TopLogprobs = tuple[tuple[int, float], ...]
NOT_FINITE = ("the model's logits are not finite: the weights may be damaged, or the dtype too narrow (try float32), "
              "or logit_bias may forbid every id")


class EngineSettings(Settings):
    """How much an engine takes on. Memory is that of keys and values; weights come on top."""

    cache_mib: int | None = Field(default=None, ge=1)    # None: enough for max_rows full contexts, 1 GiB at most
    n_pages: int | None = Field(default=None, ge=1)      # instead of cache_mib
    page_size: int = Field(default=16, ge=1)             # tokens
    token_budget: int = Field(default=512, ge=2)         # tokens computed in one step
    max_rows: int = Field(default=64, ge=1)              # samples that run at a time
    max_waiting: int = Field(default=1024, ge=0)         # requests in the queue; more are refused with Overloaded
    prefix_cache: bool = True
    kv_dtype: Literal["auto", "int8"] = "auto"           # auto: the weights'; int8 takes less memory (stores.py)
    deterministic: bool = False                          # equal bits whatever else is computed (tiles.py); slower

    @model_validator(mode="after")
    def _consistent(self) -> "EngineSettings":
        self.scheduler(1)
        return self

    def scheduler(self, n_pages: int) -> SchedulerSettings:
        """The part that the scheduler knows."""
        names = ("page_size", "token_budget", "max_rows", "max_waiting", "prefix_cache")
        return SchedulerSettings(n_pages=n_pages, **{name: getattr(self, name) for name in names})


@dataclass
class _Running:
    """What is kept of a request: its seed, its rows that aren't over, and what reading its prompt gives."""

    seed: int
    n_alive: int
    is_started: bool = False                             # a token has told what reading the prompt gave
    logprobs: list[float | None] = field(default_factory=list)
    top: list[TopLogprobs] = field(default_factory=list)


class Engine:
    """Continuous batching over pages. `step` computes one batch and gives what was chosen."""

    def __init__(self, model: Model | Runner, settings: EngineSettings | None = None) -> None:
        self.runner = as_runner(model)
        self.settings = settings or EngineSettings()
        self.config = self.runner.config
        self.context = context_of(self.config)
        dtype = self.runner.dtype
        n_pages = pages_within(self.config, self.settings, self.context, dtype)
        self.scheduler = Scheduler(self.settings.scheduler(n_pages))
        self.cache = PagedCache(self.config, n_pages + self.settings.deterministic, self.settings.page_size,
                                dtype=dtype, device=self.runner.device, is_int8=self.settings.kv_dtype == "int8")
        self._tiles = TiledSteps(self.runner, self.cache) if self.settings.deterministic else None
        if self._tiles is not None:
            self._tiles.check_places()
        self.tables = SamplingTables(self.config.vocab_size, self.runner.device)
        self._places: dict[Row, int] = {}                # of the rows that have chosen
        self._requests: dict[int, _Running] = {}         # that aren't over
        self._events: list[Token] = []                   # to be given with the next step

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to compute and nothing to give."""
        return self.scheduler.is_idle and not self._events

    def submit(self, request: Request) -> int:
        """Queue a request; gives its number, which its tokens carry."""
        if request.params.num_beams > 1:
            raise RequestError("the engine doesn't search with beams: set num_beams=1, or use LLM.generate")
        room = check_prompt(request.ids, request.params, self.config)
        room = min(room, self.context - len(request.ids))
        self._check_ids(request.params.logit_bias, "logit_bias")
        self._check_ids(request.stop_ids, "stop_ids")
        number = self.scheduler.submit(request, room)
        seed = new_seed() if request.params.seed is None else request.params.seed
        self._requests[number] = _Running(seed, request.params.n)
        return number

    def cancel(self, number: int, sample: int | None = None) -> None:
        """End a request, or one of its samples. A request that is over already may be cancelled, too."""
        for row in self.scheduler.cancel(number, sample):
            self._events.append(Token(row.number, row.sample, None, "cancelled"))
            self._forget(row)

    def seed(self, number: int) -> int | None:
        """The seed of a request that isn't over: given, or drawn where none was."""
        return self._requests[number].seed if number in self._requests else None

    @torch.inference_mode()
    def step(self) -> list[Token]:
        """Compute one batch; gives what was chosen in it, and the ends of what was cancelled since the last."""
        events, self._events = self._events, []
        plan = self.scheduler.plan()
        if not plan.work:
            return events
        self.cache.copy(plan.copies)
        batch = flat_batch(plan, self.settings.page_size, self.runner.device)
        hidden = self._hidden(batch)
        self._read_prompts(batch, hidden)
        chosen, tokens = self._choose(batch, hidden)
        self.scheduler.commit(plan, chosen)
        for row, choice in chosen.items():
            if choice.is_over:
                self._forget(row)
        return events + tokens

    def _hidden(self, batch: FlatBatch) -> Tensor:                            # (N, D)
        if self._tiles is not None:
            return self._tiles.hidden(batch)
        return self.runner.flat(batch.ids, batch.positions, self.cache.attends(batch))

    def _logits(self, hidden: Tensor) -> Tensor:                              # (C, D) -> (C, V)
        return self.runner.logits(hidden) if self._tiles is None else self._tiles.logits(hidden)

    def _choose(self, batch: FlatBatch, hidden: Tensor) -> tuple[dict[Row, Chosen], list[Token]]:
        ends = [(work, span.end - 1) for work, span in zip(batch.works, batch.spans, strict=True)]
        rows = [(row, end) for work, end in ends for row in work.choosers]
        if not rows:
            return {}, []
        places = torch.tensor([end for _, end in rows], device=self.runner.device)
        logits = self._logits(hidden[places])                                 # (C, V)
        choice = self.tables.choose(logits, [self._place(row) for row, _ in rows])
        chosen, tokens = dict[Row, Chosen](), list[Token]()
        for i, (row, _) in enumerate(rows):
            token = self._token(row, choice.ids[i], choice.is_stop[i], choice.is_bad[i], choice.logprobs[i],
                                choice.tops[i])
            chosen[row] = Chosen([choice.ids[i]], token.finish is not None)
            tokens.append(token)
        return chosen, tokens

    def _token(self, row: Row, token: int, is_stop: bool, is_bad: bool, logprob: float | None,
               top: TopLogprobs) -> Token:
        if is_bad:
            return Token(row.number, row.sample, None, "error", error=NOT_FINITE)
        finish: Finish | None = "stop" if is_stop else "length" if row.room == 1 else None
        return Token(row.number, row.sample, token, finish, logprob, top, self._start(row))

    def _start(self, row: Row) -> Start | None:
        """With the first token of a request: what reading its prompt gave."""
        request = self._requests[row.number]
        if request.is_started:
            return None
        request.is_started = True
        if row.request.prompt_logprobs is None:
            return Start(row.n_prompt, row.cached or 0)
        return Start(row.n_prompt, row.cached or 0, tuple(request.logprobs), tuple(request.top))

    def _read_prompts(self, batch: FlatBatch, hidden: Tensor) -> None:
        """The log-probabilities of prompt ids, where a request wants them."""
        for work, span in zip(batch.works, batch.spans, strict=True):
            running = self._requests[work.row.number]
            if work.row.request.prompt_logprobs is not None and not running.is_started:
                self._read_prompt(running, work, hidden[span.begin:span.end])

    def _read_prompt(self, running: _Running, work: Work, hidden: Tensor) -> None:
        if work.begin == 0:                              # also when it is computed again
            running.logprobs, running.top = [None], [()]
        following = work.row.request.ids[work.begin + 1:work.end + 1]
        if not following:
            return
        k = work.row.request.prompt_logprobs or 0
        logits = self._logits(hidden[:len(following)])
        ids = torch.tensor(following, device=self.runner.device)
        logprob, values, top = (t.tolist() for t in top_logprobs(logits, ids, k))
        running.logprobs += logprob
        running.top += [tuple(zip(*pair, strict=True)) for pair in zip(top, values, strict=True)]

    def _place(self, row: Row) -> int:
        """The row's place in the sampling tables, from its first choice on."""
        if row not in self._places:
            self._places[row] = self.tables.add(row.request, self._requests[row.number].seed, row.sample)
        return self._places[row]

    def _forget(self, row: Row) -> None:
        place = self._places.pop(row, None)
        if place is not None:
            self.tables.drop(place)
        self._requests[row.number].n_alive -= 1
        if self._requests[row.number].n_alive == 0:
            del self._requests[row.number]

    def _check_ids(self, ids: Sequence[int] | frozenset[int] | dict[int, float], where: str) -> None:
        for token in ids:
            if not 0 <= token < self.config.vocab_size:
                raise RequestError(f"{where} names id {token}, but the vocabulary has ids 0 to "
                                   f"{self.config.vocab_size - 1}")


def context_of(config: LlamaConfig | TransformerConfig) -> int:
    """Tokens that one row may have. With dynamic NTK, keys depend on the length of the text that they were computed
    with, so they can't be shared or computed in chunks; within the original context nothing is stretched yet."""
    scaling = config.rope_scaling
    if scaling is not None and scaling.kind == "dynamic":
        return min(config.max_context, scaling.original_context or config.max_context)
    return config.max_context


def pages_within(config: LlamaConfig | TransformerConfig, settings: EngineSettings, context: int,
                 dtype: torch.dtype) -> int:
    """How many pages the settings' memory holds."""
    head_bytes = config.head_dim * dtype.itemsize if settings.kv_dtype == "auto" else config.head_dim + 4
    page_bytes = 2 * config.n_layers * settings.page_size * config.n_kv_heads * head_bytes
    full = -(-context // settings.page_size)
    if settings.n_pages is not None:
        return settings.n_pages
    if settings.cache_mib is None:
        return max(full, min(full * settings.max_rows, 2**30 // page_bytes))
    n_pages = settings.cache_mib * 2**20 // page_bytes
    if n_pages == 0:
        raise ConfigError(f"cache_mib={settings.cache_mib} holds not one page of {page_bytes} bytes: raise it")
    return n_pages
