"""What happens inside a model during one run, recorded by hooks and wrapped `attend`s; the model file doesn't change.

B batch (1)  T tokens  D width  H query heads  K key/value heads  E head width  V vocabulary
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ayllu.errors import RequestError
from ayllu.model.attend import Attend
from ayllu.model.llama import Llama
from ayllu.model.transformer import Transformer


@dataclass
class Mix:
    """An `attend` that does what the one inside it does, and remembers it."""

    inner: Attend
    q: Tensor = field(init=False)                        # (1, T, H, E), rotated where the model rotates
    k: Tensor = field(init=False)                        # (1, T, K, E)
    v: Tensor = field(init=False)                        # (1, T, K, E)
    y: Tensor = field(init=False)                        # (1, T, H, E)

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        self.q, self.k, self.v = q, k, v
        self.y = self.inner(q, k, v)
        return self.y


@dataclass(frozen=True)
class Record:
    """One run: what went into and came out of each module (by its name), each layer's mixing, and the logits."""

    model: Llama | Transformer
    ids: tuple[int, ...]
    inputs: dict[str, Tensor]                            # the first argument of each module
    outputs: dict[str, Tensor]
    mixes: list[Mix]                                     # one per layer
    logits: Tensor                                       # (1, T, V)


@torch.no_grad()
def record(model: Llama | Transformer, ids: Sequence[int]) -> Record:
    """Run the model once over `ids`, as it is (in eval mode), and keep what every part saw and gave."""
    limit = model.config.max_context
    if not 0 < len(ids) <= limit:
        raise RequestError(f"{len(ids)} tokens given, this model takes 1 to {limit}")
    foreign = [i for i in ids if not 0 <= i < model.config.vocab_size]
    if foreign:
        raise RequestError(f"id {foreign[0]} is not in the vocabulary: this model has ids 0 to "
                           f"{model.config.vocab_size - 1}")
    inputs: dict[str, Tensor] = {}
    outputs: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> None:
            inputs[name], outputs[name] = arguments[0], output
        return hook

    was_training = model.training
    model.eval()
    mixes = [Mix(attend) for attend in model.causal()]
    hooks = [module.register_forward_hook(keep(name)) for name, module in model.named_modules()
             if name and not isinstance(module, nn.ModuleList)]
    try:
        logits = model(torch.tensor([list(ids)], device=model.tok_embeddings.weight.device), attends=mixes)
    finally:
        for hook in hooks:
            hook.remove()
        model.train(was_training)
    return Record(model, tuple(ids), inputs, outputs, mixes, logits)


def slow_attention(q: Tensor, k: Tensor, v: Tensor, window: int | None = None) -> tuple[Tensor, Tensor]:
    """softmax(q kT / sqrt(E)) v spelled out in float64, from the (T, heads, E) of one layer.

    Gives the weights (H, T, T), zero where a token may not look, and the mixed values (T, H, E).
    """
    T, H, E = q.shape
    q, k, v = q.double(), k.double(), v.double()
    weights = torch.zeros(H, T, T, dtype=torch.float64, device=q.device)
    for head in range(H):
        shared = head * k.shape[1] // H                                      # the key/value head of this query head
        for t in range(T):
            first = 0 if window is None else max(0, t - window + 1)
            scores = k[first:t + 1, shared] @ q[t, head] / E**0.5            # (keys seen,)
            weights[head, t, first:t + 1] = torch.softmax(scores, 0)
    shared_v = v.repeat_interleave(H // v.shape[1], dim=1)                   # (T, H, E)
    return weights, torch.einsum("hts,she->the", weights, shared_v)
