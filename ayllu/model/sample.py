"""The sampling mathematics, once: penalties, filters and the draw, for a batch whose rows each have their own settings.

Order, as transformers has it: logit bias, repetition, presence and frequency, temperature, top-k, top-p, min-p,
typical. Every function takes and gives logits; what a filter removes becomes -inf. Each row draws with one uniform
number that depends on its seed, its sample number and its step alone: what else is in the batch changes nothing.

B rows  V vocabulary
"""

import math
import secrets
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ayllu.errors import RequestError
from ayllu.model.params import SamplingParams

__all__ = ["NOT_FINITE", "Sampler", "SamplingParams", "draw", "new_seed", "top_logprobs", "uniform"]

LEVELS = (1 / 4, 1 / 16, 1 / 64, 1 / 256, 1 / 1024)      # of the largest probability: where top-p looks for its bound
NOT_FINITE = ("the model's logits are not finite: the weights may be damaged, or the dtype too narrow (try float32), "
              "or logit_bias may forbid every id")


def uniform(seed: int, sample: int, step: int) -> float:
    """One number in [0, 1) with 53 random bits, a pure function of its arguments (SplitMix64, Steele et al. 2014)."""
    state = _mix(seed) ^ _mix(sample + (1 << 32))
    return (_mix(state + step) >> 11) / (1 << 53)


