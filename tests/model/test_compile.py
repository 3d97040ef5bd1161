"""`Attend` as an argument under torch.compile: how many graphs the blocks need, and that they compute the same.

Each block is compiled by itself with fullgraph=True, so a break in the graph is an error. docs/architecture.md has what
was found; these tests hold it.
"""

import shutil
import sys
from dataclasses import dataclass

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from ayllu.model.attend import Causal, packed, sdpa
from ayllu.model.build import build_model
from ayllu.model.cache import DenseCache
from ayllu.model.config import LlamaConfig, TransformerConfig

SHAPE = {"dim": 32, "n_layers": 4, "n_heads": 4, "n_kv_heads": 2, "head_dim": 8, "hidden_dim": 48, "vocab_size": 101}
CHUNKS = [10, *[1] * 14]                                 # a prompt, then token by token
CLOSE = {"atol": 1e-5, "rtol": 1e-4}                     # inductor sums in another order, differently on each processor
PAGE = 8                                                 # tokens

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler for inductor"),
    pytest.mark.skipif(sys.version_info >= (3, 14), reason="Python is newer than torch.compile knows")]


def pair(kind=LlamaConfig):
    """An eager model, the same one with compiled blocks, and the counter of the graphs that these make."""
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("inductor")
    models = []
    for _ in range(2):
        torch.manual_seed(0)
        models.append(build_model(kind(**SHAPE)).eval())
    for block in models[1].layers:
        block.compile(fullgraph=True, backend=counter)
    return *models, counter


def random_ids():
    return torch.randint(0, 101, (2, sum(CHUNKS)), generator=torch.Generator().manual_seed(0))


def causal(ids):
    return [Causal() for _ in range(4)]


def windows(ids):
    return [Causal(6), Causal(), Causal(6), Causal()]


def documents(ids):
    number = (torch.arange(ids.shape[1]) >= 9).long().expand_as(ids)
    return [packed(number) for _ in range(4)]


@pytest.mark.parametrize("kind", [LlamaConfig, TransformerConfig])
@pytest.mark.parametrize(("attends", "n_graphs"), [(causal, 1), (documents, 1), (windows, 2)])
def test_one_graph_serves_all_blocks(kind, attends, n_graphs):
    """Four blocks with four attend objects: a graph for each way to attend, not for each block."""
    eager, compiled, counter = pair(kind)
    ids = random_ids()
    with torch.inference_mode():
        torch.testing.assert_close(compiled(ids, None, attends(ids)), eager(ids, None, attends(ids)), **CLOSE)
        compiled(ids, None, attends(ids))                # new objects of the same kind: no new graph
    assert counter.frame_count == n_graphs


def test_gradients_through_compiled_blocks():
    eager, compiled, counter = pair()
    for model in (eager, compiled):
        model.train()(random_ids()).logsumexp(-1).sum().backward()
    assert counter.frame_count == 1
    for (name, ours), theirs in zip(compiled.named_parameters(), eager.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-4, rtol=1e-3, msg=name)


def test_dense_cache():
    """The growing slice makes torch start over with symbolic sizes; then no step needs a new graph."""
    eager, compiled, counter = pair()
    ids, graphs, out = random_ids(), [], []
    with torch.inference_mode():
        cache = DenseCache(eager.config, [0, 0], 64, dtype=torch.float32, device=torch.device("cpu"))
        for chunk in ids.split(CHUNKS, dim=1):
            out.append(compiled(chunk, cache.extend(chunk.shape[1]), cache.attends))
            graphs.append(counter.frame_count)
        torch.testing.assert_close(torch.cat(out, dim=1), eager(ids), **CLOSE)
    assert graphs[-1] == graphs[1] <= 4, graphs


@dataclass(frozen=True, eq=False)
class PageView:
    """A prototype of the engine's view: one layer's pages, where to write, which pages to read, what is seen.

    It holds tensors only, no layer number and no length: that is why one graph serves all layers and all steps.
    """

    keys: torch.Tensor                                   # (P, page, K, E)
    values: torch.Tensor                                 # (P, page, K, E)
    slots: torch.Tensor                                  # (B, T): page * page size + place
    table: torch.Tensor                                  # (B, pages of a row)
    mask: torch.Tensor                                   # (1, 1, T, S)

    def __call__(self, q, k, v):
        K, E = k.shape[-2:]
        self.keys.view(-1, K, E)[self.slots] = k
        self.values.view(-1, K, E)[self.slots] = v
        keys, values = self.keys[self.table].flatten(1, 2), self.values[self.table].flatten(1, 2)   # (B, S, K, E)
        return sdpa(q, keys, values, mask=self.mask)


def through_pages(model, ids, after_step):
    pool = torch.zeros(4, 2, 16, PAGE, 2, 8)             # (L, 2, P, page, K, E)
    table = torch.tensor([[3, 7, 1], [5, 2, 9]])
    out, done = [], 0
    for chunk in ids.split(CHUNKS, dim=1):
        positions = torch.arange(done, done + chunk.shape[1])
        slots = table[:, positions // PAGE] * PAGE + positions % PAGE
        mask = (torch.arange(table.shape[1] * PAGE) <= positions[:, None])[None, None]
        views = [PageView(pool[layer, 0], pool[layer, 1], slots, table, mask) for layer in range(4)]
        out.append(model(chunk, positions, views))
        done += chunk.shape[1]
        after_step()
    return torch.cat(out, dim=1)


def test_page_views():
    """Views of a page pool, written in place inside the graph: one graph for the prompt, one for all later steps."""
    eager, compiled, counter = pair()
    ids, graphs = random_ids(), []
    with torch.inference_mode():
        whole = eager(ids)
        torch.testing.assert_close(through_pages(eager, ids, lambda: None), whole, **CLOSE)
        found = through_pages(compiled, ids, lambda: graphs.append(counter.frame_count))
    torch.testing.assert_close(found, whole, **CLOSE)
    assert graphs == [1, *[2] * 14]
