"""Streaming by example; tests/properties/test_stream.py has the laws."""

import kinds
import pytest

from ayllu.text.stream import StopFilter, StreamDecoder


def test_a_character_of_four_bytes_comes_whole():
    tokenizer = kinds.sentencepiece()
    ids = [tokenizer.piece_to_id(f"<0x{b:02X}>") for b in "🦙".encode()]
    decoder = StreamDecoder(tokenizer)
    assert [decoder.push(i) for i in ids] == ["", "", "", "🦙"]
    assert decoder.flush() == ""


def test_an_unfinished_character_shows_only_at_the_end():
    tokenizer = kinds.sentencepiece()
    ids = [tokenizer.piece_to_id(f"<0x{b:02X}>") for b in "🦙".encode()[:3]]
    decoder = StreamDecoder(tokenizer)
    assert [decoder.push(i) for i in ids] == ["", "", ""]
    assert decoder.flush() == tokenizer.decode(ids) == "\ufffd" * 3


def test_the_space_before_a_word_stays_in_a_continuation():
    tokenizer = kinds.sentencepiece()
    prompt, ids = tokenizer.encode("Once", bos=True), tokenizer.encode("upon a")
    first = StreamDecoder(tokenizer)
    assert "".join(map(first.push, ids)) == "upon a"
    later = StreamDecoder(tokenizer, prompt)
    assert "".join(map(later.push, ids)) == " upon a"
    after_bos = StreamDecoder(tokenizer, [tokenizer.bos_id])
    assert "".join(map(after_bos.push, ids)) == "upon a"


def test_special_tokens_show_or_not():
    tokenizer = kinds.llama3()
    ids = tokenizer.encode("a<|eot_id|>b", allow_special=True)
    shown, hidden = StreamDecoder(tokenizer), StreamDecoder(tokenizer, skip_special=True)
    assert "".join(map(shown.push, ids)) == "a<|eot_id|>b"
    assert "".join(map(hidden.push, ids)) == "ab"


def test_stop_string_across_pieces():
    stop = StopFilter(["\nUser:", "END"])
    assert [stop.push(p) for p in ("Hello", "\n", "Us", "ers\nU", "ser", ": hi")] == [
        "Hello", "", "", "\nUsers", "", ""]
    assert (stop.stopped, stop.matched, stop.flush(), stop.push("more")) == (True, "\nUser:", "", "")


def test_the_earliest_stop_wins_and_then_the_first_named():
    stop = StopFilter(["cd", "bc", "b"])
    assert (stop.push("abcd"), stop.matched) == ("a", "bc")


@pytest.mark.parametrize("stops", [[], [""]])
def test_without_stop_strings_nothing_is_held(stops):
    stop = StopFilter(stops)
    assert (stop.push("abc"), stop.stopped) == ("abc", False)


def test_a_special_token_ends_a_broken_character():
    tokenizer = kinds.sentencepiece()
    first, second, third = [tokenizer.piece_to_id(f"<0x{b:02X}>") for b in "好".encode()]
    decoder = StreamDecoder(tokenizer)
    assert [decoder.push(i) for i in (first, second, tokenizer.bos_id, third)] == ["", "", "\ufffd\ufffd<s>", "\ufffd"]
    assert tokenizer.decode([first, second, tokenizer.bos_id, third], skip_special=True) == "\ufffd" * 3
