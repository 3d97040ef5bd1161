"""The page pool: which pages of keys and values are in use, by how many rows, and which still hold a known prefix.

A page holds the keys and values of `page_size` tokens. Rows share pages by counting references. A full page is
published under a key that depends on all ids up to its end, on the tenant, adapter and weights, and on the media within
it; once nobody holds it, it stays findable until its room is needed, the least recently held page first. Keys are
digests, but a page is given only if the ids agree too. Free of torch; the slow twin is tests/oracles/pages.py.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ayllu.engine.request import Media


@dataclass(frozen=True)
class PageKey:
    """What a full page holds: its ids, after all that `parent` stands for."""

    digest: bytes
    parent: bytes
    ids: tuple[int, ...]


def root_digest(*parts: str) -> bytes:
    """Where a chain of keys begins: tenant, adapter, version of the weights. Different roots share no page."""
    text = b"".join(len(part.encode()).to_bytes(8, "little") + part.encode() for part in parts)
    return hashlib.blake2b(text, digest_size=16).digest()


def page_keys(parent: bytes, ids: Sequence[int], page_size: int, begin: int = 0,
              media: Sequence[Media] = ()) -> Iterator[PageKey]:
    """The keys of the full pages of `ids` from place `begin` (a multiple of page_size) on, after `parent`."""
    for start in range(begin, len(ids) - page_size + 1, page_size):
        chunk = tuple(ids[start:start + page_size])
        content = b"".join(i.to_bytes(8, "little") for i in chunk)
        for m in media:
            if m.start < start + page_size and start < m.start + m.length:
                content += (m.start - start).to_bytes(8, "little", signed=True) + m.digest
        digest = hashlib.blake2b(parent + content, digest_size=16).digest()
        yield PageKey(digest, parent, chunk)
        parent = digest


class PagePool:
    """Pages 0 to n_pages - 1. `refs[page]` rows hold a page; 0 means free, with or without a prefix worth finding."""

    def __init__(self, n_pages: int, page_size: int) -> None:
        self.n_pages, self.page_size = n_pages, page_size
        self.refs = [0] * n_pages
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(n_pages))   # taken from the front
        self._keys: dict[int, PageKey] = {}              # of published pages
        self._found: dict[bytes, int] = {}               # digest -> published page
        self.n_evicted = 0                               # published pages whose room was needed

    @property
    def n_free(self) -> int:
        """Pages that nobody holds."""
        return len(self._free)

    @property
    def n_published(self) -> int:
        """Pages that `find` can give."""
        return len(self._keys)

    def pages_for(self, n_tokens: int) -> int:
        """How many pages so many tokens fill."""
        return -(-n_tokens // self.page_size)

    def take(self, n: int) -> list[int]:
        """n free pages, each held once; the caller has looked at n_free."""
        taken = [self._free.popitem(last=False)[0] for _ in range(n)]
        for page in taken:
            self.refs[page] = 1
            if page in self._keys:
                self._forget(page)
                self.n_evicted += 1
        return taken

    def share(self, pages: Sequence[int]) -> list[int]:
        """The same pages, held once more."""
        for page in pages:
            if self.refs[page] == 0:
                del self._free[page]
            self.refs[page] += 1
        return list(pages)

    def give_back(self, pages: Sequence[int]) -> None:
        """Hold these pages, in the order of their tokens, once less. The last ones are lost first: a prefix outlives
        what it begins. Pages without a published prefix go before all others."""
        for page in reversed(pages):
            assert self.refs[page] > 0, f"page {page} is given back once too often"
            self.refs[page] -= 1
            if self.refs[page] == 0:
                self._free[page] = None
                self._free.move_to_end(page, last=page in self._keys)

    def publish(self, page: int, key: PageKey) -> None:
        """Let this full page be found. Where another page holds the same already, that one stays."""
        if key.digest not in self._found and page not in self._keys:
            self._found[key.digest] = page
            self._keys[page] = key

    def find(self, keys: Sequence[PageKey]) -> list[int]:
        """The pages of the longest known beginning of a chain of keys; not held yet."""
        pages = []
        for key in keys:
            page = self._found.get(key.digest)
            if page is None or self._keys[page] != key:
                break
            pages.append(page)
        return pages

    def _forget(self, page: int) -> None:
        del self._found[self._keys.pop(page).digest]
