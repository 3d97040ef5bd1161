"""The keys and values of a batch in one contiguous buffer, and the attention that reads and writes them.

Rows end together: a shorter prompt starts later (left padding), so all rows write the same slot at each step and one
slice holds what they read. A caller may pad on either side; `left_padded` brings rows into this form.

B rows  T new tokens  Q of them that ask  S slots  L layers  H query heads  K key/value heads  E head width
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ayllu.model.attend import sdpa
from ayllu.model.config import LlamaConfig, TransformerConfig

GROW_FROM = 64                                           # slots of the smallest buffer


class DenseCache:
    """A buffer (L, 2, B, K, S, E) that grows by doubling. `extend` makes room for new tokens, `attends` fills it."""

    def __init__(self, config: LlamaConfig | TransformerConfig, padding: Sequence[int], capacity: int, *,
                 dtype: torch.dtype, device: torch.device) -> None:
        """`padding` has an entry per row: how many slots stay empty before its first token."""
        self.config = config
        self.padding = torch.tensor(list(padding), device=device)            # (B,)
        self.length = 0                                                       # slots in use
        self.n_new = 0                                                        # of them, those of the current step
        self.buffer = torch.empty(self._shape(len(padding), max(capacity, GROW_FROM)), dtype=dtype, device=device)
        self.attends = [CacheAttend(self, layer, config.window(layer)) for layer in range(config.n_layers)]
        self._masks: dict[tuple[int | None, int], Tensor | None] = {}
        self._look_at_padding()

    @property
    def n_rows(self) -> int:
        """Rows B of the batch."""
        return self.buffer.shape[2]

    @property
    def capacity(self) -> int:
        """Slots S of the buffer."""
        return self.buffer.shape[4]

    @property
    def nbytes(self) -> int:
        """Bytes of the buffer."""
        return self.buffer.numel() * self.buffer.element_size()

    def extend(self, n_new: int) -> Tensor:
        """Make room for n_new tokens per row; gives their positions, (T,) where no row is padded, else (B, T)."""
        if self.length + n_new > self.capacity:
            self._grow(max(self.length + n_new, 2 * self.capacity))
        slots = torch.arange(self.length, self.length + n_new, device=self.buffer.device)
        self.length, self.n_new = self.length + n_new, n_new
        self._masks = {}
        return (slots - self.padding[:, None]).clamp(min=0) if self.is_padded else slots

    def select(self, rows: Sequence[int]) -> None:
        """Keep these rows, in this order; a row may be taken more than once (samples, beams) or not at all (done)."""
        old, used = self.buffer, self.length
        if len(rows) == self.n_rows:
            moved = [i for i, row in enumerate(rows) if i != row]
            if moved:
                index = torch.tensor([rows[i] for i in moved], device=old.device)
                taken = old[..., :used, :].index_select(2, index)             # a copy, so rows may change places
                for place, i in enumerate(moved):
                    old[:, :, i, :, :used].copy_(taken[:, :, place])
        else:
            self.buffer = old.new_empty(self._shape(len(rows), self.capacity))
            for i, row in enumerate(rows):
                self.buffer[:, :, i, :, :used].copy_(old[:, :, row, :, :used])
        self.padding = self.padding[torch.tensor(list(rows), device=old.device)]
        self._look_at_padding()

    def truncate(self, length: int) -> None:
        """Forget all slots from `length` on; the next tokens are written there."""
        self.length = min(self.length, length)

    def mask(self, window: int | None, n_queries: int) -> Tensor | None:
        """What is added to the scores of this step's last n_queries tokens Q, (B or 1, 1, Q, S); None: all are seen."""
        if (window, n_queries) not in self._masks:
            self._masks[window, n_queries] = self._make_mask(window, n_queries)
        return self._masks[window, n_queries]

    def first_slot(self, window: int | None, n_queries: int) -> int:
        """The first slot that any of this step's last n_queries tokens may read."""
        oldest = 0 if window is None else max(0, self.length - n_queries - window + 1)
        return max(oldest, self._least_padding) if n_queries == 1 else oldest

    def _make_mask(self, window: int | None, n_queries: int) -> Tensor | None:
        first, end = self.first_slot(window, n_queries), self.length
        if n_queries == 1 and self._most_padding <= first:
            return None                                                       # a window is cut by first_slot already
        device = self.buffer.device
        key = torch.arange(first, end, device=device)                         # (S,)
        query = torch.arange(end - n_queries, end, device=device)[:, None]    # (Q, 1)
        seen = key <= query                                                   # (Q, S)
        if window is not None:
            seen = seen & (key > query - window)
        seen = seen[None]
        if self.is_padded:                                                    # padding sees itself: no key would be NaN
            seen = (seen & (key >= self.padding[:, None, None])) | (key == query)
        mask = torch.zeros(seen.shape, dtype=self.buffer.dtype, device=device)
        return mask.masked_fill_(~seen, -torch.inf)[:, None]

    def _grow(self, capacity: int) -> None:
        buffer = self.buffer.new_empty(self._shape(self.n_rows, capacity))
        buffer[..., :self.length, :].copy_(self.buffer[..., :self.length, :])
        self.buffer = buffer

    def _shape(self, n_rows: int, capacity: int) -> tuple[int, ...]:
        c = self.config
        return c.n_layers, 2, n_rows, c.n_kv_heads, capacity, c.head_dim

    def _look_at_padding(self) -> None:
        """Read the padding to the host once, not at each step."""
        self._least_padding, self._most_padding = (int(x) for x in self.padding.aminmax())
        self.is_padded = self._most_padding > 0


@dataclass(frozen=True, eq=False)
class CacheAttend:
    """One layer's view of the cache: writes the step's keys and values, then attends over all that are kept.

    `q` may hold the last Q of the step's T tokens only: the last layer of a prompt needs no more.
    """

    cache: DenseCache
    layer: int
    window: int | None

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:            # (B, Q, H, E), (B, T, K, E)
        cache, Q, T = self.cache, q.shape[1], k.shape[1]
        keys, values = cache.buffer[self.layer]                               # (B, K, S, E)
        begin, end = cache.length - T, cache.length
        keys[:, :, begin:end] = k.transpose(1, 2)
        values[:, :, begin:end] = v.transpose(1, 2)
        if begin == 0 and Q == T and not cache.is_padded and (self.window is None or self.window >= T):
            return sdpa(q, k, v, causal=True)
        first = cache.first_slot(self.window, Q)
        keys, values, mask = keys[:, :, first:end], values[:, :, first:end], cache.mask(self.window, Q)
        if Q > 1:
            return sdpa(q, keys.transpose(1, 2), values.transpose(1, 2), mask=mask)
        return _attend_one(q, keys, values, mask)


def left_padded(rows: Sequence[Sequence[int]], fill: int = 0) -> tuple[Tensor, list[int]]:
    """Rows of ids as one tensor (B, T), shorter rows filled on the left, and how much each was filled."""
    longest = max(len(row) for row in rows)
    padding = [longest - len(row) for row in rows]
    return torch.tensor([[fill] * pad + list(row) for pad, row in zip(padding, rows, strict=True)]), padding


def _attend_one(q: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """One new token per row: the query heads of a group stand where query tokens would, so no key is repeated."""
    B, _, H, E = q.shape
    K = keys.shape[1]
    grouped = q.reshape(B, K, H // K, E)
    y = F.scaled_dot_product_attention(grouped, keys, values, attn_mask=mask)  # (B, K, H/K, E)
    return y.reshape(B, 1, H, E)
