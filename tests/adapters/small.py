"""Small models and adapters whose effect is large enough to be seen."""

import torch

from ayllu.adapters.config import LoraConfig
from ayllu.adapters.lora import Adapter, Pair, new_adapter
from ayllu.model.config import LlamaConfig
from ayllu.model.init import initialise
from ayllu.model.llama import Llama

CONFIG = LlamaConfig(dim=32, n_layers=3, n_heads=4, n_kv_heads=2, head_dim=8, hidden_dim=48, vocab_size=101,
                     max_context=96, qkv_bias=True)


def small_model(config=CONFIG, dtype=torch.float32):
    model = Llama(config).eval()
    draw = torch.Generator().manual_seed(1)
    initialise(model, config.n_layers, seed=0)
    with torch.no_grad():                                # tame weights would make every text the same
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(6)
            elif parameter.eq(0).all():
                parameter.uniform_(-0.1, 0.1, generator=draw)            # biases
    return model.to(dtype)


def filled(model, seed=0, size=0.3, **options):
    """An adapter as training leaves it: B is no longer 0."""
    fresh, draw = new_adapter(model, LoraConfig(**options), seed), torch.Generator().manual_seed(seed)
    pairs = {}
    for name, pair in fresh.pairs.items():
        magnitude = pair.magnitude
        if magnitude is not None:
            magnitude = magnitude * (1 + 0.2 * torch.randn(magnitude.shape, generator=draw))
        pairs[name] = Pair(pair.a, size * torch.randn(pair.b.shape, generator=draw), magnitude)
    return Adapter(fresh.config, pairs)


def some_ids(n_rows=2, n=20, seed=0):
    return torch.randint(3, 101, (n_rows, n), generator=torch.Generator().manual_seed(seed))
