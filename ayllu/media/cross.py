"""Gated cross-attention (Flamingo, arXiv:2204.14198, section 2.2): instead of features in the text, layers between the
Llama's that look at them. Their gates are 0 at first, and a token before any medium is never touched, so a text without
media gives the Llama's own numbers to the bit, whatever was learned.

B rows  T tokens  N features of one medium  M features of a row  L width of the Llama
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from ayllu.config import Settings
from ayllu.errors import RequestError
from ayllu.media.encoder import Attention, FeedForward, Shape
from ayllu.media.splice import Place
from ayllu.model.llama import Llama


class CrossConfig(Settings):
    """`layers` are those of the Llama that have one before them; the shape's width is the Llama's."""

    shape: Shape
    layers: tuple[int, ...]


@dataclass(frozen=True)
class Memory:
    """What the tokens of each row may look at: of several media the last one before them."""

    values: Tensor                                       # (B, M, L)
    mask: Tensor                                         # (B, 1, T, M)
    seen: Tensor                                         # (B, T, 1), 1 where there is one


class GatedLayer(nn.Module):
    """x + tanh(a) attention(norm(x), memory), then x + tanh(b) feed_forward(norm(x))."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.attention_norm, self.memory_norm, self.ffn_norm = (
            nn.LayerNorm(shape.dim, shape.norm_eps) for _ in range(3))
        self.attention, self.feed_forward = Attention(shape), FeedForward(shape)
        self.attention_gate, self.ffn_gate = (nn.Parameter(torch.zeros(())) for _ in range(2))

    def forward(self, x: Tensor, memory: Memory) -> Tensor:                   # (B, T, L)
        y = self.attention(self.attention_norm(x), self.memory_norm(memory.values), memory.mask)
        x = x + memory.seen * self.attention_gate.tanh() * y
        return x + memory.seen * self.ffn_gate.tanh() * self.feed_forward(self.ffn_norm(x))


class Crossing(nn.Module):
    """All of them."""

    def __init__(self, config: CrossConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleDict({str(number): GatedLayer(config.shape) for number in config.layers})

    def trunk(self, body: Llama, x: Tensor, memory: Memory | None) -> Tensor:     # (B, T, L) -> (B, T, L)
        """As `body.trunk`, with looks between; without memory it is that."""
        if memory is None:
            return body.trunk(x)
        rope = body.rope(torch.arange(x.shape[1], device=x.device), x.dtype)
        for number, (layer, attend) in enumerate(zip(body.layers, body.causal(), strict=True)):
            if str(number) in self.layers:
                x = self.layers[str(number)](x, memory)
            x = layer(x, rope, attend)
        return body.norm(x)


def memory_of(places: Sequence[Sequence[Place]], features: Sequence[Tensor], T: int) -> Memory | None:
    """Features, each (N, L), in the order of the places, which are one token long; None where no row has any."""
    if not features:
        return None
    if sum(map(len, places)) != len(features):
        raise RequestError(f"{sum(map(len, places))} places and {len(features)} media: give one of each")
    device, rows, at = features[0].device, [], 0
    owner, last = [], torch.full((len(places), T), -1, device=device)         # of each feature; of each token
    for i, row in enumerate(places):
        mine = features[at:at + len(row)]
        at += len(row)
        rows.append(torch.cat([*mine, features[0][:0]]))
        owner.append(torch.cat([torch.full((len(rows_of),), n, device=device) for n, rows_of in enumerate(mine)]
                               or [torch.empty(0, dtype=torch.long, device=device)]))
        for n, place in enumerate(row):
            last[i, place.start:] = n
    values, owners = pad_sequence(rows, batch_first=True), pad_sequence(owner, batch_first=True, padding_value=-2)
    seen = last >= 0
    mask = (owners[:, None] == last[:, :, None]) | ~seen[:, :, None]          # a row with no key would be NaN
    return Memory(values, mask[:, None], seen[:, :, None].to(values.dtype))
