"""What a recipe says about its texts, and how documents are chosen: which are held out, which repeat."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from ayllu.config import Settings
from ayllu.data.packed import Watch, unwatched
from ayllu.data.part import Preparation
from ayllu.data.prepare import Raw, prepare_documents
from ayllu.data.texts import documents, is_plain
from ayllu.errors import ConfigError, DataError
from ayllu.files import cache_folder

NO_WEIGHTS: Any = {"sources": {"__all__": {"weight"}}}   # for names of what doesn't change with weights


class Source(Settings):
    """One file or folder of texts in a mixture."""

    path: str
    fields: tuple[str, ...] = ("text",)                  # the fields of a JSON Lines row, joined by a line break
    language: str = "und"                                # a BCP 47 tag, or `mixed`; held-out loss is reported for each
    licence: str = "unknown"
    epochs: float = Field(default=1.0, ge=0)             # 2.5: every document twice, and half of them once more
    weight: float | None = Field(default=None, ge=0)     # its share of all rows, whatever its size, instead of epochs
    vocabulary_bytes: int = Field(default=4_000_000, ge=0)   # how much of it the tokenizer is trained on, at most


class Corpus(Settings):
    """A mixture of sources and the part of it that is never trained on."""

    root: str = "."                                      # paths are relative to this; itself relative to the recipe
    sources: tuple[Source, ...] = Field(min_length=1)
    held_out: float = Field(default=0.01, ge=0, lt=0.5)  # the share of each source's documents
    held_out_bytes: int = Field(default=400_000, gt=0)   # at most so much of each source is used for evaluation
    seed: int = 0
    prepare: Preparation | None = None                   # clean, judge and deduplicate first; None: texts as they are

    @model_validator(mode="after")
    def _weighs_all_or_none(self) -> "Corpus":
        weights = {source.path: source.weight for source in self.sources}
        if not self.weighted:
            return self
        if lacking := [path for path, weight in weights.items() if weight is None]:
            raise ValueError(f"{lacking[0]} has no weight, while others have: give every source one, or none")
        if not sum(weight or 0.0 for weight in weights.values()):
            raise ValueError("all weights of the sources are 0: leave one positive")
        if twice := [source.path for source in self.sources if source.epochs != 1]:
            raise ValueError(f"{twice[0]} has epochs and a weight, which both say how often it is seen: drop one")
        return self

    @property
    def weighted(self) -> bool:
        """Whether sources have weights; else their epochs say how often each is seen."""
        return any(source.weight is not None for source in self.sources)


def prepared(corpus: Corpus, folder: Path, place: Path | None = None,
             workers: int = 2) -> tuple[Corpus, dict[str, Any] | None]:
    """A corpus whose texts need no preparation any more, and the report of what was done (None: nothing was asked).

    `place` is the folder for the clean documents; without one they go to the cache. What was prepared before from the
    same files by the same settings is found again, and a run that was stopped goes on.
    """
    if corpus.prepare is None:
        return corpus, None
    raw = [Raw(source_path(corpus, s, folder), s.path, s.fields) for s in corpus.sources]
    evaluation = [folder / corpus.root / path for path in corpus.prepare.overlap.files]
    if place is None:
        facts = corpus.model_dump(exclude=NO_WEIGHTS), [str(r.path.resolve()) for r in raw]
        name = hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
        place = cache_folder() / "prepared" / name
    report = prepare_documents(raw, evaluation, corpus.prepare, place, workers)
    sources = tuple(s.model_copy(update={"path": r.prepared_name(i), "fields": ("text",)})
                    for i, (s, r) in enumerate(zip(corpus.sources, raw, strict=True)))
    return corpus.model_copy(update={"root": str(place.resolve()), "sources": sources, "prepare": None}), report


def compared_with(corpus: Corpus, files: list[Path]) -> Corpus:
    """The corpus with more evaluation texts that its documents must not share long runs with."""
    if not files:
        return corpus
    if corpus.prepare is None:
        raise ConfigError("--against needs documents that are prepared: add the table [data.prepare] to the recipe")
    overlap = corpus.prepare.overlap
    more = (*overlap.files, *(str(path.resolve()) for path in files))
    return corpus.model_copy(update={"prepare": corpus.prepare.model_copy(
        update={"overlap": overlap.model_copy(update={"files": more})})})


def over_ray(corpus: Corpus, address: str | None) -> Corpus:
    """The corpus prepared over Ray, where an address is given."""
    if address is None:
        return corpus
    if corpus.prepare is None:
        raise ConfigError("--ray spreads the preparation of documents, and this recipe asks for none: add the table "
                          "[data.prepare] to it, or leave --ray away")
    return corpus.model_copy(update={"prepare": corpus.prepare.model_copy(update={"ray": address})})


def split(corpus: Corpus, source: Source, folder: Path, watch: Watch = unwatched) -> Iterator[tuple[str, int]]:
    """(document, copies) for each document of a source: 0 copies means held out for evaluation."""
    path = source_path(corpus, source, folder)
    if path.is_file() and is_plain(path):
        yield from _split_file(corpus, source, path, watch)
        return
    for number, text in enumerate(documents(path, source.fields, watch)):
        if not text.strip():
            continue                                     # an empty document teaches nothing
        draw = uniform(f"{corpus.seed}/{source.path}/{number}")
        if draw < corpus.held_out:
            yield text, 0
        else:
            again = uniform(f"{corpus.seed}/copies/{source.path}/{number}")
            copies = int(source.epochs) + (again < source.epochs % 1)
            if copies:
                yield text, copies


def source_path(corpus: Corpus, source: Source, folder: Path) -> Path:
    """Where a source lies, given the recipe's folder."""
    path = folder / corpus.root / source.path
    if not path.exists():
        raise DataError(f"no file or folder at {path}: the recipe's data.root is {corpus.root!r}; "
                        "set data.root=FOLDER on the command line if your data lies elsewhere")
    return path


def _split_file(corpus: Corpus, source: Source, path: Path, watch: Watch) -> Iterator[tuple[str, int]]:
    """One plain file is one document: its last part is held out, the rest repeated whole epochs."""
    (text,) = documents(path, watch=watch)
    border = len(text) - round(len(text) * corpus.held_out)
    if text[:border].strip() and (copies := round(source.epochs)):
        yield text[:border], copies
    if text[border:].strip():
        yield text[border:], 0


def vocabulary_texts(corpus: Corpus, folder: Path) -> Iterator[str]:
    """Training documents of every source, in an order of chance, up to each source's `vocabulary_bytes`."""
    corpus, _ = prepared(corpus, folder)
    for source in corpus.sources:
        texts = [text for text, copies in split(corpus, source, folder) if copies]
        order = sorted(range(len(texts)), key=lambda i: uniform(f"{corpus.seed}/vocabulary/{source.path}/{i}"))
        left = source.vocabulary_bytes
        for i in order:
            if left <= 0:
                break
            part = texts[i].encode("utf-8")[:left].decode("utf-8", "ignore")
            left -= len(part.encode("utf-8"))
            yield part


def uniform(name: str) -> float:
    """A number in [0, 1) that depends on `name` alone."""
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:8], "little") / 2**64
