"""Rows with images and sounds: conversations and captions from JSONL, their files beside them, in a tar, or in tar
shards.

A row is one of
    {"messages": [{"role": "user", "content": [{"type": "image", "path": "a.png"}, {"type": "text", "text": "?"}]}]}
    {"messages": [{"role": "user", "content": "<image>What is this?"}, ...], "images": ["a.png"], "audios": [...]}
    {"image": "a.png", "text": "a cat"}  or  {"audio": "a.wav", "text": "hello"}, with "prompt" where there is one
with "transcript", or "transcripts" for several media, where a text says the same (for the loss of [kl])
A shard (.tar) holds files of one stem together: 00.png and 00.json (such a row, without paths) or 00.txt (a caption).
"""

import gzip
import io
import json
import lzma
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import zstandard

from ayllu.data.readers import columns, records
from ayllu.data.rows import BadRow, Reject
from ayllu.errors import DataError
from ayllu.text.marks import MEDIA

IMAGES, SOUNDS = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"}, {".wav", ".flac", ".ogg", ".mp3"}
TAGS = {"<image>": "image", "<audio>": "audio"}
MOST_BYTES = 64 * 2**20                                  # of one medium


@dataclass(frozen=True)
class MediaFile:
    """Where the bytes of one medium are."""

    kind: str                                            # image or audio
    name: str
    folder: "Folder"

    def read(self) -> bytes:
        """The bytes; DataError where they aren't there."""
        return self.folder.read(self.name)


@dataclass(frozen=True)
class MediaRow:
    """A conversation whose contents hold a stand-in (marks.MEDIA) for each of `media`, in order."""

    file: str
    line: int
    messages: tuple[dict[str, Any], ...]
    media: tuple[MediaFile, ...]
    transcripts: tuple[str, ...] = ()                    # one for each medium, or none at all
    times: int = 1                                       # that it's learned in an epoch


class Folder:
    """Files by name: those of a folder, or of a tar (.tar, .tar.xz, .tar.gz, .tar.zst), which is indexed once."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise DataError(f"{path} is not there: name the folder or the tar that holds the images and sounds")
        self.path = path
        self._tar = _opened(path) if path.is_file() else None
        self._members = {member.name.removeprefix("./"): member for member in self._tar or () if member.isfile()}

    @property
    def names(self) -> list[str]:
        """Of a tar's files."""
        return list(self._members) if self._tar else []

    def read(self, name: str) -> bytes:
        """One file's bytes. A name can't lead out of the folder."""
        if self._tar is not None:
            member = self._members.get(name.removeprefix("./"))
            if member is None:
                raise DataError(f"{self.path} has no file {name}")
            _check_size(f"{self.path}: {name}", member.size)
            stream = self._tar.extractfile(member)
            assert stream is not None                    # isfile() above
            return stream.read()
        path = (self.path / name).resolve()
        if not path.is_relative_to(self.path.resolve()):
            raise DataError(f"{name} lies outside of {self.path}: give paths below it")
        if not path.is_file():
            raise DataError(f"{self.path} has no file {name}")
        _check_size(str(path), path.stat().st_size)
        return path.read_bytes()


def _opened(path: Path) -> tarfile.TarFile:
    """A compressed one is unpacked into memory: otherwise each file would be looked for from the beginning."""
    unpack: dict[str, Any] = {".xz": lzma.open, ".gz": gzip.open, ".zst": zstandard.open}
    try:
        if path.suffix not in unpack:
            return tarfile.open(path, "r:")
        with unpack[path.suffix](path, "rb") as stream:
            return tarfile.open(fileobj=io.BytesIO(stream.read()), mode="r:")
    except (tarfile.TarError, OSError, EOFError, lzma.LZMAError, zstandard.ZstdError) as error:
        raise DataError(f"{path} can't be read as a tar: {error}: it is damaged or cut off") from error


def _check_size(name: str, size: int) -> None:
    if size > MOST_BYTES:
        raise DataError(f"{name} has {size:,} bytes, at most {MOST_BYTES:,} are taken of one image or sound")


def media_rows(path: Path, files: Path | None, name: str) -> Iterator[MediaRow | Reject]:
    """The rows of a JSONL file, or of a tar shard. `files` is where the media lie; None: beside the rows."""
    if not path.exists():
        raise DataError(f"{path} is not there: name a JSONL file or a tar shard")
    if ".tar" in path.suffixes:
        yield from _shard(Folder(path), name)
        return
    folder = Folder(files or path.parent)
    for record in records(path, (), name):
        if isinstance(record, Reject):
            yield record
            continue
        try:
            row = columns(record)
            if not isinstance(row, dict):
                raise BadRow("it is no JSON object")
            yield _row(row, folder, name, record.line)
        except BadRow as error:
            yield Reject(name, record.line, str(error))


