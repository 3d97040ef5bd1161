"""One adapter on a model: linear layers are wrapped, the base's own weights stay as they are.

R rank  N tokens
"""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ayllu import dist
from ayllu.adapters.config import LoraConfig
from ayllu.adapters.names import modules
from ayllu.errors import ConfigError
from ayllu.model.config import LlamaConfig
from ayllu.model.init import generator
from ayllu.model.llama import Llama


@dataclass(frozen=True, eq=False)
class Pair:
    """The matrices of one linear layer."""

    a: Tensor                                            # (R, inputs)
    b: Tensor                                            # (outputs, R)
    magnitude: Tensor | None = None                      # (outputs,), DoRA's lengths

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All that there is."""
        return (self.a, self.b) if self.magnitude is None else (self.a, self.b, self.magnitude)

    def delta(self, scale: float) -> Tensor:
        """What is added to the weight, in float32, (outputs, inputs)."""
        return scale * (self.b.float() @ self.a.float())

    def adapted(self, weight: Tensor, scale: float) -> Tensor:
        """The whole weight with the adapter in it, in float32, (outputs, inputs)."""
        whole = weight.float() + self.delta(scale)
        if self.magnitude is None:
            return whole
        return whole * (self.magnitude.float() / whole.norm(dim=1))[:, None]  # arXiv:2402.09353, eq. 5


@dataclass(frozen=True, eq=False)
class Adapter:
    """An adapter in memory. `base` is the fingerprint of the model that it was made for, where its file tells."""

    config: LoraConfig
    pairs: dict[str, Pair]                               # by our names: layers.0.attention.wq
    base: str | None = None
    file: str = "the adapter"                            # for errors

    @property
    def nbytes(self) -> int:
        """Bytes of its matrices."""
        return sum(t.numel() * t.element_size() for pair in self.pairs.values() for t in pair.tensors)

    @property
    def digest(self) -> str:
        """The same for adapters that compute the same."""
        found = hashlib.sha256(json.dumps([self.config.model_dump(mode="json"), sorted(self.pairs)]).encode())
        for _, pair in sorted(self.pairs.items()):
            for tensor in pair.tensors:
                found.update(tensor.detach().float().cpu().contiguous().numpy().data)
        return found.hexdigest()


class LoraLinear(nn.Module):
    """y = base(x) + scale * B(A(x)), with B = 0 at the start (arXiv:2106.09685, eq. 3).

    With DoRA (arXiv:2402.09353, eq. 5), (W + scale B A) x is stretched for each output to a length that is learned; the
    norm that it is divided by counts as a constant for gradients (section 4.3). The adapter computes in its own dtype.
    """

    def __init__(self, base: nn.Linear, pair: Pair, scale: float, dropout: float = 0.0) -> None:
        super().__init__()
        self.base, self.scale, self.dropout = base, scale, dropout
        self.is_active = True                            # False: the base alone (see `without`)
        self.lora_a, self.lora_b = nn.Parameter(pair.a), nn.Parameter(pair.b)
        self.magnitude = None if pair.magnitude is None else nn.Parameter(pair.magnitude)

    @property
    def pair(self) -> Pair:
        """The matrices as they are now."""
        return Pair(self.lora_a, self.lora_b, self.magnitude)

    def forward(self, x: Tensor) -> Tensor:                                   # (..., inputs) -> (..., outputs)
        y = self.base(x)
        if not self.is_active:
            return y
        dropped = F.dropout(x, self.dropout, self.training).to(self.lora_a.dtype)
        delta = self.scale * F.linear(F.linear(dropped, self.lora_a), self.lora_b)
        if self.magnitude is None:
            return y + delta.to(y.dtype)
        with torch.no_grad():
            length = (self.base.weight.float() + self.pair.delta(self.scale)).norm(dim=1)
        stretch = (self.magnitude / length).to(delta.dtype)                   # (outputs,)
        plain = y if self.base.bias is None else y - self.base.bias
        return y + ((stretch - 1) * plain + stretch * delta).to(y.dtype)


def new_adapter(model: Llama, config: LoraConfig, seed: int = 0) -> Adapter:
    """An adapter that changes nothing yet: A is drawn, by name and seed, and B is 0; DoRA's lengths are the base's."""
    widths, pairs = modules(model.config), dict[str, Pair]()
    for name in config.targets(model.config):
        (inputs, outputs), rank = widths[name], config.rank(name)
        bound = 1 / math.sqrt(inputs)                    # kaiming_uniform(a = sqrt 5), as LoRA's own code begins
        a = torch.empty(rank, inputs).uniform_(-bound, bound, generator=generator(seed, f"{name}.lora_a"))
        base = _linear(model, name)
        magnitude = base.weight.detach().float().norm(dim=1) if config.use_dora else None
        device = _device(base)
        pairs[name] = Pair(a.to(device), torch.zeros(outputs, rank, device=device), magnitude)
    return Adapter(config, pairs)


def attach(model: Llama, adapter: Adapter) -> None:
    """Wrap the linear layers that the adapter is for and freeze everything else: only the adapter can be trained."""
    if any(True for _ in attached(model)):
        raise ConfigError("the model has an adapter already: detach it first, or merge it")
    check_fits(adapter, model)
    model.requires_grad_(False)
    for name, pair in adapter.pairs.items():
        base = _linear(model, name)
        own = Pair(*(tensor.detach().clone().to(_device(base)) for tensor in pair.tensors))
        layer = LoraLinear(base, own, adapter.config.scale(name), adapter.config.lora_dropout)
        _place(model, name, layer.train(base.training))  # a model that only reads drops nothing out


def detach(model: Llama, config: LoraConfig) -> Adapter:
    """Take the wrapped layers off again; gives the adapter as it was trained. The base can be trained again."""
    pairs = dict[str, Pair]()
    for name, layer in list(attached(model)):
        pairs[name] = Pair(*(tensor.detach() for tensor in layer.pair.tensors))
        _place(model, name, layer.base)
    model.requires_grad_(True)
    return Adapter(config, pairs)


def taken(model: Llama, config: LoraConfig, base: str | None = None) -> Adapter:
    """A copy of the adapter as it is now; the layers stay wrapped."""
    return Adapter(config, {name: Pair(*(tensor.detach().clone() for tensor in layer.pair.tensors))
                            for name, layer in attached(model)}, base)


@contextmanager
def without(model: nn.Module) -> Iterator[None]:
    """Inside, the model is its base."""
    layers = [layer for _, layer in attached(model)]
    for layer in layers:
        layer.is_active = False
    try:
        yield
    finally:
        for layer in layers:
            layer.is_active = True


def attached(model: nn.Module) -> Iterator[tuple[str, LoraLinear]]:
    """The wrapped layers, by our names."""
    return ((name, module) for name, module in model.named_modules() if isinstance(module, LoraLinear))


def check_fits(adapter: Adapter, model: Llama) -> None:
    """Refuse an adapter whose matrices have other widths than the model, or that says it was made for another."""
    if not isinstance(model, Llama):
        raise ConfigError("only the Llama family takes adapters")
    check_widths(adapter, model.config)
    if adapter.base is not None:
        check_base(adapter, fingerprint(model))


def check_widths(adapter: Adapter, config: LlamaConfig) -> None:
    """Refuse an adapter whose matrices have other widths than a model of this shape."""
    widths = modules(config)
    for name, pair in adapter.pairs.items():
        found = (pair.a.shape[1], pair.b.shape[0])
        if widths.get(name) != found:
            raise ConfigError(f"{adapter.file}: the matrices for {name} have (inputs, outputs) {found}, the model "
                              f"has {widths.get(name, 'no such layer')}: it was made for another base")


def check_base(adapter: Adapter, found: str) -> None:
    """Refuse an adapter whose file says that it was made for another model than the one with this fingerprint."""
    if adapter.base is not None and adapter.base != found:
        raise ConfigError(f"{adapter.file} was made for the base {adapter.base[:12]}, this model is {found[:12]}: load "
                          "the model that it was trained on")


def fingerprint(model: Llama) -> str:
    """Tells bases apart: of the shape, and of the beginning and end of each tensor in bfloat16, so that a base has one
    in whichever of its dtypes it is loaded. Weights that a runner has taken over can't be read: ask before."""
    own = ((name.replace(".base.", "."), tensor) for name, tensor in model.named_parameters()
           if ".lora_" not in name and not name.endswith(".magnitude"))
    return fingerprint_of(model.config, own)


@torch.no_grad()
def fingerprint_of(config: LlamaConfig, tensors: Iterable[tuple[str, Tensor]]) -> str:
    """The same of weights as they come from a file, by our names and in any order."""
    ends = dict[str, bytes]()
    for name, tensor in tensors:
        flat = dist.whole(tensor.detach()).reshape(-1)
        both = torch.cat((flat[:512], flat[-512:])).to("cpu", torch.bfloat16)
        ends[name] = both.view(torch.int16).numpy().tobytes()
    found = hashlib.sha256(config.model_dump_json().encode())
    for name, data in sorted(ends.items()):
        found.update(name.encode() + data)
    return found.hexdigest()


def _linear(model: Llama, name: str) -> nn.Linear:
    module = model.get_submodule(name)
    if not isinstance(module, nn.Linear):
        raise ConfigError(f"{name} is a {type(module).__name__}, no plain linear layer")
    return module


def _device(layer: nn.Module) -> torch.device:
    """Without asking for a weight, which a packed layer would have to unpack."""
    return next(chain(layer.parameters(), layer.buffers())).device


def _place(model: Llama, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module)
