"""One part of a corpus, as a worker processes it: from raw rows to judged documents in one file."""

import base64
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zstandard
from pydantic import Field, field_validator

from ayllu.config import Settings
from ayllu.data.clean import Cleaning, clean
from ayllu.data.duplicates import Duplicates, fingerprint, signature
from ayllu.data.encodings import is_text_encoding
from ayllu.data.language import identify
from ayllu.data.overlap import Overlap, shared_runs
from ayllu.data.packed import open_binary
from ayllu.data.quality import Quality, first_broken
from ayllu.data.readers import AUTO, parse
from ayllu.data.rows import BadRow, Record, Reject
from ayllu.files import write_bytes
from ayllu.privacy.pii import Kind, redact

EXCERPT = 200                                            # characters of an example


class Preparation(Settings):
    """What happens to raw texts before they are tokenised, in this order."""

    encoding: str = AUTO                                 # of all files, as Python names it: gb18030, big5, cp1252, ...
    cleaning: Cleaning = Cleaning()
    personal_data: Literal["mask", "remove", "keep"] = "mask"
    personal_kinds: tuple[Kind, ...] | None = None       # None: every kind that ayllu/privacy/pii.py knows
    identify: bool = True                                # name each document's language
    languages: tuple[str, ...] = ()                      # keep only these (ISO 639-1); empty: all
    quality: Quality | None = Quality()                  # None ("off"): no document is judged
    overlap: Overlap = Overlap()
    duplicates: Duplicates = Duplicates()
    examples: int = Field(default=3, ge=0)               # of what each rule dropped, kept in report.json
    part_bytes: int = Field(default=4_000_000, gt=0)     # of raw rows in a part; changes nothing in the result
    ray: str | None = None                               # prepare over Ray: "local" or an address; result the same

    @field_validator("*", mode="before")
    @classmethod
    def _off(cls, value: Any) -> Any:
        return None if value == "off" else value         # TOML has no word for None

    @field_validator("encoding")
    @classmethod
    def _known(cls, value: str) -> str:
        if value != AUTO and not is_text_encoding(value):
            raise ValueError(f"no encoding {value!r}: give auto, utf-8, gb18030, big5, cp1252 or another of Python's")
        return value


HOW_ONLY = {"part_bytes", "ray"}                         # settings that change how it is done and not what comes out


@dataclass
class Part:
    """Raw rows of one source, and where their documents are written."""

    out: Path
    fields: tuple[str, ...]
    rows: list[Record | Reject] = field(default_factory=list)


@dataclass
class Tally:
    """What was counted; `dropped` by rule, `changed` by kind of repair (documents), `personal` by kind of data."""

    counts: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)
    personal: Counter[str] = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    rejects: list[dict[str, Any]] = field(default_factory=list)

    def add(self, other: dict[str, Any], most: int) -> None:
        """Add what a part counted; parts come in order, so that the first examples stay."""
        for name in ("counts", "dropped", "changed", "personal", "languages"):
            getattr(self, name).update(other[name])
        for rule, found in other["examples"].items():
            for example in found:
                self.show(rule, example, most)
        self.rejects += other["rejects"]

    def show(self, rule: str, example: dict[str, Any], most: int) -> None:
        """Keep an example of a rule while there are few of them."""
        shown = self.examples.setdefault(rule, [])
        if len(shown) < most:
            shown.append(example)


def process(part: Part, settings: Preparation, known: np.ndarray) -> Path:
    """Write a part's documents into its file."""
    write_bytes(part.out, content(part, settings, known))
    return part.out


def content(part: Part, settings: Preparation, known: np.ndarray) -> bytes:
    """One line with the part's tally, then one line for each document that passed, compressed."""
    tally = Tally()
    lines = [json.dumps(row, ensure_ascii=False) for row in _documents(part, settings, known, tally)]
    data = "\n".join([json.dumps(tally.__dict__, ensure_ascii=False), *lines]) + "\n"
    return zstandard.ZstdCompressor(level=1).compress(data.encode())


def read_part(path: Path) -> tuple[dict[str, Any], Iterator[dict[str, Any]]]:
    """The tally and the documents that `process` wrote; `exact` is bytes, `near` a signature or None."""
    with open_binary(path) as stream:
        lines = stream.read().splitlines()
    return json.loads(lines[0]), map(_unpack, lines[1:])


def _unpack(line: bytes) -> dict[str, Any]:
    row = json.loads(line)
    row["exact"] = bytes.fromhex(row["exact"])
    row["near"] = np.frombuffer(base64.b64decode(row["near"]), dtype=np.uint32) if row["near"] else None
    return row


def _documents(part: Part, settings: Preparation, known: np.ndarray, tally: Tally) -> Iterator[dict[str, Any]]:
    for record in part.rows:
        if isinstance(record, Record):
            try:
                raw = parse(record, part.fields)
            except BadRow as error:
                record = Reject(record.file, record.line, str(error))
        if isinstance(record, Reject):
            tally.counts["rejected"] += 1
            tally.rejects.append({"file": record.file, "line": record.line, "reason": record.reason})
            continue
        tally.counts.update(documents=1, characters=len(raw))
        if record.encoding != "utf-8":
            tally.changed[f"encoding.{record.encoding}"] += 1
        where = f"{record.file}:{record.line}" if record.line else record.file
        text, language, broken = _judge(raw, settings, known, tally)
        if broken is not None:
            tally.dropped[broken[0]] += 1
            example = {"where": where, "found": round(broken[1], 4), "text": text[:EXCERPT]}
            tally.show(broken[0], example, settings.examples)
            continue
        near = signature(text, settings.duplicates) if settings.duplicates.near else None
        yield {"text": text, "where": where, "language": language, "exact": fingerprint(text).hex(),
               "near": base64.b64encode(near.astype(np.uint32).tobytes()).decode() if near is not None else None}


def load_libraries(settings: Preparation) -> None:
    """Raise MissingExtra before any work is done; and forked workers need not load the libraries again."""
    if settings.identify or settings.languages:
        identify("text")
    if settings.duplicates.near:
        signature("text", settings.duplicates)


def _judge(raw: str, settings: Preparation, known: np.ndarray,
           tally: Tally) -> tuple[str, str, tuple[str, float] | None]:
    """(text, language, the rule that it breaks with the value found). Personal data goes before anything is kept."""
    text, changes = clean(raw, settings.cleaning)
    tally.changed.update(dict.fromkeys(changes, 1))
    if settings.personal_data != "keep":
        text, found = redact(text, settings.personal_data, settings.personal_kinds)
        tally.personal.update(found)
    if not text.strip():
        return text, "und", ("empty", 0)
    language = identify(text) if settings.identify or settings.languages else "und"
    tally.languages[language] += 1
    if settings.languages and language not in settings.languages:
        return text, language, (f"language.{language}", 0)
    broken = first_broken(text, language, settings.quality) if settings.quality else None
    if broken is None and (runs := shared_runs(text, known, settings.overlap.n)):
        tally.counts["overlapping"] += 1
        broken = ("overlap", runs) if settings.overlap.action == "drop" else None
    return text, language, broken
