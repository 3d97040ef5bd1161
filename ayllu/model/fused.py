"""A fast runner for Llama on the CPU and on CUDA: the arithmetic of llama.py in fewer and larger operations.

wq, wk, wv become one matrix, w1 and w3 another; residuals are added inside the product; rotations come from a table; a
step of one token reads the cache through views made once. On the CPU products go through oneDNN, which splits even a
single row of a float32 product among the threads (MKL's does not), and which reads bfloat16 weights fastest in a
blocked layout of its own. The slow twin is EagerRunner (step.py); tests/model/test_fused.py says how far they may
differ.

B rows  T new tokens  N = B T  Q queries  S slots  D width  H query heads  K key/value heads  E head width
F feed-forward width
"""

import functools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ayllu.errors import ConfigError
from ayllu.model.adapt import Adapt
from ayllu.model.attend import Attend
from ayllu.model.cache import DenseCache
from ayllu.model.llama import Attention, Block, FeedForward, Llama, RMSNorm
from ayllu.model.pointwise import Plain, Pointwise
from ayllu.model.shown import Shown
from ayllu.model.step import Batch, prompt_parts

Modules = Sequence[nn.Linear | nn.Embedding]
DTYPES = {"cpu": (torch.float32, torch.bfloat16), "cuda": (torch.float32, torch.bfloat16, torch.float16)}
_QKV = ("attention.wq", "attention.wk", "attention.wv")
PACKED_FOR = 128                                         # rows that oneDNN is told to expect when it picks a layout


def why_not_fused(model: nn.Module, make: "type[Matrix] | None" = None) -> str | None:
    """Why this model can't run fused, as the end of a sentence; None where it can. `make`: as FusedRunner takes it."""
    if not isinstance(model, Llama):
        return "only the Llama family runs fused"
    weights = {(p.device.type, p.dtype) for p in model.parameters()}
    if len(weights) != 1:
        return "its weights are of several dtypes or on several devices"
    device, dtype = next(iter(weights))
    if dtype not in DTYPES.get(device, ()):
        return f"its weights are {dtype} on {device}: fused are float32, bfloat16 and, on CUDA alone, float16"
    plain = (Attention, FeedForward, Block, RMSNorm, nn.Linear, nn.Embedding, nn.Dropout, nn.ModuleList)
    replaced = [name for name, module in model.named_modules() if name and type(module) not in plain]
    if replaced:
        return f"{replaced[0]} was replaced (adapted or quantised)"
    works = make is not None or device == "cuda" or onednn_works(dtype)
    return None if works else f"this torch or processor has no oneDNN product for {dtype}"


