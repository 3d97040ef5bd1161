"""What a model that sees and hears makes of files: captions of pictures, by which a collection finds them, and the
words of recordings, which are then read as any text is.

Both are a model's words and only as good as its senses: the caption's document says that it is one, and who wrote it.
"""

import base64
import binascii
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from ayllu.apps.collection import CAPTION, CAPTIONED, Collection
from ayllu.apps.documents import pdf
from ayllu.apps.documents.document import Document, Limits, Unreadable, clean
from ayllu.apps.documents.zipped import opened
from ayllu.apps.hearing import CUT, transcribe
from ayllu.apps.index.adding import Progress, Summary
from ayllu.apps.index.prepare import Prepared, prepared
from ayllu.apps.index.store import Put
from ayllu.apps.speaker import Message, Speaker
from ayllu.data.media_rows import kind_of
from ayllu.engine.parts import file_bytes
from ayllu.errors import BadMedia, ConfigError
from ayllu.files import write_text

WHAT, ASK = {"image": "Picture", "audio": "Recording"}, {"image": "What is this?", "audio": "Which words are said?"}
MOST_PICTURES = 200                                      # of one document
MOST_BYTES = 20 * 2**20                                  # of one picture
LEAST_BYTES = 200                                        # less is a dot or a line of a layout
WORDS = 64                                               # tokens of a caption; what is cut there ends with CUT
EMBEDDED = re.compile(rb"data:image/[\w.+-]+;base64,([A-Za-z0-9+/=\s]+)")
Found = Iterator[tuple[str, bytes | str]]                # where a picture stands; its bytes, or why there are none


@dataclass(frozen=True)
class Medium:
    """A picture or a recording, and where it was found."""

    kind: str                                            # image or audio
    name: str
    data: bytes | str                                    # or why there are none


def said_of(speaker: Speaker, medium: Medium) -> str:
    """The model's words; BadMedia where it is no picture or recording that can be read."""
    if isinstance(medium.data, str):
        raise BadMedia(medium.data)
    if medium.kind == "audio":
        return transcribe(speaker, medium.data, medium.name, ASK["audio"]).text
    url = f"data:image/*;base64,{base64.b64encode(medium.data).decode()}"
    message: Message = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}, "where":
                                                     medium.name}, {"type": "text", "text": ASK["image"]}]}
    answer, = speaker.answers([[message]], max_tokens=WORDS, temperature=0.0)
    return answer.text.strip() + CUT * (answer.finish == "length")


def media_in(path: Path, name: str = "") -> Iterator[Medium]:
    """The file itself where it is a picture or a recording; else the pictures within a PDF, DOCX or HTML file, without
    the dots and lines of its layout. What a damaged file does to its reader is told in place of a medium. `name` is
    what it's called, if not by its path."""
    name, kind, within = name or str(path), kind_of(path.name), WITHIN.get(path.suffix.lower())
    try:
        if kind:
            yield Medium(kind, name, file_bytes(path))
        for n, (where, found) in enumerate(_pictures(within(path)) if within else ()):
            if n == MOST_PICTURES:
                yield Medium("image", name, f"it has more than {MOST_PICTURES} pictures: {where} and what follows is "
                                            "left out; cut it into smaller documents")
                return
            yield Medium("image", f"{name}, {where}", found)
    except (BadMedia, Unreadable, OSError, MemoryError, RecursionError) as error:
        yield Medium(kind or "image", name, str(error) or type(error).__name__)


def _pictures(found: Found) -> Found:
    for where, data in found:
        if len(data) > MOST_BYTES:
            yield where, f"it has {len(data):,} bytes, at most {MOST_BYTES:,} are taken of one picture"
        elif isinstance(data, str) or len(data) >= LEAST_BYTES:
            yield where, data


def _of_docx(path: Path) -> Found:
    with opened(path, Limits()) as packed:
        parts = [part for part in packed.infolist() if part.filename.startswith("word/media/")]
        for n, part in enumerate(parts, 1):
            if kind_of(part.filename) == "image":
                yield f"picture {n}", packed.read(part)
            else:
                yield f"picture {n}", f"its kind isn't read: {part.filename}"


def _of_html(path: Path) -> Found:
    """Those that the file itself holds; others are files beside it, which a folder brings anyway."""
    for n, match in enumerate(EMBEDDED.finditer(path.read_bytes()), 1):
        try:
            yield f"picture {n}", base64.b64decode(match[1])
        except binascii.Error as error:
            yield f"picture {n}", f"it is no base64: {error}"


WITHIN: dict[str, Callable[[Path], Found]] = {
    ".pdf": lambda path: pdf.pictures(path, Limits()), ".docx": _of_docx, ".html": _of_html, ".htm": _of_html}


def below(paths: Sequence[Path]) -> Iterator[Path]:
    """The files themselves and those below folders, without hidden ones."""
    for path in paths:
        if path.is_dir():
            yield from (file for file in sorted(path.rglob("*")) if file.is_file()
                        and not any(part.startswith(".") for part in file.relative_to(path).parts))
        else:
            yield path


