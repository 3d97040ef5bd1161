"""What a head learns from: a base with its tokenizer, and the rows of three sides as ids and numbers."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ayllu.checkpoint.load import open_checkpoint
from ayllu.checkpoint.resolve import bundled_name
from ayllu.checkpoint.source import OpenCheckpoint
from ayllu.checkpoint.transformer import OpenTransformer, is_transformer, open_transformer
from ayllu.data.label_loader import Reading, Texts, encode
from ayllu.data.labelled import Labelled, check_known, names_of, read_labelled, split
from ayllu.errors import ConfigError, DataError
from ayllu.log import say, warn
from ayllu.train.heads_config import HeadRecipe


@dataclass(frozen=True)
class Side:
    """Rows as they were read, and as the model reads them."""

    rows: Sequence[Labelled]
    texts: Texts
    cut: int                                             # of them, those that were longer than the context

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class HeadLesson:
    """All of it, before the first weight is read."""

    source: OpenCheckpoint | OpenTransformer
    reading: Reading
    names: tuple[str, ...]                               # of the outputs; none where they are a number
    train: Side
    held_out: Side
    test: Side
    also_trained: int                                    # texts of the test side that are on the training side, too
    related: Sequence[Labelled] = ()                     # of other sources, without texts of the sides above

    @property
    def digest(self) -> str:
        """Changes with every id and label that is trained on."""
        found = hashlib.sha256(repr(self.names).encode())
        for ids, label in zip(self.train.texts.ids, self.train.texts.labels, strict=True):
            found.update(f"{ids}{label}".encode())
        for row in self.related:
            found.update(f"{row.text}{row.label}".encode("utf-8", "surrogatepass"))
        return found.hexdigest()


def prepared_head(config: HeadRecipe, recipe_folder: Path) -> tuple[HeadRecipe, HeadLesson]:
    """The settings with the base's shape and all numbers of steps, and the data; an error where they don't agree."""
    folder = Path(config.folder or recipe_folder)
    source = open_base(config.base, folder)
    lesson = _lesson(config, folder, source)
    loop = config.loop
    each = max(-(-len(lesson.train) // loop.batch_size), 1)              # steps of an epoch
    steps = loop.steps or max(round(config.epochs * len(lesson.train) / loop.batch_size), 1)
    looks = loop.eval_every or min(each, steps)
    loop = loop.model_copy(update={"steps": steps, "eval_every": looks,
                                   "checkpoint_every": loop.checkpoint_every or looks})
    say(f"{len(lesson.train):,} rows to learn, {len(lesson.held_out):,} held out, {len(lesson.test):,} to test; "
        f"{len(lesson.names) or 'no'} labels; {steps * loop.batch_size / len(lesson.train):.1f} epochs in {steps:,} "
        "steps")
    return config.model_copy(update={"model": source.config, "loop": loop, "context": lesson.reading.context}), lesson


def open_base(base: str, folder: Path) -> OpenCheckpoint | OpenTransformer:
    """A Llama or an original Transformer, by a path from the recipe's folder or by a name."""
    path: str | Path = folder / base if (folder / base).exists() else base
    return open_transformer(path) if is_transformer(path) else open_checkpoint(path)


def name_of(source: OpenCheckpoint | OpenTransformer) -> str:
    """What finds the base again."""
    return bundled_name(source.path) or str(source.path.resolve())


def _lesson(config: HeadRecipe, folder: Path, source: OpenCheckpoint | OpenTransformer) -> HeadLesson:
    tokenizer = source.open_tokenizer()
    if tokenizer is None:
        raise ConfigError(f"{source.path} has no tokenizer: put tokenizer.json or tokenizer.model beside its weights")
    parts, names = _parts(config, folder)
    reading = Reading(tokenizer, _context(config, source), config.data.too_long)
    train, held_out, test = (_side(rows, reading, names, config.kind, name)
                             for rows, name in zip(parts, ("train", "held-out", "test"), strict=True))
    known = {row.text for row in parts[0]}
    both = sum(row.text in known for row in parts[2])
    if both:
        warn(f"{both:,} of {len(parts[2]):,} texts of the test side are trained on, too: its numbers flatter the model")
    return HeadLesson(source, reading, names, train, held_out, test, both, _related(config, folder, names, parts))


def _related(config: HeadRecipe, folder: Path, names: tuple[str, ...],
             parts: Sequence[Sequence[Labelled]]) -> list[Labelled]:
    """Rows of other sources. A text that stands in one of the parts teaches nothing new, or what is to be measured."""
    data, known = config.data, {as_words(row.text) for part in parts for row in part}
    rows = [row for path in data.related for row in read_labelled(folder / path, config.kind, data.text, data.label)]
    check_known(rows, names)
    kept = [row for row in rows if as_words(row.text) not in known]
    if rows:
        say(f"{len(kept):,} related rows for the layer beside the model; {len(rows) - len(kept):,} more are left out, "
            f"since their texts stand in {data.path} or its other files, too")
    return kept


def as_words(text: str | tuple[str, ...]) -> str:
    """A text without its case, spaces and punctuation."""
    return "".join(re.findall(r"\w+", str(text).lower()))


def _context(config: HeadRecipe, source: OpenCheckpoint | OpenTransformer) -> int:
    most = source.config.max_context
    if config.context > most:
        raise ConfigError(f"context={config.context} is longer than the base's, {most}: lower it")
    return config.context or most


def _parts(config: HeadRecipe, folder: Path) -> tuple[list[list[Labelled]], tuple[str, ...]]:
    """The rows to train on, to hold out and to test on, and the labels' names."""
    data = config.data

    def read(path: str) -> list[Labelled]:
        return read_labelled(folder / path, config.kind, data.text, data.label)

    rows = read(data.path)
    names = names_of(rows)
    if config.kind != "regression" and len(names) < 2:
        raise DataError(f"{data.path} has {len(names)} label{'s' * (len(names) != 1)} ({', '.join(names) or 'none'}): "
                        "a classifier needs two or more")
    shares = [share for share, file in ((data.test_share, data.test), (data.held_out_share, data.held_out)) if not file]
    found = split(rows, shares)
    train = found.pop()
    test = read(data.test) if data.test else found.pop(0)
    held_out = read(data.held_out) if data.held_out else found.pop(0)
    for part, what in ((train, "to learn"), (held_out, "held out"), (test, "to test")):
        if not part:
            raise DataError(f"of {len(rows):,} rows of {data.path} none is left {what}: give more rows, or name files "
                            "with --test and data.held_out")
        if config.kind != "regression":
            check_known(part, names)
    if unseen := sorted(set(names) - {name for row in train for name in row.labels}):
        warn(f"{len(unseen)} labels occur in no row that is learned: {', '.join(unseen[:5])}")
    return [train, held_out, test], names


def _side(rows: Sequence[Labelled], reading: Reading, names: tuple[str, ...], kind: str, name: str) -> Side:
    texts, cut = encode(rows, reading, names, kind)
    if cut:
        kept = "first" if reading.too_long == "begin" else "first and last"
        warn(f"{cut:,} of {len(rows):,} {name} texts are longer than {reading.context:,} tokens: of these only the "
             f"{kept} ones are read")
    return Side(rows, texts, cut)
