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
from typing import TYPE_CHECKING, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from ayllu.adapters.lora import Adapter
from ayllu.config import Settings
from ayllu.engine.batch import FlatBatch, flat_batch
from ayllu.engine.constrain import NO_GRAMMARS, Grammars
from ayllu.engine.paged import PagedCache
from ayllu.engine.paths import AttentionKind, GraphsKind, make_paths, runner_for, uses_native, uses_triton
from ayllu.engine.plan import Chosen, Forks, Row, Work
from ayllu.engine.request import Finish, Grammar, Request, Start, Token
from ayllu.engine.sampling import Choice, SamplingTables
from ayllu.engine.scheduler import Scheduler, SchedulerSettings
from ayllu.engine.searches import Searches
from ayllu.engine.shelf import Loaded, Shelf
from ayllu.engine.speculate import Draft, Ngrams
from ayllu.engine.tiles import TILE, TiledSteps
from ayllu.errors import ConfigError, ContextTooLong, RequestError
from ayllu.model.beam import TopLogprobs
from ayllu.model.config import LlamaConfig, TransformerConfig
from ayllu.model.request import check_prompt
from ayllu.model.sample import NOT_FINITE, new_seed, top_logprobs
from ayllu.model.step import Model, Runner, as_runner

if TYPE_CHECKING:
    from llguidance import LLMatcher


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
    n_guesses: int = Field(default=0, ge=0, le=32)       # ids guessed ahead per row and step (speculate.py); 0: off
    max_adapters: int = Field(default=32, ge=0)          # loaded at a time (shelf.py)
    adapter_mib: int = Field(default=1024, ge=1)         # of their matrices, each filled up to the largest rank
    deterministic: bool = False                          # equal bits whatever else is computed (tiles.py); slower
    attention: AttentionKind = "auto"                    # auto: triton on CUDA, native on CPUs with AVX512 (paths.py)
    cuda_graphs: GraphsKind = "auto"                     # auto: where attention is triton's, on CUDA (graphs.py)

    @model_validator(mode="after")
    def _consistent(self) -> "EngineSettings":
        self.scheduler(1)
        if self.deterministic and self.attention == "triton":
            raise ValueError("deterministic=True has an attention of its own: leave attention at auto")
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
    adapter: Loaded | None = None
    is_started: bool = False                             # a token has told what reading the prompt gave
    logprobs: list[float | None] = field(default_factory=list)
    top: list[TopLogprobs] = field(default_factory=list)


