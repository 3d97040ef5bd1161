"""A whole file or page: read, translated, written, and a report of what was done, reused, left and doubted."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ayllu.apps.translate import docx, po
from ayllu.apps.translate.formats import Format, Text, decode, encode, names_no_encoding, unique
from ayllu.apps.translate.languages import Pair, detect
from ayllu.apps.translate.marks import words, written
from ayllu.apps.translate.measured import measured
from ayllu.apps.translate.splice import Segment, splice
from ayllu.apps.translate.translator import Translation, Translator
from ayllu.errors import DataError

_LANG = re.compile(r"<html\b[^<>]*?\slang\s*=\s*[\"']?(\w\w)", re.IGNORECASE)
MOST_LISTED = 200                                        # doubtful texts that a report names
MOST_BYTES = 64 << 20
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Done:
    """The translated bytes and what there is to say about them."""

    data: bytes
    report: dict[str, Any]


def translate_bytes(raw: bytes, format: Format, to: str, make: Callable[[Pair], Translator], *,
                    source: str | None = None, header: str | None = None, bilingual: bool = False,
                    progress: Progress | None = None) -> Done:
    """`make` gives the translator of a pair, once the language of the source is known."""
    if len(raw) > MOST_BYTES:
        raise DataError(f"the file has {len(raw):,} bytes, the most is {MOST_BYTES:,}: split it")
    if bilingual and format.beside is None:
        raise DataError(f"{format.name} has no bilingual form: HTML, Markdown, TXT, SRT, VTT and DOCX have one")
    package = docx.open_docx(raw) if format.name == "docx" else None
    text = decode(raw, header) if package is None else Text("", "utf-8")
    if format.name == "html" and header is None and names_no_encoding(raw):
        text = replace(text, encoding="ascii")           # other letters as references
    sources = dict(package.parts) if package else {"": text.text if bilingual else format.prepare(text.text, to)}
    split = {name: format.split(one) for name, one in sources.items()}
    segments = [segment for one in split.values() for segment in one]
    if not segments:
        return Done(raw, {"format": format.name, "segments": 0, "notes": unique([text.note, "no text was found"])})
    named = _LANG.search(text.text[:20_000])
    language = source or detect((words(s.parts) for s in segments), named[1] if named else "")
    if source is None and language == to:
        return Done(raw, {"format": format.name, "segments": 0, "notes": unique([text.note, f"it is in {to} already, "
                          "and stays as it is (--from names another language)"])})
    pair = Pair(language, to)
    translator = make(pair)
    found = translator.translate([segment.parts for segment in segments], progress)
    report = report_of(translator, segments, found)
    written, place = {}, 0
    for name, one in split.items():
        its, place = found[place:place + len(one)], place + len(one)
        written[name] = _written(sources[name], one, its, format, pair, bilingual)
    if package is not None:
        return Done(package.written(written), {"format": format.name, **report, "notes": []})
    data, note = encode(written[""], text, format.unencodable)
    return Done(data, {"format": format.name, **report, "notes": unique([text.note, note])})


def _written(source: str, segments: Sequence[Segment], found: Sequence[Translation], format: Format, pair: Pair,
             bilingual: bool) -> str:
    if format.name == "po":
        doubted = [s.start for s, one in zip(segments, found, strict=True) if one.is_low]
        marked = po.mark_fuzzy(source, doubted)
        if marked != source:                             # the same entries at other places
            return splice(marked, format.split(marked), [one.parts for one in found])
    beside = format.beside
    compose = (lambda s, old, new: beside(s, old, new, pair.source, pair.target)) if bilingual and beside else None
    text = splice(source, segments, [None if one.origin in ("kept", "other") and format.name != "po" else one.parts
                                     for one in found], compose)
    return format.finish(text) if bilingual and format.finish else text


def report_of(translator: Translator, segments: Sequence[Segment], found: Sequence[Translation]) -> dict[str, Any]:
    """Counts by how each segment was come by, and the doubtful ones with their reasons."""
    counts: dict[str, int] = {}
    for one in found:
        counts[one.origin] = counts.get(one.origin, 0) + 1
    low = [{"place": s.start, **told(words(s.parts), one)} for s, one in zip(segments, found, strict=True)
           if one.is_low]
    pair, name = translator.pair, translator.speaker.name
    return {"from": pair.source, "to": pair.target, "model": name, "segments": len(segments), "by": counts,
            "sentences": dict(translator.asker.hits), "measured": measured(name, pair),
            "n_low": len(low), "low": low[:MOST_LISTED]}


def told(source: str, one: Translation) -> dict[str, Any]:
    """One translation as a report tells it."""
    found: dict[str, Any] = {"source": source, "translation": written(one.parts), "origin": one.origin,
                             "is_low": one.is_low, "notes": list(one.notes)}
    if one.probability is not None:
        found["probability"] = round(one.probability, 4)
    if one.back is not None:
        found["round_trip"] = round(one.back, 4)
    if one.alike is not None:
        found["alike"] = {"source": one.alike.source, "translation": one.alike.target,
                          "likeness": round(one.alike.likeness, 3)}
    return found
