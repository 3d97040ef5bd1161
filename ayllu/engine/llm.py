"""`LLM`: text in, text out. The face over generation in ids.

    llm = LLM.load("ayllu-mini")
    for piece in llm.stream("Once upon a time", max_tokens=100):
        print(piece, end="", flush=True)

Settings come as one SamplingParams, or as keywords over the checkpoint's own defaults.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ayllu.adapters.lora import Adapter, attach, check_fits, fingerprint
from ayllu.adapters.store import read_adapter, read_manner
from ayllu.checkpoint.load import Checkpoint, load_checkpoint
from ayllu.checkpoint.resolve import senses_of
from ayllu.config import validate
from ayllu.device import pick_device
from ayllu.engine.dialogue import ChatPrompt, Message, as_prompt
from ayllu.engine.perception import Perception
from ayllu.engine.result import Result, TextRow, Timing
from ayllu.engine.runner import AdaptedRunner, Batch, FusedRunner, RunnerKind, make_runner
from ayllu.errors import ConfigError, RequestError
from ayllu.log import warn
from ayllu.media.senses import Senses
from ayllu.model.beam import beam_search
from ayllu.model.generate import Generation
from ayllu.model.params import SamplingParams
from ayllu.model.request import check_prompt, same_for_all
from ayllu.model.score import score_candidates
from ayllu.model.step import Model, Runner
from ayllu.text.stream import StreamDecoder
from ayllu.text.tokenizer import Tokenizer

Prompt = str | Sequence[int]
SHAPING = {"temperature", "top_k", "top_p", "min_p", "typical_p"}
DEFAULT_SAMPLING = {"temperature": 0.8, "top_p": 0.95}   # where neither caller nor checkpoint says any of SHAPING
DEFAULT_MAX_TOKENS = 256                                 # where neither caller nor checkpoint says; less if need be
ROWS = 16                                                # sequences that run as one batch


@dataclass(frozen=True)
class NextToken:
    """One token that may come next. `text` is empty where it is a part of a character only: see `piece`."""

    id: int
    piece: str
    text: str
    probability: float


@dataclass(frozen=True)
class Candidate:
    """A text that may come next. `share` is its part among the candidates asked for, which sum to 1."""

    text: str
    logprob: float
    share: float
    n_tokens: int
    is_merged: bool                                      # it changed how the end of the prompt is tokenised


class TextStream(Iterator[str]):
    """Pieces of text as they come. After the last one (or `close`) `result` holds the whole."""

    def __init__(self, generation: Generation, row: TextRow, start: float) -> None:
        self.generation, self.row = generation, row
        self._start, self._first = start, 0.0
        self._is_open = True
        self.result: Result | None = None

    def __next__(self) -> str:
        """The next piece that is not empty."""
        while self._is_open:
            piece = self._advance()
            if piece:
                return piece
        raise StopIteration

    def close(self) -> None:
        """End the answer here; what came so far is its result."""
        self._is_open = False
        if self.row.tokens and self.result is None:
            now = time.perf_counter()
            row, n_prompt = self.generation.rows[0], len(self.generation.prompts[0])
            timing = Timing(self._first - self._start, now - self._start)
            self.result = self.row.result(n_prompt, row.seed, timing, row.params.logprobs)

    def _advance(self) -> str:
        piece = self.row.push(self.generation.step()[0])
        self._first = self._first or time.perf_counter()
        if self.row.finish is not None:
            self.close()
        return piece


class LLM:
    """A checkpoint ready to write. `runner` is how its steps are computed (see engine/runner.py).

    The LLM takes the checkpoint's weights over; `model` gives the plain model, and from then on runs it as it is.
    `adapter` (a PEFT folder, or one in memory) stays beside the weights; `fingerprint` tells bases apart (lora.py).
    """

    def __init__(self, checkpoint: Checkpoint, runner: RunnerKind = "auto",
                 adapter: Adapter | str | Path | None = None, senses: Senses | str | Path | None = None) -> None:
        manner = read_manner(adapter) if isinstance(adapter, str | Path) else None
        if manner is not None:                           # it answers as it was taught, and not as its base was
            generation = checkpoint.generation.model_copy(update={"eos_ids": manner.eos_ids})
            checkpoint = replace(checkpoint, chat_template=manner.template or checkpoint.chat_template,
                                 generation=generation)
        self.checkpoint = checkpoint
        self.config = checkpoint.config
        self.tokenizer: Tokenizer | None = checkpoint.tokenizer
        self.fingerprint = fingerprint(checkpoint.model)
        self.adapter = adapter if adapter is None or isinstance(adapter, Adapter) else \
            read_adapter(adapter, checkpoint.config)
        self.runner: Runner = self._adapted(runner)
        own = checkpoint.generation.eos_ids
        self.eos_ids = tuple(own) or (self.tokenizer.eos_ids if self.tokenizer else ())
        self._looking: AdaptedRunner | None = None
        self.perception = None if senses is None else Perception(
            senses, self._need_tokenizer(), self.config.dim, fingerprint=self.fingerprint, device=self.runner.device)

    @classmethod
    def load(cls, name_or_path: str | Path, *, dtype: str | None = None, device: str = "auto",
             runner: RunnerKind = "auto", adapter: Adapter | str | Path | None = None,
             rope_scaling: str | None = None, context: int | None = None,
             senses: Senses | str | Path | None = "auto") -> "LLM":
        """Load a checkpoint by folder, file or name. `dtype` None keeps the file's own; `rope_scaling` ("yarn:4") and
        `context` (tokens) take the place of its own. `senses`: a folder, or "auto" for those that come with a model."""
        checkpoint = load_checkpoint(name_or_path, dtype=dtype, device=pick_device(device), rope_scaling=rope_scaling,
                                     context=context)
        return cls(checkpoint, runner, adapter, senses_of(name_or_path) if senses == "auto" else senses)

    def encode(self, prompt: Prompt) -> list[int]:
        """Ids of a prompt, with BOS where the model wants it; ids are taken as they are."""
        if not isinstance(prompt, str):
            return list(prompt)
        return self._need_tokenizer().encode(prompt, bos=self._need_tokenizer().add_bos)

    def stream(self, prompt: Prompt, params: SamplingParams | None = None, **options: Any) -> TextStream:
        """Write on, piece by piece. A bad prompt or setting is an error at once, before the first piece."""
        start = time.perf_counter()
        ids = self.encode(prompt)
        settings = self._settings(params, options, [ids])[0]
        if settings.n > 1:
            raise ConfigError(f"n={settings.n}: a stream is one text; use generate() for several")
        generation = Generation(self.runner, [ids], settings, self.eos_ids)
        return TextStream(generation, TextRow(self.tokenizer, ids, settings.stop), start)

    def generate(self, prompts: Prompt | Sequence[Prompt],
                 params: SamplingParams | Sequence[SamplingParams] | None = None, **options: Any) -> list[Result]:
        """Continue one prompt or many: n results for each, in the order of the prompts."""
        rows = [self.encode(prompt) for prompt in _as_list(prompts)]
        settings = self._settings(params, options, rows)
        for ids, one in zip(rows, settings, strict=True):                     # all are checked before any is computed
            check_prompt(ids, one, self.config)
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))          # like lengths together: little padding
        results: list[list[Result]] = [[] for _ in rows]
        for batch in _batches(order, settings):
            for result in self._run([rows[i] for i in batch], [settings[i] for i in batch]):
                results[batch[result.prompt]].append(replace(result, prompt=batch[result.prompt]))
        return [result for each in results for result in each]

    def chat(self, messages: Sequence[Message], params: SamplingParams | None = None, **options: Any) -> Result:
        """The assistant's next message."""
        stream = self.stream_chat(messages, params, **options)
        for _ in stream:
            pass
        assert stream.result is not None                 # a generation has one token at least
        return stream.result

    def stream_chat(self, messages: Sequence[Message], params: SamplingParams | None = None,
                    **options: Any) -> TextStream:
        """The assistant's next message, piece by piece; a model without a chat template gets a plain transcript."""
        return self.stream_prompt(self.chat_prompt(messages), params, **options)

    def chat_prompt(self, messages: Sequence[Message]) -> ChatPrompt:
        """The ids of a conversation up to the assistant's next message, with what is shown in it."""
        return as_prompt(messages, self._need_tokenizer(), self.checkpoint.chat_template, self.perception)

    def stream_prompt(self, prompt: ChatPrompt, params: SamplingParams | None = None, **options: Any) -> TextStream:
        """The same for a conversation that is a prompt already."""
        start = time.perf_counter()
        settings = self._settings(params, options, [prompt.ids])[0]
        settings = settings.model_copy(update={"stop": tuple(dict.fromkeys((*settings.stop, *prompt.stop)))})
        generation = Generation(self.runner_of(prompt), [prompt.ids], settings, self.eos_ids, [prompt.passages])
        return TextStream(generation, TextRow(self.tokenizer, prompt.ids, settings.stop, prompt.strip), start)

    def params_for(self, ids: Sequence[int], **options: Any) -> SamplingParams:
        """The settings that keywords stand for, over the checkpoint's own defaults."""
        return self._settings(None, options, [list(ids)])[0]

    @property
    def model(self) -> Model:
        """The plain model with its own weights, to look into or to change; the runner becomes the eager one."""
        fused = self.runner.runner if isinstance(self.runner, AdaptedRunner) else self.runner
        if isinstance(fused, FusedRunner):
            fused.give_back()
            self.runner = self._adapted("eager")
        return self.checkpoint.model

    def _adapted(self, kind: RunnerKind) -> Runner:
        model, adapter = self.checkpoint.model, self.adapter
        if adapter is None:
            return make_runner(model, kind)
        check_fits(adapter, model)
        if adapter.config.use_dora:                      # its layers need the whole weight, so they take its place
            attach(model, adapter)
            return make_runner(model, kind)
        return AdaptedRunner(make_runner(model, kind), adapter)

    def runner_of(self, prompt: ChatPrompt) -> Runner:
        """The model; where images or sounds are shown, with the adapter that learned with the senses, if they have one
        and no other adapter was asked for."""
        found = self.perception.adapter if self.perception is not None and prompt.media else None
        if found is None or self.adapter is not None:
            return self.runner
        if self._looking is None or self._looking.runner is not self.runner:
            adapter = read_adapter(found, self.config)
            check_fits(adapter, self.checkpoint.model)
            self._looking = AdaptedRunner(self.runner, adapter)
        return self._looking

    @property
    def has_chat_template(self) -> bool:
        """Whether the model was made for conversations; without one, `chat` writes a transcript that it continues."""
        return self.checkpoint.chat_template is not None

    def next(self, prompt: str, k: int = 10, *,
             candidates: Sequence[str] | None = None) -> list[NextToken] | list[Candidate]:
        """What may come next: the k likeliest tokens, or the candidates that are asked for."""
        return self.next_tokens(prompt, k) if candidates is None else self.score(prompt, candidates)

    @torch.inference_mode()
    def next_tokens(self, prompt: Prompt, k: int = 10) -> list[NextToken]:
        """The k likeliest next tokens and their probabilities, likeliest first."""
        ids = self.encode(prompt)
        check_prompt(ids, SamplingParams(max_tokens=1), self.config)
        if k < 1:
            raise ConfigError(f"k={k}: ask for at least one token")
        cache = self.runner.new_cache([0], len(ids))
        logits = self.runner.step(Batch(torch.tensor([ids], device=self.runner.device), cache))[0]
        top = logits.float().softmax(-1).topk(min(k, self.config.vocab_size))
        pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True)
        return [self._next_token(ids, token, probability) for token, probability in pairs]

    def score(self, prompt: str, candidates: Sequence[str]) -> list[Candidate]:
        """The probability of each candidate to come next, likeliest first; model/score.py says how it is counted."""
        joint = [self.encode(prompt + candidate) for candidate in candidates]
        scores = score_candidates(self.runner, self.encode(prompt), joint)
        shares = torch.tensor([s.logprob for s in scores], dtype=torch.float64).softmax(-1).tolist()
        found = [Candidate(text, s.logprob, share, s.n_tokens, s.is_merged)
                 for text, s, share in zip(candidates, scores, shares, strict=True)]
        return sorted(found, key=lambda c: -c.logprob)

    def _next_token(self, prompt: list[int], token: int, probability: float) -> NextToken:
        if self.tokenizer is None:
            return NextToken(token, f"<{token}>", "", probability)
        text = StreamDecoder(self.tokenizer, prompt).push(token)
        is_whole = "\N{REPLACEMENT CHARACTER}" not in text
        return NextToken(token, self.tokenizer.id_to_piece(token), text if is_whole else "", probability)

    def _need_tokenizer(self) -> Tokenizer:
        if self.tokenizer is None:
            raise RequestError(f"{self.checkpoint.path} has no tokenizer: give ids instead of text, or put the model's "
                               "tokenizer.model or tokenizer.json beside it")
        return self.tokenizer

    def _settings(self, params: SamplingParams | Sequence[SamplingParams] | None, options: dict[str, Any],
                  rows: list[list[int]]) -> list[SamplingParams]:
        """One setting per prompt. A max_tokens that nobody stated gives way to the context; a stated one is checked."""
        if params is not None and options:
            raise ConfigError(f"params and {', '.join(options)} are both given: put all into one SamplingParams")
        if params is not None:
            return same_for_all(params, len(rows))
        defaults = self.checkpoint.generation.sampling()
        table = {**defaults, **options}
        if not SHAPING & set(table):
            table = {**DEFAULT_SAMPLING, **table}
        settings = same_for_all(validate(SamplingParams, table, where="sampling"), len(rows))
        unused = [name for name in options if name in SHAPING | {"seed"}]
        if unused and any(s.num_beams > 1 for s in settings):
            warn(f"{', '.join(unused)} changes nothing with beam search, which draws nothing")
        if options.get("max_tokens") is not None:
            return settings
        most = [max(1, min(s.max_tokens or DEFAULT_MAX_TOKENS, self.config.max_context - len(ids)))
                for s, ids in zip(settings, rows, strict=True)]
        return [s.model_copy(update={"max_tokens": n}) for s, n in zip(settings, most, strict=True)]

    def _run(self, prompts: list[list[int]], settings: list[SamplingParams]) -> list[Result]:
        if settings[0].num_beams > 1:
            return self._run_beams(prompts[0], settings[0])
        start, first = time.perf_counter(), 0.0
        generation = Generation(self.runner, prompts, settings, self.eos_ids)
        texts = {(row.prompt, row.sample): TextRow(self.tokenizer, prompts[row.prompt], row.params.stop)
                 for row in generation.rows}
        while tokens := generation.step():
            first = first or time.perf_counter()
            for token in tokens:
                row = texts[token.prompt, token.sample]
                row.push(token)
                if row.finish is not None:
                    generation.cancel(token.prompt, token.sample)
        timing = Timing(first - start, time.perf_counter() - start)
        return [texts[r.prompt, r.sample].result(len(prompts[r.prompt]), r.seed, timing, r.params.logprobs)
                for r in generation.rows]

    def _run_beams(self, prompt: list[int], params: SamplingParams) -> list[Result]:
        if params.stop:
            raise ConfigError("beam search can't look for stop strings: leave out stop, or set num_beams=1")
        start = time.perf_counter()
        outputs = beam_search(self.runner, prompt, params, self.eos_ids)
        spent = time.perf_counter() - start
        skip = self.tokenizer.special_ids if self.tokenizer else frozenset()
        return [Result(text=self._decode_after(prompt, [i for i in o.ids if i not in skip]), ids=o.ids,
                       finish_reason=o.finish, prompt_tokens=len(prompt), prompt=0, sample=i, seed=None,
                       timing=Timing(spent, spent), logprobs=o.logprobs, score=o.score)
                for i, o in enumerate(outputs)]

    def _decode_after(self, prompt: list[int], ids: list[int]) -> str:
        row = TextRow(self.tokenizer, prompt, ())
        if row.decoder is None:
            return ""
        return "".join(row.decoder.push(token) for token in ids) + row.decoder.flush()


def _as_list(prompts: Prompt | Sequence[Prompt]) -> list[Prompt]:
    """One prompt or many: a string, or a list that begins with a number, is one."""
    if isinstance(prompts, str) or (prompts and isinstance(prompts[0], int)):
        return [prompts]                                 # type: ignore[list-item]
    return list(prompts)                                 # type: ignore[arg-type]


def _batches(order: list[int], settings: list[SamplingParams]) -> Iterator[list[int]]:
    """Prompts that run together: ROWS sequences at most, unless one prompt has more; beams run alone."""
    batch: list[int] = []
    n_rows = 0
    for i in order:
        alone = settings[i].num_beams > 1
        if batch and (alone or n_rows + settings[i].n > ROWS or settings[batch[0]].num_beams > 1):
            yield batch
            batch, n_rows = [], 0
        batch.append(i)
        n_rows += settings[i].n
    if batch:
        yield batch
