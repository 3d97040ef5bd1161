"""Whatever the tools' schemas and however hot a random model samples: each call is one of the tools, and its arguments
are valid by its schema; only the last may be cut, and then the answer says so."""

import json
from collections import Counter
from functools import lru_cache

import jsonschema
import pytest
from engine.small import run
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from server.tooled import write_model
from text.tool_templates import FAMILIES

from ayllu.checkpoint.load import load_checkpoint
from ayllu.engine.constrain import Grammars
from ayllu.engine.engine import Engine, EngineSettings
from ayllu.engine.request import Request
from ayllu.model.params import SamplingParams
from ayllu.server.openai import finish_of
from ayllu.server.schema.tool_grammar import Tool, tool_grammar
from ayllu.server.writing import Calls, Writer, Written
from ayllu.text.call_form import call_form

KEYS = st.sampled_from(["a", "b", "name", "小", "a-b", "additional", 'quo"te'])
SCALARS = st.one_of(
    st.builds(lambda n, m: {"type": "string", "minLength": n, "maxLength": n + m}, st.integers(0, 2),
              st.integers(0, 4)),
    st.builds(lambda n, m: {"type": "integer", "minimum": n, "maximum": n + m}, st.integers(-30, 30),
              st.integers(0, 200)),
    st.builds(lambda n: {"type": "number", "exclusiveMinimum": n, "maximum": n + 2.5}, st.integers(-5, 5)),
    st.sampled_from([{"type": "boolean"}, {"type": "null"}, {"type": ["boolean", "null"]}, {"$ref": "#/$defs/kind"},
                     {"type": "string", "pattern": "^[a-c]{1,3}$"}, {"type": "string", "format": "date"},
                     {"type": "integer", "format": "int32", "minimum": 0, "maximum": 9, "title": "x"}]),
    st.builds(lambda values: {"enum": values}, st.lists(st.sampled_from([1, "fox", None, True, 2.5, "小鸟", 'q"']),
                                                        min_size=1, max_size=3, unique_by=repr)),
    st.builds(lambda value: {"const": value}, st.sampled_from(["x", 7, False])))


def objects(inner, **more):
    def make(properties, keep, extra):
        required = [key for key, kept in zip(properties, keep, strict=False) if kept]
        return {"type": "object", "properties": properties, "required": required, **extra, **more}

    extras = st.sampled_from([{}, {"additionalProperties": False}, {"additionalProperties": {"type": "boolean"}}])
    return st.builds(make, st.dictionaries(KEYS, inner, max_size=3), st.lists(st.booleans(), min_size=3, max_size=3),
                     extras)


VALUES = st.recursive(SCALARS, lambda inner: st.one_of(
    objects(inner), st.builds(lambda items, n: {"type": "array", "items": items, "minItems": n, "maxItems": n + 2},
                              inner, st.integers(0, 2)),
    st.builds(lambda some: {"anyOf": some}, st.lists(inner, min_size=1, max_size=2))), max_leaves=4)
DEFS = {"kind": {"enum": ["red", "blue"], "description": "Which colour."}}
TOOLS = st.lists(st.tuples(st.sampled_from(["get", "get_all", "a.b-c", "g"]),
                           st.none() | objects(VALUES, **{"$defs": DEFS})), min_size=1, max_size=3,
                 unique_by=lambda tool: tool[0])
SEEN: Counter = Counter()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@lru_cache
def model_of(folder, family):
    write_model(folder / family, *FAMILIES[family])
    checkpoint = load_checkpoint(folder / family)
    grammars = Grammars(checkpoint.tokenizer, checkpoint.generation.eos_ids, checkpoint.config.vocab_size)
    return checkpoint, grammars, call_form(checkpoint.chat_template, checkpoint.tokenizer)


def answers(folder, family, tools, mode, several, temperature, seed):
    checkpoint, grammars, form = model_of(folder, family)
    grammar = tool_grammar(form, tools, mode, several=several)
    engine = Engine(checkpoint.model, EngineSettings(n_pages=200, page_size=16), grammars=grammars)
    params = SamplingParams(seed=seed, max_tokens=250, temperature=temperature, n=4)
    ids = tuple(checkpoint.tokenizer.encode("Go"))
    found = run(engine, [Request(ids, params, eos_ids=checkpoint.generation.eos_ids, grammar=grammar)])
    for row in found.values():
        writer, written = Writer(checkpoint.tokenizer, ids, (), calls=Calls(form, mode == "required")), Written()
        for token in row:
            written.add(writer.push(token))
        yield written


def check(folder, family, tools, mode, several, temperature, seed):
    tools = [Tool(name, "Does something.", parameters) for name, parameters in tools]
    schemas = {tool.name: tool.parameters or {"maxProperties": 0} for tool in tools}
    for answer in answers(folder, family, tools, mode, several, temperature, seed):
        reason = finish_of(answer)
        SEEN[family, mode, reason] += 1
        assert mode == "auto" or not answer.text
        assert several or len(answer.calls) <= 1
        assert reason == "length" or mode == "auto" or answer.calls
        assert all(call.is_whole for call in answer.calls[:-1])
        for call in answer.calls:
            assert call.name in schemas
            if call.is_whole:
                jsonschema.Draft202012Validator(schemas[call.name], format_checker=jsonschema.FormatChecker()).validate(
                    json.loads(call.arguments))
            else:
                assert reason == "length"


def held(n):
    return settings(max_examples=n, deadline=None, database=None, derandomize=True,
                    phases=[Phase.explicit, Phase.generate],
                    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow,
                                           HealthCheck.data_too_large])


ASKED = {"tools": TOOLS, "mode": st.sampled_from(["required", "auto"]), "several": st.booleans(),
         "temperature": st.sampled_from([1.0, 1.5, 3.0]), "seed": st.integers(0, 999)}


@held(8)
@given(family=st.sampled_from(["ayllu", "llama"]), **ASKED)
def test_every_call_is_valid_by_its_schema(folder, family, tools, mode, several, temperature, seed):
    check(folder, family, tools, mode, several, temperature, seed)


def test_calls_were_made():
    assert SEEN.total() == 0 or sum(n for (_, mode, reason), n in SEEN.items()
                                    if mode == "required" and reason == "tool_calls") > 5, SEEN


@pytest.mark.slow
@pytest.mark.parametrize("family", list(FAMILIES))
@held(6)
@given(**ASKED)
def test_every_call_is_valid_in_each_family(folder, family, tools, mode, several, temperature, seed):
    check(folder, family, tools, mode, several, temperature, seed)
