"""Slow, obvious optimisers in numpy and float64, number by number where the paper writes it so.

Each takes the first weights (a list of arrays), a function from weights to gradients, and returns the weights after
`steps` updates. They share no code with the package.
"""

import numpy as np


def adamw(weights, gradient, steps, lr, beta1, beta2, eps, decay):
    """arXiv:1711.05101, algorithm 2."""
    w = [np.array(x, dtype=np.float64) for x in weights]
    m, v = [np.zeros_like(x) for x in w], [np.zeros_like(x) for x in w]
    for t in range(1, steps + 1):
        for i, g in enumerate(gradient(w)):
            m[i] = beta1 * m[i] + (1 - beta1) * g
            v[i] = beta2 * v[i] + (1 - beta2) * g**2
            m_hat, v_hat = m[i] / (1 - beta1**t), v[i] / (1 - beta2**t)
            w[i] = w[i] - lr(t) * (m_hat / (np.sqrt(v_hat) + eps) + decay[i] * w[i])
    return w


def polynomial_of_singular_values(matrix, steps=5):
    """What Newton-Schulz computes, by the singular value decomposition: the polynomial on each singular value."""
    u, s, v = np.linalg.svd(np.asarray(matrix, dtype=np.float64), full_matrices=False)
    s = s / np.sqrt((s**2).sum())
    for _ in range(steps):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return u @ np.diag(s) @ v


def muon(weights, gradient, steps, lr, momentum, decay):
    """Jordan's Muon with Nesterov momentum, scaled as in arXiv:2502.16982, eq. 4."""
    w = [np.array(x, dtype=np.float64) for x in weights]
    average = [np.zeros_like(x) for x in w]
    for t in range(1, steps + 1):
        for i, g in enumerate(gradient(w)):
            average[i] = momentum * average[i] + (1 - momentum) * g
            ahead = momentum * average[i] + (1 - momentum) * g
            update = 0.2 * np.sqrt(max(w[i].shape)) * polynomial_of_singular_values(ahead)
            w[i] = w[i] - lr(t) * (update + decay[i] * w[i])
    return w


def schedule_free_adamw(weights, gradient, steps, lr, beta1, beta2, eps, decay):
    """arXiv:2405.15682, algorithm 1, with x, y and z each kept; returns (x, y)."""
    x = [np.array(a, dtype=np.float64) for a in weights]
    z, y = [a.copy() for a in x], [a.copy() for a in x]
    v, total = [np.zeros_like(a) for a in x], 0.0
    for t in range(1, steps + 1):
        total += lr(t) ** 2
        c = lr(t) ** 2 / total
        for i, g in enumerate(gradient(y)):
            v[i] = beta2 * v[i] + (1 - beta2) * g**2
            v_hat = v[i] / (1 - beta2**t)
            z[i] = z[i] - lr(t) * (g / (np.sqrt(v_hat) + eps) + decay[i] * y[i])
            x[i] = (1 - c) * x[i] + c * z[i]
        y = [(1 - beta1) * b + beta1 * a for a, b in zip(x, z, strict=True)]
    return x, y


def prodigy(weights, gradient, steps, lr, beta1, beta2, eps, decay, d=1e-6):
    """arXiv:2306.06101, algorithm 4 (lr is gamma); returns (weights, d). lr does not enter s: see the package."""
    w = [np.array(a, dtype=np.float64) for a in weights]
    first = [a.copy() for a in w]
    m, v, s = ([np.zeros_like(a) for a in w] for _ in range(3))
    r, root = 0.0, np.sqrt(beta2)
    for t in range(1, steps + 1):
        g = gradient(w)
        r = root * r + (1 - root) * lr(t) * d**2 * sum((a * (b - c)).sum() for a, b, c in zip(g, first, w, strict=True))
        for i in range(len(w)):
            m[i] = beta1 * m[i] + (1 - beta1) * d * g[i]
            v[i] = beta2 * v[i] + (1 - beta2) * d**2 * g[i]**2
            s[i] = root * s[i] + (1 - root) * d**2 * g[i]
            w[i] = w[i] - lr(t) * d * (m[i] / (np.sqrt(v[i]) + d * eps) + decay[i] * w[i])
        d = max(d, r / sum(np.abs(a).sum() for a in s))
    return w, d
