"""Adapters as an argument, as attention is one: the model knows nothing of them, a runner is handed an `Adapt`.

N tokens
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

from torch import Tensor, nn

from ayllu.model.llama import Llama
from ayllu.model.transformer import Transformer


class Adapt(Protocol):
    """Adds to y (N, outputs), in place, what adapters make of x (N, inputs): both of the linear layer `part`, say
    attention.wq, in the block number `layer`."""

    def __call__(self, layer: int, part: str, x: Tensor, y: Tensor) -> None: ...


@contextmanager
def adapted(model: Llama | Transformer, adapt: Adapt | None) -> Iterator[None]:
    """While it lasts, every linear layer of the plain model's blocks adds what adapters give."""
    places = [(number, part, module) for number, block in enumerate(model.layers)
              for part, module in block.named_modules() if isinstance(module, nn.Linear)] if adapt else []
    handles = [module.register_forward_hook(partial(_add, adapt, number, part)) for number, part, module in places]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _add(adapt: Adapt | None, layer: int, part: str, _: nn.Module, inputs: tuple[Any, ...], y: Tensor) -> None:
    assert adapt is not None
    adapt(layer, part, inputs[0].flatten(0, -2), y.view(-1, y.shape[-1]))
