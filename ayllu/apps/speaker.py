"""`Speaker`: what an application needs of a model, whoever runs it.

Applications are synchronous and know this face only. `LocalSpeaker` runs a model in this process (commands, Python);
the server's runs it on the engine that answers everybody else, too (server/speaker.py). Nothing is cut: a conversation
that leaves no room for an answer is refused with ContextTooLong, and an answer that met its limit says "length".
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch

from ayllu.engine.dialogue import ChatPrompt, Message
from ayllu.engine.llm import DEFAULT_MAX_TOKENS, LLM, TextStream
from ayllu.engine.result import Result
from ayllu.engine.runner import Batch
from ayllu.errors import ContextTooLong, RequestError
from ayllu.model.account import n_parameters
from ayllu.model.score import tail_logprobs
from ayllu.text.tokenizer import Tokenizer

SMALL = 300_000_000                                      # parameters below which a model writes badly by itself
EMBED_TOKENS = 4096                                      # tokens of a batch of texts that become vectors


@dataclass(frozen=True)
class Answer:
    """What a model said. `logprob`: the mean log-probability of its tokens; None where nobody counted."""

    text: str
    finish: Literal["stop", "length"]
    prompt_tokens: int
    n_tokens: int
    logprob: float | None = None


class Speech(Protocol):
    """An answer as it comes. `answer` is there after the last piece, or after `close`, which ends it early."""

    answer: Answer | None

    def __iter__(self) -> Iterator[str]: ...
    def __next__(self) -> str: ...
    def close(self) -> None: ...


class Speaker(Protocol):
    """A model that converses. Options: max_tokens (at most; less where the context has less room), temperature, top_p,
    min_p, top_k, repetition_penalty, seed, stop (texts), prefix (text that the answer begins with; not repeated in it).

    A message's content is a text or a list of parts in OpenAI's form, which engine/parts.py makes of files.
    """

    name: str
    sees: bool                                           # whether messages may hold images
    hears: bool                                          # ... and sounds
    ear_s: float                                         # of so many seconds each at most
    context: int                                         # tokens of a conversation with its answer
    is_small: bool                                       # too small to be trusted with free text: say so

    def stream(self, messages: Sequence[Message], **options: Any) -> Speech:
        """The next message, piece by piece."""
        ...

    def answers(self, prompts: Sequence[Sequence[Message]], **options: Any) -> list[Answer]:
        """The next message of each conversation, computed side by side."""
        ...

    def room(self, messages: Sequence[Message]) -> int:
        """Tokens that are left for the answer; 0 where the conversation alone is too long."""
        ...

    def count(self, text: str) -> int:
        """Tokens of a text."""
        ...

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """(n, D) float32, each row of length 1; a text longer than the context is the mean over its parts."""
        ...

    def logprobs(self, messages: Sequence[Message], answer: str) -> list[float]:
        """Log-probability of each token of an answer that is given."""
        ...


def answer_ids(prompt: ChatPrompt, answer: str, tokenizer: Tokenizer) -> list[int]:
    """Ids of an answer as the model would write it: after a transcript's label stands a space."""
    return tokenizer.encode(f" {answer}" if prompt.strip else answer, bos=False)


def mean_of(vectors: Sequence[np.ndarray], lengths: Sequence[int]) -> np.ndarray:
    """One vector (D,) of length 1 from those of the parts of a text (of length 1, too), each weighed by its tokens."""
    return _of_length_1(np.average(np.stack(vectors), axis=0, weights=lengths)).astype(np.float32)


