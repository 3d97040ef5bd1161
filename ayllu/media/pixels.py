"""From an image to the numbers that an encoder takes: its size, its crop, its scale of brightness."""

import math
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ayllu.config import Settings

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class Pixels(Settings):
    """How an encoder sees: `fit` "crop" scales the shorter side and cuts the middle out (CLIP), "stretch" scales both
    (SigLIP), "pad" adds a border in the mean colour and loses nothing (LLaVA-1.5)."""

    size: int = 224
    fit: Literal["crop", "stretch", "pad"] = "crop"
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD


def to_tensor(image: Any, settings: Pixels) -> Tensor:
    """A PIL image in RGB -> (3, size, size) float32, resized bicubically."""
    from PIL import Image

    size, bicubic = settings.size, Image.Resampling.BICUBIC
    match settings.fit:
        case "pad":
            image = _padded(image, settings, bicubic)
        case "stretch":
            image = image.resize((size, size), bicubic)
        case "crop":
            image = _cropped(image, size, bicubic)
    values = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255            # (3, S, S)
    mean, std = (torch.tensor(numbers)[:, None, None] for numbers in (settings.mean, settings.std))
    return (values - mean) / std


def views(image: Any, settings: Pixels, most: int) -> Tensor:
    """(V, 3, size, size): the whole image, then its tiles in rows from the top left (arXiv:2310.03744, section 4.1).
    The image is scaled into its grid without a change of shape, and a border in the mean colour fills the grid."""
    from PIL import Image

    columns, rows = grid(image.width, image.height, settings.size, most)
    found = [to_tensor(image, settings)]
    if columns * rows > 1:
        size = settings.size
        scale = min(columns * size / image.width, rows * size / image.height)
        inner = image.resize((min(columns * size, math.ceil(image.width * scale)),
                              min(rows * size, math.ceil(image.height * scale))), Image.Resampling.BICUBIC)
        canvas = Image.new("RGB", (columns * size, rows * size), tuple(int(value * 255) for value in settings.mean))
        canvas.paste(inner, ((canvas.width - inner.width) // 2, (canvas.height - inner.height) // 2))
        for row in range(rows):
            for column in range(columns):
                box = (column * size, row * size, (column + 1) * size, (row + 1) * size)
                found.append(to_tensor(canvas.crop(box), settings))
    return torch.stack(found)


def grid(width: int, height: int, size: int, most: int) -> tuple[int, int]:
    """(columns, rows) of at most `most` tiles: where most of the image's own pixels are kept, then with the least
    border, as LLaVA-NeXT chooses. (1, 1) for an image that one tile holds."""
    def kept(columns: int, rows: int) -> tuple[int, int]:
        scale = min(columns * size / width, rows * size / height)
        pixels = min(int(width * scale) * int(height * scale), width * height)
        return pixels, pixels - columns * rows * size * size

    fitting = [(columns, rows) for columns in range(1, most + 1) for rows in range(1, most // columns + 1)]
    return max(fitting, key=lambda tiles: kept(*tiles))


def _cropped(image: Any, size: int, resample: Any) -> Any:
    """The shorter side becomes `size`, the longer one is cut to it, in the middle. What is cut off isn't computed: a
    line of 32,768 pixels would become an image of gigabytes."""
    width, height = image.size
    short = min(width, height)
    wide, high = max(size, int(size * width / short)), max(size, int(size * height / short))
    left, top = (wide - size) // 2, (high - size) // 2
    box = left * width / wide, top * height / high, (left + size) * width / wide, (top + size) * height / high
    return image.resize((size, size), resample, box=box)


def _padded(image: Any, settings: Pixels, resample: Any) -> Any:
    """Filled to a square, then resized: along the longer side first, so that no square of that side is needed."""
    from PIL import Image

    size, side, is_wide = settings.size, max(image.size), image.width >= image.height
    line = image.resize((size, image.height) if is_wide else (image.width, size), resample)
    square = Image.new("RGB", (size, side) if is_wide else (side, size), tuple(int(v * 255) for v in settings.mean))
    square.paste(line, (0, (side - image.height) // 2) if is_wide else ((side - image.width) // 2, 0))
    return square.resize((size, size), resample)