class Engine:
    """Continuous batching over pages. `step` computes one batch and gives what was chosen."""

    def __init__(self, model: Model | Runner, settings: EngineSettings | None = None,
                 draft: Model | Runner | None = None, grammars: Grammars | None = None,
                 held: LlamaConfig | TransformerConfig | None = None) -> None:
        """`draft`: a smaller model that guesses where settings.n_guesses asks for it; without one, repetition does.
        `grammars` belong to the model's tokenizer; without them no request may have a grammar. `held`: the heads whose
        keys and values lie here, where ranks share a model (ranks.py)."""
        self.runner = as_runner(model)
        self.settings = settings or EngineSettings()
        self.config = self.runner.config
        self.context = context_of(self.config)
        dtype = self.runner.dtype
        held = held or self.config
        n_pages = pages_within(held, self.settings, self.context, dtype)
        self.scheduler = Scheduler(self.settings.scheduler(n_pages))
        triton = not self.settings.deterministic and uses_triton(self.settings.attention, self.runner.device)
        graphs = (triton and self.settings.cuda_graphs == "auto" and self.runner.device.type == "cuda"
                  and held is self.config)               # what ranks send each other was never recorded
        native = uses_native(self.settings.attention, self.runner.device, dtype)
        self.runner = runner_for(self.runner, native, triton)
        n_more = self.settings.deterministic or graphs or native             # a page for what fills a step up
        self.cache = PagedCache(held, n_pages + n_more, self.settings.page_size,
                                dtype=dtype, device=self.runner.device, is_int8=self.settings.kv_dtype == "int8")
        self.paths = make_paths(self.runner, self.cache, native=native, triton=triton, graphs=graphs,
                                context=self.context, max_rows=self.settings.max_rows)
        self._tiles = TiledSteps(self.runner, self.cache, self.paths.views) if self.settings.deterministic else None
        self.adapters = Shelf(self.runner, self.settings.max_adapters, self.settings.adapter_mib * 2**20,
                              TILE if self._tiles else None)
        self.tables = SamplingTables(self.config.vocab_size, self.runner.device, self.paths.kernels)
        self.searches = Searches(self.config.vocab_size, self.settings.max_rows, self.runner.device)
        self._draft = Draft(as_runner(draft), self.runner, n_pages, self.cache.page_size, native) if draft else None
        self.grammars = grammars
        self._matchers: dict[Row, LLMatcher] = {}        # of the rows that have chosen and have a grammar
        self._ngrams: dict[Row, Ngrams] = {}             # of the rows that have chosen
        self._places: dict[Row, int] = {}                # of the rows that have chosen
        self._requests: dict[int, _Running] = {}         # that aren't over
        self._events: list[Token] = []                   # to be given with the next step

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to compute and nothing to give."""
        return self.scheduler.is_idle and not self._events

    def submit(self, request: Request) -> int:
        """Queue a request; gives its number, which its tokens carry."""
        room = self._room(request)
        self._check_ids(request.params.logit_bias, "logit_bias")
        self._check_ids(request.stop_ids, "stop_ids")
        request.check_width(self.config.dim)
        if request.grammar is not None:
            self.check_grammar(request.grammar)
        if request.params.num_beams > 1:
            self.searches.check(request)
        adapter = None if request.adapter is None else self.adapters.find(request.adapter)
        number = self.scheduler.submit(request, room, adapter.digest if adapter else "")
        if adapter is not None:
            self.adapters.take(adapter)
        if request.params.num_beams > 1:
            self.searches.add(number, request, room)
        seed = new_seed() if request.params.seed is None else request.params.seed
        self._requests[number] = _Running(seed, request.params.n, adapter)
        return number

    def load_adapter(self, name: str, adapter: Adapter, replace: bool = False, origin: str = "") -> None:
        """Let requests name this adapter. `replace` puts it in the place of one that has the name already."""
        self.adapters.load(name, adapter, replace, origin)

    def unload_adapter(self, name: str) -> int:
        """Later requests don't find it; gives how many that aren't over go on with it."""
        return self.adapters.unload(name).n_users

    def _room(self, request: Request) -> int:
        """How many tokens each answer may have."""
        room, left = check_prompt(request.ids, request.params, self.config), self.context - len(request.ids)
        if left < (request.params.max_tokens or 1):
            raise ContextTooLong(
                f"the prompt has {len(request.ids)} tokens, and of the {self.context} that this engine serves (a model "
                "whose RoPE scaling follows the length, within its original context only) too few are left: shorten "
                "the prompt, lower max_tokens, or use LLM.generate")
        return min(room, left)

    def check_grammar(self, grammar: Grammar) -> None:
        """Refuse a grammar that can't be followed. What is compiled here is kept, so that `submit` needn't. Any thread
        may ask."""
        if self.grammars is None:
            raise RequestError(NO_GRAMMARS)
        self.grammars.matcher(grammar)

    def cancel(self, number: int, sample: int | None = None) -> None:
        """End a request, or one of its samples. A request that is over already may be cancelled, too."""
        if number in self.searches:
            self._events += self.searches.cancel(number, sample)
            if self.searches.is_unwanted(number):
                self.scheduler.cancel(number)
                self._forget_search(number)
            return
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
        self._ask_for_guesses()
        plan = self.scheduler.plan()
        if not plan.work:
            return events
        self.cache.copy(plan.copies)
        if self._draft is not None:
            plan = self._draft.guess(plan, lambda logits, rows, ahead: self.tables.guess(
                logits, [self._places[row] for row in rows], ahead))
        batch = flat_batch(plan, self.settings.page_size, self.paths.reads_at, self.runner.dtype)
        hidden = self._hidden(batch)
        drafted = None if self._draft is None else self._draft.follow(batch)
        self._read_prompts(batch, hidden)
        chosen, forks, tokens = self._choose(batch, hidden, drafted)
        self.scheduler.commit(plan, chosen, forks)
        for row in [row for row, choice in chosen.items() if choice.is_over]:
            self._forget(row)
        for first in [first for first, beams in forks.items() if not beams]:
            self._forget_search(first.number)
        return events + tokens

    def _hidden(self, batch: FlatBatch) -> Tensor:                            # (N, D)
        works = batch.works if self.adapters.is_used else ()
        owners = [self._requests[work.row.number].adapter for work in works for _ in range(work.n_tokens)]
        if self._tiles is not None:
            return self._tiles.hidden(batch, lambda own, n: self.adapters.adapt([*owners[own], *[None] * n]))
        return self.paths.hidden(batch, lambda n: self.adapters.adapt([*owners, *owners[-1:] * n]))

    def _logits(self, hidden: Tensor) -> Tensor:                              # (C, D) -> (C, V)
        return self.paths.logits(hidden) if self._tiles is None else self._tiles.logits(hidden)

    def _ask_for_guesses(self) -> None:
        """Give rows that need one token only their guesses, or (with a draft model) places for them."""
        n = self.settings.n_guesses
        for row in self.scheduler.running if n else ():
            may = row.n_pending == 1 and row in self._places and row not in self._matchers
            if may and self.tables.may_guess(self._places[row]):
                row.draft = self._ngrams[row].guess(row.ids, n) if self._draft is None else [0] * n

    def _choose(self, batch: FlatBatch, hidden: Tensor,
                drafted: Tensor | None) -> tuple[dict[Row, Chosen], Forks, list[Token]]:      # (N, D), (N, draft's D)
        """The next ids of all choosers, and for rows with guesses those of the next steps as well."""
        rows, ahead, ends, beams, beam_ends = list[Row](), list[int](), list[int](), list[Row](), list[int]()
        for work, span in zip(batch.works, batch.spans, strict=True):
            n = len(work.draft) + 1
            for row in work.choosers:
                if row.beams:
                    beams.append(row)
                    beam_ends.append(span.end - 1)
                else:
                    rows += [row] * n
                    ahead += range(n)
                    ends += range(span.end - n, span.end)
        if not rows and not beams:
            return {}, {}, []
        if ends + beam_ends != list(range(len(hidden))):                      # else all choose, in their order
            index = torch.tensor(ends + beam_ends, device=self.runner.device)
            hidden, drafted = hidden[index], None if drafted is None else drafted[index]
        logits = self._logits(hidden)                                         # (C, V)
        guide = None if drafted is None else drafted[:len(rows)]
        chosen, tokens = self._choose_rows(batch, logits[:len(rows)], rows, ahead, guide) if rows else ({}, [])
        forks, told = self.searches.step(beams, logits[len(rows):], self._start)
        return chosen, forks, tokens + told

    def _choose_rows(self, batch: FlatBatch, logits: Tensor, rows: Sequence[Row],
                     ahead: Sequence[int], guide: Tensor | None) -> tuple[dict[Row, Chosen], list[Token]]:
        """The same for the rows that are no beams. `guide`: the draft model's hidden states there."""
        places, draft = [self._place(row) for row in rows], None
        if guide is not None and self._draft is not None and self._tiles is None and self.tables.draws(places):
            draft = self._draft.runner.logits(guide)
        choice = self.tables.choose(logits, places, ahead, self._allowed(rows), draft)
        chosen, tokens, first = dict[Row, Chosen](), list[Token](), 0
        for work in batch.works:
            for row in work.choosers if not work.row.beams else ():
                chosen[row] = self._accept(row, work.draft, choice, first, tokens)
                first += len(work.draft) + 1
        self.tables.advance([self._places[row] for row in chosen], [len(c.ids) for c in chosen.values()])
        return chosen, tokens

    def _accept(self, row: Row, draft: Sequence[int], choice: Choice, first: int, tokens: list[Token]) -> Chosen:
        """The choices from `first` on, up to the first that wasn't guessed; they are added to the tokens."""
        if not draft:                                    # nearly always
            tokens.append(token := self._token(row, 0, choice, first))
            return Chosen(choice.ids[first:first + 1], token.finish is not None, 0)
        for n, guess in enumerate([*draft, None]):
            token = self._token(row, n, choice, first + n)
            tokens.append(token)
            if token.finish is not None or token.id != guess:
                break
        return Chosen(choice.ids[first:first + n + 1], token.finish is not None, n)

    def _token(self, row: Row, n_before: int, choice: Choice, i: int) -> Token:
        if choice.is_bad[i]:
            return Token(row.number, row.sample, None, "error", error=NOT_FINITE)
        try:
            is_stop = self._ends_form(row, choice.ids[i]) or choice.is_stop[i]
        except RequestError as error:
            return Token(row.number, row.sample, None, "error", error=str(error))
        finish: Finish | None = "stop" if is_stop else "length" if row.room == n_before + 1 else None
        return Token(row.number, row.sample, choice.ids[i], finish, choice.logprobs[i], choice.tops[i],
                     self._start(row))

    def _allowed(self, rows: Sequence[Row]) -> tuple[list[int], Tensor] | None:
        """Which ids the rows with a grammar may choose."""
        some = [i for i, row in enumerate(rows) if row in self._matchers]
        if not some or self.grammars is None:
            return None
        return some, self.grammars.allowed([self._matchers[rows[i]] for i in some])

    def _ends_form(self, row: Row, token: int) -> bool:
        """Take the id into the row's form, if it has one; whether it ends there."""
        matcher = self._matchers.get(row)
        return matcher is not None and self.grammars is not None and self.grammars.takes_end(matcher, token)

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
            if work.row.request.prompt_logprobs is not None and not self._requests[work.row.number].is_started:
                self._read_prompt(self._requests[work.row.number], work, hidden[span.begin:span.end])

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
            self._ngrams[row] = Ngrams()
            if row.request.grammar is not None and self.grammars is not None:
                self._matchers[row] = self.grammars.matcher(row.request.grammar)
        return self._places[row]

    def _forget(self, row: Row) -> None:
        if (place := self._places.pop(row, None)) is not None:
            self.tables.drop(place)
            del self._ngrams[row]
            self._matchers.pop(row, None)
        self._end(row.number, 1)

    def _forget_search(self, number: int) -> None:
        self.searches.drop(number)
        self._end(number, self._requests[number].n_alive)

    def _end(self, number: int, n_samples: int) -> None:
        request = self._requests[number]
        request.n_alive -= n_samples
        if request.n_alive == 0:
            del self._requests[number]
            if request.adapter is not None:
                self.adapters.give_back(request.adapter)

    def _check_ids(self, ids: Sequence[int] | frozenset[int] | dict[int, float], where: str) -> None:
        for token in ids:
            if not 0 <= token < self.config.vocab_size:
                raise RequestError(f"{where} names id {token}, but ids are 0 to {self.config.vocab_size - 1}")


def context_of(config: LlamaConfig | TransformerConfig) -> int:
    """Tokens that one row may have. With dynamic NTK and LongRoPE, keys depend on the length of the text that they were
    computed with, so they can't be shared or computed in chunks; within the original context nothing changes yet."""
    scaling = config.rope_scaling
    if scaling is not None and scaling.follows_length:
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