def describe(found: Collection, model: str, load: Callable[[str], Speaker], paths: Sequence[Path], summary: Summary,
             progress: Progress = lambda done, of, name: None) -> None:
    """Add what a model says of each picture and recording as a document of its own. Only files that are new or changed,
    or that another model spoke of, are shown to it, and it is loaded for these alone; stopped by Ctrl-C, the same goes
    on with the next file. `paths` are remembered with the model, for `describe_again`."""
    files = {str(path): path for path in below(paths) if path.exists()}
    known = {name for name, in found.store.rows("SELECT name FROM facts")}
    summary.removed += sum(_forget(found, name) for path in paths for name in found.captions(str(path))
                           if name in known and name.removeprefix(CAPTION) not in files)
    describe_named(found, model, load, files, summary, progress)
    found.store.set_fact(CAPTIONED, {**found.store.fact(CAPTIONED, {}), **{str(path): model for path in paths}})


def describe_named(found: Collection, model: str, load: Callable[[str], Speaker], named: Mapping[str, Path],
                   summary: Summary, progress: Progress = lambda done, of, name: None) -> None:
    """The same for files under names of their own, which `describe_again` leaves: uploads."""
    begun = time.monotonic()
    files = {CAPTION + name: path for name, path in named.items()
             if kind_of(path.name) or path.suffix.lower() in WITHIN}
    stamps = {name: [model, path.stat().st_size, path.stat().st_mtime_ns] for name, path in files.items()}
    before = {name: found.store.fact(name, [None, 0, 0, 0]) for name in files}    # stamps, and how many captions
    todo = [name for name in files if before[name][:3] != stamps[name]]
    summary.unchanged += sum(before[name][3] for name in set(files) - set(todo))
    if todo:
        speaker = load(model)
        if not (speaker.sees or speaker.hears):
            raise ConfigError(f"{speaker.name} neither sees nor hears: name a model with senses (docs/media.md)")
        for n, name in enumerate(todo, 1):
            puts = list(_said(speaker, media_in(files[name], name.removeprefix(CAPTION)), stamps[name]))
            n_old = _forget(found, name)
            found.store.put(puts)
            n_new = sum(isinstance(put.new, Prepared) for put in puts)
            found.store.set_fact(name, [*stamps[name], n_new])
            both = min(n_old, n_new)
            summary.updated, summary.added = summary.updated + both, summary.added + n_new - both
            summary.removed += n_old - both
            progress(n, len(todo), name)
    _tell(found, files, summary)
    summary.seconds += time.monotonic() - begun


def describe_again(found: Collection, load: Callable[[str], Speaker], summary: Summary,
                   progress: Progress = lambda done, of, name: None) -> None:
    """The same for all paths of before that are still there."""
    for path, model in found.store.fact(CAPTIONED, {}).items():
        describe(found, model, load, [Path(path)], summary, progress)


def _said(speaker: Speaker, media: Iterator[Medium], stamp: Sequence[Any]) -> Iterator[Put]:
    for medium in media:
        if not (speaker.sees if medium.kind == "image" else speaker.hears):
            continue
        try:
            said = said_of(speaker, medium)
            text = clean(f"{WHAT[medium.kind]} {medium.name}\n\n{said}\n\n({speaker.name} says so.)")
            new: Prepared | str = prepared(Document(text, "text"), sha256(text.encode()).hexdigest())
        except BadMedia as error:                        # what else goes wrong is not the file's fault
            new = str(error)
        yield Put(CAPTION + medium.name, stamp[1], stamp[2], {}, new)


def _forget(found: Collection, name: str) -> int:
    """What was said of a file, and that it was looked at."""
    names = found.captions(name.removeprefix(CAPTION))
    with found.store.write() as db:
        db.executemany("DELETE FROM facts WHERE name = ?", [(name,) for name in names])
    return found.store.remove(names)


def _tell(found: Collection, files: Iterable[str], summary: Summary) -> None:
    """Those that can't be read are left out; those that were looked at weren't passed over."""
    left_out = found.left_out()
    shown = {one.source for one in found.documents()} | set(left_out)
    summary.left_out.update({name: why for name, why in left_out.items() if name.startswith(CAPTION)})
    for name in files:
        own, suffix = name.removeprefix(CAPTION), Path(name).suffix.lower()
        if name in shown and kind_of(name):
            if summary.left_out.pop(own, None):          # as text
                found.store.remove([own])
            n = summary.passed_over.pop(suffix, 0)
            summary.passed_over.update({suffix: n - 1} if n > 1 else {})


def transcripts(speaker: Speaker, paths: Sequence[Path], left: Callable[[str, str], None],
                kept: Path) -> Iterator[dict[str, str]]:
    """A row {id, text} for each recording, as posts are read. What was heard is written to `kept` line by line, and an
    unchanged file isn't heard again by the same model."""
    if not speaker.hears:
        raise ConfigError(f"{speaker.name} hears nothing: name a model with an ear (docs/media.md)")
    whole = kept.read_text(encoding="utf-8").split("\n")[:-1] if kept.is_file() else []
    known = {tuple(stamp): text for *stamp, text in map(json.loads, whole)}
    write_text(kept, "".join(f"{line}\n" for line in whole))                  # without a line that was cut off
    with kept.open("a", encoding="utf-8") as lines:
        for path in below(paths):
            for medium in media_in(path) if kind_of(path.name) == "audio" else ():
                try:
                    stamp = speaker.name, str(path), path.stat().st_size, path.stat().st_mtime_ns
                    if stamp not in known:
                        known[stamp] = said_of(speaker, medium)
                        lines.write(json.dumps([*stamp, known[stamp]], ensure_ascii=False) + "\n")
                        lines.flush()
                    yield {"id": str(path), "text": known[stamp]}
                except (BadMedia, OSError) as error:
                    left(str(path), str(error))
