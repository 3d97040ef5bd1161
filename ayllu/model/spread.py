"""What a step costs each of many GPUs: memory, bytes sent, seconds. Reads shapes only and needs no torch.

The layouts are those of parallel.py: shares of weights, gradients and moments over data ranks (ZeRO stage 3,
arXiv:1910.02054, section 5), heads and features over tensor ranks (Megatron, arXiv:1909.08053, section 3), blocks
computed again in the backward pass (arXiv:2205.05198, section 5). tests/model/test_spread.py compares every figure
with what the code holds and sends: on gloo ranks, and without data at the widths of 7B and 70B. Activations of the
original Transformer are counted as Llama's of the same widths, which is up to a third too much.

D width  F feed-forward width  V vocabulary  L layers  N data ranks  M tensor ranks
"""

from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from ayllu.config import Settings
from ayllu.model.account import Config, layer_bytes, matmul_parameters, n_parameters, parts, training_flops


class Machine(Settings):
    """Machines of one kind. The defaults are data sheets of an eight-GPU H100 server; `share` and `hop_s` are assumed.

    `share` counts recomputed operations, so it is no MFU. torchtitan publishes 5,762 tokens/s for each of 8 H100s on
    Llama 3.1 8B, not compiled, a part recomputed (benchmarks/llama3_h100_202412): the formula says less than that with
    all recomputed, and more with nothing.
    """

    flops: float = Field(default=989e12, gt=0)           # dense bfloat16 operations per second of one GPU
    memory: float = Field(default=80e9, gt=0)            # bytes of one GPU
    gpus: int = Field(default=8, gt=0)                   # of one machine, joined by NVLink
    nvlink: float = Field(default=450e9, gt=0)           # bytes per second and GPU, each way
    network: float = Field(default=50e9, gt=0)           # the same between machines: one 400 Gb/s link for each GPU
    share: float = Field(default=0.35, gt=0, le=1)       # of `flops` while a GPU computes
    hop_s: float = Field(default=5e-6, ge=0)             # delay of one of the N - 1 hops of a ring
    watts: float = Field(default=700, gt=0)              # of one GPU


