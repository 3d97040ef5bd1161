"""Requests outlive the replica that answers them: replicas that die at every point, without Ray."""

import asyncio
from dataclasses import replace

import pytest
from engine.small import TIGHT, model_of, requests_of

from ayllu.engine.engine import Engine
from ayllu.engine.far import MOST_LOST, FarEngine, FarService, Lost
from ayllu.engine.request import Request
from ayllu.engine.service import Service
from ayllu.errors import ContextTooLong, EngineFailed, Overloaded, Refused
from ayllu.model.params import SamplingParams


class Dying:
    """A real engine as a replica; the answers to its first `lives` calls break off after `after` lists of tokens."""

    def __init__(self, service, lives, after, error=None):
        self.service, self.lives, self.after, self.error = service, lives, after, error or Lost("gone")
        self.requests, self.n_cancelled = [], 0

    def answer(self, request):
        self.requests.append(request)
        return Dying.Answer(self, request, self.after if len(self.requests) <= self.lives else None)

    async def embed(self, ids, adapter):
        self.requests.append(ids)
        if len(self.requests) <= self.lives:
            raise self.error
        return [1.0]

    class Answer:
        def __init__(self, replica, request, after):
            self.replica, self.request, self.left, self.stream = replica, request, after, None

        async def __anext__(self):
            if self.left == 0:
                raise self.replica.error
            self.left = None if self.left is None else self.left - 1
            if self.stream is None:
                self.stream = await self.replica.service.submit(self.request)
                return []
            return [await anext(self.stream)]

        def cancel(self):
            self.replica.n_cancelled += 1
            if self.stream is not None:
                self.stream.cancel()


def far(replicas):
    return FarService(None, replicas, again_s=0)         # what the engines are is not asked here


async def rows_of(stream):
    rows = {}
    async for token in stream:
        rows.setdefault(token.sample, []).append((token.id, token.finish))
    return rows


def served(play, **settings):
    async def main():
        async with Service(Engine(model_of("gqa"), TIGHT.model_copy(update=settings))) as service:
            return await play(service)
    return asyncio.run(main())


DRAWN = Request((5, 9, 13), SamplingParams(temperature=1, max_tokens=12, seed=3, n=2), eos_ids=(2,))


@pytest.mark.parametrize("after", [0, 1, 2, 9, 20])
def test_an_answer_is_the_same_wherever_its_replica_dies(after):
    """Queued or not, between the tokens of two samples, and twice in a row."""
    async def play(service):
        whole = await rows_of(await service.submit(DRAWN))
        replicas = Dying(service, 2, after)
        assert await rows_of(await far(replicas).submit(DRAWN)) == whole
        assert len(replicas.requests) == 3
        return whole
    whole = served(play)
    assert sum(map(len, whole.values())) > 20            # so that every `after` is within it


def test_what_has_no_seed_gets_one_before_the_first_try():
    async def play(service):
        replicas = Dying(service, 1, 5)
        stream = await far(replicas).submit(Request((5, 9), SamplingParams(temperature=1, max_tokens=12)))
        rows = await rows_of(stream)
        assert [r.params.seed for r in replicas.requests] == [stream.seed] * 2
        assert rows == await rows_of(await service.submit(replicas.requests[0]))
    served(play)


def test_many_at_once():
    async def play(service):
        requests = requests_of(12)
        whole = [await rows_of(await service.submit(r)) for r in requests]
        streams = [await far(Dying(service, 1, i)).submit(r) for i, r in enumerate(requests)]
        assert await asyncio.gather(*map(rows_of, streams)) == whole
    served(play)


def test_another_text_is_an_error_and_never_a_splice():
    """As if the second replica had other weights."""
    async def play(service):
        replicas = Dying(service, 1, 15)
        stream = await far(replicas).submit(DRAWN)
        stream._request = replace(DRAWN, ids=(70, 80, 90, 100))
        with pytest.raises(EngineFailed, match="deterministic: true"):
            await rows_of(stream)
        assert replicas.n_cancelled
    served(play)


def test_what_kills_every_replica_is_given_up():
    async def play(service):
        replicas = Dying(service, 99, 3)
        with pytest.raises(EngineFailed, match="one after the other"):
            await rows_of(await far(replicas).submit(DRAWN))
        assert len(replicas.requests) == MOST_LOST
        assert await far(Dying(service, 2, 0)).embed([1], None) == [1.0]
        with pytest.raises(EngineFailed, match="one after the other"):
            await far(Dying(service, 99, 0)).embed([1], None)
    served(play)


def test_errors_of_the_request_are_raised_before_any_token():
    async def play(service):
        full = Dying(service, 1, 0, Overloaded("full"))
        with pytest.raises(Overloaded):
            await far(full).submit(DRAWN)
        assert len(full.requests) == 1
        with pytest.raises(ContextTooLong):
            await far(Dying(service, 0, 0)).submit(Request(tuple(range(3, 100))))
        broken = Dying(service, 1, 4, EngineFailed("a broken engine"))       # which its health check will replace
        assert await rows_of(await far(broken).submit(DRAWN)) == await rows_of(await service.submit(DRAWN))
    served(play)


def test_a_full_second_replica_is_waited_for():
    class Full(Dying):
        def answer(self, request):
            self.error = Overloaded("full") if self.requests else Lost("gone")
            return super().answer(request)

    async def play(service):
        replicas = Full(service, 2 * MOST_LOST, 4)
        stream = await far(replicas).submit(DRAWN)
        assert await rows_of(stream) == await rows_of(await service.submit(DRAWN))
    served(play)


def test_who_leaves_frees_the_pages():
    async def play(service):
        free = service.engine.scheduler.pool.n_free
        replicas = Dying(service, 0, 0)
        stream = await far(replicas).submit(replace(DRAWN, params=DRAWN.params.model_copy(update={"max_tokens": 80})))
        reader = asyncio.ensure_future(rows_of(stream))
        await asyncio.sleep(0.01)
        stream.cancel(0)
        assert not replicas.n_cancelled                  # the other sample goes on
        stream.cancel()
        rows = await asyncio.wait_for(reader, 5)
        assert all(len(row) < 80 for row in rows.values())
        await service.call(lambda: None)
        assert service.engine.scheduler.pool.n_free == free
    served(play, prefix_cache=False)


def test_adapters_do_not_change():
    service = FarService(FarEngine(None, None, 0, None, None, None), None)
    with pytest.raises(Refused, match="deployment file"):
        asyncio.run(service.unload_adapter("fox"))
    with pytest.raises(Refused, match="deployment file"):
        asyncio.run(service.load_adapter("fox", None, replace=True))


def test_a_replica_that_ends_too_early():
    async def play(service):
        replicas = Dying(service, 1, 4, StopAsyncIteration())
        assert await rows_of(await far(replicas).submit(DRAWN)) == await rows_of(await service.submit(DRAWN))
    served(play)
