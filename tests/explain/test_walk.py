"""Every step of a walk agrees with its slow computation, for each kind of model; wrong parts are noticed."""

import json
import math

import pytest
import torch
import torch.nn.functional as F

from ayllu.errors import RequestError
from ayllu.explain import record as record_module
from ayllu.explain.page import page
from ayllu.explain.record import record, slow_attention
from ayllu.explain.source import find_line
from ayllu.explain.walk import walk
from ayllu.explain.walk_json import as_table
from ayllu.explain.words import STEPS, readable
from ayllu.model import llama as llama_module
from ayllu.model.config import LlamaConfig, RopeScaling, TransformerConfig
from ayllu.model.llama import Llama
from ayllu.model.transformer import Transformer

TINY = LlamaConfig(dim=64, n_layers=3, n_heads=8, n_kv_heads=2, head_dim=8, hidden_dim=160, vocab_size=200)
CLASSIC = TransformerConfig(dim=64, n_layers=3, n_heads=8, n_kv_heads=8, head_dim=8, hidden_dim=256, vocab_size=200)
IDS, PIECES = [1, 5, 7, 9, 5, 11], ["<s>", "▁a", "喜欢", "<script>alert(1)</script>", "▁a", "\n"]


def scaled(model: Llama | Transformer, seed: int = 0) -> Llama | Transformer:
    """Weights large enough that attention has something to choose from: tiny ones hide faults."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.dim() == 2:
                p.normal_(0, 3 / math.sqrt(p.shape[1]) if "wq" in name or "wk" in name else 1 / math.sqrt(p.shape[1]),
                          generator=generator)
            elif name.endswith("bias"):
                p.normal_(0, 0.2, generator=generator)
    return model


MODELS = {
    "llama": TINY,
    "biases, tied, odd width": TINY.model_copy(update={"qkv_bias": True, "out_bias": True, "mlp_bias": True,
                                                       "tie_embeddings": True, "head_dim": 16}),
    "sliding window": TINY.model_copy(update={"sliding_window": 3, "first_sliding_layer": 1}),
    "yarn": TINY.model_copy(update={"rope_scaling": RopeScaling(kind="yarn", factor=4.0, original_context=4)}),
    "dynamic": TINY.model_copy(update={"rope_scaling": RopeScaling(kind="dynamic", factor=2.0, original_context=4)}),
    "paper": CLASSIC,
    "literal": CLASSIC.model_copy(update={"order": "literal"}),
    "pre-norm, swiglu, rope": CLASSIC.model_copy(update={
        "norm_place": "pre", "norm": "rmsnorm", "positions": "rope", "feed_forward": "swiglu", "n_kv_heads": 2,
        "tie_embeddings": False}),
}


def model_of(name: str) -> Llama | Transformer:
    config = MODELS[name]
    return scaled(Llama(config) if isinstance(config, LlamaConfig) else Transformer(config))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("layer", [0, -1])
def test_every_step_agrees(name: str, layer: int):
    done = walk(model_of(name), IDS, PIECES, layer=layer)
    assert {step.key: step.difference for step in done.steps if not step.agrees} == {}
    assert done.layer == layer % 3
    assert all(step.key in STEPS for step in done.steps)
    assert all(step.difference is not None for step in done.steps if step.key != "ids")
    axes = {"T": 6, "D": 64, "H": 8, "K": done.steps and MODELS[name].n_kv_heads, "E": MODELS[name].head_dim, "V": 200,
            "F": MODELS[name].hidden_dim, "L": 3, "E/2": MODELS[name].head_dim // 2}
    for step in done.steps:
        for value in step.values:
            assert list(value.tensor.shape) == [axes[a] for a in value.axes.split()], (step.key, value.name)


def test_order_of_steps():
    keys = {name: [s.key for s in walk(model_of(name), IDS, PIECES).steps] for name in ("llama", "paper", "literal")}
    assert keys["llama"] == [
        "ids", "embedding", "angles", "attention_norm", "qkv", "rotation", "weights", "mixed", "merged",
        "residual_attention", "ffn_norm", "feed_forward", "residual_feed_forward", "layers", "last_norm", "logits",
        "distribution"]
    assert keys["paper"][2:12] == ["sinusoids", "qkv", "weights", "mixed", "merged", "residual_attention",
                                   "attention_norm", "feed_forward", "residual_feed_forward", "ffn_norm"]
    assert keys["literal"][2:9] == ["sinusoids", "qkv", "weights", "mixed", "merged", "feed_forward", "layer_norm"]


def test_recording_changes_nothing():
    model = model_of("llama")
    plain = model(torch.tensor([IDS]))
    found = record(model, IDS)
    assert torch.equal(found.logits, plain)
    assert torch.equal(model(torch.tensor([IDS])), plain)
    assert not any(m._forward_hooks for m in model.modules())
    model.train()
    record(model, IDS)
    assert model.training


def test_slow_attention_equals_torchs():
    q, k, v = torch.randn(7, 4, 8), torch.randn(7, 2, 8), torch.randn(7, 2, 8)
    weights, mixed = slow_attention(q, k, v)
    rows = (x.transpose(0, 1)[None] for x in (q, k, v))
    fast = F.scaled_dot_product_attention(*rows, is_causal=True, enable_gqa=True)
    assert torch.allclose(mixed, fast[0].transpose(0, 1).double(), atol=1e-6)
    assert torch.allclose(weights.sum(-1), torch.ones(4, 7).double())
    assert (weights.triu(1) == 0).all()


@pytest.mark.parametrize(("mutant", "step"), [
    ("theta", "rotation"), ("scale", "weights"), ("epsilon", "attention_norm"), ("gate", "feed_forward")])
def test_a_model_that_computes_something_else_is_noticed(mutant: str, step: str, monkeypatch):
    model = model_of("llama")
    match mutant:
        case "theta":
            monkeypatch.setattr(llama_module.Rope, "__call__", lambda self, x: x * self.cos + x.roll(1, -1) * self.sin)
        case "scale":
            sdpa = F.scaled_dot_product_attention
            monkeypatch.setattr(F, "scaled_dot_product_attention", lambda q, *a, **k: sdpa(q * 1.01, *a, **k))
        case "epsilon":
            monkeypatch.setattr(llama_module.RMSNorm, "forward",
                                lambda self, x: x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-3) * self.weight)
        case "gate":
            monkeypatch.setattr(llama_module.F, "silu", F.gelu)
            monkeypatch.setattr("ayllu.explain.walk.F", type("Right", (), {"silu": staticmethod(
                lambda x: x * torch.sigmoid(x))}))
    done = walk(model, IDS, PIECES)
    assert not done.agrees
    assert step in [s.key for s in done.steps if not s.agrees]


def test_low_precision_agrees_within_its_own_tolerance():
    done = walk(model_of("llama").to(torch.bfloat16), IDS, PIECES)
    assert done.agrees
    assert done.dtype == "bfloat16"


def test_what_may_come_next():
    model = model_of("llama")
    done = walk(model, IDS, PIECES, lambda i: f"piece{i}", top=3)
    p = torch.softmax(model(torch.tensor([IDS]))[0, -1], 0)
    assert [row[0] for row in done.top] == p.topk(3).indices.tolist()
    assert done.top[0][1] == f"piece{done.top[0][0]}"
    assert done.top[0][2] == pytest.approx(p.max().item(), rel=1e-5)


def test_bad_requests():
    model = model_of("llama")
    with pytest.raises(RequestError, match="layers 0 to 2"):
        walk(model, IDS, PIECES, layer=3)
    with pytest.raises(RequestError, match="0 tokens given"):
        walk(model, [], [])
    with pytest.raises(RequestError, match="takes 1 to 2048"):
        record_module.record(model, [1] * 2049)


def test_lines_that_are_gone_are_our_mistake():
    line = find_line("model/llama.py", "return self.w2(", after="class FeedForward")
    assert line.file == "ayllu/model/llama.py"
    with pytest.raises(AssertionError, match="no longer has"):
        find_line("model/llama.py", "no such line")


@pytest.mark.parametrize("name", ["llama", "paper"])
def test_the_page_is_one_safe_file(name: str):
    text = page(walk(model_of(name), IDS, PIECES))
    assert "<script>alert(1)" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    for outside in ("http://", "https://", "src=", "href=", "@import", "url("):
        assert outside not in text
    assert text.count('lang="zh"') == text.count('lang="en"') - 2            # <html> and <body>
    assert text.count("<section") == text.count("</section>") == len(walk(model_of(name), IDS, PIECES).steps)
    assert text.count("✓") == text.count("<section") - 1


def test_pieces_can_not_play_with_the_terminal():
    assert readable("▁a b\n") == "·a·b⏎"
    assert readable("\x1b[31m") == "\\x1b[31m"
    assert readable("") == "∅"


def test_json_holds_the_values():
    done = walk(model_of("llama"), IDS, PIECES)
    table = json.loads(json.dumps(as_table(done), allow_nan=False))
    assert table["agrees"]
    weights = next(s for s in table["steps"] if s["key"] == "weights")["values"][0]
    assert weights["shape"] == [8, 6, 6]
    assert torch.tensor(weights["values"]).sum(-1).allclose(torch.ones(8, 6))
    assert table["next"][0]["probability"] == done.top[0][2]