class FusedRunner:
    """Takes a model's weights over: it must not be used otherwise until `give_back`. Dropout is not applied.

    With shares=True the model stays as usable as it was, also for training: its weights keep their plain layout, and
    those that make one matrix here become views of it. Slower for bfloat16, which gains most from another layout. Make
    a new runner after the weights changed; where these views are in place, that copies nothing.

    `make`: what computes the products, in place of oneDNN; not for runners that share. On CUDA all of them share.
    """

    def __init__(self, model: Llama, shares: bool = False, make: "type[Matrix] | None" = None) -> None:
        reason = why_not_fused(model, make)
        if reason is not None:
            raise ConfigError(f"this model can't run fused: {reason}; use runner='eager'")
        self.config = model.config
        self.device = model.tok_embeddings.weight.device
        self._model: Llama | None = model
        self.embedding = model.tok_embeddings.weight.detach()                 # (V, D)
        self.dtype = self.embedding.dtype
        is_cuda = self.device.type == "cuda"
        make = make or (TorchMatrix if is_cuda else
                        Matrix if shares or self.dtype != torch.bfloat16 else _PackedMatrix)
        # the head first: while it is packed it is held twice, and what the allocator keeps of the layers comes later
        self.head = make([model.tok_embeddings if self.config.tie_embeddings else model.output])
        self.layers = [Layer(block, make) for block in model.layers if isinstance(block, Block)]
        self.norm = model.norm.weight.detach()
        self.pointwise: Pointwise = Plain()              # a kernel may take its place (engine/paths.py)
        scaling = self.config.rope_scaling
        self._follows_length = scaling is not None and scaling.follows_length
        n_positions = self.config.max_context if is_cuda else 1               # of 0..; it grows with the caches
        self._rotations = _rotation(model, torch.arange(n_positions, device=self.device), self.dtype)
        if is_cuda:                                      # matrices that were joined are kept by torch for others, too
            torch.cuda.empty_cache()

    def give_back(self) -> Llama:
        """The model with its own weights again, bit for bit; this runner can't be used any more."""
        model = self._own()
        self._model = None
        for layer in self.layers:
            layer.give_back()
        self.head.give_back()
        return model

    def new_cache(self, padding: Sequence[int], capacity: int) -> DenseCache:
        """An empty cache for one row per entry of `padding` (slots left empty), with room for `capacity` slots."""
        return DenseCache(self.config, padding, capacity, dtype=self.dtype, device=self.device)

    def step(self, batch: Batch) -> Tensor:
        """Logits (B, V) after the last new token of each row."""
        *before, last = prompt_parts(batch, self.config)
        for part in before:
            self._trunk(part, last_only=True)
        return self.head(self._normed(self._trunk(last, last_only=True), self.norm))

    def hidden(self, batch: Batch) -> Tensor:
        """What `logits` takes, (B, T, D), for every new token."""
        parts = [self._trunk(part, last_only=False).view(*part.ids.shape, -1)
                 for part in prompt_parts(batch, self.config)]
        return self._normed(torch.cat(parts, dim=1), self.norm)

    def flat(self, ids: Tensor, positions: Tensor, attends: Sequence[Attend], adapt: Adapt | None = None,
             shown: Shown | None = None, kept: Tensor | None = None) -> Tensor:       # (N,), (N,) -> (N, D)
        """What `logits` takes, for tokens of any rows side by side; `attends` know whose they are. With `kept`, for
        those alone, and the last of `attends` gives theirs alone: the last layer then computes little for others."""
        if self._follows_length:
            cos, sin = (turn[:, 0] for turn in _rotation(self._own(), positions[:, None], self.dtype))
        else:
            if len(self._rotations[0]) < self.config.max_context:             # else no look at them: CUDA would wait,
                self._turn_to(int(positions.max()) + 1)                       # and no graph could be recorded
            cos, sin = (table[positions] for table in self._rotations)        # (N, 1, E)
        mix = _PromptMix(attends, self.config.n_heads, self.config.n_kv_heads)
        return self._normed(self._through(ids[None], cos, sin, mix, adapt, shown, False, kept), self.norm)

    def logits(self, h: Tensor) -> Tensor:                                    # (..., D) -> (..., V)
        """The model's last product."""
        return self.head(h.reshape(-1, h.shape[-1])).view(*h.shape[:-1], -1)

    def rotations(self, n_positions: int) -> tuple[Tensor, Tensor] | None:
        """cos and signed sin (at least n_positions, 1, E); None where they follow the length of a text."""
        if self._follows_length:
            return None
        self._turn_to(n_positions)
        return self._rotations

    def _own(self) -> Llama:
        if self._model is None:
            raise ConfigError("this runner gave its weights back: make a new one")
        return self._model

    def _trunk(self, batch: Batch, last_only: bool) -> Tensor:
        """(B, T) -> (N, D), or (B, D) for each row's last token: the last layer then computes little but its cache."""
        H, K, T, cache = self.config.n_heads, self.config.n_kv_heads, batch.ids.shape[1], batch.cache
        cos, sin = self._rotation(cache.extend(T), cache)
        mix = _DecodeMix(cache, H) if T == 1 else _PromptMix(cache.attends, H, K)
        return self._through(batch.ids, cos, sin, mix, batch.adapt, batch.shown, last_only)

    def _through(self, ids: Tensor, cos: Tensor, sin: Tensor, mix: "_DecodeMix | _PromptMix",
                 adapt: Adapt | None, shown: Shown | None, last_only: bool, kept: Tensor | None = None) -> Tensor:
        c, (B, T) = self.config, ids.shape
        H, K, E = c.n_heads, c.n_kv_heads, c.head_dim
        cos, sin = (table.expand(B, T, 1, E).reshape(B * T, E) for table in (cos, sin))
        x = self.embedding.index_select(0, ids.reshape(-1))                   # (N, D)
        x = x if shown is None else shown.over(x)
        for number, layer in enumerate(self.layers):
            h = self._normed(x, layer.attention_norm)
            qkv = layer.qkv(h)
            if adapt is not None:
                for part, y in zip(_QKV, qkv.split([H * E, K * E, K * E], dim=-1), strict=True):
                    adapt(number, part, h, y)
            qkv = qkv.view(B, T, H + 2 * K, E)
            self.pointwise.turn(qkv.view(B * T, H + 2 * K, E)[:, :H + K], cos, sin)
            if last_only and T > 1 and number == len(self.layers) - 1:
                x, y = x.view(B, T, -1)[:, -1].contiguous(), mix(number, qkv, n_queries=1)
            else:
                y = mix(number, qkv, n_queries=T)
            if kept is not None and number == len(self.layers) - 1:
                x = x[kept]
            x = layer.wo.add(y, x)
            if adapt is not None:
                adapt(number, "attention.wo", y, x)
            h = self._normed(x, layer.ffn_norm)
            both = layer.w13(h)
            if adapt is not None:
                gate, up = both.chunk(2, dim=-1)
                adapt(number, "feed_forward.w1", h, gate)
                adapt(number, "feed_forward.w3", h, up)
            h = self.pointwise.gate(both)
            x = layer.w2.add(h, x)
            if adapt is not None:
                adapt(number, "feed_forward.w2", h, x)
        return x

    def _normed(self, x: Tensor, weight: Tensor) -> Tensor:                   # (..., D)
        return self.pointwise.norm(x, weight, self.config.norm_eps)

    def _rotation(self, positions: Tensor, cache: DenseCache) -> tuple[Tensor, Tensor]:
        """cos and signed sin, (T, 1, E) or (B, T, 1, E)."""
        if self._follows_length:                                              # frequencies, each row's own
            return _rotation(self._own(), positions, self.dtype)
        if cache.length > len(self._rotations[0]):
            self._turn_to(max(cache.capacity, cache.length))
        cos, sin = self._rotations
        if positions.dim() == 1:
            begin, end = cache.length - cache.n_new, cache.length
            return cos[begin:end], sin[begin:end]
        return cos[positions], sin[positions]

    def _turn_to(self, n_positions: int) -> None:
        """Let the table of rotations have so many positions; it grows by doubling."""
        have = len(self._rotations[0])
        if n_positions > have:
            self._rotations = _rotation(self._own(), torch.arange(max(n_positions, 2 * have), device=self.device),
                                        self.dtype)


