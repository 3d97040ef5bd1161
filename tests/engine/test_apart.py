"""The engine behind a pipe gives what it gives in the same process. Here its side of the pipe is a thread."""

import asyncio
import contextlib
import socket
import threading
from multiprocessing.connection import Connection

import pytest
import torch
from engine.small import TIGHT, model_of, requests_of, run

from ayllu.engine.apart import Asking, Desk
from ayllu.engine.engine import Engine
from ayllu.engine.far import FarCache, FarEngine, FarRunner, FarShelf
from ayllu.engine.request import Grammar, Request
from ayllu.engine.service import Service
from ayllu.errors import ContextTooLong, EngineFailed, Overloaded, RequestError
from ayllu.model.params import SamplingParams

LONG = Request((5, 6, 7), SamplingParams(max_tokens=90, temperature=0))


@contextlib.asynccontextmanager
async def apart(engine, max_wait_s=None):
    """`Asking`, and the desk's thread at the other end."""
    here, there = socket.socketpair()
    desk = Desk(engine, Connection(there.dup().detach()), max_wait_s)

    def work():
        with contextlib.suppress(Exception):             # told through the pipe
            desk.run()
        there.shutdown(socket.SHUT_RDWR)                 # as the end of a process does

    thread = threading.Thread(target=work)
    thread.start()
    far = FarEngine(engine.config, engine.settings, engine.context, FarRunner(torch.float32, torch.device("cpu")),
                    FarCache(0, 0), FarShelf({}, 0))
    asking = Asking(far, Connection(here.detach()), lambda wait_s: "with code 0")
    asking.start()
    try:
        yield asking, desk
    finally:
        await asking.drain(5)
        await asyncio.to_thread(thread.join, 5)


async def read(service, request):
    async with await service.submit(request) as stream:
        return [token.id async for token in stream]


def test_it_gives_what_the_engine_gives():
    requests = [*requests_of(12), Request((3, 4), SamplingParams(max_tokens=8, n=3, seed=5, logprobs=2),
                                          prompt_logprobs=1)]
    engine = Engine(model_of("gqa"), TIGHT)
    want = run(engine, requests)

    async def main():
        async with apart(Engine(model_of("gqa"), TIGHT)) as (asking, desk):
            found = await asyncio.gather(*[tokens_of(asking, request) for request in requests])
            assert (desk._tickets, desk._numbers, asking._streams) == ({}, {}, {})
            assert asking.counts().pages_free == asking.counts().pages == 30
            return found

    async def tokens_of(service, request):
        async with await service.submit(request) as stream:
            return stream.seed, [token async for token in stream]

    found = asyncio.run(main())
    assert found[-1][0] == 5
    for i, request in enumerate(requests):
        for sample in range(request.params.n):
            got = [t for t in found[i][1] if t.sample == sample]
            assert [t.id for t in got] == [t.id for t in want[i, sample]]
            assert [t.finish for t in got] == [t.finish for t in want[i, sample]]
    rich = [t for t in found[-1][1] if t.sample == 1]
    assert [t.logprob for t in rich] == pytest.approx([t.logprob for t in want[12, 1]], abs=1e-5)
    assert found[-1][1][0].start == want[12, found[-1][1][0].sample][0].start


def test_errors_come_back_as_they_are():
    async def main():
        async with apart(Engine(model_of("gqa"), TIGHT)) as (asking, _):
            with pytest.raises(ContextTooLong):
                await asking.submit(Request((5,) * 1000, SamplingParams(max_tokens=2)))
            with pytest.raises(RequestError, match="adapter"):
                await asking.unload_adapter("none")
            with pytest.raises(RequestError, match="llguidance"):
                await asking.check_grammar(Grammar("regex", "a+"))
            with pytest.raises(RequestError, match="llguidance"):
                await asking.submit(Request((5, 6), SamplingParams(max_tokens=2), grammar=Grammar("regex", "a+")))
            found = await asyncio.gather(*[asking.submit(LONG) for _ in range(TIGHT.max_rows + TIGHT.max_waiting + 40)],
                                         return_exceptions=True)
            assert isinstance(found[-1], Overloaded)

    asyncio.run(main())


def test_readers_that_leave_free_their_pages():
    async def main():
        async with apart(Engine(model_of("gqa"), TIGHT)) as (asking, desk):
            async with await asking.submit(LONG) as stream:
                await anext(stream)
                assert asking.counts().running == 1
            early = asyncio.create_task(asking.submit(LONG))
            await asyncio.sleep(0)
            early.cancel()
            for _ in range(300):
                if asking.counts().pages_free == 30 and not asking.counts().running:
                    break
                await asyncio.sleep(0.01)
            assert asking.counts().pages_free == 30
            await asyncio.sleep(0.05)
            assert (desk._tickets, asking._streams) == ({}, {})

    asyncio.run(main())


def test_one_sample_is_cancelled_and_draining_cancels_the_rest():
    async def main():
        async with apart(Engine(model_of("gqa"), TIGHT)) as (asking, _):
            stream = await asking.submit(Request((5, 6), SamplingParams(n=2, max_tokens=60, seed=1)))
            ends = {}
            stream.cancel(1)
            async for token in stream:
                if token.finish is not None:
                    ends[token.sample] = token.finish
            assert ends == {0: "length", 1: "cancelled"}
            late = await asking.submit(LONG)
            await asking.drain(0)
            with pytest.raises(Overloaded, match="shutting down"):
                await asking.submit(LONG)
            return [token.finish async for token in late][-1], asking.failure

    assert asyncio.run(main()) == ("cancelled", "")


def test_a_broken_engine_ends_every_stream():
    async def main():
        engine = Engine(model_of("gqa"), TIGHT)
        async with apart(engine) as (asking, _):
            stream = await asking.submit(LONG)
            engine.runner = None
            with pytest.raises(EngineFailed, match="AttributeError"):
                async for _ in stream:
                    pass
            with pytest.raises(EngineFailed, match="AttributeError"):
                await asking.submit(LONG)

    asyncio.run(main())


def test_embeddings_are_those_of_the_service():
    async def main():
        async with apart(Engine(model_of("gqa"), TIGHT)) as (asking, _), Service(Engine(model_of("gqa"), TIGHT)) as own:
            assert await asking.embed((5, 6, 7)) == pytest.approx(await own.embed((5, 6, 7)))

    asyncio.run(main())


def test_who_would_wait_too_long_is_refused_by_what_the_last_step_told():
    async def main():
        async with apart(Engine(model_of("gqa"), TIGHT), max_wait_s=0.001) as (asking, _):
            await read(asking, Request((5, 6), SamplingParams(max_tokens=4, temperature=0)))
            assert asking.refusal() is None
            found = await asyncio.gather(*[asking.submit(LONG) for _ in range(60)], return_exceptions=True)
            assert isinstance(found[-1], Overloaded)
            for _ in range(100):
                if asking.refusal():
                    break
                await asyncio.sleep(0.01)
            assert "wait" in asking.refusal()
            for stream in found:
                if not isinstance(stream, Overloaded):
                    stream.cancel()

    asyncio.run(main())