def _of_length_1(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


class LocalSpeech(Iterator[str]):
    """A `Speech` over a stream of the LLM."""

    def __init__(self, stream: TextStream) -> None:
        self._stream = stream
        self.answer: Answer | None = None

    def __next__(self) -> str:
        """The next piece."""
        try:
            return next(self._stream)
        except StopIteration:
            self._settle()
            raise

    def close(self) -> None:
        """Enough."""
        self._stream.close()
        self._settle()

    def _settle(self) -> None:
        if self._stream.result is not None:
            self.answer = _answer(self._stream.result)


class LocalSpeaker:
    """A model in this process."""

    def __init__(self, llm: LLM, name: str) -> None:
        if llm.tokenizer is None:
            raise RequestError(f"{name} has no tokenizer, so it can't converse: put its tokenizer.model or "
                               "tokenizer.json beside it")
        self.llm, self.name, self.tokenizer = llm, name, llm.tokenizer
        self.context = llm.config.max_context
        self.is_small = n_parameters(llm.config) < SMALL
        self.sees = llm.perception is not None and llm.perception.sees
        self.hears = llm.perception is not None and llm.perception.hears
        self.ear_s = llm.perception.ear_s if llm.perception else 0.0

    @classmethod
    def load(cls, model: str = "ayllu-mini-chat", **options: Any) -> "LocalSpeaker":
        """`options` as in `LLM.load`: dtype, device, adapter, context, senses, ..."""
        return cls(LLM.load(model, **options), Path(model).name or model)

    def stream(self, messages: Sequence[Message], **options: Any) -> LocalSpeech:
        """The next message, piece by piece."""
        prompt = self._prompt(messages, options.pop("prefix", ""))
        return LocalSpeech(self.llm.stream_prompt(prompt, **self._options(prompt, options)))

    def answers(self, prompts: Sequence[Sequence[Message]], **options: Any) -> list[Answer]:
        """The next message of each conversation, in batches of the LLM."""
        prefix = options.pop("prefix", "")
        found = [self._prompt(messages, prefix) for messages in prompts]
        if not found:
            return []
        shows = [i for i, prompt in enumerate(found) if prompt.media]
        answers = {i: self._whole(found[i], options) for i in shows}
        texts = [prompt for prompt in found if not prompt.media]
        params = [self.llm.params_for(prompt.ids, **self._options(prompt, options)) for prompt in texts]
        results = iter(self.llm.generate([prompt.ids for prompt in texts], params) if texts else ())
        return [answers[i] if prompt.media else _answer(next(results), prompt.strip) for i, prompt in enumerate(found)]

    def room(self, messages: Sequence[Message]) -> int:
        """Tokens that are left for the answer."""
        return max(0, self.context - len(self._prompt(messages).ids))

    def count(self, text: str) -> int:
        """Tokens of a text."""
        return len(self.tokenizer.encode(text, bos=False))

    @torch.inference_mode()
    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """The mean of the last layer over each text's tokens; texts of like length are computed side by side."""
        parts: list[tuple[int, list[int]]] = []          # (text, ids of a part of it)
        for number, text in enumerate(texts):
            ids = self.llm.encode(text)
            if not text:
                raise RequestError(f"text {number} is empty: leave empty texts out")
            parts += [(number, ids[i:i + self.context]) for i in range(0, len(ids), self.context)]
        order = sorted(range(len(parts)), key=lambda i: len(parts[i][1]))
        vectors: list[np.ndarray] = [np.empty(0)] * len(parts)
        for batch in _batches(order, [len(ids) for _, ids in parts]):
            for i, vector in zip(batch, self._means([parts[i][1] for i in batch]), strict=True):
                vectors[i] = vector
        rows: list[list[int]] = [[] for _ in texts]
        for i, (number, _) in enumerate(parts):
            rows[number].append(i)
        out = [mean_of([vectors[i] for i in row], [len(parts[i][1]) for i in row]) for row in rows]
        return np.stack(out) if out else np.zeros((0, self.llm.config.dim), np.float32)

    def logprobs(self, messages: Sequence[Message], answer: str) -> list[float]:
        """Log-probability of each token of an answer that is given."""
        prompt = self._prompt(messages)
        ids = [*prompt.ids, *answer_ids(prompt, answer, self.tokenizer)]
        if len(ids) > self.context:
            raise ContextTooLong(f"the conversation with the answer has {len(ids)} tokens and the model's context "
                                 f"takes {self.context}: shorten it")
        if len(ids) == len(prompt.ids):
            return []
        return tail_logprobs(self.llm.runner_of(prompt), [ids], len(prompt.ids), prompt.passages)[0]

    def _prompt(self, messages: Sequence[Message], prefix: str = "") -> ChatPrompt:
        prompt = self.llm.chat_prompt(messages)
        if not prefix:
            return prompt
        return ChatPrompt([*prompt.ids, *answer_ids(prompt, prefix, self.tokenizer)], prompt.stop, False, prompt.media)

    def _whole(self, prompt: ChatPrompt, options: dict[str, Any]) -> Answer:
        """An answer to what is shown."""
        speech = LocalSpeech(self.llm.stream_prompt(prompt, **self._options(prompt, options)))
        for _ in speech:
            pass
        assert speech.answer is not None                 # a generation has one token at least
        return speech.answer

    def _options(self, prompt: ChatPrompt, options: dict[str, Any]) -> dict[str, Any]:
        """What was asked for, with a limit that the context has room for."""
        room = self.context - len(prompt.ids)
        if room < 1:
            raise ContextTooLong(f"the conversation has {len(prompt.ids)} tokens and the model's context takes "
                                 f"{self.context}, of which one at least must be left for the answer: shorten it")
        most = min(room, options.get("max_tokens") or DEFAULT_MAX_TOKENS)
        return {**options, "max_tokens": most, "stop": (*options.get("stop", ()), *prompt.stop), "logprobs": 0}

    def _means(self, rows: list[list[int]]) -> list[np.ndarray]:
        """(D,) of length 1 for each row: filling on the right comes after all that is looked at and changes nothing."""
        runner, width = self.llm.runner, max(map(len, rows))
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows], device=runner.device)
        hidden = runner.hidden(Batch(ids, runner.new_cache([0] * len(rows), width))).float().cpu()    # (B, T, D)
        return [_of_length_1(hidden[i, :len(row)].mean(dim=0).numpy()) for i, row in enumerate(rows)]


def _batches(order: Sequence[int], lengths: Sequence[int]) -> Iterator[list[int]]:
    """Neighbours in `order` together, EMBED_TOKENS at most with their filling; one that is longer runs alone."""
    batch: list[int] = []
    for i in order:
        if batch and (len(batch) + 1) * lengths[i] > EMBED_TOKENS:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def _answer(result: Result, strip: bool = False) -> Answer:
    logprobs = result.logprobs or []
    text = result.text.lstrip() if strip else result.text
    return Answer(text, "stop" if result.finish_reason == "stop" else "length", result.prompt_tokens,
                  len(result.ids), sum(logprobs) / len(logprobs) if logprobs else None)