def _mix(value: int) -> int:
    mask = (1 << 64) - 1
    z = (value * 0x9E3779B97F4A7C15 + 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


def new_seed() -> int:
    """A seed from the system's randomness, short enough to be typed again."""
    return secrets.randbits(32)


def penalise_repetition(logits: Tensor, seen: Tensor, penalty: Tensor) -> Tensor:
    """Logits (B, V) of ids that were `seen` (B, V) are divided by penalty (B, 1) where positive, else multiplied."""
    changed = torch.where(logits < 0, logits * penalty, logits / penalty)
    return torch.where(seen, changed, logits)


def penalise_presence(logits: Tensor, counts: Tensor, presence: Tensor, frequency: Tensor) -> Tensor:
    """logits - presence [count > 0] - frequency count, with counts (B, V) over the answer (OpenAI's definition)."""
    return logits - presence * (counts > 0) - frequency * counts


def keep_top_k(logits: Tensor, k: Tensor) -> Tensor:
    """Keep the k (B,) largest and what equals the k-th; 0 keeps everything."""
    V = logits.shape[-1]
    largest = min(int(k.max()), V)
    if largest == 0:
        return logits
    values = logits.topk(largest, dim=-1).values
    kth = values.gather(-1, (k.clamp(1, largest) - 1)[:, None])
    return logits.masked_fill((logits < kth) & (k > 0)[:, None], -math.inf)


def keep_top_p(logits: Tensor, p: Tensor) -> Tensor:
    """Keep the fewest largest whose probabilities reach p (B,) (arXiv:1904.09751) and what equals the last of them."""
    probabilities = logits.softmax(-1)
    place, own = _likeliest(probabilities, p)                                 # (B, W), a few hundred of V
    values, order = logits.gather(-1, place).masked_fill_(~own, -math.inf).sort(-1, descending=True)
    falling = (probabilities.gather(-1, place) * own).gather(-1, order)
    before = falling.cumsum(-1) - falling                                     # mass before an id is still below p
    kept = ((before < p[:, None]) & own.gather(-1, order)).sum(-1).clamp(min=1)
    last = values.gather(-1, (kept - 1)[:, None])
    return logits.masked_fill((logits < last) & (p < 1)[:, None], -math.inf)


def _likeliest(probabilities: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    """Places (B, W) of all ids from some probability on, which together reach p, and which of them are a row's own.

    Sorting whole rows costs milliseconds at large vocabularies; few passes find a bound for what needs sorting.
    """
    largest = probabilities.amax(-1, keepdim=True)
    bound = torch.zeros_like(largest)                                         # where no level reaches p: everything
    for level in LEVELS:
        reached = (probabilities * (probabilities >= largest * level)).sum(-1, keepdim=True) > p[:, None]
        bound = torch.maximum(bound, largest * level * reached)               # a level further down is lower
        if bool(reached.all()):
            break
    candidates = probabilities >= bound
    counts = candidates.sum(-1, keepdim=True)
    row, place = candidates.nonzero(as_tuple=True)
    first = counts.cumsum(0) - counts                                         # (B, 1), where a row's candidates begin
    own = torch.arange(int(counts.max()), device=counts.device) < counts      # (B, W)
    padded = torch.zeros_like(own, dtype=torch.long)
    padded[row, torch.arange(len(row), device=row.device) - first[row, 0]] = place
    return padded, own


def keep_min_p(logits: Tensor, p: Tensor) -> Tensor:
    """Keep what is at least p (B,) times as likely as the likeliest (arXiv:2407.01082)."""
    return logits.masked_fill(logits < logits.amax(-1, keepdim=True) + p.log()[:, None], -math.inf)


def keep_typical(logits: Tensor, p: Tensor) -> Tensor:
    """Keep the ids whose information is nearest to the entropy until their mass reaches p (B,) (arXiv:2202.00666)."""
    logp = logits.log_softmax(-1)
    entropy = -(logp.exp() * logp).nansum(-1, keepdim=True)                   # 0 * -inf counts as 0
    distance, order = (-logp - entropy).abs().sort(-1)
    mass = logits.gather(-1, order).softmax(-1).cumsum(-1)
    last = (mass < p[:, None]).sum(-1, keepdim=True).clamp(max=logits.shape[-1] - 1)
    remove = distance > distance.gather(-1, last)
    remove[:, 0] = False
    remove &= (p < 1)[:, None]
    return logits.masked_fill(torch.zeros_like(remove).scatter(-1, order, remove), -math.inf)


def draw(logits: Tensor, u: Tensor) -> Tensor:
    """Ids (B,) distributed as softmax(logits), one per row, from one uniform number u (B,) in [0, 1) each.

    The inverse of the cumulative distribution, summed in float64 so that a large vocabulary leaves no bias.
    """
    mass = logits.softmax(-1).cumsum(-1, dtype=torch.float64)
    ids = torch.searchsorted(mass, (u * mass[:, -1])[:, None], right=True)[:, 0]
    return ids.clamp(max=logits.shape[-1] - 1)


class Sampler:
    """The state of sampling for the rows of a batch: their settings as tensors, and which ids each has used."""

    def __init__(self, params: Sequence[SamplingParams], seeds: Sequence[int], samples: Sequence[int],
                 prompts: Sequence[Sequence[int]], vocab_size: int, device: torch.device) -> None:
        self.params, self.seeds, self.samples = list(params), list(seeds), list(samples)
        self.vocab_size, self.device = vocab_size, device
        self.step = 0
        self.bias = _bias_table(self.params, vocab_size, device)
        self.seen = _seen_table(self.params, prompts, vocab_size, device)
        self.counts = None
        if any(p.presence_penalty or p.frequency_penalty for p in self.params):
            self.counts = torch.zeros(len(self.params), vocab_size, device=device)
        self._columns()

    def select(self, rows: list[int]) -> None:
        """Keep these rows, in this order; a row may be taken more than once."""
        self.params = [self.params[row] for row in rows]
        self.seeds = [self.seeds[row] for row in rows]
        self.samples = [self.samples[row] for row in rows]
        index = torch.tensor(rows, device=self.device)
        tables = (self.bias, self.seen, self.counts)
        self.bias, self.seen, self.counts = (None if t is None else t[index] for t in tables)
        self._columns()

    def penalise(self, logits: Tensor) -> Tensor:
        """Bias and penalties: what changes greedy choices too."""
        if self.bias is not None:
            logits = logits + self.bias
        if self.seen is not None:
            logits = penalise_repetition(logits, self.seen, self.column("repetition_penalty")[:, None])
        if self.counts is not None:
            logits = penalise_presence(logits, self.counts, self.column("presence_penalty")[:, None],
                                       self.column("frequency_penalty")[:, None])
        return logits

    def filter(self, logits: Tensor) -> Tensor:
        """Temperature and the filters. Greedy rows pass through as if their temperature were 1."""
        if "temperature" in self.used:
            logits = logits / self.column("temperature")[:, None]
        if "top_k" in self.used:
            logits = keep_top_k(logits, self.column("top_k").long())
        if "top_p" in self.used:
            logits = keep_top_p(logits, self.column("top_p"))
        if "min_p" in self.used:
            logits = keep_min_p(logits, self.column("min_p"))
        if "typical_p" in self.used:
            logits = keep_typical(logits, self.column("typical_p"))
        return logits

    def choose(self, logits: Tensor) -> Tensor:
        """The next ids (B,) from the model's logits (B, V); remembers them for the penalties."""
        logits = self.penalise(logits.float())
        ids = logits.argmax(-1)
        if not bool(logits.gather(-1, ids[:, None]).isfinite().all()):        # argmax finds NaN before any number
            raise RequestError(NOT_FINITE)
        if not self.all_greedy:
            u = [uniform(seed, sample, self.step) for seed, sample in zip(self.seeds, self.samples, strict=True)]
            drawn = draw(self.filter(logits), torch.tensor(u, dtype=torch.float64).to(self.device))
            ids = drawn if self.greedy is None else torch.where(self.greedy, ids, drawn)
        self.remember(ids)
        return ids

    def remember(self, ids: Tensor) -> None:
        """Count the ids (B,) that were chosen, for the penalties of the next step."""
        self.step += 1
        if self.seen is not None:
            self.seen.scatter_(1, ids[:, None], True)
        if self.counts is not None:
            self.counts.scatter_add_(1, ids[:, None], torch.ones_like(ids[:, None], dtype=self.counts.dtype))

    def column(self, name: str) -> Tensor:
        """One setting of all rows as a tensor (B,) in float32, made once."""
        if name not in self._made:
            values = [float(getattr(p, name)) for p in self.params]
            if name == "temperature":
                values = [value or 1.0 for value in values]
            self._made[name] = torch.tensor(values, device=self.device)
        return self._made[name]

    def _columns(self) -> None:
        neutral = SamplingParams()
        names = ("temperature", "top_k", "top_p", "min_p", "typical_p")
        sampled = [p for p in self.params if not p.is_greedy]
        self.used = {name for name in names if any(getattr(p, name) != getattr(neutral, name) for p in sampled)}
        self.all_greedy = not sampled
        mixed = 0 < len(sampled) < len(self.params)
        self.greedy = torch.tensor([p.is_greedy for p in self.params], device=self.device) if mixed else None
        self._made: dict[str, Tensor] = {}


def top_logprobs(logits: Tensor, ids: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Log p of `ids` (B,); log p and ids (B, k) of the likeliest. The model's own, before penalties and temperature."""
    logp = logits.float().log_softmax(-1)
    top = logp.topk(min(k, logits.shape[-1]), dim=-1)
    return logp.gather(-1, ids[:, None])[:, 0], top.values, top.indices


def _bias_table(params: list[SamplingParams], V: int, device: torch.device) -> Tensor | None:
    if not any(p.logit_bias for p in params):
        return None
    table = torch.zeros(len(params), V)
    for row, p in enumerate(params):
        for token, value in p.logit_bias.items():
            _check_id(token, V, "logit_bias")
            table[row, token] = value
    return table.to(device)


def _seen_table(params: list[SamplingParams], prompts: Sequence[Sequence[int]], V: int,
                device: torch.device) -> Tensor | None:
    if all(p.repetition_penalty == 1 for p in params):
        return None
    table = torch.zeros(len(params), V, dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        table[row, torch.tensor(list(prompt), dtype=torch.long)] = True
    return table.to(device)


def _check_id(token: Any, V: int, where: str) -> None:
    if not 0 <= token < V:
        raise RequestError(f"{where} names id {token}, but the vocabulary has ids 0 to {V - 1}")
