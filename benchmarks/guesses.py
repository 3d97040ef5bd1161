"""How often a draft model's guess is right where ids are drawn, by the rule that ties the guess to the draw.

    python benchmarks/guesses.py                         # the bundled model and four drafts that are made from it
    python benchmarks/guesses.py --quick                 # two of them, short texts

On the texts that the engine draws, at each token from both models' distributions p and q there: `likeliest`, the
draft's likeliest id is the guess; `same number`, both draw with one uniform number (what keeps the ids those of no
guessing); `same noise`, both take the largest of log-probability plus one Gumbel noise (arXiv:2408.07978), drawn 4
times; `rejection`, arXiv:2211.17192: the sum of min(p, q). `engine` is what the engine counts with one guess at a time,
of the tokens that it guesses. Ratios are of right guesses, engine over likeliest.
"""

import argparse
import copy
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ayllu.checkpoint.load import load_checkpoint
from ayllu.engine.engine import Engine, EngineSettings
from ayllu.engine.request import Request
from ayllu.model.params import SamplingParams
from ayllu.model.sample import keep_top_p
from ayllu.model.step import Model

TEXTS = ("Once upon a time", "The history of", "He said that", "def add(a, b):", "Water is", "In the morning")
WAYS: dict[str, dict[str, Any]] = {"temperature 1": {"temperature": 1.0, "top_p": 1.0},
                                   "0.8, top-p 0.95": {"temperature": 0.8, "top_p": 0.95}}
DRAFTS: dict[str, dict[str, Any]] = {"8 bits": {"bits": 8}, "4 bits": {"bits": 4},
                                     "1 layer less": {"without": (3,)}, "2 layers less": {"without": (2, 3)}}


def draft_of(model: Model, bits: int | None = None, without: tuple[int, ...] = ()) -> Model:
    """The model with its matrices rounded, row by row, or without some of its layers."""
    draft = copy.deepcopy(model)
    for i in sorted(without, reverse=True):
        del draft.layers[i]
    draft.config = draft.config.model_copy(update={"n_layers": len(draft.layers)})
    for parameter in draft.parameters():
        if bits is not None and parameter.dim() == 2:
            step = parameter.detach().abs().amax(1, keepdim=True) / (2**(bits - 1) - 1)
            parameter.data = (parameter.detach() / step).round() * step
    return draft


def rates(p: Tensor, q: Tensor) -> dict[str, float]:
    """The mean over places of each rule's probability that the guess is right, from p and q (places, V)."""
    P, Q = p.cumsum(-1), q.cumsum(-1)
    same_number = (torch.minimum(P, Q) - torch.maximum(P - p, Q - q)).clamp(min=0).sum(-1)
    generator, hits = torch.Generator().manual_seed(0), list[Tensor]()
    for _ in range(4):
        noise = -torch.empty_like(p).exponential_(generator=generator).log()
        hits.append(((p.log() + noise).argmax(-1) == (q.log() + noise).argmax(-1)).double())
    found = {"likeliest": p.gather(-1, q.argmax(-1, keepdim=True))[:, 0], "same number": same_number,
             "same noise": torch.stack(hits), "rejection": torch.minimum(p, q).sum(-1)}
    return {name: round(value.mean().item(), 3) for name, value in found.items()}


def distributions(model: Model, rows: list[list[int]], begins: list[int], way: dict[str, Any]) -> Tensor:
    """What follows each id of the answers, (places, V)."""
    parts = []
    for ids, begin in zip(rows, begins, strict=True):
        logits = model(torch.tensor([ids]))[0, begin - 1:-1].float() / way["temperature"]
        parts.append(keep_top_p(logits, torch.full((len(logits),), way["top_p"])).softmax(-1).double())
    return torch.cat(parts)


def measure(model: Model, draft: Model, prompts: list[list[int]], n: int, way: dict[str, Any]) -> dict[str, float]:
    """One row of the table."""
    params = SamplingParams(max_tokens=n, seed=1, ignore_eos=True, **way)
    engine = Engine(model, EngineSettings(n_guesses=1), draft)
    rows = {engine.submit(Request(tuple(prompt), params)): list(prompt) for prompt in prompts}
    while not engine.is_idle:
        for token in engine.step():
            assert token.id is not None                  # nothing is cancelled
            rows[token.request].append(token.id)
    begins, counts = [len(prompt) for prompt in prompts], engine.scheduler.counts
    found = rates(*(distributions(each, list(rows.values()), begins, way) for each in (model, draft)))
    return {**found, "engine": round(counts.accepted_tokens / counts.drafted_tokens, 3)}


@torch.inference_mode()
def main() -> None:
    """Print a line for each way to sample and draft."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two drafts, 16 tokens")
    parser.add_argument("--json", type=Path, help="write the lines here")
    args = parser.parse_args()
    checkpoint = load_checkpoint("ayllu-mini", device=torch.device("cpu"))
    tokenizer = checkpoint.tokenizer
    assert tokenizer is not None                         # the bundled model has one
    prompts = [tokenizer.encode(text, bos=tokenizer.add_bos) for text in TEXTS]
    results = list[dict[str, Any]]()
    for way in WAYS:
        for draft in ("4 bits", "1 layer less") if args.quick else DRAFTS:
            found = measure(checkpoint.model, draft_of(checkpoint.model, **DRAFTS[draft]), prompts,
                            16 if args.quick else 80, WAYS[way])
            results.append({"sampling": way, "draft": draft, **found})
            print(" | ".join(f"{key} {value}" for key, value in results[-1].items()), flush=True)
    worst = min(results, key=lambda r: r["engine"] / r["likeliest"])
    print(f"worst ratio: {worst['engine'] / worst['likeliest']:.2f} ({worst['sampling']}, {worst['draft']})")
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
