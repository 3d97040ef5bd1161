"""A larger vocabulary for another kind of text: held-out bits per byte right after `ayllu tokenizer extend`, before any
training, with rows made of the old ones, and with random rows, beside the model as it was. No peer.

Every tenth document is held out; the pieces are learned from the others. The bundled model knows stories and simple
Chinese, so that old books and classical Chinese are other domains to it.

    python benchmarks/vocabulary.py [--sets classical_zh classic_books_en] [--pieces 1000] [--quick] [--json FILE]
"""

import argparse
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from ayllu.checkpoint.extend import extended
from ayllu.checkpoint.load import build_model, open_checkpoint
from ayllu.checkpoint.source import OpenCheckpoint
from ayllu.data.texts import documents
from ayllu.files import write_json
from ayllu.log import setup
from ayllu.text.extend import extend
from ayllu.text.tokenizer import Tokenizer
from ayllu.train.losses import bits_per_byte

DATA = Path(__file__).resolve().parents[2] / "shared/data"
SETS = ("classical_zh", "classic_books_en")
CONTEXT, HELD, LONGEST = 512, 20_000, 20_000             # tokens; characters that are judged; those taken of a document


def measured(name: str, pieces: int, data: Path, most: int) -> dict[str, Any]:
    """Bits per byte and tokens of the same held-out text, three times."""
    texts = [text[:LONGEST] for text in islice(documents(data / name), most)]
    held, learned = "\n".join(texts[::10])[:HELD], [text for n, text in enumerate(texts) if n % 10]
    source = open_checkpoint("ayllu-mini")
    tokenizer = source.open_tokenizer()
    assert tokenizer is not None                         # the bundled model has one
    found = extend(tokenizer, learned, pieces)
    out: dict[str, Any] = {"set": name, "added": len(found.parts), "before": bits(source, tokenizer, held)}
    out |= {first: bits(extended(source, found, first), found.tokenizer, held) for first in ("mean", "random")}
    return out


def bits(source: OpenCheckpoint, tokenizer: Tokenizer, text: str) -> dict[str, float]:
    """Of one model."""
    ids = torch.tensor(tokenizer.encode(text, bos=True))
    model = build_model(source, dtype=torch.float32)
    return {"tokens": len(ids),
            "bits_per_byte": bits_per_byte(model, ids, len(text.encode()), CONTEXT, torch.device("cpu"))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--pieces", type=int, default=1000)
    parser.add_argument("--quick", action="store_true", help="few documents: only whether it works")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--data", type=Path, default=DATA, help="the folder of the data sets")
    options = parser.parse_args()
    setup()
    rows = [measured(name, options.pieces, options.data, 40 if options.quick else 400) for name in options.sets]
    for row in rows:
        for key in ("before", "mean", "random"):
            print(f"{row['set']:<20}{key:<8}{row[key]['tokens']:>8,} tokens  "
                  f"{row[key]['bits_per_byte']:.4f} bits per byte",
                  file=sys.stderr)
    if options.json:
        write_json(options.json, {"rows": rows})
    ratio = {row["set"]: row["random"]["bits_per_byte"] / row["mean"]["bits_per_byte"] for row in rows}
    worst = min(ratio, key=lambda name: ratio[name])
    print(f"worst ratio: {ratio[worst]:.3f} ({worst}: random rows over those made of old ones)")


if __name__ == "__main__":
    main()
