"""What a model that sees and hears makes of files: captions of pictures, by which a collection finds them, and the
words of recordings, which are then read as any text is.

Both are a model's words and only as good as its senses: the caption's document says that it is one, and who wrote it.
"""

import base64
import binascii
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ayllu.apps.collection import Collection
from ayllu.apps.speaker import Message, Speaker
from ayllu.data.media_rows import kind_of
from ayllu.errors import AylluError, ConfigError

ASK = {"image": "What is this?", "audio": "Which words are said?"}
MOST_PICTURES = 200                                      # of one document
MOST_BYTES = 20 * 2**20                                  # of one picture
LEAST_BYTES = 200                                        # less is a dot or a line of a layout
WORDS = 64                                               # tokens of a caption
EMBEDDED = re.compile(rb"data:image/[\w.+-]+;base64,([A-Za-z0-9+/=\s]+)")
PREFIX = "picture: "                                     # of a caption's name in a collection
Left = Callable[[str, str], None]                        # what was left out, and why


@dataclass(frozen=True)
class Medium:
    """A picture or a recording, and where it was found."""

    kind: str                                            # image or audio
    name: str
    data: bytes


def said_of(speaker: Speaker, medium: Medium, ask: str | None = None, most: int = WORDS) -> str:
    """The model's words."""
    data = base64.b64encode(medium.data).decode()
    part = ({"type": "image_url", "image_url": {"url": f"data:image/*;base64,{data}"}} if medium.kind == "image" else
            {"type": "input_audio", "input_audio": {"data": data, "format": Path(medium.name).suffix[1:] or "wav"}})
    content = [part, {"type": "text", "text": ask or ASK[medium.kind]}]
    messages: list[Message] = [{"role": "user", "content": content}]
    answer, = speaker.answers([messages], max_tokens=most, temperature=0.0)
    return answer.text.strip()


def media_in(path: Path) -> Iterator[Medium]:
    """The file itself where it is a picture or a recording; else the pictures within a PDF, DOCX or HTML file."""
    kind = kind_of(path.name)
    if kind:
        yield Medium(kind, str(path), path.read_bytes())
        return
    within = {".pdf": _of_pdf, ".docx": _of_docx, ".html": _of_html, ".htm": _of_html}.get(path.suffix.lower())
    for n, (where, data) in enumerate(within(path) if within else ()):
        if n == MOST_PICTURES:
            return
        if LEAST_BYTES <= len(data) <= MOST_BYTES:
            yield Medium("image", f"{path}{where}", data)


def _of_pdf(path: Path) -> Iterator[tuple[str, bytes]]:
    from pypdf import PdfReader
    for number, page in enumerate(PdfReader(path).pages, 1):
        for n, image in enumerate(page.images, 1):
            yield f", page {number}, picture {n}", image.data


def _of_docx(path: Path) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(path) as packed:
        found = [part for part in packed.infolist() if part.filename.startswith("word/media/")]
        for n, part in enumerate(found, 1):
            if part.file_size <= MOST_BYTES and kind_of(part.filename) == "image":
                yield f", picture {n}", packed.read(part)


def _of_html(path: Path) -> Iterator[tuple[str, bytes]]:
    """Those that the file itself holds; others are files beside it, which a folder brings anyway."""
    for n, match in enumerate(EMBEDDED.finditer(path.read_bytes()), 1):
        try:
            yield f", picture {n}", base64.b64decode(match[1])
        except binascii.Error:
            continue


def below(paths: Sequence[Path]) -> Iterator[Path]:
    """The files themselves and those below folders, without hidden ones."""
    for path in paths:
        if path.is_dir():
            yield from (file for file in sorted(path.rglob("*")) if file.is_file()
                        and not any(part.startswith(".") for part in file.relative_to(path).parts))
        else:
            yield path


def describe(found: Collection, speaker: Speaker, paths: Sequence[Path], left: Left) -> int:
    """Add what `speaker` says of each picture and recording as a document of its own; how many there are. What a
    collection holds of these paths from before is replaced."""
    if not (speaker.sees or speaker.hears):
        raise ConfigError(f"{speaker.name} neither sees nor hears: name a model with senses (docs/media.md)")
    texts: dict[str, str] = {}
    for path in below(paths):
        try:
            for medium in media_in(path):
                if speaker.sees if medium.kind == "image" else speaker.hears:
                    said = said_of(speaker, medium)
                    what = "Picture" if medium.kind == "image" else "Recording"
                    texts[PREFIX + medium.name] = f"{what} {medium.name}\n\n{said}\n\n({speaker.name} says so.)"
        except Exception as error:                       # pypdf meets files that nobody foresaw
            left(str(path), str(error) or type(error).__name__)
    old = [one.source for one in found.documents() for path in paths if one.source.startswith(f"{PREFIX}{path}")]
    if old:
        found.remove(old)
    found.add_texts(texts)
    return len(texts)


def transcripts(speaker: Speaker, paths: Sequence[Path], left: Left) -> Iterator[dict[str, str]]:
    """A row {id, text} for each recording, as posts are read."""
    if not speaker.hears:
        raise ConfigError(f"{speaker.name} hears nothing: name a model with an ear (docs/media.md)")
    for path in below(paths):
        if kind_of(path.name) != "audio":
            continue
        try:
            yield {"id": str(path), "text": said_of(speaker, Medium("audio", str(path), path.read_bytes()), most=256)}
        except (AylluError, OSError) as error:
            left(str(path), str(error))
