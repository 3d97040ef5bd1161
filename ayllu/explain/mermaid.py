"""A model drawn as a Mermaid flowchart, read off the modules that run: their classes, sizes and order.

B batch  T tokens
"""

from typing import Any

import torch
from torch import nn

from ayllu.model.config import LlamaConfig, TransformerConfig
from ayllu.model.init import Uninitialised
from ayllu.model.llama import Llama
from ayllu.model.transformer import Transformer


def draw(config: LlamaConfig | TransformerConfig) -> str:
    """The flowchart of the model with this config. The model is built without memory, so any size can be drawn."""
    with torch.device("meta"), Uninitialised():
        model = Llama(config) if isinstance(config, LlamaConfig) else Transformer(config)
    lines = ["flowchart TD", *_before(model), *_layer(model), *_after(model)]
    return "\n".join(lines) + "\n"


def _node(name: str, module: Any, note: str = "") -> str:
    text = f"{name}: {type(module).__name__} {_size(module)}{note}".strip()
    return f'    {name}["{text}"]'


def _size(module: nn.Module) -> str:
    match module:
        case nn.Linear():
            bias = " + bias" if module.bias is not None else ""
            return f"{module.in_features} → {module.out_features}{bias}"
        case nn.Embedding():
            return f"{module.num_embeddings} × {module.embedding_dim}"
        case nn.Dropout():
            return f"p = {module.p:g}"
    weight = getattr(module, "weight", None)
    return str(weight.shape[0]) if weight is not None else ""


def _before(model: Llama | Transformer) -> list[str]:
    scaled = isinstance(model, Transformer) and model.config.positions == "sinusoidal"
    out = ['    ids(["ids (B, T)"]) --> tok_embeddings',
           _node("tok_embeddings", model.tok_embeddings, " × √D" if scaled else "")]
    end = "tok_embeddings"
    if scaled:
        out += ['    positions(["positions (T)"]) --> sinusoids["sinusoids: sin and cos of p / 10000^(2i/D)"]',
                '    added(("+"))', f"    {end} --> added", "    sinusoids --> added"]
        end = "added"
    if model.dropout.p:
        out += [_node("dropout", model.dropout), f"    {end} --> dropout"]
        end = "dropout"
    return [*out, f'    {end} -- "x (B, T, {model.config.dim})" --> {_entry(model)}']


def _after(model: Llama | Transformer) -> list[str]:
    out, end = [], _exit(model)
    if isinstance(model, Llama) or model.config.norm_place == "pre":
        out += [_node("norm", model.norm), f"    {end} --> norm"]
        end = "norm"
    V, D = model.config.vocab_size, model.config.dim
    head = f"output: the embedding again, {D} → {V}" if model.config.tie_embeddings else None
    out += [f'    output["{head}"]' if head else _node("output", model.output), f"    {end} --> output",
            f'    output -- "logits (B, T, {V})" --> softmax(["softmax: the probability of each next id"])']
    return out


def _layer(model: Llama | Transformer) -> list[str]:
    L = model.config.n_layers
    block: Any = model.layers[0]                         # nn.ModuleList doesn't say what it holds
    out = [f'    subgraph layers["{L} layers of {type(block).__name__}, one after the other"]', "    direction TB"]
    if isinstance(model, Transformer) and model.config.order == "literal":
        out += [*_attention(model), *_feed_forward(block.feed_forward), _node("layer_norm", block.norm),
                _node("layer_dropout", block.dropout),
                f"    wo --> {_first(block.feed_forward)}", "    w2 --> layer_norm --> layer_dropout"]
    else:
        is_pre = isinstance(model, Llama) or model.config.norm_place == "pre"
        out += [*_attention(model), *_feed_forward(block.feed_forward), _node("attention_norm", block.attention_norm),
                _node("ffn_norm", block.ffn_norm), '    add1(("+"))', '    add2(("+"))']
        out += _pre_norm(block) if is_pre else _post_norm(block)
    return [*out, "    end"]


def _pre_norm(block: Any) -> list[str]:
    """x + part(norm(x)), twice."""
    return ['    x(["x"]) --> attention_norm', *_into("attention_norm", "qkv"), "    wo --> add1", "    x --> add1",
            "    add1 --> ffn_norm", *_into("ffn_norm", "ffn", block), "    w2 --> add2", "    add1 --> add2"]


def _post_norm(block: Any) -> list[str]:
    """norm(x + part(x)), twice."""
    return ['    x(["x"])', *_into("x", "qkv"), "    wo --> add1", "    x --> add1", "    add1 --> attention_norm",
            *_into("attention_norm", "ffn", block), "    w2 --> add2", "    attention_norm --> add2",
            "    add2 --> ffn_norm"]


def _into(source: str, part: str, block: Any = None) -> list[str]:
    gated = block is not None and hasattr(block.feed_forward, "w3")
    targets = ["wq", "wk", "wv"] if part == "qkv" else ["w1", "w3"] if gated else ["w1"]
    return [f"    {source} --> {target}" for target in targets]


def _attention(model: Llama | Transformer) -> list[str]:
    c: Any = model.config
    attention: Any = model.layers[0].attention
    window = next((c.window(layer) for layer in range(c.n_layers) if c.window(layer)), None)
    sees = f"the last {window} tokens" if window else "itself and all before it"
    turns = isinstance(model, Llama) or c.positions == "rope"
    out = [_node(name, getattr(attention, name)) for name in ("wq", "wk", "wv", "wo")]
    out.append(f'    attend["attend: softmax(q kᵀ / √{c.head_dim}) v<br/>{c.n_heads} query heads, {c.n_kv_heads} '
               f'key/value heads of {c.head_dim}<br/>a token sees {sees}"]')
    if turns:
        base = f"base {c.rope_theta:g}" if isinstance(c, LlamaConfig) else "base 10000"
        scaling = f", {c.rope_scaling.kind} × {c.rope_scaling.factor:g}" if c.rope_scaling else ""
        out += [f'    rope["rope: pairs of q and k turn by position × frequency<br/>{base}{scaling}"]',
                "    wq --> rope", "    wk --> rope", '    rope -- "q, k" --> attend']
    else:
        out += ["    wq --> attend", "    wk --> attend"]
    return [*out, "    wv --> attend", "    attend --> wo"]


def _feed_forward(module: Any) -> list[str]:
    out = [_node("w1", module.w1), _node("w2", module.w2)]
    if hasattr(module, "w3"):
        return [*out, _node("w3", module.w3), '    gate["silu(w1 x) × w3 x"]', "    w1 --> gate", "    w3 --> gate",
                "    gate --> w2"]
    return [*out, '    relu["max(0, ·)"]', "    w1 --> relu --> w2"]


def _first(feed_forward: Any) -> str:
    return "w1 & w3" if hasattr(feed_forward, "w3") else "w1"


def _entry(model: Llama | Transformer) -> str:
    return "wq & wk & wv" if isinstance(model, Transformer) and model.config.order == "literal" else "x"


def _exit(model: Llama | Transformer) -> str:
    if isinstance(model, Llama):
        return "add2"
    if model.config.order == "literal":
        return "layer_dropout"
    return "add2" if model.config.norm_place == "pre" else "ffn_norm"
