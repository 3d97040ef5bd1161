"""Images and sounds in the engine against its slow twin: the plain model, whose embeddings are replaced by hand."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from engine.small import TIGHT, ids_of, model_of, requests_of, run

from ayllu.engine.engine import Engine, EngineSettings
from ayllu.engine.request import Media, Request
from ayllu.engine.runner import make_runner
from ayllu.errors import RequestError
from ayllu.model.generate import Generation
from ayllu.model.params import SamplingParams

MARK = 3


def picture(seed, n, scale=1.0):
    rng = np.random.default_rng(seed)
    return Media(0, n, seed.to_bytes(2, "little"), (scale * rng.standard_normal((n, 32))).astype(np.float32))


def shown(request, *places):
    """The request with pictures (seed, n features) put in at these places of its prompt."""
    ids, media = list(request.ids), []
    for at, _, n in sorted(places, reverse=True):
        ids[at:at] = [MARK] * n
    grown = 0
    for at, seed, n in sorted(places):
        media.append(replace(picture(seed, n), start=at + grown))
        grown += n
    return replace(request, ids=tuple(ids), media=tuple(media))


def requests_with_pictures(n):
    """Two in three have a picture or two, often the same in the same place, or the last thing of the prompt."""
    rng, out = random.Random(5), []
    for request in requests_of(n):
        places = [(0, 1, 5), (rng.choice([min(4, len(request.ids)), len(request.ids)]), rng.choice([2, 3]), 9)]
        out.append(shown(request, *places[rng.randrange(3):]))
    return out


def naive(model, request):
    """Greedy, no cache, all embeddings computed and replaced at each step."""
    ids, n = list(request.ids), len(request.ids)
    with torch.inference_mode():
        while len(ids) - n < request.params.max_tokens and (len(ids) == n or ids[-1] not in request.eos_ids):
            x = model.embed(torch.tensor([ids]))
            for m in request.media:
                x[0, m.start:m.start + m.length] = torch.from_numpy(m.features)
            ids.append(int(model.logits(model.trunk(x))[0, -1].argmax()))
    return ids[n:]


@pytest.mark.parametrize("more", [{}, {"deterministic": True}], ids=["", "tiles"])
@pytest.mark.parametrize("name", ["gqa", "mistral", "transformer"])
def test_greedy_ids_are_those_of_the_plain_model(name, more):
    """In chunks that cut pictures, with rows preempted and computed again, and pages of equal pictures shared.
    float32: equal ids, not merely close ones."""
    requests = requests_with_pictures(18)
    want = {(i, 0): naive(model_of(name), request) for i, request in enumerate(requests)}
    engine = Engine(make_runner(model_of(name)), TIGHT.model_copy(update=more))
    assert ids_of(run(engine, requests)) == want
    assert engine.scheduler.counts.preempted > 0
    assert engine.scheduler.counts.cached_tokens > 50
    blind = [replace(request, media=()) for request in requests]
    assert ids_of(run(engine, blind)) != want            # what is shown matters


@pytest.mark.parametrize("kind", ["eager", "auto"])
@pytest.mark.parametrize("name", ["gqa", "mistral", "transformer"])
def test_generation_over_the_dense_cache_sees_the_same(name, kind):
    requests = [r for r in requests_with_pictures(9) if len(r.ids) < 50]
    runner = make_runner(model_of(name), kind)
    shows = [[(m.start, torch.from_numpy(m.features)) for m in r.media] for r in requests]
    params = [r.params for r in requests]
    generation = Generation(runner, [r.ids for r in requests], params, (2,), shows)
    while generation.step():
        pass
    assert [[t.id for t in row.tokens] for row in generation.rows] == [naive(model_of(name), r) for r in requests]


def test_the_same_picture_shares_pages_and_another_one_does_not():
    engine = Engine(model_of("gqa"), TIGHT)
    plain = Request(tuple(range(4, 24)), SamplingParams(temperature=0, max_tokens=2))
    cached = [run(engine, [shown(plain, (2, seed, 8))])[0, 0][0].start.cached_tokens for seed in (7, 7, 8)]
    assert cached == [0, 24, 0]                          # pages of 4 tokens; the last of 28 is never taken from them


def test_samples_and_beams_see_it_too():
    model = model_of("gqa")
    params = SamplingParams(n=3, seed=1, max_tokens=6, temperature=0.9)
    request = shown(Request(tuple(range(4, 9)), params), (5, 7, 8))
    passage = (5, torch.from_numpy(request.media[0].features))
    generation = Generation(model, [request.ids], request.params, (), [[passage]])
    while generation.step():
        pass
    got = ids_of(run(Engine(model, TIGHT), [request]))
    assert [got[0, i] for i in range(3)] == [[t.id for t in row.tokens] for row in generation.rows]
    beams = replace(request, params=SamplingParams(num_beams=2, n=1, max_tokens=4, temperature=0))
    assert ids_of(run(Engine(model, TIGHT), [beams])) != ids_of(run(Engine(model, TIGHT), [replace(beams, media=())]))


def test_texts_give_the_same_bits_beside_pictures():
    """Steps of one row: what it is computed with is not part of this promise (tiles.py makes it)."""
    texts = [replace(r, params=r.params.model_copy(update={"logprobs": 3})) for r in requests_of(4)]
    bare, seeing = (Engine(make_runner(model_of("gqa")), EngineSettings(n_pages=60, page_size=4)) for _ in range(2))
    run(seeing, [shown(texts[0], (0, 7, 8))])
    for text in texts:
        one, other = ([(t.id, t.logprob, t.top) for t in run(engine, [text])[0, 0]] for engine in (bare, seeing))
        assert one == other


def test_what_does_not_fit_is_refused():
    ids = (5, MARK, MARK, MARK, 6)
    three = picture(1, 3)
    with pytest.raises(RequestError, match="3 features and 2 placeholders"):
        Request(ids, media=(replace(three, start=1, length=2),))
    for wrong in ((replace(three, start=3),), (replace(three, start=1), replace(three, start=2))):
        with pytest.raises(RequestError, match="follow one another"):
            Request(ids, media=wrong)
    engine = Engine(model_of("gqa"), TIGHT)
    for features in (three.features[:, :31], np.full((3, 32), np.nan, np.float32)):
        with pytest.raises(RequestError, match=r"reads finite ones of \(3, 32\)"):
            engine.submit(Request(ids, media=(replace(three, start=1, features=features),)))
