"""A larger vocabulary: old ids stay, new pieces are reachable, and a model goes on about as well as it was."""

import json
from itertools import pairwise

import pytest
from conftest import TEXT

from ayllu.checkpoint.load import open_checkpoint
from ayllu.errors import ConfigError, DataError
from ayllu.text.extend import extend, merges
from ayllu.text.hf import HfCodec
from ayllu.text.tokenizer import Tokenizer

GREEK = ["Ο κόσμος είναι μεγάλος και ο κόσμος είναι ωραίος. Το ποτάμι και ο κόσμος.", "Είναι το ποτάμι μεγάλος κόσμος;"]


def slow_merges(words, n, known):
    """Counts everything anew after each merge."""
    words, out, known = dict(words), [], set(known)
    while len(out) < n:
        counts = {}
        for word, times in words.items():
            for pair in pairwise(word):
                counts[pair] = counts.get(pair, 0) + times
        may = [(-times, pair) for pair, times in counts.items() if times >= 2 and "".join(pair) not in known]
        if not may:
            return out
        pair = min(may)[1]
        out.append(pair)
        known.add("".join(pair))
        new = {}
        for word, times in words.items():
            at, joined = 0, []
            while at < len(word):
                both = word[at:at + 2] == pair
                joined.append("".join(pair) if both else word[at])
                at += 1 + both
            new[tuple(joined)] = new.get(tuple(joined), 0) + times
        words = new
    return out


def test_merges_are_those_of_counting_anew():
    from collections import Counter
    words = Counter({tuple("banana"): 3, tuple("bandana"): 2, tuple("anagram"): 4, ("an", "a", "n", "a"): 5})
    for known in (set(), {"an", "ana"}):
        assert merges(words, 12, known) == slow_merges(words, 12, known)


def test_a_sentencepiece_model_keeps_its_ids_and_speaks_greek(tiny_checkpoint, tmp_path):
    old = Tokenizer.load(tiny_checkpoint)
    found = extend(old, GREEK * 5, 40)
    new = found.tokenizer
    assert old.vocab_size < new.vocab_size <= old.vocab_size + 40
    assert [new.id_to_piece(i) for i in range(old.vocab_size)] == [old.id_to_piece(i) for i in range(old.vocab_size)]
    assert (new.bos_id, new.eos_ids, new.unk_id) == (old.bos_id, old.eos_ids, old.unk_id)
    for text in [*TEXT.splitlines(), *GREEK, "ποτάμι 123 😀\n\tfox"]:
        ids = new.encode(text)
        assert new.decode(ids) == text
        assert [part for id in ids for part in found.parts.get(id, (id,))] == old.encode(text)
    assert sum(len(new.encode(text)) for text in GREEK) < 0.5 * sum(len(old.encode(text)) for text in GREEK)
    for id in range(old.vocab_size, new.vocab_size):     # no piece that nothing turns into
        assert new.codec.encode_rest(new.id_to_piece(id)) == [id]
    new.save(tmp_path)
    json_alone = HfCodec((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    for text in [*TEXT.splitlines(), *GREEK]:
        assert json_alone.encode(text, continues=False) == new.codec.encode(text, continues=False)
    with pytest.raises(DataError, match="nothing that the vocabulary lacks"):
        extend(old, ["x"], 10)


def byte_level():
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, pre_tokenizers, trainers
    backend = Backend(models.BPE())
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<|end|>"], show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    backend.train_from_iterator(TEXT.splitlines(), trainer)
    return backend.to_str()


def test_a_byte_level_tokenizer_keeps_its_ids(tmp_path):
    (tmp_path / "tokenizer.json").write_text(byte_level(), encoding="utf-8")
    old = Tokenizer.load(tmp_path)
    found = extend(old, GREEK * 5, 40)
    assert found.tokenizer.vocab_size == old.vocab_size + 40
    for text in [*TEXT.splitlines(), *GREEK, "ποτάμι 123 😀"]:
        ids = found.tokenizer.encode(text)
        assert found.tokenizer.decode(ids) == text
        assert [part for id in ids for part in found.parts.get(id, (id,))] == old.encode(text)
    assert len(found.tokenizer.encode(GREEK[0])) < 0.6 * len(old.encode(GREEK[0]))
    table = json.loads(byte_level())
    table["model"]["type"] = "Unigram"
    with pytest.raises(ConfigError, match="byte-level BPEs"):
        extend(Tokenizer(_unread(table)), GREEK, 5)


def _unread(table):
    codec = HfCodec(byte_level())
    codec.text = json.dumps(table)
    return codec


def test_the_bundled_tokenizer_can_be_extended():
    source = open_checkpoint("ayllu-mini")
    found = extend(source.open_tokenizer(), GREEK * 3, 20)
    assert found.tokenizer.decode(found.tokenizer.encode(GREEK[0])) == GREEK[0]
    assert min(found.parts) == source.config.vocab_size
