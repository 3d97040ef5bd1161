"""The beam searches of the engine. Each decides with `BeamSearch` (ayllu/model/beam.py, where the dense cache is the
slow twin); the scheduler moves the pages of its beams as it says. A search knows its texts at the end only, when all
of their tokens are given at once, the best as sample 0.

C rows that choose  B beams  V vocabulary
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ayllu.engine.plan import Forks, Row
from ayllu.engine.request import Request, Start, Token
from ayllu.errors import RequestError
from ayllu.model.beam import BeamSearch, n_candidates
from ayllu.model.request import Output

Beams = Sequence[tuple[Row, int]]


@dataclass
class _Search:
    request: Request
    room: int
    beams: BeamSearch | None = None                      # from the first choice on
    start: Start | None = None                           # what reading the prompt gave; told with the first token
    cancelled: set[int] = field(default_factory=set)     # answers that nobody waits for any more


class Searches:
    """The searches that aren't over, by the request's number."""

    def __init__(self, vocab_size: int, max_rows: int, device: torch.device) -> None:
        self.vocab_size, self.max_rows, self.device = vocab_size, max_rows, device
        self._running: dict[int, _Search] = {}

    def __contains__(self, number: int) -> bool:
        """Whether this request is a search that isn't over."""
        return number in self._running

    def check(self, request: Request) -> None:
        """Refuse what a search can't do."""
        width = request.params.num_beams
        if width > self.max_rows:
            raise RequestError(f"num_beams={width}, but this engine runs {self.max_rows} rows at a time: "
                               "lower num_beams")
        if request.grammar is not None:
            raise RequestError("beams can't follow a grammar: leave out one of the two")
        n_candidates(request.params, request.stop_ids, self.vocab_size)

    def add(self, number: int, request: Request, room: int) -> None:
        """A search that the scheduler has in its queue."""
        self._running[number] = _Search(request, room)

    def drop(self, number: int) -> None:
        """It's over, or nobody waits for it."""
        self._running.pop(number, None)

    def cancel(self, number: int, sample: int | None) -> list[Token]:
        """The ends of one answer, or of all; none where they were cancelled before."""
        search = self._running[number]
        ends = set(range(search.request.params.n) if sample is None else [sample]) - search.cancelled
        search.cancelled |= ends
        return [Token(number, n, None, "cancelled") for n in sorted(ends)]

    def is_unwanted(self, number: int) -> bool:
        """Whether all of its answers were cancelled."""
        search = self._running[number]
        return len(search.cancelled) == search.request.params.n

    def step(self, rows: Sequence[Row], logits: Tensor, start: Callable[[Row], Start | None]
             ) -> tuple[Forks, list[Token]]:                                  # (C, V)
        """All searches whose beams are among these rows: the beams that go on, and the tokens of those that are over.
        """
        places, forks, tokens = {row: i for i, row in enumerate(rows)}, dict[Row, Beams](), list[Token]()
        for first in rows:
            if first is not first.beams[0]:
                continue
            search = self._running[first.number]
            search.start = search.start or start(first)
            index = torch.tensor([places[row] for row in first.beams], device=self.device)
            try:
                kept = self._beams(search).step(logits[index])
            except RequestError as error:
                kept, says = [], str(error)
                tokens += [Token(first.number, n, None, "error", error=says) for n in self._wanted(search)]
            else:
                tokens += [] if kept else self._told(first.number, search)
            forks[first] = [(first.beams[place], token) for place, token in kept]
        return forks, tokens

    def _beams(self, search: _Search) -> BeamSearch:
        if search.beams is None:
            request = search.request
            search.beams = BeamSearch(request.ids, request.params, search.room, request.stop_ids, self.vocab_size,
                                      self.device, request.min_tokens)
        return search.beams

    @staticmethod
    def _wanted(search: _Search) -> list[int]:
        return [n for n in range(search.request.params.n) if n not in search.cancelled]

    def _told(self, number: int, search: _Search) -> list[Token]:
        outputs, tokens = self._beams(search).outputs(), list[Token]()
        for sample in self._wanted(search):
            tokens += _tokens(number, sample, outputs[sample], None if tokens else search.start)
        return tokens


def _tokens(number: int, sample: int, output: Output, start: Start | None) -> list[Token]:
    last = len(output.ids) - 1
    logprobs: Sequence[float | None] = output.logprobs or [None] * len(output.ids)
    tops = output.top_logprobs or [()] * len(output.ids)
    return [Token(number, sample, id, output.finish if i == last else None, logprobs[i], tops[i],
                  None if i else start, score=output.score if i == last else None)
            for i, id in enumerate(output.ids)]
