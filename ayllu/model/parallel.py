"""One model over many devices: FSDP2 and tensor parallelism on a mesh of (data, tensor) ranks, by torch's own engine.

Data parallel: each rank has all weights and its own rows. FSDP2: each rank keeps a share of every weight, gradient and
moment, and gathers one block at a time. Tensor parallel (Megatron, arXiv:1909.08053): the heads and the feed-forward
features of every block are dealt out, and two sums per block and pass bring the results together.
"""

import logging
import types
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, Replicate, distribute_module, distribute_tensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    PrepareModuleInput,
    RowwiseParallel,
    parallelize_module,
)
from torch.utils.checkpoint import checkpoint

from ayllu import dist
from ayllu.config import Settings
from ayllu.errors import ConfigError
from ayllu.model.build import CausalModel, build_model
from ayllu.model.config import LlamaConfig, TransformerConfig
from ayllu.model.init import Uninitialised, first_value
from ayllu.model.llama import R, RMSNorm

Precision = Literal["float32", "autocast", "bf16_masters"]
VERBS = ("embed", "trunk", "logits", "head")             # what is called instead of `forward`
COLUMNS = ("wq", "wk", "wv", "w1", "w3")                 # their output features are dealt out: whole heads each
ROWS = ("wo", "w2")                                      # their input features: the partial results are summed
INPUTS = {"attention": 3, "feed_forward": 1}             # how many; the first is dealt out to all COLUMNS in one go


class ParallelConfig(Settings):
    """How the processes of `torchrun` share the work; with one process nothing is shared."""

    mode: Literal["fsdp", "data"] = "fsdp"               # over the data ranks: weights in shares, or whole on each
    data: int | None = Field(default=None, gt=0)         # ranks with rows of their own; None: processes / tensor
    tensor: int = Field(default=1, gt=0)                 # ranks that share each matrix, for the same rows


