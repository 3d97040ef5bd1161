"""The slow twin of ayllu/model/generate.py: one sequence at a time, no cache, every step computed from the start.

The sampling is written once more in plain Python, so that it shares nothing with the package but the noise function.
"""

import math

import torch

from ayllu.model.sample import uniform


def naive_generate(model, prompt, max_tokens, *, stop_ids=(), temperature=0.0, top_k=0, top_p=1.0, min_p=0.0,
                   repetition_penalty=1.0, presence_penalty=0.0, frequency_penalty=0.0, seed=0, sample=0):
    """The ids that follow `prompt`, and the model's log-probability of each."""
    ids, logprobs = list(prompt), []
    with torch.inference_mode():
        for step in range(max_tokens):
            raw = model(torch.tensor([ids]))[0, -1].double().tolist()
            logits = penalised(raw, ids, ids[len(prompt):], repetition_penalty, presence_penalty, frequency_penalty)
            if temperature == 0:
                token = max(range(len(logits)), key=lambda i: logits[i])
            else:
                token = drawn([x / temperature for x in logits], top_k, top_p, min_p, uniform(seed, sample, step))
            logprobs.append(raw[token] - logsumexp(raw))
            ids.append(token)
            if token in stop_ids:
                break
    return ids[len(prompt):], logprobs


def penalised(logits, seen, answer, repetition, presence, frequency):
    out = list(logits)
    for token in set(seen):
        out[token] = out[token] * repetition if out[token] < 0 else out[token] / repetition
    for token in set(answer):
        out[token] -= presence + frequency * answer.count(token)
    return out


def drawn(logits, top_k, top_p, min_p, u):
    kept = sorted(range(len(logits)), key=lambda i: -logits[i])
    if top_k:
        kept = kept[:top_k]
    probabilities = softmax({i: logits[i] for i in kept})
    if top_p < 1:
        mass, nucleus = 0.0, []
        for i in kept:
            if mass >= top_p:
                break
            nucleus.append(i)
            mass += probabilities[i]
        kept = nucleus
    best = max(probabilities.values())
    kept = sorted(i for i in kept if probabilities[i] >= min_p * best)
    probabilities = softmax({i: logits[i] for i in kept})
    mass = 0.0
    for i in kept:
        mass += probabilities[i]
        if u < mass:
            return i
    return kept[-1]


def softmax(logits):
    total = logsumexp(list(logits.values()))
    return {i: math.exp(x - total) for i, x in logits.items()}


def logsumexp(values):
    top = max(values)
    return top + math.log(sum(math.exp(x - top) for x in values))
