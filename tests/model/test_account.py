"""What account.py computes equals what the real models have and do."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ayllu.model import account
from ayllu.model.cache import DenseCache
from ayllu.model.config import LlamaConfig, TransformerConfig
from ayllu.model.llama import Llama
from ayllu.model.presets import preset
from ayllu.model.transformer import Transformer

TINY = LlamaConfig(dim=64, n_layers=3, n_heads=8, n_kv_heads=2, head_dim=8, hidden_dim=160, vocab_size=200)
CLASSIC = TransformerConfig(dim=64, n_layers=3, n_heads=8, n_kv_heads=8, head_dim=8, hidden_dim=256, vocab_size=200)

SHAPES = [
    TINY,
    TINY.model_copy(update={"tie_embeddings": True, "n_kv_heads": 8}),
    TINY.model_copy(update={"qkv_bias": True, "out_bias": True, "mlp_bias": True, "head_dim": 16}),
    preset("llama2-70b"), preset("qwen2-0.5b"), preset("smollm-135m"),
    CLASSIC,
    CLASSIC.model_copy(update={"order": "literal"}),
    CLASSIC.model_copy(update={"norm_place": "pre", "norm": "rmsnorm", "feed_forward": "swiglu", "n_kv_heads": 2,
                               "tie_embeddings": False}),
]


def build(config: account.Config) -> Llama | Transformer:
    return Llama(config) if isinstance(config, LlamaConfig) else Transformer(config)


def count_by_part(model: nn.Module) -> dict[str, int]:
    """From the real model's tensors: the slow twin of `parts`."""
    found: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        words = name.split(".")
        if name == "tok_embeddings.weight":
            part = "embedding"
        elif name == "output.weight":
            part = "output"
        elif "norm" in name:
            part = "norms"
        elif words[-1] == "bias":
            part = "biases"
        else:
            part = f"{words[-3].replace('feed_forward', 'feed-forward')} {words[-2]}"
        found[part] = found.get(part, 0) + parameter.numel()
    return found


@pytest.mark.parametrize("config", SHAPES)
def test_parameters_equal_the_real_models(config):
    with torch.device("meta"):
        model = build(config)
    assert {p.name: p.parameters for p in account.parts(config) if p.parameters} == count_by_part(model)
    assert account.n_parameters(config) == sum(p.numel() for p in model.parameters())


def naive(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention in plain matrix products, which the counter sees."""
    groups = q.shape[2] // k.shape[2]
    k, v = k.repeat_interleave(groups, dim=2), v.repeat_interleave(groups, dim=2)
    weights = torch.einsum("bthe,bshe->bhts", q, k).softmax(-1)
    return torch.einsum("bhts,bshe->bthe", weights, v)


@pytest.mark.parametrize("config", [*SHAPES[:3], *SHAPES[6:]])
def test_flops_equal_those_that_torch_counts(config):
    T = 16
    model = build(config)
    ids = torch.zeros(1, T, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        logits = model(ids, attends=[naive] * config.n_layers)
    forward = counter.get_total_flops()
    assert forward == T * account.forward_flops(config, n_keys=T)
    with FlopCounterMode(display=False) as counter:
        logits.sum().backward()
    assert counter.get_total_flops() == 2 * forward


def test_training_flops_are_the_mean_over_a_causal_sequence():
    windowed = TINY.model_copy(update={"sliding_window": 5, "first_sliding_layer": 1})
    for config in (TINY, windowed):
        for context in (1, 4, 5, 12):
            mean = sum(account.forward_flops(config, keys) for keys in range(1, context + 1)) / context
            assert account.training_flops(config, context) == pytest.approx(3 * mean)
    llama = preset("llama2-7b")                          # 6N plus attention, which is small at 4,096 tokens
    six_n = 6 * account.matmul_parameters(llama)
    assert six_n < account.training_flops(llama, 4096) < 1.09 * six_n


def test_kv_bytes_equal_the_cache():
    for dtype in ("float32", "bfloat16"):
        cache = DenseCache(TINY, [0, 0, 0], 128, dtype=getattr(torch, dtype), device=torch.device("cpu"))
        assert cache.nbytes == 3 * 128 * account.kv_bytes(TINY, dtype)
    assert account.kv_bytes(preset("llama2-7b"), "float16") == 524_288       # half a MiB: 2 * 32 * 4096 * 2 bytes
    assert account.kv_bytes(preset("llama3-8b"), "float16") == 131_072


def test_weight_bytes():
    model = Llama(TINY).to(torch.bfloat16)
    assert account.weight_bytes(TINY, "bfloat16") == sum(p.nbytes for p in model.parameters())
    norms = 7 * 64
    assert account.weight_bytes(TINY, "q8_0") == (account.n_parameters(TINY) - norms) // 32 * 34 + 4 * norms


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("n_kv_heads", [2, 8])
def test_saved_bytes_equal_what_autograd_keeps(autocast: bool, n_kv_heads: int):
    config = TINY.model_copy(update={"n_kv_heads": n_kv_heads})
    model, kept = Llama(config), {}
    B, T = 2, 32
    ids = torch.randint(0, 200, (B, T))
    owned = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in owned:
            kept[storage.data_ptr()] = storage           # held, so that no address comes twice
        return tensor

    with (torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t),
          torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast)):
        F.cross_entropy(model(ids).float().flatten(0, 1), ids.flatten())
    copies = 2 * account.matmul_parameters(config) * autocast
    shared = 2 * T * 8 * 4 + ids.nbytes + 4              # cos and sin, labels, the loss's weight: once, not per token
    assert sum(s.nbytes() for s in kept.values()) == account.saved_bytes(config, B * T, autocast) + copies + shared


def test_inference_memory_bounds_what_a_run_takes():
    """The largest sum of live tensors, beside weights and cache, is near the estimate."""
    T = 256
    model = Llama(TINY.model_copy(update={"hidden_dim": 512})).eval()
    with torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as profile, \
            torch.no_grad():
        model.logits(model.trunk(model.embed(torch.zeros(1, T, dtype=torch.long)))[:, -1])
    live = peak = 0
    for event in sorted((e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"),
                        key=lambda e: e.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    estimate = account.inference_memory(model.config, "float32", T).activations
    assert 0.8 * peak <= estimate <= 1.5 * peak


def test_memory_sums_and_training_is_dearer():
    llama = preset("llama2-7b")
    inference = account.inference_memory(llama, "bfloat16", 4096, batch=2)
    assert inference.weights == 2 * 6_738_415_616
    assert inference.kv == 2 * 4096 * 524_288
    full, lora = account.training_memory(llama, 2048, 1), account.lora_memory(llama, 2048, 1)
    assert full.total == full.weights + full.state + full.activations
    assert full.weights + full.state == 16 * 6_738_415_616 + 2 * account.matmul_parameters(llama)
    assert inference.total < lora.total < full.total / 3
    assert account.lora_parameters(llama, 16) == 16 * 32 * (8 * 4096 + 3 * (4096 + 11_008))
