"""Clean-up, languages, quality rules, duplicates and contamination, each against examples and slow twins."""

import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ayllu.data.clean import Cleaning, clean
from ayllu.data.duplicates import Duplicates, Seen, fingerprint, shingles, signature
from ayllu.data.language import identify
from ayllu.data.overlap import index, shared_runs
from ayllu.data.quality import Quality, first_broken
from ayllu.data.units import hash_ngrams, hash_units, is_chinese, units

ENGLISH = ("The fox and the bird walked along the river every day, and they talked about the stars that had risen "
           "over the hills. When rain came, the two of them sat under an old oak with some bread, some cheese, and a "
           "book of stories to read. Nobody knew how long this friendship had lasted, or where either was born.")
CHINESE = ("从前有一只小狐狸，它喜欢在河边读书。小鸟每天和狐狸一起散步，谈论天上的星星。下雨的时候，"
           "他们坐在一棵老橡树下面，吃一点面包和奶酪，再读几个故事。没有人知道这份友谊持续了多久，也没有人知道他们是在哪里出生的。")
HARD = st.text(st.sampled_from("a é\u0301e\n\r\t\x00\x85\u2028\ufeff\u00ad世\ud800 \u3000Å\u212b"), max_size=30)


def test_clean_repairs_and_counts():
    text, changes = clean("\ufeffCafe\u0301 \r\n\r\n\r\n\r\nb\x00c\u2028d\t\n", Cleaning())
    assert text == "Café\n\nbc\nd"
    assert changes == {"invisible": 1, "nfc": 1, "line_ends": 5, "control": 1, "line_tails": 2, "blank_lines": 1}
    raw = "a \r\nb\x00"
    assert clean(raw, Cleaning(line_ends=False, control=False, nfc=False, line_tails=False, blank_lines=None))[0] == raw


@given(HARD)
def test_cleaning_twice_changes_nothing_more(text):
    once, _ = clean(text, Cleaning())
    assert clean(once, Cleaning())[0] == once
    assert unicodedata.is_normalized("NFC", once)
    once.encode()                                        # no half of a surrogate pair is left


def test_languages():
    texts = (ENGLISH, CHINESE, "Bonjour mes amis, nous sommes là", "12 34 !?", "子曰學而時習之不亦說乎")
    assert [identify(t) for t in texts] == ["en", "zh", "fr", "und", "zh"]


def test_units():
    assert units("Don't PANIC — 世界 hello2") == ("don't", "panic", "世", "界", "hello2")
    assert is_chinese("他说 hello 世界")
    assert not is_chinese(ENGLISH + "世界")


@given(st.lists(st.sampled_from("abc"), max_size=20), st.integers(1, 6))
def test_ngram_hashes_tell_ngrams_apart(found, n):
    grams = [tuple(found[i:i + n]) for i in range(len(found) - n + 1)]
    hashes = hash_ngrams(hash_units(found), n).tolist()
    assert len(hashes) == len(grams)
    assert [[a == b for b in grams] for a in grams] == [[a == b for b in hashes] for a in hashes]


def test_good_documents_pass():
    assert first_broken(ENGLISH, "en", Quality()) is None
    assert first_broken(CHINESE, "zh", Quality()) is None


