"""The asyncio face of the engine: many readers, readers that leave, a queue that is full, an engine that breaks."""

import asyncio
import random

import pytest
from engine.small import TIGHT, ids_of, model_of, requests_of, run

from ayllu.engine.engine import Engine, EngineSettings
from ayllu.engine.request import Request
from ayllu.engine.service import Service
from ayllu.errors import ContextTooLong, EngineFailed, Overloaded
from ayllu.model.params import SamplingParams

LONG = Request((5, 6, 7), SamplingParams(max_tokens=90, temperature=0))


async def read(service, request):
    async with await service.submit(request) as stream:
        return [token.id async for token in stream]


def test_many_readers_get_what_the_engine_gives():
    requests = requests_of(12)
    want = ids_of(run(Engine(model_of("gqa"), TIGHT), requests))

    async def main():
        async with Service(Engine(model_of("gqa"), TIGHT)) as service:
            return await asyncio.gather(*[read(service, request) for request in requests])

    got = asyncio.run(main())
    assert got == [want[i, 0] for i in range(12)]


def test_readers_that_leave_free_their_pages():
    async def main():
        engine = Engine(model_of("gqa"), TIGHT)
        async with Service(engine) as service:
            async with await service.submit(LONG) as stream:
                await anext(stream)                      # then it leaves
            reader = asyncio.create_task(read(service, LONG))
            await asyncio.sleep(0.02)
            reader.cancel()                              # as a server does with a client that is gone
            early = asyncio.create_task(service.submit(LONG))
            await asyncio.sleep(0)
            early.cancel()                               # before there was a stream
            for _ in range(200):
                if await service.call(lambda: engine.is_idle):
                    break
                await asyncio.sleep(0.01)
            assert await service.call(lambda: engine.scheduler.pool.n_free) == 30
            assert not service._readers

    asyncio.run(main())


def test_one_sample_is_cancelled():
    async def main():
        async with Service(Engine(model_of("gqa"), TIGHT)) as service:
            request = Request((5, 6), SamplingParams(n=2, max_tokens=30))
            finishes = {}
            async with await service.submit(request) as stream:
                async for token in stream:
                    if token.finish is None and token.sample == 1:
                        stream.cancel(1)
                    elif token.finish is not None:
                        finishes[token.sample] = token.finish
            return finishes

    assert asyncio.run(main()) == {0: "length", 1: "cancelled"}


def test_errors_come_before_the_first_token():
    async def main():
        async with Service(Engine(model_of("gqa"), EngineSettings(max_waiting=0))) as service:
            with pytest.raises(ContextTooLong):
                await service.submit(Request((1,) * 200))
            with pytest.raises(Overloaded):
                await service.submit(LONG)
        with pytest.raises(Overloaded, match="shutting down"):
            await service.submit(LONG)

    asyncio.run(main())


def test_draining_waits_and_then_cancels():
    async def main():
        service = Service(Engine(model_of("gqa"), TIGHT))
        service.start()
        streams = [await service.submit(LONG) for _ in range(2)]
        await service.drain()
        return [[token.finish async for token in stream][-1] for stream in streams]

    async def hurried():
        service = Service(Engine(model_of("gqa"), TIGHT))
        service.start()
        stream = await service.submit(LONG)
        await service.drain(timeout_s=0)
        return [token.finish async for token in stream][-1]

    assert asyncio.run(main()) == ["length", "length"]
    assert asyncio.run(hurried()) == "cancelled"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_broken_engine_ends_every_stream():
    async def main():
        engine = Engine(model_of("gqa"), TIGHT)
        async with Service(engine) as service:
            stream = await service.submit(LONG)
            await service.call(lambda: setattr(engine, "runner", None))
            with pytest.raises(EngineFailed, match="AttributeError"):
                async for _ in stream:
                    pass
            with pytest.raises(EngineFailed):
                await service.submit(LONG)

    asyncio.run(main())


@pytest.mark.slow
def test_10000_dropped_streams_leave_the_pool_as_it_was():
    """Readers leave before, while and after their prompt is read, some in the middle of being taken in."""
    rng = random.Random(0)
    requests = requests_of(50)

    async def drop(service, request):
        reader = asyncio.create_task(read(service, request))
        await asyncio.sleep(rng.choice([0, 0, 0.001, 0.01, 0.05]))
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)

    async def main():
        engine = Engine(model_of("gqa"), TIGHT)
        async with Service(engine) as service:
            for _ in range(500):
                await asyncio.gather(*[drop(service, rng.choice(requests)) for _ in range(20)])
            async with asyncio.timeout(1):               # what was asked for last is over within a second
                while not await service.call(lambda: engine.is_idle):
                    await asyncio.sleep(0.01)
            pool = engine.scheduler.pool
            assert await service.call(lambda: (pool.n_free, pool.refs)) == (30, [0] * 30)
            assert not service._readers
            assert not engine._requests
            assert not engine._places
            assert engine.scheduler._n_requests == 10_000
            assert ids_of(run(Engine(model_of("gqa"), TIGHT), requests[:1]))[0, 0] == await read(service, requests[0])

    asyncio.run(main())
