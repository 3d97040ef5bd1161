"""Answers piece by piece: however text is cut into tokens, a stop string never shows; SSE framing holds any text."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st
from server.frames import frames

from ayllu.engine.request import Token
from ayllu.server.faults import dump
from ayllu.server.sse import event, line
from ayllu.server.writing import Writer, token_text


class Letters:
    """A vocabulary of single characters: ids are code points. Enough of a tokenizer for a `Writer`."""

    special_ids = frozenset({0})

    def decoding(self, skip_special=False):
        return self

    def push(self, id):
        return chr(id)

    def flush(self):
        return ""

    def bytes_of(self, id):
        return chr(id).encode()

    def id_to_piece(self, id):
        return chr(id)


TEXTS = st.text("abc", min_size=1, max_size=40)
STOPS = st.lists(st.text("abc", min_size=1, max_size=5), max_size=3)


def cut_by_hand(text, stops):
    """As soon as the letters so far hold a stop string, the text ends where the earliest one begins."""
    for n in range(1, len(text) + 1):
        starts = [text[:n].index(s) for s in stops if s in text[:n]]
        if starts:
            return text[:min(starts)]
    return text


@given(TEXTS, STOPS)
@settings(max_examples=300, deadline=None)
def test_text_ends_before_the_first_stop_string_and_entries_show_no_more(text, stops):
    writer, shown, entries, n = Writer(Letters(), (), stops), "", [], 0
    for n, char in enumerate(text, 1):
        finish = "length" if n == len(text) else None
        piece = writer.push(Token(0, 0, ord(char), finish, -0.5))
        shown += piece.text
        entries += piece.entries
        assert "".join(chr(e.id) for e in entries) == shown          # in step: neither runs ahead of the other
        assert not any(s in shown for s in stops)
        if piece.finish is not None:
            break
    assert shown == cut_by_hand(text, stops)
    is_cut = any(s in text for s in stops)
    assert writer.finish == ("stop" if is_cut else "length")
    assert piece.stop in (stops if is_cut else [None])
    assert [e.offset for e in entries] == list(range(len(shown)))
    assert writer.n_tokens == n


@given(TEXTS, STOPS)
@settings(max_examples=100, deadline=None)
def test_a_cancelled_answer_gives_what_was_held_back(text, stops):
    writer, shown = Writer(Letters(), (), stops), ""
    for char in text:
        shown += writer.push(Token(0, 0, ord(char))).text
    shown += writer.push(Token(0, 0, None, "cancelled")).text
    assert shown == cut_by_hand(text, stops)


def test_an_end_id_has_an_entry_and_no_text():
    writer = Writer(Letters(), (), ["bc"])
    first, last = writer.push(Token(0, 0, ord("b"))), writer.push(Token(0, 0, 2, "stop", -0.1))
    assert (first.text, first.entries) == ("", ())
    assert (last.text, [(e.id, e.is_end) for e in last.entries]) == ("b", [(ord("b"), False), (2, True)])
    assert writer.push(Token(0, 0, ord("x"))).text == ""             # nothing after the end


@given(st.lists(st.text(max_size=30), max_size=8), st.integers(1, 7))
@settings(max_examples=200, deadline=None)
def test_sse_frames_hold_any_text_however_they_are_cut(texts, size):
    data = b": note\n\n".join(event({"text": text}, "delta") for text in texts) + b"data: [DONE]\n\n"
    chunks = [data[i:i + size] for i in range(0, len(data), size)]
    found = list(frames(chunks))
    assert [json.loads(d)["text"] for name, d in found[:-1]] == texts
    assert found[-1] == ("message", "[DONE]")
    assert all(name == "delta" for name, _ in found[:-1])


@given(st.text(max_size=50))
@settings(deadline=None)
def test_lines_of_json_are_one_line_each(text):
    data = line({"response": text})
    assert data.count(b"\n") == 1
    assert json.loads(data)["response"] == text


def test_half_characters_are_written_as_escapes():
    assert dump({"x": "\ud83d"}) == b'{"x":"\\ud83d"}'


def test_bytes_that_are_no_character_are_spelled_out():
    class Bytes(Letters):
        def bytes_of(self, id):
            return b"\xe4\xbd"

    assert token_text(Bytes(), 5) == ("bytes:\\xe4\\xbd", [0xe4, 0xbd])
    assert token_text(Letters(), 0)[0] == "\x00"
