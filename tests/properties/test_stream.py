"""Streaming decode equals batch decode, for random text and for random ids, with every kind of tokenizer."""

from functools import lru_cache
from itertools import pairwise

import kinds
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kinds import KINDS

from ayllu.text.stream import StopFilter, StreamDecoder
from ayllu.text.tokenizer import Tokenizer

EXAMPLES = settings(max_examples=150, deadline=None, derandomize=True, database=None,
                    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
TEXT = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("  \n\ta<s>|é好😀\u200d\u0301"), max_size=40)


@pytest.fixture(params=[*KINDS, "llama2"])
def tokenizer(request) -> Tokenizer:
    if request.param == "llama2":
        kinds.needs_llama2()
        return kinds.llama2()
    return KINDS[request.param]()


def streamed(tokenizer: Tokenizer, ids: list[int], prompt: list[int] | None = None, **how: bool) -> list[str]:
    decoder = StreamDecoder(tokenizer, prompt or [], **how)
    return [*(decoder.push(i) for i in ids), decoder.flush()]


@lru_cache
def ids_of(tokenizer: Tokenizer) -> st.SearchStrategy[list[int]]:
    """Random ids: bytes of broken characters, special tokens and padded rows among them."""
    singles = [i for i in range(tokenizer.vocab_size) if tokenizer.id_to_piece(i).startswith("<0x")
               or len(tokenizer.id_to_piece(i)) == 1] or [0]
    controls = [c.id for c in tokenizer.codec.controls]
    return st.lists(st.integers(0, tokenizer.vocab_size + 3) | st.sampled_from(singles) | st.sampled_from(controls),
                    max_size=30)


@EXAMPLES
@given(data=st.data())
def test_text_comes_back(tokenizer, data):
    text = data.draw(TEXT)
    ids = tokenizer.encode(text)
    # SentencePiece can't tell U+2581, its own sign for a space, from a space.
    expected = text.replace("\u2581", " ") if tokenizer in (kinds.sentencepiece(), kinds.sentencepiece_json(),
                                                            kinds.llama2()) else text
    assert tokenizer.decode(ids) == expected
    assert "".join(streamed(tokenizer, ids)) == expected


@EXAMPLES
@given(data=st.data())
def test_streaming_equals_batch_for_any_ids(tokenizer, data):
    ids = data.draw(ids_of(tokenizer))
    for skip in (False, True):
        assert "".join(streamed(tokenizer, ids, skip_special=skip)) == tokenizer.decode(ids, skip_special=skip)


@EXAMPLES
@given(data=st.data())
def test_a_continuation_goes_on_where_the_prompt_ends(tokenizer, data):
    ids = data.draw(ids_of(tokenizer))
    cut = data.draw(st.integers(0, len(ids)))
    before = StreamDecoder(tokenizer)
    text = "".join(before.push(i) for i in ids[:cut])
    assert text + "".join(streamed(tokenizer, ids[cut:], ids[:cut])) == tokenizer.decode(ids)


@EXAMPLES
@given(data=st.data())
def test_pieces_are_whole_characters_and_come_at_once(tokenizer, data):
    text = data.draw(TEXT.filter(lambda t: "\ufffd" not in t))
    ids = tokenizer.encode(text)
    pieces = streamed(tokenizer, ids)
    assert "\ufffd" not in "".join(pieces)
    shown = ""
    for n, piece in enumerate(pieces):
        shown += piece
        whole = tokenizer.decode(ids[:n + 1])
        assert whole.rstrip("\ufffd") == shown           # nothing that is certain was held back


@EXAMPLES
@given(text=st.text("abc", max_size=40), stops=st.lists(st.text("abc", min_size=1, max_size=4), max_size=3),
       cuts=st.lists(st.integers(0, 40), max_size=12))
def test_stop_filter_shows_exactly_what_stands_before_the_stop(text, stops, cuts):
    edges = [0, *sorted(min(c, len(text)) for c in cuts), len(text)]
    stop = StopFilter(stops)
    shown = ""
    for a, b in pairwise(edges):
        shown += stop.push(text[a:b])
        held = text[len(shown):b]
        assert stop.stopped or any(s.startswith(held) for s in stops) or not held
    shown += stop.flush()
    ends = [at + len(s) for s in stops if (at := text.find(s)) >= 0]
    if not ends:
        assert (shown, stop.stopped) == (text, False)
    else:
        assert stop.stopped
        assert text.startswith(shown + (stop.matched or "?"))
        assert all(s not in shown for s in stops)
