"""The batches that a recipe asks for: plain windows of the running text, or whole documents, packed and masked."""

import hashlib
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from ayllu.config import Settings
from ayllu.data.corpus import Corpus
from ayllu.data.loader import WindowLoader
from ayllu.data.mask_marks import Marks
from ayllu.data.masks import Mixture
from ayllu.data.order import Order
from ayllu.data.pack_loader import PackedLoader
from ayllu.data.shards import Shards
from ayllu.log import say, warn

REPEATS_KNOWN_TO_PAY = 4.0


class PackingConfig(Settings):
    """How documents become windows, and what computes who sees whom."""

    kind: Literal["none", "best_fit"] = "none"           # none: windows of the running text, across documents
    reserve: float | None = Field(default=None, ge=0)    # room for marks, a share of a document; None: always enough
    attention: Literal["auto", "sdpa", "flex"] = "auto"  # auto: flex on a GPU where training is compiled, else sdpa


@dataclass(frozen=True)
class Feed:
    """What decides a run's batches, beside its shards."""

    corpus: Corpus
    packing: PackingConfig
    masks: Mixture
    context: int
    batch_size: int                                      # rows over all ranks
    seed: int

    def batches(self, shards: Shards, marks: Marks, rank: int = 0, world_size: int = 1) -> WindowLoader | PackedLoader:
        """The loader, for one rank."""
        parts = shards.parts([source.weight or 0.0 for source in self.corpus.sources]) if self.corpus.weighted else ()
        if self.packing.kind == "none":
            return WindowLoader(shards.train(), self.context, self.batch_size, self.seed, rank, world_size, parts)
        return PackedLoader(shards.train(), marks, self.context, self.batch_size, self.masks, self.seed, rank,
                            world_size, self.packing.reserve, parts)

    def name(self, shards: Shards) -> str:
        """Changes with everything that an exact resume needs to find the same: the data, weights, packing, masks."""
        out = [shards.manifest["key"]]
        if self.corpus.weighted:
            out.append(f"weights {[source.weight for source in self.corpus.sources]}")
        if self.packing.kind != "none":
            masks = hashlib.sha256(self.masks.model_dump_json().encode()).hexdigest()[:8]
            out.append(f"packing {self.packing.kind}, reserve {self.packing.reserve}, masks {masks}")
        return "; ".join(out)


@dataclass(frozen=True)
class Repeat:
    """How often a run sees a source."""

    path: str
    share: float                                         # of the run's rows, or of the ids where sources have epochs
    epochs: float


def repeats(shards: Shards, corpus: Corpus, order: Order, rows: int) -> list[Repeat]:
    """For each source, its share of a run of `rows` rows and how often that is the whole of it."""
    facts = shards.manifest["sources"]
    if corpus.weighted:
        visits = order.visits(rows)
        return [Repeat(source.path, n / rows, n / max(windows, 1))
                for source, n, windows in zip(corpus.sources, visits, order.counts, strict=True)]
    passes, tokens = rows / order.counts[0], shards.manifest["tokens"]
    return [Repeat(source.path, fact.get("tokens_with_repeats", 0) / tokens,
                   passes * fact.get("tokens_with_repeats", 0) / max(fact.get("tokens", 0), 1))
            for source, fact in zip(corpus.sources, facts, strict=True)]


def tell(found: list[Repeat]) -> None:
    """Say what the mixture comes to, and warn of text repeated so often that it pays little (arXiv:2305.16264)."""
    for one in found:
        say(f"  {one.path}: {one.share:.1%} of what is trained on, {one.epochs:.2f} epochs")
    for one in found:
        if one.epochs > REPEATS_KNOWN_TO_PAY:
            warn(f"{one.path} will be seen {one.epochs:.1f} times; past about {REPEATS_KNOWN_TO_PAY:.0f} "
                 "epochs repeated text is worth ever less than new text (arXiv:2305.16264): lower its weight or "
                 "epochs, or add text")
