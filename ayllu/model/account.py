"""What a model of a given shape costs: parameters, bytes, operations. Reads the config only, so it needs no torch.

D width  H query heads  K key/value heads  E head width  F feed-forward width  V vocabulary  L layers  B rows  T tokens
"""

from dataclasses import dataclass

from ayllu.model.config import LlamaConfig, TransformerConfig

Config = LlamaConfig | TransformerConfig
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}      # per parameter
Q8_0_BYTES = 34 / 32                                     # GGUF: 32 int8 values and one float16 scale
ADAMW_BYTES = 4 + 4 + 4 + 4                              # float32 weight, gradient and both moments


@dataclass(frozen=True)
class Part:
    """Parameters of one kind of tensor, over all layers."""

    name: str
    parameters: int
    in_matmul: bool = False                              # multiplied with each token: 2 operations per parameter


def parts(config: Config) -> list[Part]:
    """The parameters by part, in the order of the model. A tied head costs no parameters and still multiplies."""
    D, F, V, L = config.dim, config.hidden_dim, config.vocab_size, config.n_layers
    Q, KV = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    biases, norms, is_gated = _small_parts(config)
    found = [
        Part("embedding", V * D),
        Part("attention wq", L * D * Q, True),
        Part("attention wk", L * D * KV, True),
        Part("attention wv", L * D * KV, True),
        Part("attention wo", L * Q * D, True),
        Part("feed-forward w1", L * D * F, True),
        Part("feed-forward w2", L * F * D, True),
        Part("feed-forward w3", L * D * F * is_gated, True),
        Part("biases", L * biases),
        Part("norms", norms),
        Part("output", 0 if config.tie_embeddings else V * D, True),
    ]
    return [part for part in found if part.parameters or part.name == "output"]


def _small_parts(config: Config) -> tuple[int, int, bool]:
    """Biases of one layer, all norms of the model, and whether the feed-forward part has a gate (w3)."""
    D, F, L = config.dim, config.hidden_dim, config.n_layers
    if isinstance(config, LlamaConfig):
        Q, KV = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
        biases = config.qkv_bias * (Q + 2 * KV) + config.out_bias * D + config.mlp_bias * (2 * F + D)
        return biases, (2 * L + 1) * D, True
    n_norms = L * (1 if config.order == "literal" else 2) + (config.norm_place == "pre")
    norm = D if config.norm == "rmsnorm" else 2 * D                          # LayerNorm also shifts
    is_gated = config.feed_forward == "swiglu"
    return 0 if is_gated else F + D, n_norms * norm, is_gated


def n_parameters(config: Config) -> int:
    """All parameters; a tied embedding counts once."""
    return sum(part.parameters for part in parts(config))


def weight_bytes(config: Config, dtype: str) -> int:
    """Bytes of the weights in a dtype, or as GGUF `q8_0` (matrices in 8 bits, norms and biases in float32)."""
    if dtype != "q8_0":
        return n_parameters(config) * BYTES[dtype]
    vectors = sum(part.parameters for part in parts(config) if part.name in ("norms", "biases"))
    return int((n_parameters(config) - vectors) * Q8_0_BYTES) + 4 * vectors


def matmul_parameters(config: Config) -> int:
    """Parameters that each token is multiplied with: all matrices and the head, not the embedding (a look-up)."""
    head = config.vocab_size * config.dim if config.tie_embeddings else 0
    return head + sum(part.parameters for part in parts(config) if part.in_matmul)


def attention_flops(config: Config, n_keys: float) -> float:
    """Operations of q kT and weights v for one token that looks at `n_keys` keys in each layer (windows cut it)."""
    seen = sum(min(n_keys, config.window(layer) or n_keys) for layer in range(config.n_layers))
    return 2 * 2 * config.n_heads * config.head_dim * seen


def forward_flops(config: Config, n_keys: float) -> float:
    """Floating-point operations to process one token that sees `n_keys` tokens, itself included.

    A multiplication and an addition count as two. Norms, rotations, softmax and SiLU (below 1 %) are left out.
    """
    return 2 * matmul_parameters(config) + attention_flops(config, n_keys)


def training_flops(config: Config, context: int) -> float:
    """Operations to train on one token, the mean over a sequence of `context`: 6N + attention (arXiv:2204.02311, B).

    The backward pass costs twice the forward pass. Causal attention sees (T + 1) / 2 keys on average; PaLM's formula
    counts T, as if all were seen. N counts the head and not the embedding.
    """
    return 3 * (2 * matmul_parameters(config) + _mean_attention_flops(config, context))


def _mean_attention_flops(config: Config, context: int) -> float:
    """The mean of `attention_flops` over a causal sequence: token t sees t keys, or its window."""
    seen = 0.0
    for layer in range(config.n_layers):
        window = min(config.window(layer) or context, context)
        seen += (window * (window + 1) / 2 + (context - window) * window) / context
    return 2 * 2 * config.n_heads * config.head_dim * seen