class Layer:
    """A block's norms and matrices."""

    def __init__(self, block: Block, make: "type[Matrix]") -> None:
        attention, feed_forward = block.attention, block.feed_forward
        self.attention_norm, self.ffn_norm = block.attention_norm.weight.detach(), block.ffn_norm.weight.detach()
        self.qkv = make([attention.wq, attention.wk, attention.wv])
        self.wo = make([attention.wo])
        self.w13 = make.of_gate([feed_forward.w1, feed_forward.w3])
        self.w2 = make([feed_forward.w2])

    def give_back(self) -> None:
        """Each matrix its own."""
        for matrix in (self.qkv, self.wo, self.w13, self.w2):
            matrix.give_back()


class Matrix:
    """x W^T + b by oneDNN, W in the plain layout: where several modules make one matrix, each becomes a view of it."""

    def __init__(self, modules: Modules) -> None:
        biases = [m.bias.detach() for m in modules if isinstance(m, nn.Linear) and m.bias is not None]
        self.bias = torch.cat(biases) if biases else None
        weights = [m.weight.detach() for m in modules]
        joined = weights[0] if len(weights) == 1 else _as_one(weights)
        if joined is None:
            with torch.inference_mode(False), torch.no_grad():   # the modules' weights may be trained afterwards
                joined = torch.cat(weights)
            for module, rows in zip(modules, joined.split([len(w) for w in weights]), strict=True):
                module.weight.data = rows
        self.weight = joined

    @classmethod
    def of_gate(cls, modules: Modules) -> "Matrix":
        """What gates and what is gated, whose outputs stand one after the other."""
        return cls(modules)

    def __call__(self, x: Tensor) -> Tensor:                                  # (N, in) -> (N, out)
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")

    def add(self, x: Tensor, other: Tensor) -> Tensor:
        """The product plus `other` (N, out), whose memory the result may take."""
        return torch.ops.mkldnn._linear_pointwise.binary(x, other, self.weight, self.bias, "add")

    def plain(self) -> Tensor:                                                # (out, in)
        """The weight in the plain layout."""
        return self.weight

    def give_back(self) -> None:
        """Nothing was taken: the modules' weights are views."""


class TorchMatrix(Matrix):
    """The same by torch's own products, as on CUDA."""

    def __call__(self, x: Tensor) -> Tensor:                                  # (N, in) -> (N, out)
        return F.linear(x, self.weight, self.bias)

    def add(self, x: Tensor, other: Tensor) -> Tensor:
        """In the memory of `other`: a result elsewhere would begin as a copy of it."""
        y = other.addmm_(x, self.weight.t())
        return y if self.bias is None else y.add_(self.bias)


class OwnedMatrix(Matrix):
    """W in a layout that can't be shared, so the linear layers give up theirs; an embedding, which is read row by row
    too, keeps its own."""

    def __init__(self, modules: Modules) -> None:
        super().__init__(modules)
        self.weight = self.packed(self.weight)
        self._taken = [module for module in modules if isinstance(module, nn.Linear)]
        for module in self._taken:
            _replace(module, module.weight.to("meta"))

    def packed(self, weight: Tensor) -> Tensor:                               # (out, in) -> that layout
        """In its layout."""
        raise NotImplementedError

    def give_back(self) -> None:
        """The weights in their plain layout."""
        if self._taken:
            rows = self.plain().split([len(module.weight) for module in self._taken])
            for module, weight in zip(self._taken, rows, strict=True):
                _replace(module, weight)


