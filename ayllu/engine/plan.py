"""What the scheduler (scheduler.py) and those who compute for it tell each other: rows, one step's plan, what came
of it.

A row is one sample of a request, or one beam. It has ids (the prompt, then what was chosen) and a number of them that
are computed; the rest is pending. Free of torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from ayllu.engine.pages import PageKey
from ayllu.engine.request import Request


@dataclass(eq=False)
class Row:
    """One sample of a request, or one beam."""

    number: int                                          # of the request, as `submit` gave it
    sample: int
    request: Request
    ids: list[int]                                       # prompt and answer
    room: int                                            # tokens that the answer may still get
    rank: float
    root: bytes                                          # where the chain of its page keys begins
    computed: int = 0                                    # ids whose keys and values lie in the pages
    cached: int | None = None                            # prompt ids found in the prefix cache at first admission
    pages: list[int] = field(default_factory=list)
    n_published: int = 0                                 # of them, those that the pool knows as a prefix
    keys: list[PageKey] = field(default_factory=list)    # of full pages, made as far as they were needed
    followers: list["Row"] = field(default_factory=list)  # samples that wait for this one's prompt, or other beams
    beams: list["Row"] = field(default_factory=list)     # of its search, itself among them; empty: it's none
    draft: list[int] = field(default_factory=list)       # guesses at the next ids, to be checked in one step

    @property
    def n_pending(self) -> int:
        """Ids that are not computed yet."""
        return len(self.ids) - self.computed

    @property
    def n_prompt(self) -> int:
        """Ids of the prompt."""
        return len(self.request.ids)

    @property
    def members(self) -> list["Row"]:
        """The rows that hold pages with it, get them and lose them: those of its search, or itself."""
        return [self] if self.followers or not self.beams else self.beams

    @property
    def n_seats(self) -> int:
        """What it takes of max_rows; the first beam takes what all may need."""
        return 1 if not self.beams else self.request.params.num_beams if self is self.beams[0] else 0

    @cached_property
    def order(self) -> tuple[float, int, int]:
        """Who comes first; the same as long as it lives."""
        return self.rank, self.number, self.sample


class Work(NamedTuple):
    """Compute ids `begin` to `end` of a row, then `draft`. If that reaches its last id, choose the next id of each of
    `choosers`: the row itself, and on the first time the samples that share its prompt."""

    row: Row
    begin: int
    end: int
    draft: tuple[int, ...] = ()
    choosers: tuple[Row, ...] = ()

    @property
    def n_tokens(self) -> int:
        """What it costs of the budget."""
        return self.end - self.begin + len(self.draft)


@dataclass(frozen=True)
class Plan:
    """One step: first copy pages (source, target), then compute; `commit` says what came of it."""

    work: tuple[Work, ...]
    copies: tuple[tuple[int, int], ...]

    @property
    def n_tokens(self) -> int:
        """Tokens that this step computes."""
        return sum(work.n_tokens for work in self.work)


class Chosen(NamedTuple):
    """What one row got in a step: ids, of which the first `n_drafted` were in its draft, and whether it is over."""

    ids: Sequence[int]
    is_over: bool
    n_drafted: int = 0


Forks = Mapping[Row, Sequence[tuple[Row, int]]]          # first beam -> beams that go on, each with its next id


@dataclass
class Counts:
    """What happened since the start."""

    preempted: int = 0
    computed_tokens: int = 0
    prompt_tokens: int = 0                               # of prompts that were read, once for each
    cached_tokens: int = 0                               # of them, those found in the prefix cache
    drafted_tokens: int = 0                              # guesses that were checked
    accepted_tokens: int = 0                             # of them, those that were right