@dataclass(frozen=True)
class Layout:
    """Where this process stands; by default every process of the group has all weights and rows of its own."""

    mesh: DeviceMesh | None = None                       # (data, tensor)
    mode: Literal["fsdp", "data"] = "data"
    tensor: int = 1

    @property
    def data(self) -> int:
        """How many ranks have rows of their own."""
        return dist.world_size() // self.tensor

    @property
    def data_rank(self) -> int:
        """Which of them this is; tensor ranks lie side by side, where the links are fastest."""
        return dist.rank() // self.tensor

    @property
    def is_sharded(self) -> bool:
        """Whether some weights lie on this rank in part only."""
        return self.tensor > 1 or (self.mode == "fsdp" and self.data > 1)

    def sum(self, value: Tensor) -> Tensor:
        """The sum over data ranks; tensor ranks have the same rows and so the same values."""
        group = self.mesh["dp"].get_group() if self.mesh is not None else None
        return dist.sum_over_ranks(value, group)

    @torch.no_grad()
    def sum_gradients(self, model: nn.Module) -> None:
        """Gradients of the summed loss, over data ranks; FSDP2 has done this in the backward pass."""
        if self.data == 1 or self.mode == "fsdp":
            return
        for parameter in model.parameters():
            if parameter.grad is not None:
                local = parameter.grad.to_local() if isinstance(parameter.grad, DTensor) else parameter.grad
                local.copy_(self.sum(local))

    def local_config(self, config: LlamaConfig | TransformerConfig) -> LlamaConfig | TransformerConfig:
        """The model as one rank computes it: its own heads only, which is what a cache must hold."""
        return config.model_copy(update={"n_heads": config.n_heads // self.tensor,
                                         "n_kv_heads": config.n_kv_heads // self.tensor})


ALONE = Layout()


def new_layout(parallel: ParallelConfig, model: LlamaConfig | TransformerConfig, device: torch.device) -> Layout:
    """Check that the processes, the recipe and the model fit together, and lay the mesh."""
    check_processes(parallel)
    world, tensor = dist.world_size(), parallel.tensor
    check_tensor(model, tensor)
    if world == 1:
        return Layout()
    mesh = init_device_mesh(device.type, (world // tensor, tensor), mesh_dim_names=("dp", "tp"))
    return Layout(mesh, parallel.mode, tensor)


def check_processes(parallel: ParallelConfig) -> None:
    """As many processes must have been started as the recipe deals the work out to."""
    world, wanted = dist.world_size(), parallel.tensor * (parallel.data or 1)
    if world % wanted or (parallel.data is not None and world != wanted):
        many = f"{wanted} processes" if parallel.data else f"a multiple of {wanted} processes"
        raise ConfigError(f"[parallel] data={parallel.data or 'auto'} tensor={parallel.tensor} needs {many}, found "
                          f"{world}: start them with `torchrun --nproc-per-node {wanted} -m ayllu pretrain RECIPE` "
                          "(for several machines, --dry-run prints the line), or change [parallel]")


def check_tensor(model: LlamaConfig | TransformerConfig, tensor: int) -> None:
    """Each rank takes whole heads, whole groups of them, and equal shares of features and vocabulary."""
    for name in ("n_kv_heads", "n_heads", "hidden_dim", "vocab_size"):
        size = getattr(model, name)
        if size % tensor:
            raise ConfigError(f"parallel.tensor={tensor} does not divide model.{name}={size}: choose a tensor size "
                              f"that divides both, or another {name}")


def build_sharded(config: LlamaConfig | TransformerConfig, layout: Layout, device: torch.device,
                  precision: Precision = "float32", compiled: bool = False, recomputes: bool = False) -> CausalModel:
    """A model of which each rank holds its share, without values: `fill` it next.

    FSDP2's modules can't be copied into a trainee (train/trainee.py), so what a trainee would do is built into them:
    `precision`, and in training, blocks that are compiled or computed again in the backward pass.
    """
    assert layout.mesh is not None
    with torch.device("meta"), Uninitialised():
        model = build_model(config)
    if layout.tensor > 1:
        _deal_out(model, layout.mesh["tp"])
    if layout.mode == "fsdp" and layout.data > 1:
        # a verb may return a view, which nothing changes in place; a norm over both dimensions takes two sums
        warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
        logging.getLogger("torch.distributed.tensor._redistribute").setLevel(logging.ERROR)
        for block in model.layers:
            _train_otherwise(block, compiled, recomputes)
        _shard(model, layout.mesh["dp"], precision)
    return model.to_empty(device=device)


def _train_otherwise(block: nn.Module, compiled: bool, recomputes: bool) -> None:
    """Inside of FSDP2's hooks, which gather and scatter, and in training only: a cache would need other graphs."""
    plain = train = block.forward
    if compiled:
        train = torch.compile(train)
    if recomputes:
        train = partial(checkpoint, train, use_reentrant=False)
    if train is not plain:
        block.forward = lambda *inputs: train(*inputs) if block.training else plain(*inputs)


def _deal_out(model: CausalModel, mesh: DeviceMesh) -> None:
    """Tensor parallelism: what enters and leaves a block lies whole on each rank, only what is inside is dealt out."""
    plan: dict[str, ParallelStyle] = {}
    for name, module in model.named_modules():
        leaf = name.rpartition(".")[2]
        if isinstance(module, RMSNorm | nn.LayerNorm):
            plan[name] = _Whole()
        elif isinstance(module, nn.Embedding):
            plan[name] = RowwiseParallel(input_layouts=Replicate())
        elif leaf in INPUTS:                             # else each matrix would sum its input's gradient by itself
            layouts = (Replicate(), *[None] * (INPUTS[leaf] - 1))
            plan[name] = PrepareModuleInput(input_layouts=layouts, desired_input_layouts=layouts)
        elif leaf in COLUMNS:
            plan[name] = ColwiseParallel()
        elif leaf in ROWS:
            plan[name] = RowwiseParallel()
        elif leaf == "output":
            plan[name] = ColwiseParallel(output_layouts=Replicate())
    parallelize_module(model, mesh, plan)
    # a sum still under way would lose its gradient on entering a compiled block (torch 2.13): a copy waits for it
    model.tok_embeddings.register_forward_hook(lambda module, _, x: x.clone())
    model.head = types.MethodType(_gathered_head, model)       # type: ignore[method-assign]
    if model.config.tie_embeddings:
        model.logits = types.MethodType(_tied_logits, model)   # type: ignore[method-assign]


class _Whole(ParallelStyle):
    """A module that every tensor rank computes whole. Its parameters become DTensors like all others, for one
    optimiser call and one norm take all of them or none."""

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        def enter(module: Any, inputs: Any, mesh: DeviceMesh) -> Any:
            return tuple(DTensor.from_local(x, mesh, (Replicate(),), run_check=False) for x in inputs)

        def leave(module: Any, output: DTensor, mesh: DeviceMesh) -> Tensor:
            return output.to_local()

        return distribute_module(module, device_mesh, None, enter, leave)    # type: ignore[arg-type]


def _tied_logits(model: CausalModel, h: Tensor) -> Tensor:                  # (..., D) -> (..., V)
    """The head of a tied model: its matrix is the embedding's, of which each rank has some rows of the vocabulary."""
    weight = model.tok_embeddings.weight
    assert isinstance(weight, DTensor)
    whole = (Replicate(),)
    h = DTensor.from_local(h, weight.device_mesh, whole, run_check=False)
    out = F.linear(h, weight)
    assert isinstance(out, DTensor)
    return out.redistribute(placements=whole).to_local()


def _gathered_head(model: CausalModel, h: Tensor, use: Callable[[Tensor, Tensor], R]) -> R:
    """`use` with the head's whole matrix: every tensor rank does all of this work, on all of the vocabulary.

    To share it, and pay with all logits at once, set loss.chunk=0, which calls `logits`.
    """
    weight = model.tok_embeddings.weight if model.config.tie_embeddings else model.output.weight
    assert isinstance(weight, DTensor)
    whole = (Replicate(),)
    return use(h, weight.redistribute(placements=whole).to_local(grad_placements=whole))


def _shard(model: CausalModel, mesh: DeviceMesh, precision: Precision) -> None:
    """FSDP2, a group for each block and one for embedding, last norm and head; gradients are summed, never averaged.

    `fit` divides once by the weight over all ranks, so unequal weights per rank stay exact. In low precision, weights
    are gathered in bfloat16 while the shares and the sums of gradients stay float32. The residual is float32 under
    autocast; with bf16_masters it is what the embedding gives, bfloat16 in training and float32 in evaluation.
    """
    policy = MixedPrecisionPolicy()
    if precision != "float32":
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False,
                                      output_dtype=torch.float32 if precision == "autocast" else None)
        for module in model.modules():
            if isinstance(module, nn.LayerNorm):
                module.forward = partial(_layer_norm, module)      # type: ignore[method-assign]
    if precision == "bf16_masters":
        model.tok_embeddings.register_forward_hook(lambda module, _, x: x if module.training else x.float())
    for module in (*model.layers, model):
        fully_shard(module, mesh=mesh, mp_policy=policy)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)   # gloo has plain sums only
    for verb in VERBS:
        register_fsdp_forward_method(model, verb)


def _layer_norm(module: nn.LayerNorm, x: Tensor) -> Tensor:
    """torch's own takes no bfloat16 weights, as they have been gathered, for a float32 residual."""
    return F.layer_norm(x, module.normalized_shape, module.weight.to(x.dtype), module.bias.to(x.dtype), module.eps)


@torch.no_grad()
def fill(model: nn.Module, values: Iterable[tuple[str, Tensor]]) -> None:
    """Put whole tensors into a model, each rank keeping its share; nothing is sent."""
    target = dict(model.named_parameters())
    for name, whole in values:
        place(target[name], whole)


def first_values(model: nn.Module, n_layers: int, seed: int) -> Iterator[tuple[str, Tensor]]:
    """The values that `initialise` gives, one whole tensor after the other, for a model of which ranks hold shares."""
    for name, parameter in model.named_parameters():
        yield name, first_value(name, parameter.shape, n_layers, seed)


@torch.no_grad()
def place(parameter: Tensor, whole: Tensor) -> None:
    """Copy a whole tensor into a parameter, or this rank's share of it into a share."""
    if isinstance(parameter, DTensor):
        whole = distribute_tensor(whole.to(parameter.device), parameter.device_mesh, parameter.placements,
                                  src_data_rank=None)
    parameter.copy_(whole)


def settle(model: nn.Module) -> None:
    """Give back what a forward pass without a backward pass has left gathered, before weights are changed."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def gather(model: CausalModel) -> CausalModel | None:
    """The whole model on the CPU of the first rank, None on the others; all ranks must call it.

    What lies whole on that CPU already is lent, not copied.
    """
    settle(model)
    whole: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():     # one after the other: no device ever holds the whole
        value = parameter.detach()
        value = value.full_tensor() if isinstance(value, DTensor) else value
        if dist.is_main():
            whole[name] = value.cpu()
    if not dist.is_main():
        return None
    with torch.device("meta"), Uninitialised():
        out = build_model(model.config)
    out.load_state_dict(whole, assign=True)
    return out
