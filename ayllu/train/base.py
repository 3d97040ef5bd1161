"""The model that a fine-tuning begins with: its weights as they are, in 16 bits, or in NF4, and what tells it apart."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ayllu.adapters.lora import fingerprint, fingerprint_of
from ayllu.adapters.names import modules
from ayllu.checkpoint.load import build_model
from ayllu.checkpoint.source import OpenCheckpoint
from ayllu.model.config import LlamaConfig
from ayllu.model.init import STD, Uninitialised, first_value, generator
from ayllu.model.llama import Llama
from ayllu.model.parallel import Layout, build_sharded, fill
from ayllu.quant.linear import Nf4Linear, pack_linear
from ayllu.quant.nf4 import BLOCK, random_packed
from ayllu.train.compiled import may_compile
from ayllu.train.sft_config import Tuning


def dtype_of(config: Tuning) -> torch.dtype:
    """Of the base's weights, those in NF4 apart."""
    is_low = config.base_dtype == "bfloat16" or (config.base_dtype == "auto" and config.loop.precision != "float32")
    return torch.bfloat16 if config.lora is not None and is_low else torch.float32


def base_model(config: Tuning, source: OpenCheckpoint, device: torch.device) -> tuple[Llama, str]:
    """The base and its fingerprint. What is trained lies in float32 in memory of its own: weights that a file lends
    must not be written to."""
    if config.quant == "nf4":
        return _packed(source, dtype_of(config), device)
    model = build_model(source, dtype=dtype_of(config), device=device)
    if config.lora is None:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.data = parameter.data.clone()
    return model, fingerprint(model)


def shared_base(config: Tuning, source: OpenCheckpoint, layout: Layout, device: torch.device) -> tuple[Llama, str]:
    """The base in the ranks' shares and its fingerprint: each weight is read whole and put down as a share, one after
    the other."""
    model = build_sharded(source.config, layout, device, config.loop.precision, may_compile(config, device),
                          config.loop.activation_checkpointing)
    fill(model, source.tensors())
    assert isinstance(model, Llama)
    return model, fingerprint(model)


def random_reader(shape: LlamaConfig, seed: int, device: torch.device, dtype: torch.dtype) -> Llama:
    """A model that isn't trained, with first values."""
    model = _empty(shape)
    for name, parameter in list(model.named_parameters()):
        value = first_value(name, parameter.shape, shape.n_layers, seed)
        _set(model, name, nn.Parameter(value.to(device, dtype), requires_grad=False))
    return model


def random_base(config: Tuning, shape: LlamaConfig, device: torch.device) -> Llama:
    """A model of this shape with first values, drawn where they will lie, for a rehearsal."""
    model, dtype = _empty(shape), dtype_of(config)
    packed = packable(shape) if config.quant == "nf4" else {}
    for name, parameter in list(model.named_parameters()):
        owner, _, leaf = name.rpartition(".")
        if leaf == "weight" and owner in packed:
            inputs, outputs = packed[owner]
            codes = random_packed(inputs * outputs, STD, generator(config.seed, name), device)
            _set(model, owner, Nf4Linear(inputs, outputs, codes))
        else:
            value = first_value(name, parameter.shape, shape.n_layers, config.seed, device)
            _set(model, name, nn.Parameter(value.to(dtype), requires_grad=config.lora is None))
    return model


def packable(shape: LlamaConfig) -> dict[str, tuple[int, int]]:
    """(inputs, outputs) of the linear layers that NF4 takes: those of the blocks that divide into its own blocks."""
    return {name: widths for name, widths in modules(shape).items() if widths[0] * widths[1] % BLOCK == 0}


def _packed(source: OpenCheckpoint, dtype: torch.dtype, device: torch.device) -> tuple[Llama, str]:
    """One weight after the other is read, packed and let go of."""
    model, packed = _empty(source.config), packable(source.config)

    def read() -> Iterator[tuple[str, Tensor]]:
        for name, tensor in source.tensors():
            owner, _, leaf = name.rpartition(".")
            if leaf == "weight" and owner in packed:
                _set(model, owner, pack_linear(tensor.to(device)))
            else:
                _set(model, name, nn.Parameter(tensor.to(device, dtype, copy=True), requires_grad=False))
            yield name, tensor

    return model.eval(), fingerprint_of(source.config, read())


def _empty(shape: LlamaConfig) -> Llama:
    with torch.device("meta"), Uninitialised():
        return Llama(shape)


def _set(model: Llama, name: str, value: nn.Module | nn.Parameter) -> None:
    parent, _, leaf = name.rpartition(".")
    owner = model.get_submodule(parent)
    if isinstance(value, nn.Module) and isinstance(bias := getattr(owner, leaf).bias, nn.Parameter):
        value.bias = bias                                # its own value comes, or has come, by its own name
    setattr(owner, leaf, value)