class _PackedMatrix(OwnedMatrix):
    """oneDNN's blocked layout, from which bfloat16 is read 1.2 to 2 times faster (float32 is not)."""

    def packed(self, weight: Tensor) -> Tensor:                               # (out, in) -> blocks
        """By oneDNN."""
        return torch.ops.mkldnn._reorder_linear_weight(weight, PACKED_FOR)

    def plain(self) -> Tensor:                                                # (out, in)
        """A copy: the same numbers in another order."""
        return self.weight.to_dense()


def _as_one(weights: Sequence[Tensor]) -> Tensor | None:
    """Weights (out_i, in) that lie one after the other in memory, as one matrix; None where they don't."""
    place = weights[0].storage_offset()
    for weight in weights:
        same = weight.untyped_storage().data_ptr() == weights[0].untyped_storage().data_ptr()
        if not (same and weight.is_contiguous() and weight.storage_offset() == place):
            return None
        place += weight.numel()
    return weights[0].as_strided((sum(map(len, weights)), weights[0].shape[1]), weights[0].stride())


def _replace(module: nn.Linear, weight: Tensor) -> None:
    module.weight = nn.Parameter(weight, requires_grad=module.weight.requires_grad)


class _DecodeMix:
    """Attention of one new token per row over the cache: all layers' views are made at once, by a few operations."""

    def __init__(self, cache: DenseCache, n_heads: int) -> None:
        self.B, self.H, self.K, self.E = cache.n_rows, n_heads, cache.buffer.shape[3], cache.buffer.shape[5]
        self.attends = cache.attends
        slot = cache.buffer[:, :, :, :, cache.length - 1]                     # (L, 2, B, K, E)
        self.slots = slot.transpose(1, 2).unbind(0)                           # L of (B, 2, K, E)
        windows = {attend.window for attend in cache.attends}
        self.reads = {window: _read(cache, window) for window in windows}

    def __call__(self, layer: int, qkv: Tensor, n_queries: int = 1) -> Tensor:   # (B, 1, H + 2K, E) -> (B, H E)
        B, H, K, E = self.B, self.H, self.K, self.E
        self.slots[layer].copy_(qkv[:, 0, H:].view(B, 2, K, E))
        q = qkv[:, 0, :H].view(B, K, H // K, E)          # a group's query heads stand where query tokens would
        keys, values, mask = self.reads[self.attends[layer].window]
        y = F.scaled_dot_product_attention(q, keys[layer], values[layer], attn_mask=mask)
        return y.reshape(B, H * E)


def _read(cache: DenseCache, window: int | None) -> tuple[Sequence[Tensor], Sequence[Tensor], Tensor | None]:
    """Keys and values of each layer (B, K, S, E), and the mask over them."""
    seen = cache.buffer[:, :, :, :, cache.first_slot(window, 1):cache.length]    # (L, 2, B, K, S, E)
    return seen[:, 0].unbind(0), seen[:, 1].unbind(0), cache.mask(window, 1)


class _PromptMix:
    """Attention of several new tokens per row, as the cache does it for every model."""

    def __init__(self, attends: Sequence[Attend], n_heads: int, n_kv_heads: int) -> None:
        self.attends, self.H, self.K = attends, n_heads, n_kv_heads

    def __call__(self, layer: int, qkv: Tensor, n_queries: int) -> Tensor:    # (B, T, H + 2K, E) -> (B Q, H E)
        q, k, v = qkv.split([self.H, self.K, self.K], dim=2)
        y = self.attends[layer](q[:, -n_queries:], k, v)                      # (B, Q, H, E)
        return y.reshape(y.shape[0] * y.shape[1], -1)


def _rotation(model: Llama, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """cos and sin (..., T, 1, E) of positions (..., T); sin is negative in its first half, since that half gets -b."""
    rope = model.rope(positions, dtype)
    sin = rope.sin.clone()
    sin[..., :sin.shape[-1] // 2].neg_()
    cos = rope.cos
    return (cos, sin) if positions.dim() > 1 else (cos[0], sin[0])


@functools.cache
def onednn_works(dtype: torch.dtype) -> bool:
    """Whether the products that this file uses exist in this torch, run on this processor and are right."""
    generator = torch.Generator().manual_seed(0)
    x, other = (torch.randn(3, 32, generator=generator).to(dtype) for _ in range(2))
    linear = nn.Linear(32, 32, bias=False, dtype=dtype)
    weight = linear.weight.detach().clone()
    try:
        got = (_PackedMatrix if dtype == torch.bfloat16 else Matrix)([linear]).add(x, other)
    except (AttributeError, NotImplementedError, RuntimeError):               # no such operation, or none for this type
        return False
    return torch.allclose(got.float(), other.float() + F.linear(x.float(), weight.float()), atol=0.05)