@pytest.mark.parametrize(("rule", "text", "change"), [
    ("min_words", "Too short.", {}),
    ("min_characters_zh", "太短了", {}),
    ("max_words", ENGLISH, {"max_words": 20}),
    ("mean_word_length", "a b c d e f of to " * 10, {}),
    ("mean_word_length", "aBx/fghiZ9+jk:Lmno;" * 40, {}),
    ("max_symbols", ENGLISH + " #" * 20, {}),
    ("max_bullet_lines", "- " + ENGLISH.replace(" ", "\n- "), {"max_repeated_lines": None,
                                                                       "min_alphabetic": None}),
    ("max_ellipsis_lines", ENGLISH.replace(". ", "...\n"), {}),
    ("min_alphabetic", ENGLISH + " 123" * 60, {}),
    ("min_alphabetic", CHINESE + "１２３４５" * 20, {}),
    ("min_stop_words", " ".join(f"alpha{chr(97 + i)}{chr(98 + j)}" for i in range(10) for j in range(10)), {}),
    ("banned_phrases", ENGLISH + " Lorem ipsum dolor.", {}),
    ("max_repeated_lines", ENGLISH + "\nyes" * 9, {"max_repeated_line_characters": None}),
    ("max_repeated_line_characters", ENGLISH + "\n" + ENGLISH, {"max_repeated_lines": None}),
    ("max_top_ngram.2", ENGLISH + " thing there" * 10, {}),
    ("max_repeated_ngrams.5", ENGLISH + " " + ENGLISH, {}),
    ("max_repeated_ngrams.5", CHINESE + CHINESE, {}),
    ("min_terminal_lines", ENGLISH.replace(", ", "\n").replace(".", ""), {"min_terminal_lines": 0.12}),
    ("max_short_lines", ENGLISH.replace(" ", "\n"), {"max_short_lines": 0.67}),
])
def test_each_rule_can_drop(rule, text, change):
    language = identify(text) if "min_stop" not in rule else "en"
    assert first_broken(text, language, Quality(**change))[0] == rule


@given(st.lists(st.sampled_from("ab"), min_size=1, max_size=25), st.integers(1, 5))
def test_repeated_share_equals_its_definition(found, n):
    """Units inside an n-gram that stood before, counted the slow way."""
    covered, seen = set(), set()
    for i in range(len(found) - n + 1):
        gram = tuple(found[i:i + n])
        covered |= set(range(i, i + n)) if gram in seen else set()
        seen.add(gram)
    share = len(covered) / len(found)
    none = Quality(min_words=None, mean_word_length=None, min_alphabetic=None, min_stop_words=None, max_top_ngram={})
    below = none.model_copy(update={"max_repeated_ngrams": {n: share + 1e-9}})
    above = none.model_copy(update={"max_repeated_ngrams": {n: share - 1e-9}})
    text = " ".join(found)
    assert first_broken(text, "en", below) is None
    assert first_broken(text, "en", above) == (f"max_repeated_ngrams.{n}", pytest.approx(share))


def test_exact_duplicates_ignore_case_spaces_and_signs():
    assert fingerprint("Hello,  World!") == fingerprint("hello world") != fingerprint("hello word")
    assert fingerprint("你好，世界") == fingerprint("你好 世界")
    assert fingerprint("!!!") != fingerprint("???")


def test_near_duplicates_agree_with_exact_jaccard():
    """MinHash estimates: pairs well above the threshold are found, pairs well below never, the first one stays."""
    draw = np.random.default_rng(0)
    words = [f"w{i}" for i in range(400)]
    how, texts = Duplicates(threshold=0.7), []
    for _ in range(30):
        base = list(draw.choice(words, 120))
        for changed in (0, 1, 3, 12, 40):
            copy = list(base)
            for place in draw.choice(120, changed, replace=False):
                copy[place] = "x" + str(place)
            texts.append(" ".join(copy) + f" end{changed}")
    seen, kept = Seen(how), []
    sets = [set(shingles(t, how.shingle).tolist()) for t in texts]
    found = 0
    for i, text in enumerate(texts):
        verdict = seen.judge(str(i), fingerprint(text), signature(text, how))
        best = max((len(sets[i] & sets[j]) / len(sets[i] | sets[j]) for j in kept), default=0.0)
        if best > 0.9:
            assert verdict is not None, (i, best)
        if best < 0.5:
            assert verdict is None, (i, best)
        if verdict:
            assert int(verdict[1]) in kept
            found += 1
        else:
            kept.append(i)
    assert 40 <= found <= 90


def test_overlap_is_found_exactly():
    held = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
    known, short = index([held, "too short", CHINESE], 13)
    assert short == 1
    assert shared_runs("zero " + held.upper().replace(" ", ", ") + " end", known, 13) == 2
    assert shared_runs("zero " + held.replace("seven", "sevens"), known, 13) == 0
    assert shared_runs("他说：" + CHINESE[10:30], known, 13) > 0
    assert shared_runs("他说：" + CHINESE[10:20], known, 13) == 0
    assert shared_runs(held, index([], 13)[0], 13) == 0