def _shard(folder: Folder, name: str) -> Iterator[MediaRow | Reject]:
    stems: dict[str, list[str]] = {}
    for file in folder.names:
        stems.setdefault(str(PurePosixPath(file).with_suffix("")), []).append(file)
    for number, (stem, files) in enumerate(sorted(stems.items())):
        media = sorted(f for f in files if kind_of(f))
        texts = [f for f in files if f.endswith((".json", ".txt"))]
        try:
            if not media or len(texts) != 1:
                raise BadRow(f"{stem} needs an image or a sound, and one .json or .txt; found {', '.join(files)}")
            said = folder.read(texts[0]).decode("utf-8")
            row = {"text": said.strip()} if texts[0].endswith(".txt") else json.loads(said)
            if "messages" in row:
                row = {**row, "images": [f for f in media if kind_of(f) == "image"],
                       "audios": [f for f in media if kind_of(f) == "audio"]}
            else:
                row = {**row, str(kind_of(media[0])): media[0]}
            yield _row(row, folder, name, number + 1)
        except (BadRow, ValueError) as error:
            yield Reject(name, number + 1, str(error))


def kind_of(name: str) -> str | None:
    """image, audio, or None, by the file's ending."""
    ending = PurePosixPath(name).suffix.lower()
    return "image" if ending in IMAGES else "audio" if ending in SOUNDS else None


@dataclass
class _Reading:
    """The media of one row as its contents are read."""

    folder: Folder
    named: dict[str, list[str]] = field(default_factory=dict)    # kind: names that tags take one after the other
    media: list[MediaFile] = field(default_factory=list)

    def take(self, kind: str, name: str | None = None) -> str:
        if name is None:
            if not self.named.get(kind):
                raise BadRow(f"there are more <{kind}> tags than {kind}s named: name one for each")
            name = self.named[kind].pop(0)
        if not isinstance(name, str) or not name:
            raise BadRow(f"an {kind} needs a path, found {name!r}")
        self.media.append(MediaFile(kind, name, self.folder))
        return MEDIA[kind]

    def content(self, content: Any) -> str:
        if isinstance(content, str):
            _check_text(content)
            for tag, kind in TAGS.items():
                while tag in content and (self.named.get(kind) or self.named):
                    content = content.replace(tag, self.take(kind), 1)
            return content
        if not isinstance(content, list):
            raise BadRow(f"a content should be a text or a list of parts, found {type(content).__name__}")
        return "".join(self._part(part) for part in content)

    def _part(self, part: Any) -> str:
        match part:
            case {"type": "text", "text": str(text)}:
                _check_text(text)
                return text
            case {"type": ("image" | "audio") as kind, "path": name}:
                return self.take(kind, name)
        raise BadRow(f"a part of a content is {str(part)[:80]}: use type text with text, or image or audio with path")


def _row(row: dict[str, Any], folder: Folder, file: str, line: int) -> MediaRow:
    reading = _Reading(folder)
    if "messages" in row:
        named = {"image": row.get("images", []), "audio": row.get("audios", row.get("audio", []))}
        if not all(isinstance(names, list) for names in named.values()):
            raise BadRow("images and audios should be lists of paths")
        reading.named = {kind: list(names) for kind, names in named.items() if names}
        if not isinstance(row["messages"], list) or not all(isinstance(m, dict) for m in row["messages"]):
            raise BadRow("messages should be a list of {role, content}")
        messages = [{**m, "content": reading.content(m.get("content", ""))} for m in row["messages"]]
        left = [name for names in reading.named.values() for name in names]
        if left:
            raise BadRow(f"{left[0]} is named, but no tag says where it stands: write <image> or <audio> there")
    else:
        kind = next((kind for kind in MEDIA if kind in row), None)
        if kind is None or not isinstance(row.get("text"), str):
            raise BadRow(f"found the columns {', '.join(row)}: give messages, or image or audio with text")
        prompt = row.get("prompt", "")
        for text in (prompt, row["text"]):
            _check_text(text)
        messages = [{"role": "user", "content": reading.take(kind, row[kind]) + prompt},
                    {"role": "assistant", "content": row["text"]}]
    if not reading.media:
        raise BadRow("it has neither image nor sound: texts alone are for ayllu sft")
    return MediaRow(file, line, tuple(messages), tuple(reading.media), _transcripts(row, len(reading.media)))


def _transcripts(row: dict[str, Any], n: int) -> tuple[str, ...]:
    said = row.get("transcripts", [row["transcript"]] if "transcript" in row else [])
    if not isinstance(said, list) or not all(isinstance(text, str) for text in said) or len(said) not in (0, n):
        raise BadRow(f"transcripts should be a list of {n} texts, one for each image or sound")
    for text in said:
        _check_text(text)
    return tuple(said)


def _check_text(text: str) -> None:
    if any(mark in text for mark in MEDIA.values()):
        raise BadRow("a text holds a Unicode noncharacter (U+FDEE or U+FDEF), which is no text")
