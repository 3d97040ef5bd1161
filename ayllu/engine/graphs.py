"""Decoding steps as CUDA graphs: one recording for each number of rows on a ladder, replayed with other numbers in its
buffers. A step of a 7B model is over a thousand small operations; a graph gives them to the GPU in one call.

A step of n rows takes the lowest rung that has room. Rows that are too many are filled up with a row of one token that
writes to and reads from the scratch page, which nobody else has. Steps that have other work (chunks of prompts,
guesses, adapters) or more rows than the ladder has are not recorded: `hidden` gives None, and the caller goes another
way.

What records is an argument. `CudaRecorder` needs a GPU and has never met one; the tests record on the CPU, by a tracer
that replays the same operations on the same buffers and runs no line of Python again (tests/engine/test_graphs.py).

N rows of a rung  W pages of a full context  D width
"""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from ayllu.engine.batch import FlatBatch
from ayllu.engine.reads import Reads, TableViews, table_of
from ayllu.log import say
from ayllu.model.step import Runner

Replay = Callable[[], Tensor]


class Recorder(Protocol):
    """Takes a function that reads and writes buffers which never move; gives one that does the same, whose result lies
    where the next replay will write."""

    @property
    def nbytes(self) -> int: ...

    def __call__(self, function: Replay) -> Replay: ...


class CudaRecorder:
    """CUDA's own graphs, which share one pool of memory, since only one is replayed at a time."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.nbytes = device, 0
        self.stream, self.pool = torch.cuda.Stream(device), torch.cuda.graph_pool_handle()

    def __call__(self, function: Replay) -> Replay:
        """Run once, so that kernels are compiled and workspaces are there, then record."""
        before = torch.cuda.memory_reserved(self.device)
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.stream):
            function()
        torch.cuda.current_stream(self.device).wait_stream(self.stream)
        graph = torch.cuda.CUDAGraph()
        # other threads may use the GPU meanwhile: a server's do
        with torch.cuda.graph(graph, pool=self.pool, stream=self.stream, capture_error_mode="thread_local"):
            found = function()
        self.nbytes += torch.cuda.memory_reserved(self.device) - before

        def replay() -> Tensor:
            graph.replay()
            return found

        return replay


class DecodeGraphs:
    """Computes steps in which each row has one new token. A rung is recorded when it is first needed."""

    def __init__(self, runner: Runner, views: TableViews, context: int, max_rows: int, record: Recorder) -> None:
        """The last page of the cache is the scratch page."""
        self.runner, self.views, self.record = runner, views, record
        self.rungs = ladder(max_rows)
        cache, device = views.cache, runner.device
        self.scratch = cache.n_pages - 1
        self.width = -(-context // cache.page_size)
        slot = self.scratch * cache.page_size
        self.filler = torch.tensor([[0], [0], [slot]], device=device)         # id, position, slot
        self.numbers = self.filler.repeat(1, max_rows)                        # (3, N)
        self.tiles = torch.zeros(max_rows, 4, dtype=torch.int32, device=device)
        self.table = torch.full((max_rows, self.width), self.scratch, dtype=torch.int32, device=device)   # (N, W)
        self._replays: dict[int, Replay] = {}
        self._is_full = False

    @property
    def nbytes(self) -> int:
        """Bytes of the buffers and of what was recorded."""
        return self.record.nbytes + sum(x.numel() * x.element_size() for x in (self.numbers, self.tiles, self.table))

    def hidden(self, batch: FlatBatch) -> Tensor | None:                      # (N, D), good until the next call
        """What `logits` takes, for all tokens; None where no recording serves."""
        n = len(batch.singles)
        rung = next((rung for rung in self.rungs if rung >= n), None)
        if batch.chunks or rung is None or (self._is_full and rung not in self._replays):
            return None
        self._fill(batch, rung)
        if rung not in self._replays and not self._record(rung):
            return None
        return self._replays[rung]()[:n]

    def _fill(self, batch: FlatBatch, rung: int) -> None:
        n = len(batch.singles)
        for numbers, new in zip(self.numbers, (batch.ids, batch.positions, batch.slots), strict=True):
            numbers[:n].copy_(new)
        self.numbers[:, n:rung] = self.filler
        tiles = [(i, 1, batch.singles[i].start if i < n else 0, i) for i in range(rung)]
        self.tiles[:rung].copy_(torch.tensor(tiles, dtype=torch.int32))
        table = table_of(batch.singles, self.views.cache.page_size)
        self.table[:n, :table.shape[1]].copy_(table)                          # what stands behind is read by no row
        self.table[n:rung, 0] = self.scratch

    def _record(self, rung: int) -> bool:
        ids, positions, slots = self.numbers[:, :rung]
        n_parts = self.views.n_parts(rung, self.width * self.views.cache.page_size)
        reads = Reads(self.tiles[:rung], self.table[:rung], 1, n_parts)
        attends = self.views.layers(slots, (reads,))
        try:
            self._replays[rung] = self.record(lambda: self.runner.flat(ids, positions, attends))
        except torch.OutOfMemoryError:
            say(f"no memory left to record a step of {rung} rows: such steps go on without CUDA graphs; "
                "a smaller cache_mib leaves more, cuda_graphs='off' records none")
            self._is_full = True
            return False
        return True


def ladder(most: int) -> tuple[int, ...]:
    """1, 2, 4, 8 and so on, and `most` itself."""
    return (*(1 << i for i in range((most - 1).bit_length())), most)
