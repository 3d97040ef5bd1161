"""Answers of a given form from a model that writes at random: every one has it."""

import asyncio
import json
import re

import pytest
from engine.small import run

from ayllu.checkpoint.load import load_checkpoint
from ayllu.engine.constrain import Grammars
from ayllu.engine.engine import Engine, EngineSettings
from ayllu.engine.request import Grammar, Request
from ayllu.engine.service import Service
from ayllu.errors import RequestError
from ayllu.model.params import SamplingParams

SCHEMA = {"type": "object", "properties": {"name": {"enum": ["fox", "小鸟"]}, "old": {"type": "boolean"},
                                           "size": {"type": "integer", "minimum": 0, "maximum": 99}},
          "required": ["name", "old", "size"], "additionalProperties": False}
FORMS = [Grammar("json_schema", json.dumps(SCHEMA)), Grammar("regex", r"[a-c]{3}-[0-9]{2}"),
         Grammar("choice", json.dumps(["yes", "no", 'may"be'])), Grammar("lark", 'start: ("ab" | "ba")~2')]


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint):
    return load_checkpoint(tiny_checkpoint)


@pytest.fixture(scope="module")
def grammars(checkpoint):
    return Grammars(checkpoint.tokenizer, (2,), checkpoint.config.vocab_size)


def request_of(form, seed, **more):
    params = SamplingParams(seed=seed, max_tokens=110, temperature=2.0, **more)
    return Request((1, 30, 31), params, eos_ids=(2,), grammar=form)


def has_form(form, text):
    match form.kind:
        case "json_schema":
            value = json.loads(text)
            return (set(value) == {"name", "old", "size"} and value["name"] in ("fox", "小鸟")
                    and isinstance(value["old"], bool) and 0 <= value["size"] <= 99)
        case "regex":
            return re.fullmatch(form.text, text)
        case "choice":
            return text in json.loads(form.text)
        case "lark":
            return re.fullmatch("(ab|ba){2}", text)


@pytest.mark.parametrize("n_guesses", [0, 3])
def test_every_answer_has_its_form(checkpoint, grammars, n_guesses):
    """Among requests of other forms and of none, which write what they would alone; also as several samples."""
    settings = EngineSettings(n_pages=80, page_size=4, token_budget=60, max_rows=12, n_guesses=n_guesses)
    engine = Engine(checkpoint.model, settings, grammars=grammars)
    requests = [request_of(FORMS[i % 4], i, n=2) if i % 5 else request_of(None, i) for i in range(20)]
    tokens = run(engine, requests)
    assert not engine._matchers
    seen = set()
    for (i, _), row in tokens.items():
        if requests[i].grammar is None:
            alone = run(Engine(checkpoint.model, settings), [requests[i]])
            assert [t.id for t in row] == [t.id for t in alone[0, 0]]
        else:
            assert row[-1].finish == "stop"
            assert row[-1].id == 2
            text = checkpoint.tokenizer.decode([t.id for t in row[:-1]])
            assert has_form(requests[i].grammar, text), (requests[i].grammar, text)
            seen.add((requests[i].grammar, text))
    assert len(seen) > 12


def test_an_answer_may_end_by_any_end_id(checkpoint):
    """Chat models have several; all come and go together. One past the vocabulary is passed over."""
    tokenizer, size = checkpoint.tokenizer, checkpoint.config.vocab_size
    ends = Grammars(tokenizer, (2, 7, size + 5), size)
    matcher = ends.matcher(Grammar("choice", json.dumps(["ab", "abc"])))
    seen = set()
    for id in tokenizer.codec.encode_rest("abc"):
        allowed = ends.allowed([matcher])[0]
        assert bool(allowed[2]) == bool(allowed[7])
        seen.add(bool(allowed[2]))
        assert not ends.takes_end(matcher, id)
    assert ends.allowed([matcher])[0].nonzero().flatten().tolist() == [2, 7]
    assert ends.takes_end(matcher, 7)
    assert False in seen
    with pytest.raises(RequestError, match="end id"):
        Grammars(tokenizer, (size,), size)


def test_what_cannot_be_followed_is_refused(checkpoint, grammars):
    engine = Engine(checkpoint.model, EngineSettings(), grammars=grammars)
    for kind, text in [("json_schema", "{"), ("json_schema", '{"type": "nonsense"}'), ("regex", "(a"),
                       ("lark", "begin"), ("choice", "[]"), ("choice", '["a", 3]'), ("regex", "a" * 70_000)]:
        with pytest.raises(RequestError, match=kind if len(text) < 70_000 else "70000 characters"):
            engine.submit(request_of(Grammar(kind, text), 0))
    with pytest.raises(RequestError, match="llguidance"):
        Engine(checkpoint.model).submit(request_of(FORMS[0], 0))
    assert engine.is_idle


def test_a_form_that_grows_too_costly_ends_with_an_error(checkpoint, grammars, monkeypatch):
    import llguidance

    monkeypatch.setattr(grammars, "_limits", llguidance.LLParserLimits(step_max_items=5, verbose_errors=False))
    engine = Engine(checkpoint.model, grammars=grammars)
    form = Grammar("lark", 'start: pair | start start\npair: "a" | "b" | "(" start ")"')
    last = run(engine, [request_of(form, 0)])[0, 0][-1]
    assert last.finish == "error"
    assert "can't be followed any further" in last.error
    assert engine.is_idle


def test_the_service_compiles_elsewhere(checkpoint, grammars):
    async def main():
        async with Service(Engine(checkpoint.model, grammars=grammars)) as service:
            with pytest.raises(RequestError):
                await service.submit(request_of(Grammar("regex", "("), 0))
            async with await service.submit(request_of(FORMS[1], 0)) as stream:
                return [token.id async for token in stream]

    assert has_form(FORMS[1], checkpoint.tokenizer.decode(asyncio.run(main())[:-1]))
