"""A slow, obvious Llama in numpy and float64: one head, one position, one pair of features at a time.

It shares no code with the package; it takes a LlamaConfig and a dictionary of weights by Meta's names, and one text.
"""

import math

import numpy as np


def logits(config, weights, ids, document=None):
    """Logits (T, V) of one text. `document` (T,) numbers of packed documents: a token sees its own document only."""
    w = {name: np.asarray(value, dtype=np.float64) for name, value in weights.items()}
    positions = range(len(ids))
    x = [w["tok_embeddings.weight"][i] for i in ids]
    for layer in range(config.n_layers):
        at = f"layers.{layer}."
        normed = [rms_norm(row, w[at + "attention_norm.weight"], config.norm_eps) for row in x]
        mixed = attention(config, w, at + "attention.", normed, positions, config.window(layer), document)
        x = [row + y for row, y in zip(x, mixed, strict=True)]
        normed = [rms_norm(row, w[at + "ffn_norm.weight"], config.norm_eps) for row in x]
        x = [row + swiglu(w, at + "feed_forward.", y) for row, y in zip(x, normed, strict=True)]
    head = w["tok_embeddings.weight" if config.tie_embeddings else "output.weight"]
    return np.stack([head @ rms_norm(row, w["norm.weight"], config.norm_eps) for row in x])


def rms_norm(x, weight, eps):
    return x / math.sqrt(sum(value * value for value in x) / len(x) + eps) * weight


def linear(w, name, x):
    y = w[name + ".weight"] @ x
    return y + w[name + ".bias"] if name + ".bias" in w else y


def swiglu(w, at, x):
    gate, up = linear(w, at + "w1", x), linear(w, at + "w3", x)
    return linear(w, at + "w2", gate / (1 + np.exp(-gate)) * up)


def attention(config, w, at, x, positions, window, document):
    E, T = config.head_dim, len(x)
    length = max(positions) + 1
    q = [turn_heads(config, linear(w, at + "wq", row), p, length) for row, p in zip(x, positions, strict=True)]
    k = [turn_heads(config, linear(w, at + "wk", row), p, length) for row, p in zip(x, positions, strict=True)]
    v = [linear(w, at + "wv", row) for row in x]
    out = []
    for i in range(T):
        heads = []
        for h in range(config.n_heads):
            g = h // (config.n_heads // config.n_kv_heads)                   # the key/value head of this query head
            seen = [j for j in range(i + 1) if (window is None or i - j < window)
                    and (document is None or document[i] == document[j])]
            scores = [q[i][h * E:(h + 1) * E] @ k[j][g * E:(g + 1) * E] / math.sqrt(E) for j in seen]
            weights = softmax(scores)
            heads.append(sum(a * v[j][g * E:(g + 1) * E] for a, j in zip(weights, seen, strict=True)))
        out.append(linear(w, at + "wo", np.concatenate(heads)))
    return out


def softmax(scores):
    exps = [math.exp(s - max(scores)) for s in scores]
    return [e / sum(exps) for e in exps]


def turn_heads(config, x, position, length):
    """Each head's pairs (i, i + E/2) turned by position * frequency_i."""
    E, out = config.head_dim, np.array(x)
    for start in range(0, len(x), E):
        for i in range(E // 2):
            frequency, temperature = frequency_of(config, i, length)
            c, s = math.cos(position * frequency) * temperature, math.sin(position * frequency) * temperature
            a, b = x[start + i], x[start + i + E // 2]
            out[start + i], out[start + i + E // 2] = a * c - b * s, b * c + a * s
    return out


def frequency_of(config, i, length):
    """Radians per position of pair i for a text of `length` tokens, and the factor on cosine and sine."""
    E, theta, scaling = config.head_dim, config.rope_theta, config.rope_scaling
    plain = theta ** (-2 * i / E)
    if scaling is None:
        return plain, 1.0
    original, factor = scaling.original_context or config.max_context, scaling.factor
    if scaling.kind == "linear":
        return plain / factor, 1.0
    if scaling.kind == "dynamic":
        ratio = max(length, original) / original
        return (theta * (factor * ratio - (factor - 1)) ** (E / (E - 2))) ** (-2 * i / E), 1.0
    wavelength = 2 * math.pi / plain
    if scaling.kind == "llama3":
        if wavelength < original / scaling.high_freq_factor:
            return plain, 1.0
        if wavelength > original / scaling.low_freq_factor:
            return plain / factor, 1.0
        smooth = ((original / wavelength - scaling.low_freq_factor)
                  / (scaling.high_freq_factor - scaling.low_freq_factor))
        return (1 - smooth) * plain / factor + smooth * plain, 1.0
    border = [E * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(theta))
              for turns in (scaling.beta_fast, scaling.beta_slow)]
    if scaling.truncate:
        border = [math.floor(border[0]), math.ceil(border[1])]
    low, high = max(border[0], 0), min(border[1], E - 1)
    blend = 0.0 if i <= low else 1.0 if i >= high else (i - low) / (high - low)
    temperature = scaling.attention_factor
    if temperature is None:
        temperature = 0.1 * math.log(factor) + 1 if factor > 1 else 1.0
    return plain * (1 - blend) + plain / factor * blend, temperature
