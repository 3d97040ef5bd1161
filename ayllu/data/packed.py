"""Files opened for their bytes, with gz, xz or zst undone, while a meter is told how far the disk has been read."""

import gzip
import io
import lzma
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Any

import zstandard

MOST_UNPACKED, MOST_TIMES = 2**30, 500                   # bytes, and times the file's own: not more than both
PACKED = {".gz", ".xz", ".zst"}
DAMAGED = (EOFError, lzma.LZMAError, zstandard.ZstdError, gzip.BadGzipFile, zlib.error)
Moved = Callable[[int], None]                            # told how many more bytes of the disk were read
Watch = Callable[[Path], AbstractContextManager[Moved]]  # gives that for a file, and is told when the file is done


def nobody(_: int) -> None:
    """Where nobody asks how far it is."""


@contextmanager
def unwatched(_: Path) -> Iterator[Moved]:
    """As `nobody`, for every file."""
    yield nobody


def open_binary(path: Path, moved: Moved = nobody) -> Any:
    """A buffered stream of a file's bytes, with gz, xz or zst undone by its suffix."""
    file = io.BufferedReader(_Metered(path, moved), buffer_size=2**17)
    match path.suffix.lower():
        case ".gz":                                      # readinto1: `readinto` goes on until its buffer is full
            raw = _Bounded(gz := gzip.GzipFile(fileobj=file), gz.readinto1, file, path)
        case ".xz":
            raw = _Bounded(xz := lzma.LZMAFile(file), xz.readinto1, file, path)          # noqa: SIM115 - closed in _Bounded
        case ".zst":
            raw = _Bounded(zst := _Zstd(file), zst.readinto, file, path)
        case _:
            return file
    return io.BufferedReader(raw, buffer_size=2**17)


@contextmanager
def open_seekable(path: Path, moved: Moved) -> Iterator[IO[bytes]]:
    """As `open_binary`, for formats that begin at their end: a packed file is unpacked into a temporary one first."""
    with open_binary(path, moved) as stream:
        if path.suffix.lower() not in PACKED:
            yield stream
            return
        with tempfile.TemporaryFile() as unpacked:
            shutil.copyfileobj(stream, unpacked)
            unpacked.seek(0)
            yield unpacked


class _Metered(io.FileIO):
    def __init__(self, path: Path, moved: Moved) -> None:
        super().__init__(path, "rb")
        self._moved = moved

    def readinto(self, buffer: Any) -> int:
        n = super().readinto(buffer) or 0
        self._moved(n)
        return n

    def readall(self) -> bytes:
        data = super().readall()
        self._moved(len(data))
        return data


class _Bounded(io.RawIOBase):
    """What was unpacked, unless it becomes too much for the size of the file."""

    def __init__(self, stream: io.IOBase, read: Callable[[Any], int], file: io.IOBase, path: Path) -> None:
        self._streams, self._read, self._packed, self._size = (stream, file), read, path.stat().st_size, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        n = self._read(buffer)
        self._size += n
        if self._size > MOST_UNPACKED and self._size > MOST_TIMES * self._packed:
            raise OSError(f"{self._packed:,} bytes were unpacked to more than {MOST_UNPACKED:,}, over {MOST_TIMES} "
                          "times as many: a text isn't like that; unpack the file yourself if it is right")
        return n

    def close(self) -> None:
        for stream in self._streams:
            stream.close()
        super().close()


class _Zstd(io.RawIOBase):
    """Every frame of a zstd file, and EOFError where the last one is cut short.

    `ZstdDecompressor.stream_reader` stops at the end of the first frame and takes a cut file for a whole one.
    """

    def __init__(self, file: Any) -> None:
        self._file = file
        self._frame: Any = None
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            data = self._frame.unused_data if self._frame and self._frame.eof else b""
            data = data or self._file.read(2**17)
            if not data:
                if self._frame is not None and not self._frame.eof:
                    raise EOFError("the compressed file ended before the end-of-stream marker was reached")
                return 0
            if self._frame is None or self._frame.eof:
                self._frame = zstandard.ZstdDecompressor().decompressobj()
            self._ready = memoryview(self._frame.decompress(data))
        n = min(len(buffer), len(self._ready))
        buffer[:n], self._ready = self._ready[:n], self._ready[n:]
        return n
