"""A slow, obvious twin of ayllu/model/transformer.py in numpy and float64, written from the formulas of the papers."""

import math

import numpy as np


def logits(config, weights, ids):
    """Logits (T, V) of one text."""
    w = {name: np.asarray(value, dtype=np.float64) for name, value in weights.items()}
    sinusoidal = config.positions == "sinusoidal"
    x = []
    for position, token in enumerate(ids):
        row = w["tok_embeddings.weight"][token]
        x.append(row * math.sqrt(config.dim) + positional_encoding(position, config.dim) if sinusoidal else row)
    for layer in range(config.n_layers):
        x = layer_of(config, w, f"layers.{layer}.", x)
    if config.norm_place == "pre":
        x = [norm(config, w, "norm", row) for row in x]
    return np.stack([w["tok_embeddings.weight" if config.tie_embeddings else "output.weight"] @ row for row in x])


def layer_of(config, w, at, x):
    def attend(rows):
        return attention(config, w, at + "attention.", rows)

    def feed(rows):
        return [feed_forward(config, w, at + "feed_forward.", row) for row in rows]

    def normed(name, rows):
        return [norm(config, w, at + name, row) for row in rows]

    if config.order == "literal":
        return normed("norm", feed(attend(x)))
    if config.norm_place == "pre":
        x = plus(x, attend(normed("attention_norm", x)))
        return plus(x, feed(normed("ffn_norm", x)))
    x = normed("attention_norm", plus(x, attend(x)))
    return normed("ffn_norm", plus(x, feed(x)))


def plus(a, b):
    return [x + y for x, y in zip(a, b, strict=True)]


def positional_encoding(position, dim):
    """PE(p, 2i) = sin(p / 10000^(2i/d)); PE(p, 2i+1) = cos(p / 10000^(2i/d))."""
    row = np.zeros(dim)
    for i in range(dim // 2):
        row[2 * i] = math.sin(position / 10000 ** (2 * i / dim))
        row[2 * i + 1] = math.cos(position / 10000 ** (2 * i / dim))
    return row


def attention(config, w, at, x):
    E, group = config.head_dim, config.n_heads // config.n_kv_heads
    q, k, v = ([w[at + name + ".weight"] @ row for row in x] for name in ("wq", "wk", "wv"))
    out = []
    for i in range(len(x)):
        heads = []
        for h in range(config.n_heads):
            mine, shared = slice(h * E, h * E + E), slice(h // group * E, h // group * E + E)
            scores = []
            for j in range(i + 1):
                a, b = q[i][mine], k[j][shared]
                if config.positions == "rope":
                    a, b = turned(a, i), turned(b, j)
                scores.append(a @ b / math.sqrt(E))
            exps = np.exp(np.array(scores) - max(scores))
            heads.append(sum(e / exps.sum() * v[j][shared] for j, e in enumerate(exps)))
        out.append(w[at + "wo.weight"] @ np.concatenate(heads))
    return out


def turned(x, position):
    half, out = len(x) // 2, np.array(x)
    for i in range(half):
        angle = position / 10000 ** (2 * i / len(x))
        out[i] = x[i] * math.cos(angle) - x[i + half] * math.sin(angle)
        out[i + half] = x[i + half] * math.cos(angle) + x[i] * math.sin(angle)
    return out


def feed_forward(config, w, at, x):
    if config.feed_forward == "swiglu":
        gate = w[at + "w1.weight"] @ x
        return w[at + "w2.weight"] @ (gate / (1 + np.exp(-gate)) * (w[at + "w3.weight"] @ x))
    hidden = w[at + "w1.weight"] @ x + w[at + "w1.bias"]
    return w[at + "w2.weight"] @ np.maximum(0, hidden) + w[at + "w2.bias"]


def norm(config, w, name, x):
    if config.norm == "rmsnorm":
        return x / math.sqrt(np.mean(x * x) + config.norm_eps) * w[name + ".weight"]
    centred = x - np.mean(x)
    return centred / math.sqrt(np.mean(centred**2) + config.norm_eps) * w[name + ".weight"] + w[name + ".bias"]
