"""The fast ways of preparation give exactly what the obvious ways give, on real texts and on hard ones."""

import json
import re
import unicodedata
from collections import Counter
from hashlib import blake2b
from pathlib import Path

import datasketch
import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from ayllu.data.duplicates import Duplicates, shingles, signature
from ayllu.data.quality import Quality, _characters, _words, first_broken
from ayllu.data.repeats import repeated_share, repeats, top_share
from ayllu.data.units import HAN, KANA, count_letters, hash_ngrams, hash_units, is_chinese, unit_hashes, units

SHARED = Path(__file__).parents[3] / "shared" / "data"
SETS = ["classic_books_en", "vernacular_zh", "tatoeba_en_zh", "tech_docs_zh", "drcd"]
HARD = st.text(st.sampled_from("aB'’é\u0301e\n\t_½²Ⅷ①٣世界ぁヶ々〇，。 \u3000𠀀가İßſ·09"), max_size=40)
UNIT = re.compile(rf"[{HAN}{KANA}]|[^\W{HAN}{KANA}_]+(?:['’][^\W{HAN}{KANA}_]+)*")
SIGNS = "，。、！？；：“”‘’《》（）「」『』…—·,.!?;:()\"'"


def texts(name, characters=200_000):
    path = next((SHARED / name).glob("t*.zst"), None)
    if path is None:
        pytest.skip(f"shared/data/{name} is missing")
    with zstandard.open(path, "rt", encoding="utf-8") as stream:
        for line in stream:
            text = "\n".join(v for v in json.loads(line).values() if isinstance(v, str))[:60_000]
            yield text
            if (characters := characters - len(text)) < 0:
                return


def slow_hash(unit):
    return int.from_bytes(blake2b(unit.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def slow_words(text, chinese):
    words = [c for c in text if not c.isspace()] if chinese else text.split()
    words = [w for w in words if w not in SIGNS] if chinese else words
    return len(words), sum(any(map(str.isalpha, w)) for w in words)


def check(text):
    found = UNIT.findall(text.lower())
    assert list(units(text)) == found
    assert unit_hashes(text).tolist() == [slow_hash(u) for u in found]
    letters = sum(map(str.isalpha, text))
    assert count_letters(text) == letters
    assert is_chinese(text) == (letters > 0 and len(re.findall(f"[{HAN}]", text)) >= 0.3 * letters)
    assert _characters(text) == slow_words(text, chinese=True)
    assert _words(text) == slow_words(text, chinese=False)


@given(HARD)
def test_counting_hard_texts(text):
    check(text)


@pytest.mark.parametrize("name", SETS)
def test_counting_real_texts(name):
    for text in texts(name):
        check(unicodedata.normalize("NFC", text))


def slow_shares(hashes, n):
    """(share of the most frequent run, share of units in a run that stood before)."""
    grams = hash_ngrams(hashes, n).tolist()
    most = max(Counter(grams).values(), default=0)
    covered, seen = set(), set()
    for start, gram in enumerate(grams):
        covered.update(range(start, start + n) if gram in seen else ())
        seen.add(gram)
    return most * n / len(hashes) if most > 1 else 0.0, len(covered) / max(len(hashes), 1)


def check_shares(hashes, lengths):
    found = repeats(hashes, lengths)
    for n in lengths:
        top, again = slow_shares(hashes, n)
        assert top_share(found[n], n, len(hashes)) == top
        assert repeated_share(found[n], n, len(hashes)) == pytest.approx(again, abs=1e-12)   # the last digit of a mean


@given(st.lists(st.sampled_from("abc"), max_size=60), st.lists(st.integers(1, 12), min_size=1, max_size=6, unique=True))
def test_repeats_of_hard_texts(found, lengths):
    check_shares(hash_units(found), lengths)


@pytest.mark.parametrize("name", SETS)
def test_repeats_of_real_texts(name):
    for text in texts(name, 40_000):
        check_shares(unit_hashes(text)[:10_000], [2, 3, 4, 5, 6, 7, 8, 9, 10, 14, 20])


@pytest.mark.parametrize("name", SETS)
def test_signatures_are_those_of_datasketch(name):
    for permutations in (128, 50):
        how = Duplicates(permutations=permutations)
        for text in texts(name, 60_000):
            minhash = datasketch.MinHash(num_perm=permutations, hashfunc=int, scheme="affine32")
            minhash.update_batch((shingles(text, how.shingle) & np.uint64(0xFFFFFFFF)).tolist())
            found = signature(text, how)
            assert found.dtype == minhash.hashvalues.dtype
            assert (found == minhash.hashvalues).all()


def test_a_text_without_units_has_a_signature():
    how = Duplicates()
    assert (signature("...", how) == datasketch.MinHash(num_perm=128, scheme="affine32").hashvalues).all()
    assert first_broken("...", "und", Quality()) == ("min_words", 0)
