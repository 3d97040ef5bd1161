"""Decisions of an analysis: words, pseudonyms, trends, topics, explanations."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ayllu.apps.analyse.clusters import learn
from ayllu.apps.analyse.names import Pseudonyms
from ayllu.apps.analyse.reading import aspects, brands, by_lexicon, by_occlusion, language, spam
from ayllu.apps.analyse.scorers import sides
from ayllu.apps.analyse.trends import Buckets, Change, changes, discovered, fisher, two_sided
from ayllu.errors import ConfigError
from ayllu.text.lexicon import entries, positive, read


@pytest.mark.parametrize(("text", "is_positive"), [
    ("I love it", True), ("not good at all", False), ("It isn't bad", True), ("The plot is dull, but I loved it", True),
    ("很好", True), ("不太好", False), ("没有问题", True), ("好慢", False), ("质量差，不推荐", False), ("不错", True)])
def test_words_with_their_negations(text, is_positive):
    assert (positive(read(text)) > 0.5) is is_positive


def test_a_text_without_a_known_word_is_neither():
    assert positive(read("The table has four legs. 桌子")) == 0.5


@given(st.text(max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_text_is_read_and_spans_lie_in_it(text):
    found = read(text)
    assert all(0 <= one.start < one.end <= len(text) for one in found)
    assert all(a.end <= b.start for a, b in itertools.pairwise(found))
    assert 0 < positive(found) < 1
    assert 0 <= spam(text, found) <= 1
    assert language(text)


def test_explanations_by_words_are_exact():
    """The verdict is a function of the sum of what the words did: taking them all gives it back."""
    text = "Great sound, terrible battery, not good."
    why = by_lexicon(text)
    total = sum(one.effect for one in why) / math.sqrt(len(why))
    assert positive(read(text)) == pytest.approx(1 / (1 + math.exp(-0.55 * total)))
    assert {text[one.start:one.end]: one.effect > 0 for one in why} == {
        "Great": True, "terrible": False, "good": False}


def test_occlusion_finds_the_word_that_a_score_stands_on():
    calls = []

    def score(texts):
        calls.append(len(texts))
        return [1.0 if "gold" in text else 0.25 for text in texts]

    why = by_occlusion(score, "a gold ring 好看")
    assert calls == [len(why) + 1]                       # one batch
    assert [one.effect for one in why if one.effect] == [0.75]


def test_aspects_take_the_feeling_of_their_clause():
    text = "The sound is great, the battery is awful. 物流很快，客服态度差"
    found = aspects(text, read(text))
    assert found["sound"] > 0.5 > found["battery"]
    assert found["delivery"] > 0.5 > found["service"]
    assert aspects("The battery died again. Awful!", read("The battery died again. Awful!"))["battery"] < 0.5
    assert brands("MyOrlo and 小米手机", ("Orlo", "小米")) == ["小米"]


# pseudonyms

PEOPLE = ("Write to Ms. Okafor or @kim_9, mail kim@mail.example. My name is Laura Jensen. "
          "我叫张伟，王女士说 13800138000",
          ("Okafor", "kim_9", "kim@mail.example", "Laura Jensen", "张伟", "王", "13800138000"))


def test_people_become_marks_that_stay_the_same_within_a_run_only():
    one, other = Pseudonyms(), Pseudonyms()
    text, people = PEOPLE
    hidden = one.text(text)
    assert not any(name in hidden for name in people)
    assert one.text(text) == hidden != other.text(text)
    assert one.author("kim_9") in hidden                 # the author who is spoken to


@given(st.text(min_size=1, max_size=40))
@settings(max_examples=100, deadline=None)
def test_a_mark_says_nothing_without_the_secret(name):
    known, unknown = Pseudonyms(b"k" * 32), Pseudonyms(b"u" * 32)
    mark = known.author(name)
    assert mark == Pseudonyms(b"k" * 32).author(name)
    assert mark != unknown.author(name)
    assert len(mark) == len("[user-12345678]")             # a mark doesn't even tell the length


def test_hiding_twice_changes_nothing_more():
    people = Pseudonyms()
    once = people.text(PEOPLE[0])
    assert people.text(once) == once


# trends

@given(st.integers(0, 60), st.integers(1, 60), st.floats(0.02, 0.9))
@settings(max_examples=100, deadline=None)
def test_the_binomial_tail_is_scipys(x, more, share):
    n = x + more
    below, above = stats.binom.cdf(x, n, share), stats.binom.sf(x - 1, n, share)
    assert two_sided(x, n, share) == pytest.approx(min(1, 2 * min(below, above)), rel=1e-6, abs=1e-12)


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30), st.integers(0, 30))
@settings(max_examples=100, deadline=None)
def test_fishers_tails_are_scipys(a, others, b, more):
    n, m = a + others, b + more
    below = stats.hypergeom.cdf(a, n + m, a + b, n)
    above = stats.hypergeom.sf(a - 1, n + m, a + b, n)
    assert fisher(a, n, b, m) == pytest.approx(min(1, 2 * min(below, above)), rel=1e-6, abs=1e-12)


def test_discoveries_are_benjamini_and_hochbergs():
    random = np.random.default_rng(0)
    for _ in range(20):
        p = random.random(30) ** 3
        told = discovered([Change("x", "posts", i, 0, 0, float(value)) for i, value in enumerate(p)], 0.1)
        assert len(told) == (stats.false_discovery_control(p) <= 0.1).sum()


def test_chance_alone_is_seldom_called_a_change():
    """Under chance alone (Poisson counts, a share of a fifth), at most Q = 5 % of the runs tell a change; of 100 runs,
    more than 10 would be a chance of 1 in 100."""
    random = np.random.default_rng(1)

    def series(rate: int) -> tuple[list[int], list[int]]:
        posts = random.poisson(rate, 40)
        return posts.tolist(), random.binomial(posts, 0.2).tolist()

    assert sum(bool(changes({"a": series(30), "b": series(8)})) for _ in range(100)) <= 10


def test_a_change_is_found_where_it_is():
    random = np.random.default_rng(2)
    posts = random.poisson(20, 30)
    posts[17] += 30
    negative = np.minimum(random.binomial(20, 0.2, 30), posts)
    negative[22] = posts[22] * 3 // 4
    told = {(change.what, change.bucket) for change in changes({"a": (posts.tolist(), negative.tolist())})}
    assert {("posts", 17), ("negative share", 22)} <= told


def test_what_always_varies_is_no_change():
    """Weekends of a twentieth; but a weekend like a weekday is one."""
    posts = [40, 40, 40, 40, 40, 2, 2] * 6
    assert changes({"a": (posts, [0] * 42)}, period=7) == []
    posts[26] = 40
    assert [change.bucket for change in changes({"a": (posts, [0] * 42)}, period=7)] == [26]


def test_buckets_follow_the_calendar():
    months = Buckets.over(1767225600, 1782864000, 10_000, "month")           # 2026-01-01 to 2026-07-01
    assert [months.name(months.of(1767225600 + d * 86400)) for d in (0, 30, 31, 59, 180)] == [
        "2026-01", "2026-01", "2026-02", "2026-03", "2026-06"]
    weeks = Buckets.over(1767225600, 1782864000, 10_000)
    assert (weeks.unit, weeks.name(0)) == ("week", "2025-12-29")             # a Monday


# topics

def test_groups_of_words_become_topics():
    random = np.random.default_rng(0)
    themes = [[f"{name}{i}" for i in range(8)] for name in ("apple", "stone", "water", "light")]
    posts = [random.choice(themes[i % 4], 5).tolist() for i in range(240)]
    topics = learn(posts)
    assert topics is not None
    assert len(topics.names) == 4
    found = [topics.of(post) for post in posts]
    assert all(Counter(found[i::4]).most_common(1)[0][1] >= 58 for i in range(4))
    assert all(len({word.strip("01234567") for word in name.split(" · ")}) == 1 for name in topics.names)
    assert topics.of(["unknown"]) is None
    assert learn(posts[:20]) is None


def test_which_labels_are_positive():
    assert sides(("neg", "neutral", "pos")) == ({"pos"}, {"neg"})
    assert sides(("1", "2", "3", "4", "5")) == ({"4", "5"}, {"1", "2"})
    with pytest.raises(ConfigError, match="which is positive"):
        sides(("cat", "dog"))


def test_the_lexicon_has_no_word_on_both_sides():
    known = entries()
    assert len(known) > 1500
    assert not [word for word, entry in known.items() if entry.polarity and entry.modifies == "but"]
