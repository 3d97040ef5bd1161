"""Pictures as they come: turned, transparent, moving, grey, damaged, too large, and no pictures at all."""

import io
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from ayllu.errors import BadMedia
from ayllu.media.image import ImageLimits, read_image
from ayllu.media.pixels import Pixels, to_tensor

RED = (200, 10, 10)


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF", "WEBP", "JPEG"])
def test_each_format(kind):
    image = read_image(encoded(Image.new("RGB", (9, 5), RED), kind))
    assert (image.size, image.mode) == ((9, 5), "RGB")
    assert np.abs(np.array(image).astype(int) - RED).max() < 12               # lossy ones


def test_a_turned_photo_stands_upright():
    photo = Image.new("RGB", (8, 4), (0, 0, 0))
    photo.paste(RED, (0, 0, 2, 4))                       # red at the left; turned by 90 degrees it is above
    exif = photo.getexif()
    exif[0x0112] = 6
    image = read_image(encoded(photo, "PNG", exif=exif))
    assert image.size == (4, 8)
    assert image.getpixel((1, 0)) == RED
    assert image.getpixel((1, 7)) == (0, 0, 0)


def test_what_is_transparent_is_white():
    for image in (Image.new("RGBA", (2, 2), (*RED, 0)), Image.new("LA", (2, 2), (7, 0))):
        assert read_image(encoded(image)).getpixel((0, 0)) == (255, 255, 255)
    palette = Image.new("P", (2, 2), 0)
    palette.putpalette([1, 2, 3] * 256)
    assert read_image(encoded(palette, transparency=0)).getpixel((0, 0)) == (255, 255, 255)
    half = read_image(encoded(Image.new("RGBA", (1, 1), (0, 0, 0, 128))))
    assert abs(half.getpixel((0, 0))[0] - 127) <= 1


def test_other_kinds_of_pixels():
    frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, (0, 0, 255))]
    moving = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert read_image(moving).getpixel((0, 0))[0] > 150  # the first frame
    assert read_image(encoded(Image.new("CMYK", (3, 3), (0, 255, 255, 0)), "JPEG")).mode == "RGB"
    deep = Image.fromarray(np.full((3, 3), 40_000, np.uint16))
    assert abs(read_image(encoded(deep)).getpixel((0, 0))[0] - 40_000 / 257) <= 1
    assert read_image(encoded(Image.new("1", (3, 3), 1))).getpixel((1, 1)) == (255, 255, 255)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _png(width: int, height: int, body: bytes) -> bytes:
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + _chunk(b"IDAT", zlib.compress(body)) + _chunk(b"IEND", b"")


