"""Small models whose texts differ, requests for them, and a run of the engine over these."""

import random

import torch

from ayllu.engine.engine import EngineSettings
from ayllu.engine.request import Request
from ayllu.model.build import build_model
from ayllu.model.config import LlamaConfig, RopeScaling, TransformerConfig
from ayllu.model.params import SamplingParams

SHAPE = {"dim": 32, "n_layers": 3, "n_heads": 4, "n_kv_heads": 4, "head_dim": 8, "hidden_dim": 48, "vocab_size": 101,
         "max_context": 96}
GQA = {**SHAPE, "n_kv_heads": 2}
MODELS = {
    "llama": LlamaConfig(**SHAPE), "gqa": LlamaConfig(**GQA, tie_embeddings=True),
    "mistral": LlamaConfig(**GQA, sliding_window=7), "qwen2": LlamaConfig(**GQA, qkv_bias=True, sliding_window=9,
                                                                         first_sliding_layer=2),
    "yarn": LlamaConfig(**GQA, rope_scaling=RopeScaling(kind="yarn", factor=4, original_context=16)),
    "dynamic": LlamaConfig(**GQA, rope_scaling=RopeScaling(kind="dynamic", factor=2)),
    "transformer": TransformerConfig(**GQA)}
TIGHT = EngineSettings(n_pages=30, page_size=4, token_budget=11, max_rows=6, max_waiting=40)


def model_of(name, dtype=torch.float32):
    torch.manual_seed(0)
    model = build_model(MODELS[name]).eval()
    with torch.no_grad():                                # tame weights would make every text the same
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(1.5)
    return model.to(dtype)


def requests_of(n, seed=0, **more):
    """Greedy requests, some of which begin alike."""
    rng, out = random.Random(seed), []
    common = [rng.randrange(3, 101) for _ in range(30)]
    for _ in range(n):
        ids = common[:rng.choice([0, 9, 17, 30])] + [rng.randrange(3, 101) for _ in range(rng.randint(1, 12))]
        params = SamplingParams(temperature=0, max_tokens=rng.randint(1, 24), **more)
        out.append(Request(tuple(ids), params, eos_ids=(2,)))
    return out


def run(engine, requests, stagger=3):
    """Tokens by (request, sample); new requests keep coming while others run."""
    tokens, todo, names = {}, list(enumerate(requests)), {}
    while todo or not engine.is_idle:
        for name, request in todo[:stagger]:
            names[engine.submit(request)] = name
        del todo[:stagger]
        for token in engine.step():
            tokens.setdefault((names[token.request], token.sample), []).append(token)
    return tokens


def ids_of(tokens):
    return {key: [token.id for token in row] for key, row in tokens.items()}
