"""Held-out bits per byte of a model beside `xz -9e` and an n-gram model, on the same text.

    python benchmarks/bits_per_byte.py recipes/mini.toml --model ayllu-mini [--dtype bfloat16] [--quick] [--json FILE]

The text is what the recipe holds out. xz sees nothing but that text; the n-gram model is trained on the very tokens
that the model was trained on. The last line is xz's figure over ours in the worst language (above 1: we are ahead).
"""

import argparse
import json
import lzma
from pathlib import Path

import numpy as np
import torch

from ayllu.checkpoint.load import load_checkpoint
from ayllu.config import load_recipe
from ayllu.data.shards import Shards, prepare
from ayllu.files import cache_folder
from ayllu.train.losses import bits_per_byte
from ayllu.train.pretrain import PretrainConfig, find_tokenizer

ORDER = 4
DISCOUNT = 0.75                                          # absolute discounting (Ney et al. 1994)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--model", default="ayllu-mini")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"], help="of the weights in memory")
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--quick", action="store_true", help="fewer held-out and n-gram tokens")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    config = load_recipe(PretrainConfig, args.recipe, args.overrides)
    checkpoint = load_checkpoint(args.model, dtype=args.dtype)
    tokenizer_path = find_tokenizer(config, args.recipe.parent, Path(config.out))
    shards = prepare(config.data, args.recipe.parent, tokenizer_path, cache_folder() / "shards")
    rows = {}
    for language, (ids, _) in shards.held_out().items():
        ids = np.asarray(ids[:20_000] if args.quick else ids).astype(np.int64)
        text = checkpoint.tokenizer.decode(ids.tolist(), skip_special=True).encode()
        rows[language] = {
            "bytes": len(text), "tokens": len(ids),
            "model": bits_per_byte(checkpoint.model, torch.from_numpy(ids), len(text), args.context,
                                   torch.device("cpu")),
            "ngram": ngram_bits(shards, ids, 0.05 if args.quick else 1.0) / len(text),
            "xz": 8 * len(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME)) / len(text)}
    print(f"{'language':<10}{'bytes':>10}{args.model:>14}{f'{ORDER}-gram':>10}{'xz -9e':>10}")
    for language, row in rows.items():
        print(f"{language:<10}{row['bytes']:>10,}{row['model']:>14.3f}{row['ngram']:>10.3f}{row['xz']:>10.3f}")
    if args.json:
        facts = {"model": args.model, "dtype": args.dtype, "context": args.context, "rows": rows}
        args.json.write_text(json.dumps(facts, indent=2) + "\n")
    worst = min(rows, key=lambda name: rows[name]["xz"] / rows[name]["model"])
    print(f"worst ratio: {rows[worst]['xz'] / rows[worst]['model']:.2f} ({worst})")


def ngram_bits(shards: Shards, ids: np.ndarray, share: float) -> float:
    """-log2 p(ids) under an interpolated n-gram model with absolute discounting, trained on a share of the shards.

    p(w | h) = max(c(hw) - d, 0) / c(h) + d n(h) / c(h) p(w | h'), where n(h) counts the distinct words after h and h'
    lacks h's first word; below the unigram everything is equally likely.
    """
    train = np.asarray(shards.train())
    train = train[:int(share * len(train))].astype(np.uint64)
    held = ids.astype(np.uint64)
    bits = int(shards.manifest["vocab_size"] - 1).bit_length()
    assert bits * ORDER <= 64, "the n-grams of this vocabulary don't fit into 64 bits: lower ORDER"
    p = np.full(len(held), 1.0 / shards.manifest["vocab_size"])
    for order in range(1, ORDER + 1):
        grams, counts = np.unique(_keys(train, order, bits), return_counts=True)
        histories, first = np.unique(grams >> np.uint64(bits), return_index=True)
        history_counts = np.add.reduceat(counts, first)
        distinct = np.diff(np.append(first, len(grams)))
        wanted = _keys(held, order, bits)
        c_gram = _look_up(grams, counts, wanted)
        history = wanted >> np.uint64(bits)
        c_history = _look_up(histories, history_counts, history)
        n_after = _look_up(histories, distinct, history)
        lower, seen = p[order - 1:], c_history > 0
        mixed = (np.maximum(c_gram - DISCOUNT, 0) + DISCOUNT * n_after * lower) / np.maximum(c_history, 1)
        p[order - 1:] = np.where(seen, mixed, lower)
    return float(-np.log2(p[1:]).sum())                  # the first id is given, as it is to the model


def _keys(ids: np.ndarray, order: int, bits: int) -> np.ndarray:
    """Each run of `order` ids as one number."""
    keys = np.zeros(len(ids) - order + 1, dtype=np.uint64)
    for i in range(order):
        keys = (keys << np.uint64(bits)) | ids[i:len(ids) - order + 1 + i]
    return keys


def _look_up(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The value of each wanted key, 0 where it is unknown; `keys` are sorted."""
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, values[place], 0).astype(float)


if __name__ == "__main__":
    main()
