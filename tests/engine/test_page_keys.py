"""What may share a page: the same ids after the same ones, of the same tenant, adapter and media."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ayllu.engine.pages import page_keys, root_digest
from ayllu.engine.request import Media

SIZE = 4
IDS = list(range(3, 27))                                 # six pages


def media_of(start, length, digest):
    return Media(start, length, digest, np.zeros((length, 1), np.float32))


def digests(root=b"root", media=()):
    return [key.digest for key in page_keys(root, IDS, SIZE, 0, media)]


@given(st.integers(0, 20), st.integers(1, 8), st.integers(-3, 3))
def test_another_image_changes_its_pages_and_all_after_them(start, length, shift):
    one, other = (digests(media=(media_of(start, length, name),)) for name in (b"one", b"other"))
    first = start // SIZE                                # the first page that holds a part of it
    assert one[:first] == other[:first] == digests()[:first]
    assert not set(one[first:]) & set(other[first:])
    if shift and start + shift >= 0:                     # the same image in another place
        moved = digests(media=(media_of(start + shift, length, b"one"),))
        assert not set(one[max(first, (start + shift) // SIZE):]) & set(moved)


def test_an_image_that_reaches_past_the_pages_read_so_far_is_still_known():
    whole = digests(media=(media_of(6, 9, b"one"),))
    parent, parts = b"root", []
    for begin in range(0, len(IDS), SIZE):               # page by page, as a prompt is read in chunks
        key = next(page_keys(parent, IDS[:begin + SIZE], SIZE, begin, (media_of(6, 9, b"one"),)))
        parent, parts = key.digest, [*parts, key.digest]
    assert parts == whole


def test_tenants_adapters_and_what_these_hold_are_apart():
    roots = [root_digest(*facts) for facts in (("a", "", ""), ("b", "", ""), ("a", "fox", ""), ("a", "fox", "1"),
                                               ("a", "", "1"), ("", "a", ""))]
    pages = [page for root in roots for page in digests(root)]
    assert len(set(pages)) == len(pages)
