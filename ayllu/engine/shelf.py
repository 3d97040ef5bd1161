"""The adapters that an engine holds, by name: loaded and unloaded between two steps, within a limit of memory.

Unloading takes the name away at once: later requests don't find it. Requests that began with the adapter finish with
it, pre-empted ones too, and its memory is free when the last of them is over. Loading another one under the same name
does the same to the old one.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from ayllu.adapters.lora import Adapter, check_widths
from ayllu.adapters.many import Bank, Holds, TiledBank
from ayllu.errors import RequestError, UnknownAdapter
from ayllu.model.adapt import Adapt
from ayllu.model.config import LlamaConfig
from ayllu.model.step import Runner


@dataclass(eq=False)
class Loaded:
    """One adapter on the shelf."""

    name: str
    slot: int
    digest: str                                          # of its content: what keys of cached pages depend on
    rank: int                                            # the largest
    n_bytes: int                                         # of its matrices, as they were read
    origin: str                                          # its folder's name
    loaded_at: float = field(default_factory=time.time)
    n_users: int = 0                                     # requests that aren't over
    n_requests: int = 0                                  # since it was loaded
    is_gone: bool = False                                # its name is not known any more


class Shelf:
    """Names, slots and users; the matrices lie in a bank."""

    def __init__(self, runner: Runner, most: int, most_bytes: int, tile: int | None = None) -> None:
        """`tile`: for deterministic steps, tokens of a tile."""
        self.config, self.most, self.most_bytes = runner.config, most, most_bytes
        self._bank: Holds | None = None
        if isinstance(runner.config, LlamaConfig):
            place = runner.config, runner.dtype, runner.device
            self._bank = Bank(*place) if tile is None else TiledBank(*place, tile)
        self.slots: dict[int, Loaded] = {}              # those that were unloaded but have users, too
        self.loaded: dict[str, Loaded] = {}

    def load(self, name: str, adapter: Adapter, replace: bool = False, origin: str = "") -> Loaded:
        """Put an adapter on the shelf; with `replace` in the place of one that has the name."""
        bank = self._check(name, adapter, replace)
        slot = next(i for i in range(len(self.slots) + 1) if i not in self.slots)
        if len(self.slots) >= self.most:
            raise RequestError(f"{len(self.slots)} adapters are loaded, which is the limit (one that is unloaded "
                               "counts until its requests are over): unload one")
        need = bank.bytes_with(slot, adapter)
        if need > self.most_bytes:
            raise RequestError(f"with the adapter {name!r} all adapters would take {need / 2**20:.1f} MiB, at most "
                               f"{self.most_bytes / 2**20:.1f} are allowed: unload one, or start with more")
        bank.put(slot, adapter)
        if name in self.loaded:
            self.unload(name)
        rank = max(len(pair.a) for pair in adapter.pairs.values())
        self.loaded[name] = self.slots[slot] = Loaded(name, slot, adapter.digest, rank, adapter.nbytes, origin)
        return self.loaded[name]

    def unload(self, name: str) -> Loaded:
        """Take a name away."""
        found = self.find(name)
        del self.loaded[name]
        found.is_gone = True
        self._free(found)
        return found

    def find(self, name: str) -> Loaded:
        """The adapter of this name."""
        if name not in self.loaded:
            known = ", ".join(sorted(self.loaded)) or "none"
            raise UnknownAdapter(f"there is no adapter {name!r} (loaded: {known}): load it first")
        return self.loaded[name]

    @property
    def is_used(self) -> bool:
        """Whether any request that isn't over has an adapter: without one a step has nothing to look for."""
        return any(adapter.n_users for adapter in self.slots.values())

    def take(self, adapter: Loaded) -> None:
        """A new request holds it until `give_back`."""
        adapter.n_users += 1
        adapter.n_requests += 1

    def give_back(self, adapter: Loaded) -> None:
        """One of its requests is over."""
        adapter.n_users -= 1
        self._free(adapter)

    def adapt(self, owners: Sequence[Loaded | None]) -> Adapt | None:
        """What a runner adds for tokens with these adapters; of one owner, for all tokens."""
        if self._bank is None or not self.slots:
            return None
        return self._bank.adapt([owner.slot if owner else None for owner in owners])

    def _free(self, adapter: Loaded) -> None:
        if adapter.is_gone and adapter.n_users == 0 and self._bank is not None:
            self._bank.drop(adapter.slot)
            del self.slots[adapter.slot]

    def _check(self, name: str, adapter: Adapter, replace: bool) -> Holds:
        if self._bank is None or not isinstance(self.config, LlamaConfig):
            raise RequestError("only the Llama family takes adapters")
        if name in self.loaded and not replace:
            raise RequestError(f"an adapter {name!r} is loaded already: unload it first, or replace it (load_inplace)")
        check_widths(adapter, self.config)
        return self._bank
