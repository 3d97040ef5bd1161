"""What the engine is asked for and what it gives: ids in, ids out. Free of torch.

A `Request` goes into `Engine.submit` (engine.py, synchronous) or `Service.submit` (service.py, for asyncio). Each step
gives `Token`s. Below `llm.py` there is no text: stop strings are the caller's, who cancels a sample that met one.
"""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np

from ayllu.errors import RequestError
from ayllu.model.params import SamplingParams

Finish = Literal["stop", "length", "cancelled", "error"]
MOST_PRIORITY = 8


@dataclass(frozen=True)
class Media:
    """Ids `start` to `start + length` of a prompt stand for an image or a sound: `features` (length, width), float32,
    take the places of their embeddings. Equal digests mean equal features."""

    start: int
    length: int
    digest: bytes
    features: np.ndarray = field(compare=False, repr=False)


@dataclass(frozen=True)
class Grammar:
    """The form that an answer must have (constrain.py). A choice's text is a JSON list of texts."""

    kind: Literal["json_schema", "regex", "choice", "lark"]
    text: str


@dataclass(frozen=True)
class Request:
    """One prompt, of which `params.n` samples are wanted. Pages are shared within one tenant and adapter only."""

    ids: tuple[int, ...]
    params: SamplingParams = field(default_factory=SamplingParams)
    eos_ids: tuple[int, ...] = ()                        # the checkpoint's end ids; params.ignore_eos leaves them out
    min_tokens: int = 0                                  # no end id is chosen before so many tokens
    prompt_logprobs: int | None = None                   # as params.logprobs, of the prompt's own ids
    grammar: Grammar | None = None
    priority: int = 0                                    # above 0: sooner; -8 to 8
    tenant: str = "local"
    adapter: str | None = None
    media: tuple[Media, ...] = ()

    def __post_init__(self) -> None:
        self._check_media()
        if abs(self.priority) > MOST_PRIORITY:
            raise RequestError(f"priority={self.priority}: use {-MOST_PRIORITY} to {MOST_PRIORITY}, 0 being usual")
        most = self.params.max_tokens
        if self.min_tokens < 0 or (most is not None and self.min_tokens > most):
            raise RequestError(f"min_tokens={self.min_tokens} must lie between 0 and max_tokens={most}")
        if self.prompt_logprobs is not None and not 0 <= self.prompt_logprobs <= 100:
            raise RequestError(f"prompt_logprobs={self.prompt_logprobs}: use 0 to 100, or None for none")

    def _check_media(self) -> None:
        end = 0
        for m in self.media:
            if len(m.features) != m.length:
                raise RequestError(f"the image or sound at token {m.start} has {len(m.features)} features and "
                                   f"{m.length} placeholders: they must be as many; expand the text by the encoder's "
                                   "own count")
            if m.start < end or m.start + m.length > len(self.ids):
                raise RequestError(f"media must follow one another within the prompt's {len(self.ids)} tokens, and one "
                                   f"lies at {m.start} to {m.start + m.length}")
            end = m.start + m.length

    def check_width(self, width: int) -> None:
        """Refuse media that a model of this width can't read."""
        for m in self.media:
            if m.features.shape != (m.length, width) or not np.isfinite(m.features).all():
                raise RequestError(f"an image or sound has features of the shape {m.features.shape}, and this model "
                                   f"reads finite ones of ({m.length}, {width}): take senses trained beside it")

    @property
    def stop_ids(self) -> frozenset[int]:
        """The ids that end an answer."""
        return frozenset(self.params.stop_ids) | (frozenset() if self.params.ignore_eos else frozenset(self.eos_ids))


@dataclass(frozen=True)
class Start:
    """What is known of a prompt once it has been read."""

    prompt_tokens: int
    cached_tokens: int                                   # of them, those whose keys and values lay in the prefix cache
    prompt_logprobs: tuple[float | None, ...] | None = None              # one per prompt id; the first has none
    prompt_top: tuple[tuple[tuple[int, float], ...], ...] | None = None  # (id, log-probability), likeliest first


class Token(NamedTuple):
    """One event of one sample: a chosen id, or an end without one (`id` None: cancelled, or `error` says what broke).
    With params.num_beams the samples are the best n texts, best first, and come as a whole when the search is over.

    `logprob` and `top` are the model's own, before penalties and temperature. The last token of a sample has `finish`;
    an end id that stopped it is given too.
    """

    request: int                                         # what `submit` gave
    sample: int                                          # which of the n samples
    id: int | None
    finish: Finish | None = None
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()
    start: Start | None = None                           # with the first event of a request
    error: str | None = None
    score: float | None = None                           # with the last token of a beam search's answer
