"""From the bytes of an image to RGB pixels: whatever is wrong with them is a `BadMedia`, before it costs memory.

Pillow decodes. Before it does, the header's size is checked; after it, a picture is what a person would see: turned as
its EXIF data says, on white where it is transparent, the first frame where it moves, 16-bit grey as 8-bit.
"""

import io
import warnings
from dataclasses import dataclass
from typing import Any

from ayllu.errors import BadMedia, extra

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")  # what decoders of long standing read; no vectors, no scripts
SCAN = b"\xff\xda"                                      # begins one in a JPEG; in its data 0xff never has this after it
ORIENTATION = 0x0112                                     # EXIF's tag: what to do to a picture to stand it upright
TURNS = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}       # its values -> PIL.Image.Transpose


@dataclass(frozen=True)
class ImageLimits:
    """What is taken. A pixel costs 3 to 4 bytes once it is decoded, and about 10 ns; each scan of a JPEG about 2 ns for
    each of its pixels, and some bytes make a scan."""

    n_bytes: int = 32 * 2**20
    pixels: int = 64_000_000
    side: int = 32_768
    scanned: int = 20 * 64_000_000                       # pixels times scans; progressive photos have about ten


def read_image(data: bytes, name: str = "the image", limits: ImageLimits | None = None) -> Any:
    """A PIL image in mode RGB. `name` is what an error calls it."""
    limits = limits or ImageLimits()
    if len(data) > limits.n_bytes:
        raise BadMedia(f"{name} has {len(data):,} bytes, at most {limits.n_bytes:,} are taken: make it smaller")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")                  # what Pillow warns of is checked here
        image = _opened(data, name, limits)
        width, height = image.size
        if width * height > limits.pixels or max(width, height) > limits.side:
            raise BadMedia(f"{name} is {width} x {height} pixels, at most {limits.pixels:,} and {limits.side:,} a side "
                           "are taken: scale it down")
        if image.format in ("JPEG", "MPO") and (n := data.count(SCAN)) * width * height > limits.scanned:
            raise BadMedia(f"{name} is {width} x {height} pixels in {n:,} scans, which would take too long to decode: "
                           "save it again")
        try:
            image.load()
            return _seen(image)
        except (OSError, ValueError, SyntaxError, EOFError, MemoryError, ArithmeticError, LookupError) as error:
            raise BadMedia(f"{name} ({image.format}, {width} x {height}) can't be decoded: {error}; it is damaged or "
                           "cut off: save it again") from error


def _opened(data: bytes, name: str, limits: ImageLimits) -> Any:
    with extra("media", "reading images"):
        from PIL import Image
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise BadMedia(f"{name} has more than {limits.pixels:,} pixels: scale it down") from error
    except Exception as error:                           # Pillow's readers of headers raise nearly anything
        raise BadMedia(f"{name} is {_kind(data)}: give {', '.join(FORMATS)}") from error


def _kind(data: bytes) -> str:
    """What it looks like, for the error."""
    if not data:
        return "empty"
    head = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith((b"<svg", b"<?xml", b"<!doctype svg")) or b"<svg" in head:
        return "an SVG drawing or XML, no image of pixels"
    if head.startswith(b"<"):
        return "HTML, no image"
    if head.startswith(b"%pdf"):
        return "a PDF, no image"
    if data[4:12] in (b"ftypheic", b"ftypmif1", b"ftypavif", b"ftypheix"):
        return "HEIC or AVIF, which isn't read"
    if data.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"II*\0", b"MM\0*")):
        return "damaged or cut off, though it begins as an image does"
    return f"no image that can be read (it begins with {data[:8]!r})"


def _turned(image: Any) -> Any:
    """As its EXIF data says. Pillow's own function writes these anew, which fails where they are odd."""
    try:
        turn = image.getexif().get(ORIENTATION)
    except Exception:                                    # its reader of EXIF, too; such a picture has no turn
        return image
    return image.transpose(TURNS[turn]) if isinstance(turn, int) and turn in TURNS else image


def _seen(image: Any) -> Any:
    from PIL import Image

    image = _turned(image)
    if image.mode.startswith(("I", "F")):                # 16-bit grey and numbers: Pillow's own conversion clips them
        low, high = image.getextrema()
        top = 65535 if low >= 0 and 255 < high <= 65535 else max(high, 1)
        image = image.convert("F").point(lambda value: value * (255 / top)).convert("L")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(ground, image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")