def kv_bytes(config: Config, dtype: str) -> int:
    """Bytes of keys and values that one token leaves in the cache."""
    return 2 * config.n_layers * config.n_kv_heads * config.head_dim * BYTES[dtype]


@dataclass(frozen=True)
class Memory:
    """An estimate in bytes. `state` is gradients and optimiser moments (training), `kv` the cache (inference)."""

    weights: int
    kv: int
    activations: int
    state: int = 0

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.kv + self.activations + self.state


def inference_memory(config: Config, dtype: str, context: int, batch: int = 1) -> Memory:
    """Weights, a full cache, and the largest moment of reading a prompt as long as the context.

    That moment is the feed-forward part: the residual, its normed copy, and w1 x, its silu and w3 x (or their product
    and the result). Logits are computed for last positions only, in float32.
    """
    size, tokens = BYTES[dtype], batch * context
    feed_forward = (2 * config.dim + 3 * config.hidden_dim) * tokens * size
    logits = 2 * 4 * batch * config.vocab_size
    return Memory(weight_bytes(config, dtype), kv_bytes(config, dtype) * tokens, max(feed_forward, logits))


def training_memory(config: LlamaConfig, context: int, batch: int, autocast: bool = True) -> Memory:
    """Full training with AdamW in float32, eager, `batch` rows at a time; `autocast` keeps matmul inputs in bfloat16.

    Counted is what the backward pass needs of each layer; `torch.compile` needs less, for it fuses norms and SiLU.
    """
    n = n_parameters(config)
    copies = 2 * matmul_parameters(config) * autocast                        # bfloat16 weights of the autocast cache
    return Memory(4 * n + copies, 0, _training_activations(config, batch * context, autocast), (ADAMW_BYTES - 4) * n)


def _training_activations(config: LlamaConfig, tokens: int, autocast: bool) -> int:
    """The largest moment is the start of the backward pass: all that is saved, and the gradient of the logits."""
    return saved_bytes(config, tokens, autocast) + tokens * 4 * config.vocab_size


def saved_bytes(config: LlamaConfig, tokens: int, autocast: bool) -> int:
    """Bytes that eager autograd keeps for the backward pass over `tokens` tokens, from embedding to loss."""
    matmul = 2 if autocast else 4
    head = 8 * config.dim + 4 + matmul * config.dim + 4 * config.vocab_size  # last norm, its output, log-softmax
    return tokens * (config.n_layers * layer_bytes(config, autocast) + head)


def layer_bytes(config: Config, autocast: bool, tensor: int = 1) -> int:
    """Bytes that eager autograd keeps of one layer for one token, on one of `tensor` ranks that share heads and F.

    The terms follow llama.py. Autocast casts the input of each linear layer anew, so wq, wk and wv keep one copy each.
    """
    D, F, H = config.dim, config.hidden_dim // tensor, config.n_heads // tensor
    Q, KV = H * config.head_dim, config.n_kv_heads // tensor * config.head_dim
    norm = 4 * D + 4 * D + 4                                                 # x, x / rms(x), 1 / rms(x)
    inputs = 2 * 5 * D if autocast else 4 * 2 * D                            # of wq wk wv w1 w3
    matmul = 2 if autocast else 4
    attention = matmul * (2 * Q + 2 * KV) + 4 * H                            # q k v, y and the softmax's row sums
    feed_forward = matmul * 4 * F                                            # w1 x, silu, w3 x and their product
    return 2 * norm + inputs + attention + feed_forward


def compiled_layer_bytes(config: Config, low_stream: bool, plain: bool = False) -> int:
    """As `layer_bytes`, of a compiled block: it keeps what products and attention read or gave, the rest comes again.

    `low_stream`: what flows between blocks is bfloat16 (bf16_masters), and not float32 (autocast). `plain`: all is
    float32, and the second norm and SwiGLU's product come again too (KEPT in train/trainee.py).
    """
    D, F, Q, KV = config.dim, config.hidden_dim, config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    if plain:
        return 4 * (5 * D + 2 * Q + 2 * KV + 2 * F)
    stream = 2 * D * (2 if low_stream else 4)                                # before each half of the layer
    return stream + 2 * (2 * D + 2 * Q + 2 * KV + 3 * F) + 4 * (config.n_heads + 2)


def lora_parameters(config: LlamaConfig, rank: int) -> int:
    """Parameters of LoRA on every linear layer but the head: rank * (inputs + outputs) each (arXiv:2106.09685)."""
    D, F = config.dim, config.hidden_dim
    Q, KV = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    layer = 2 * (D + Q) + 2 * (D + KV) + 3 * (D + F)
    return rank * layer * config.n_layers


def lora_memory(config: LlamaConfig, context: int, batch: int, rank: int = 16, dtype: str = "bfloat16") -> Memory:
    """LoRA over frozen weights in `dtype`: AdamW's state for the adapters only, activations as in full training."""
    adapters = lora_parameters(config, rank)
    saved = _training_activations(config, batch * context, autocast=dtype != "float32")
    return Memory(weight_bytes(config, dtype) + 4 * adapters, 0, saved, (ADAMW_BYTES - 4) * adapters)