@dataclass(frozen=True)
class Ranks:
    """How ranks share the work, and how much of it there is."""

    data: int                                            # N
    tensor: int                                          # M
    rows: int                                            # of a step, over all ranks
    micro_batch: int                                     # rows at once on a rank
    context: int
    mode: Literal["fsdp", "data"] = "fsdp"
    recomputes: bool = True
    low: bool = True                                     # products in bfloat16
    moments: float = 2                                   # float32 numbers kept for each parameter beside its gradient
    logits: int = 1 << 28                                # of a chunk of the loss; the default is a GPU's (head_loss.py)

    @property
    def count(self) -> int:
        """All of them."""
        return self.data * self.tensor

    @property
    def is_sharded(self) -> bool:
        """Whether FSDP2 is at work."""
        return self.mode == "fsdp" and self.data > 1

    @property
    def parts(self) -> int:
        """Micro-batches of a rank in one step."""
        return -(-self.rows // (self.data * self.micro_batch))

    @property
    def tokens(self) -> int:
        """Of a micro-batch."""
        return self.micro_batch * self.context

    @property
    def cast_bytes(self) -> int:
        """Of a number as FSDP2 gathers it: bfloat16 if products are."""
        return 2 if self.low and self.is_sharded else 4


@dataclass(frozen=True)
class Spread:
    """One rank's part of a step: bytes in memory, bytes sent, seconds."""

    weights: float                                       # float32
    gradients: float                                     # float32
    moments: float                                       # float32
    gathered: float                                      # weights of others, and gradients on their way to others
    kept: float                                          # activations for the backward pass
    working: float                                       # the larger of the loss and a block's backward pass
    sent_data: float                                     # over data ranks
    sent_tensor: float                                   # over tensor ranks
    compute_s: float
    data_s: float
    tensor_s: float
    hides: bool                                          # whether sending goes on beside computing
    mfu: float                                           # operations that the model needs, of the peak (PaLM, B)

    @property
    def memory(self) -> float:
        """Bytes at the worst moment."""
        return self.weights + self.gradients + self.moments + self.gathered + self.kept + self.working

    @property
    def step_s(self) -> float:
        """Seconds of a step."""
        return _step_s(self.compute_s, self.data_s, self.tensor_s, self.hides)


def _step_s(compute_s: float, data_s: float, tensor_s: float, hides: bool) -> float:
    """FSDP2 fetches the next block while one is computed; sums over tensor ranks and of mode=data are waited for."""
    return (max(compute_s, data_s) if hides else compute_s + data_s) + tensor_s


def spread(config: Config, ranks: Ranks, machine: Machine | None = None) -> Spread:
    """What a step costs a rank."""
    machine = machine or Machine()
    share = rank_parameters(config, ranks)
    gathered, kept, working = _worst(config, ranks)
    sent_data, sent_tensor = data_bytes(config, ranks), tensor_bytes(config, ranks)
    compute_s = _executed_flops(config, ranks) / (machine.flops * machine.share)
    data_s = sent_data / _speed(ranks, machine) + _data_hops(config, ranks) * machine.hop_s
    tensor_s = sent_tensor / (machine.nvlink if ranks.tensor <= machine.gpus else machine.network)
    step_s = _step_s(compute_s, data_s, tensor_s, ranks.is_sharded)
    useful = ranks.rows * ranks.context * training_flops(config, ranks.context)
    return Spread(4 * share, 4 * share, 4 * ranks.moments * share, gathered, kept, working, sent_data, sent_tensor,
                  compute_s, data_s, tensor_s, ranks.is_sharded, useful / (ranks.count * machine.flops * step_s))


def rank_parameters(config: Config, ranks: Ranks) -> float:
    """Parameters that lie on one rank: matrices are dealt out to both kinds of ranks, norms to data ranks only."""
    vectors = sum(part.parameters for part in parts(config) if part.name == "norms")
    mine = (n_parameters(config) - vectors) / ranks.tensor + vectors
    return mine / ranks.data if ranks.is_sharded else mine


def _outside(config: Config) -> int:
    """Parameters of embedding, head and last norm: FSDP2's root group."""
    return (1 if config.tie_embeddings else 2) * config.vocab_size * config.dim + config.dim


def _block(config: Config, ranks: Ranks) -> float:
    """Parameters of one block, as one tensor rank has them."""
    norms = 2 * config.dim
    return ((n_parameters(config) - _outside(config)) / config.n_layers - norms) / ranks.tensor + norms


def _worst(config: Config, ranks: Ranks) -> tuple[float, float, float]:
    """Bytes gathered from other ranks, kept for the backward pass, and in work, at the worst of two moments."""
    size = 2 if ranks.low else 4
    layer = 4 * config.dim if ranks.recomputes else layer_bytes(config, ranks.low, ranks.tensor)
    layers = ranks.tokens * config.n_layers * layer
    last = ranks.tokens * ((8 + size) * config.dim + 4)                     # the last norm and its output
    moments = ((_root_bytes(config, ranks), layers + last, _loss_bytes(config, ranks)),
               (_root_bytes(config, ranks) + _block_bytes(config, ranks), layers, _backward_bytes(config, ranks)))
    return max(moments, key=sum)


def _root_bytes(config: Config, ranks: Ranks) -> float:
    """FSDP2's root group, as gathered; elsewhere what autocast has cast, and the head's gradient, whole so far."""
    if ranks.is_sharded:
        return ranks.cast_bytes * _outside(config) / ranks.tensor
    whole = 4 * config.vocab_size * config.dim * (1 - 1 / ranks.tensor)
    return whole + (2 * matmul_parameters(config) / ranks.tensor if ranks.low else 0)


def _block_bytes(config: Config, ranks: Ranks) -> float:
    """FSDP2: the block at hand and the next one, and the float32 gradients of the one before with the rank's share."""
    block = _block(config, ranks)
    return (2 * ranks.cast_bytes + 4 + 4 / ranks.data) * block if ranks.is_sharded else 0


def _backward_bytes(config: Config, ranks: Ranks) -> float:
    """A block's activations computed again with the gradients of two features, one matrix and the residual; or, at its
    end, the gradients of all its matrices."""
    size, F = 2 if ranks.low else 4, config.hidden_dim / ranks.tensor
    again = layer_bytes(config, ranks.low, ranks.tensor) if ranks.recomputes else 0
    inside = ranks.tokens * (again + 2 * size * F + 4 * config.dim) + size * config.dim * F
    return max(inside, ranks.cast_bytes * _block(config, ranks))


def _loss_bytes(config: Config, ranks: Ranks) -> float:
    """The loss's largest moment: a chunk's softmax, the head's gradient turned round, or the way back.

    Beside a matrix in 16 bits lies a transposed copy, and its gradient is turned round, as on a CPU; on a GPU there is
    no such copy, and this is an upper bound.
    The softmax is eager: three float32 numbers a logit beside the logits. The head's gradient is summed in
    float32, and multiplied on the way back by what comes from above.
    """
    size, head = 2 if ranks.low else 4, config.vocab_size * config.dim
    chunk = min(ranks.tokens, max(ranks.logits // config.vocab_size // 64 * 64, 64))
    logits, by_hidden = chunk * config.vocab_size, 4 * config.dim * ranks.tokens
    copies = size + 2 * (not ranks.is_sharded) if ranks.low else 0
    own = (ranks.cast_bytes if ranks.tensor > 1 else 0) + copies
    product = size * logits + (4 + size) * head + by_hidden
    softmax = (12 + size) * logits + (product if ranks.tokens > chunk else 0)
    turned = size * logits + ((8 if ranks.low else 4) + size) * head + 3 * by_hidden
    return max(own * head + softmax, own * head + turned, (8 + size) * head + 2 * by_hidden)


def data_bytes(config: Config, ranks: Ranks) -> float:
    """Bytes that a rank sends to data ranks in a step; a ring sends (N - 1) / N of what is gathered or scattered.

    FSDP2 gathers each block for the forward and for the backward pass of every micro-batch, and the root once for each
    verb (embed, trunk, head); gradients are scattered in float32. mode=data sums all gradients once a step.
    """
    ring, root, block = (ranks.data - 1) / ranks.data, _outside(config), _block(config, ranks)
    root_mine = (root - config.dim) / ranks.tensor + config.dim
    mine = config.n_layers * block + root_mine
    if not ranks.is_sharded:
        return 2 * ring * 4 * mine
    gathers = ranks.cast_bytes * (2 * config.n_layers * block + 3 * root_mine)
    return ranks.parts * ring * (gathers + 4 * mine)


def tensor_bytes(config: Config, ranks: Ranks) -> float:
    """Bytes that a rank sends to tensor ranks in a step; a ring's sum sends 2 (M - 1) / M of its message.

    Each block sums its two results in the products' dtype, one of them again where it is recomputed, and the gradients
    of its two inputs in float32. The embedding is summed once, the head's matrix gathered once.
    """
    ring, size = (ranks.tensor - 1) / ranks.tensor, 2 if ranks.low else 4
    sums = config.n_layers * ((3 if ranks.recomputes else 2) * size + 2 * 4) + ranks.cast_bytes
    message = ranks.tokens * config.dim
    return ranks.parts * ring * (2 * sums * message + ranks.cast_bytes * config.vocab_size * config.dim)


def _data_hops(config: Config, ranks: Ranks) -> int:
    """Hops of all rings over data ranks in a step."""
    rings = ranks.parts * (3 * config.n_layers + 6) if ranks.is_sharded else 2
    return rings * (ranks.data - 1)


def _speed(ranks: Ranks, machine: Machine) -> float:
    """Bytes per second of a ring over data ranks: a byte enters a machine once, over the links of all ranks in it."""
    if ranks.count <= machine.gpus:
        return machine.nvlink
    return min(machine.nvlink, machine.network * max(machine.gpus // ranks.tensor, 1))


def _executed_flops(config: Config, ranks: Ranks) -> float:
    """Operations of a rank in a step: recomputed blocks come four times for three, each tensor rank does the head."""
    head = 6 * config.vocab_size * config.dim
    blocks = training_flops(config, ranks.context) - head
    tokens = ranks.rows * ranks.context / ranks.data
    return tokens * (blocks * (4 / 3 if ranks.recomputes else 1) / ranks.tensor + head)
