"""Decoding steps as CUDA graphs: one recording for each number of rows on a ladder, replayed with other numbers in its
buffers. A step of a 7B model is over a thousand small operations; a graph gives them to the GPU in one call.

A step of n rows takes the lowest rung that has room. Rows that are too many are filled up with a row of one token that
writes to and reads from the scratch page, which nobody else has. Steps that have other work (chunks of prompts,
guesses, adapters) or more rows than the ladder has are not recorded: `hidden` gives None, and the caller goes another
way.

What records is an argument. `CudaRecorder` needs a GPU (it ran on an H100 on 2026-11-27, with torch 2.11); elsewhere
the tests record on the CPU, by a tracer that replays the same operations on the same buffers and runs no line of Python
again (tests/engine/test_graphs.py).

R rows of the longest rung  N rows of a rung  W pages of a full context  D width
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
        self.filler = torch.tensor([[0], [0], [slot]], dtype=torch.int32)     # id, position, slot
        # All that changes from step to step lies in one buffer, which goes to the GPU in one copy. It is pinned, so
        # that nobody waits for the copy: what was chosen is read back before the next step is filled in.
        n = max_rows * (7 + self.width)
        self.here = torch.zeros(n, dtype=torch.int32, pin_memory=device.type == "cuda")
        self.there = torch.zeros(n, dtype=torch.int32, device=device)
        self._replays: dict[int, Replay] = {}
        self._is_full = False

    @property
    def nbytes(self) -> int:
        """Bytes of the buffers and of what was recorded."""
        return self.record.nbytes + self.there.numel() * self.there.element_size()

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
        numbers, tiles, table = self._parts(self.here, rung)
        for row, new in zip(numbers, (batch.ids, batch.positions, batch.slots), strict=True):
            row[:n] = new
        numbers[:, n:] = self.filler
        tiles.copy_(torch.tensor([(i, 1, batch.singles[i].start if i < n else 0, i) for i in range(rung)]))
        pages = table_of(batch.singles, self.views.cache.page_size)
        table[:n, :pages.shape[1]] = pages                                    # what stands behind is read by no row
        table[n:, 0] = self.scratch
        n_used = 7 * self.rungs[-1] + rung * pages.shape[1]
        self.there[:n_used].copy_(self.here[:n_used], non_blocking=True)

    def _parts(self, buffer: Tensor, rung: int) -> tuple[Tensor, Tensor, Tensor]:
        """Ids, positions and slots (3, N), tiles (N, 4) and table (N, W). The table is last and lies column by column,
        so that what short rows need of it stands at its beginning."""
        R = self.rungs[-1]
        return (buffer[:3 * R].view(3, R)[:, :rung], buffer[3 * R:7 * R].view(R, 4)[:rung],
                buffer[7 * R:][:rung * self.width].view(self.width, rung).T)

    def _record(self, rung: int) -> bool:
        numbers, tiles, table = self._parts(self.there, rung)
        n_parts = self.views.n_parts(rung, self.width * self.views.cache.page_size)
        reads = Reads(tiles, table, 1, n_parts)

        def step() -> Tensor:
            ids, positions, slots = numbers.long()
            return self.runner.flat(ids, positions, self.views.layers(slots, (reads,)))

        try:
            self._replays[rung] = self.record(step)
        except torch.OutOfMemoryError:
            say(f"no memory left to record a step of {rung} rows: such steps go on without CUDA graphs; "
                "a smaller cache_mib leaves more, cuda_graphs='off' records none")
            self._is_full = True
            return False
        return True


def ladder(most: int) -> tuple[int, ...]:
    """1, 2, 4, 8 and so on, and `most` itself."""
    return (*(1 << i for i in range((most - 1).bit_length())), most)