BAD = {
    "empty": (b"", "empty"),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
    "svg after xml": (b"\xef\xbb\xbf<?xml version='1.0'?><svg/>", "SVG"),
    "html": (b"  <!doctype html><p>hi", "HTML"),
    "pdf": (b"%PDF-1.7 ...", "a PDF"),
    "noise": (bytes(range(256)), "no image that can be read"),
    "cut off": (encoded(Image.effect_noise((64, 64), 50))[:1500], "cut off"),
    "cut photo": (encoded(Image.effect_noise((64, 64), 50), "JPEG")[:800], "cut off"),
    "bomb": (_png(60_000, 60_000, b"\0" * 1000), "has more than 64,000,000 pixels: scale it down"),
    "100 megapixels": (_png(10_000, 10_000, b"\0" * 1000), "scale it down"),
    "a lying header": (_png(500, 500, b"\0" * 100), "can't be decoded"),
    "no pixels": (_png(0, 5, b""), "damaged or cut off"),
    "cut in its header": (encoded(Image.new("RGB", (9, 9)), "JPEG")[:40], "damaged or cut off"),
    "a long line": (_png(40_000, 1, b"\0" * 120_001), "scale it down"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_images_are_named(name):
    data, says = BAD[name]
    with pytest.raises(BadMedia, match=says) as caught:
        read_image(data, "cat.png")
    assert "cat.png" in str(caught.value)


def test_a_jpeg_of_endless_scans_costs_no_time():
    data = encoded(Image.new("L", (4000, 4000), 128), "JPEG", progressive=True)
    *scans, last = data.removesuffix(b"\xff\xd9").split(b"\xff\xda")
    bomb = b"\xff\xda".join([*scans, *[last] * 1000]) + b"\xff\xd9"
    assert len(bomb) < 200_000
    begun = time.perf_counter()
    with pytest.raises(BadMedia, match=r"1,00\d scans"):
        read_image(bomb)
    assert time.perf_counter() - begun < 2               # decoding takes 20 s
    assert read_image(data).size == (4000, 4000)


def test_limits():
    picture = encoded(Image.new("RGB", (20, 20), RED))
    with pytest.raises(BadMedia, match="at most 50 are taken"):
        read_image(picture, limits=ImageLimits(n_bytes=50))
    with pytest.raises(BadMedia, match="20 x 20"):
        read_image(picture, limits=ImageLimits(pixels=399))
    assert read_image(encoded(Image.new("RGB", (1, 1), RED))).size == (1, 1)


@pytest.mark.parametrize("size", [(1, 1), (300, 200), (200, 301), (64, 64)])
def test_pixels_are_transformers(size):
    from transformers import CLIPImageProcessor, SiglipImageProcessor
    rng = np.random.default_rng(3)
    image = Image.fromarray(rng.integers(0, 255, (size[1], size[0], 3), np.uint8))
    clip = CLIPImageProcessor(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64}, use_fast=False)
    cases = {"crop": (Pixels(size=64), clip),
             "stretch": (Pixels(size=64, fit="stretch", mean=(0.5,) * 3, std=(0.5,) * 3),
                         SiglipImageProcessor(size={"height": 64, "width": 64}, resample=3, use_fast=False))}
    for settings, theirs in cases.values():
        expected = np.asarray(theirs(image, return_tensors="np")["pixel_values"][0])
        difference = np.abs(to_tensor(image, settings).numpy() - expected)
        assert difference.max() < 0.04                   # two levels of 255: theirs may resize in float and round later


def slowly(image, fit, size, mean=(0, 0, 0)):
    """The whole enlarged image, or the whole square, as LLaVA's and CLIP's own code makes them."""
    if fit == "pad":
        side = max(image.size)
        square = Image.new("RGB", (side, side), mean)
        square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
        return square.resize((size, size), Image.Resampling.BICUBIC)
    short = min(image.size)
    large = image.resize([max(size, int(size * n / short)) for n in image.size], Image.Resampling.BICUBIC)
    left, top = ((n - size) // 2 for n in large.size)
    return large.crop((left, top, left + size, top + size))


@pytest.mark.parametrize("fit", ["crop", "pad"])
@pytest.mark.parametrize("size", [(300, 200), (201, 300), (900, 37), (31, 500), (64, 64), (5, 3)])
def test_what_is_not_seen_is_not_computed(fit, size):
    image = Image.effect_noise(size, 20).convert("RGB")  # nothing is cut at black or white between the two directions
    settings = Pixels(size=48, fit=fit, mean=(0, 0, 0), std=(1, 1, 1))
    found = np.asarray(255 * to_tensor(image, settings).permute(1, 2, 0))
    slow = np.asarray(slowly(image, fit, 48)).astype(float)
    assert np.abs(found - slow).max() < 1.01             # one level of 255: sums are rounded in another order


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_a_line_of_pixels_takes_no_gigabytes(fit, monkeypatch):
    sizes, own, new = [], Image.Image.resize, Image.new
    monkeypatch.setattr(Image.Image, "resize", lambda self, size, *a, **more: sizes.append(size) or own(
        self, size, *a, **more))
    monkeypatch.setattr(Image, "new", lambda mode, size, *a: sizes.append(size) or new(mode, size, *a))
    to_tensor(new("RGB", (32_768, 2)), Pixels(size=336, fit=fit))
    assert max(width * height for width, height in sizes) < 32_768 * 400


def test_padding_loses_nothing():
    image = Image.new("RGB", (4, 2), RED)
    found = to_tensor(image, Pixels(size=4, fit="pad"))
    assert found.shape == (3, 4, 4)
    assert found[0, 0].abs().max() < 0.05                # the border is the mean colour, which becomes about 0
    assert found[0, 1:3].min() > 1


def test_damaged_exif_spoils_no_photo():
    """A turn is followed where it can be read. What stands beside it may be such that it could not be written again."""
    photo = Image.new("RGB", (8, 4), RED)
    turn, text = (struct.pack("<HHII", *entry) for entry in ((0x0112, 3, 1, 6), (0x0111, 2, 6, 38)))
    for begins, entries, size in ((b"II*\0", turn + text, (4, 8)), (b"\xf8I*\0", turn + text, (8, 4))):
        exif = b"Exif\0\0" + begins + struct.pack("<IH", 8, 2) + entries + b"\0\0\0\0hello\0"
        for kind in ("JPEG", "PNG", "WEBP"):
            assert read_image(encoded(photo, kind, exif=exif)).size == size, (kind, begins)
