"""Which of some senses is best on the development rows: each, and the mean of the weights of each two or more.

    python recipes/senses/choose.py --data runs/senses/data --out runs/senses/best FOLDER FOLDER ...

FOLDERs are senses with adapters that went on from the same weights, so that their means are senses as well
(arXiv:2203.05482). The one with the lowest sum of two losses on dev.jsonl, of pictures and of sounds, is written. The
held-out rows are not read.
"""

import argparse
import itertools
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from ayllu.adapters.lora import Adapter, Pair, attach
from ayllu.adapters.store import read_adapter, write_adapter
from ayllu.checkpoint.load import load_checkpoint, open_checkpoint
from ayllu.data.chats import template_of
from ayllu.data.media_loader import MediaLoader, counter, samples
from ayllu.data.media_rows import media_rows
from ayllu.errors import DataError
from ayllu.media.senses import ADAPTER, Senses, read_senses, write_senses
from ayllu.model.llama import Llama
from ayllu.train.align_loss import Aligned, held_out

Both = tuple[Senses, Adapter]


def mean(found: Sequence[Both]) -> Both:
    """New senses and a new adapter."""
    senses, (_, adapter) = Senses(found[0][0].config), found[0]
    states = [one.state_dict() for one, _ in found]
    senses.load_state_dict({name: torch.stack([s[name].float() for s in states]).mean(0) for name in states[0]})
    pairs = {name: Pair(*(torch.stack([own.float() for own in those]).mean(0) for those in zip(
        *(other.pairs[name].tensors for _, other in found), strict=True))) for name in adapter.pairs}
    return senses, Adapter(adapter.config, pairs, adapter.base)


def measured(found: Both, data: Path) -> dict[str, dict[str, float]]:
    """Loss and the share of right answers, of pictures and of sounds."""
    senses, adapter = found
    base = senses.config.base
    tokenizer = open_checkpoint(base).open_tokenizer()
    body = load_checkpoint(base, dtype="float32").model
    assert tokenizer is not None
    assert isinstance(body, Llama)
    template = template_of("auto", tokenizer, Path())
    assert template is not None
    attach(body, adapter)
    rows, rejects = samples(media_rows(data / "dev.jsonl", data / "media.tar", "dev.jsonl"), tokenizer, template,
                            counter(senses), 4096)
    if rejects:
        raise DataError(f"{len(rejects)} rows of {data / 'dev.jsonl'} can't be taken: {rejects[0].reason}")
    model = Aligned(body, senses)
    with torch.no_grad():
        return {kind: held_out(model, MediaLoader([row for row in rows if row.media[0].kind == kind], senses,
                                                  1).in_order(48), torch.device("cpu")) for kind in ("image", "audio")}


def main() -> int:
    """Measure all, write the best."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="what make.py wrote")
    parser.add_argument("--out", type=Path, required=True, help="a folder, made where it is missing")
    parser.add_argument("folders", type=Path, nargs="+")
    options = parser.parse_args()
    read: dict[str, Both] = {}
    for folder in options.folders:
        senses = read_senses(folder)
        read[str(folder)] = senses, read_adapter(folder / ADAPTER, open_checkpoint(senses.config.base).config)
    best, least = None, float("inf")
    for n in range(1, len(read) + 1):
        for names in itertools.combinations(read, n):
            made = mean([read[name] for name in names])
            figures = measured(made, options.data)
            loss = sum(part["held_out"] for part in figures.values())
            print(f"{loss:.4f}  {' + '.join(names)}  {json.dumps(figures)}", flush=True)
            if loss < least:
                best, least = (made, figures), loss
    assert best is not None
    (senses, adapter), figures = best
    own = {f"dev {kind}": part["answers_right"] for kind, part in figures.items()}
    senses.config = senses.config.model_copy(update={"measured": own})
    write_senses(options.out, senses)
    write_adapter(options.out / ADAPTER, adapter, base_name=senses.config.base, overwrite=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
