"""Examples of `ayllu align` as a picture: each image as the eye is given it, each sound's spectrum, and the tokens, of
which some stand for media, some are read and some are learned. One HTML file that needs nothing else.

M mel bands  F frames  S pixels of a side  V an image and its tiles
"""

import base64
import html
import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ayllu.data.media_loader import MediaLoader, MediaSample
from ayllu.errors import ConfigError
from ayllu.files import write_text
from ayllu.media.senses import Medium, Senses
from ayllu.text.tokenizer import Tokenizer
from ayllu.train.align import MediaLesson
from ayllu.train.align_config import AlignRecipe

STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.7 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
article { margin: 2.5rem 0; }
h2 { font-size: 1rem; margin: 0 0 .5rem; overflow-wrap: anywhere; }
img { image-rendering: pixelated; border: 1px solid #8888; border-radius: 6px; margin: 0 .5rem .5rem 0; }
.image { height: 12rem; } .audio { height: 10rem; width: 30rem; }
span { white-space: pre-wrap; border-radius: 4px; padding: .1rem .15rem; margin: 0 1px; border: 1px solid transparent; }
.read { border-color: #8886; } .learned { background: #2a7d46; color: #fff; }
.place { background: repeating-linear-gradient(45deg, #8884 0 4px, transparent 4px 8px); }
"""


def looked_at(config: AlignRecipe, lesson: MediaLesson, n: int, out: Path) -> dict[str, int]:
    """Write the first step's examples, moved as training moves them; gives what was counted in them."""
    if out.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"--out {out}: the picture is an HTML page, which shows any script: name a .html file")
    loader = MediaLoader(lesson.train, lesson.senses, min(n, len(lesson.train)), config.seed, jitter=config.data.jitter)
    shown = [lesson.train[loader.order.at(i)[0]] for i in range(loader.batch_size)]
    parts = [_example(sample, media, lesson.senses, lesson.tokenizer)
             for sample, media in zip(shown, loader.batch(0).media, strict=True)]
    counts = {"examples": len(shown), "tokens": sum(len(s.ids) for s in shown),
              "places": sum(place.length for s in shown for place in s.places),
              "learned": sum(int((s.weights > 0).sum()) for s in shown)}
    legend = (f'{counts["examples"]} examples of step 1. Tokens: <span class="place">{counts["places"]} in whose '
              f'places features stand</span>, <span class="read">read</span>, <span class="learned">{counts["learned"]}'
              f' learned</span>, of {counts["tokens"]}')
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(config.name)}</title>'
                    f"<style>{STYLE}</style><h1>{html.escape(config.name)}</h1><p>{legend}</p>{''.join(parts)}</html>\n")
    return counts


def _example(sample: MediaSample, media: tuple[Medium, ...], senses: Senses, tokenizer: Tokenizer) -> str:
    drawn = "".join(_drawn(medium, senses, file.name) for medium, file in zip(media, sample.media, strict=True))
    return f"<article><h2>{html.escape(sample.row)}</h2>{drawn}<p>{''.join(_tokens(sample, tokenizer))}</p></article>"


def _tokens(sample: MediaSample, tokenizer: Tokenizer) -> list[str]:
    starts = {place.start: place.length for place in sample.places}
    found, at = [], 0
    while at < len(sample.ids):
        if at in starts:
            found.append(f'<span class="place">{starts[at]} features</span>')
            at += max(1, starts[at])
            continue
        piece = html.escape(tokenizer.id_to_piece(int(sample.ids[at])))
        found.append(f'<span class="{"learned" if sample.weights[at] > 0 else "read"}">{piece}</span>')
        at += 1
    return found


def _drawn(medium: Medium, senses: Senses, name: str) -> str:
    """As img elements."""
    views = [medium.values] if medium.values.dim() < 4 else list(medium.values)
    return "".join(f'<img class="{medium.kind}" alt="{html.escape(name)}" src="data:image/png;base64,{_png(pixels)}">'
                   for pixels in (pixels_of(view, medium.kind, senses) for view in views))


def pixels_of(values: torch.Tensor, kind: str, senses: Senses) -> np.ndarray:
    """(3, S, S) or (M, F) -> (H, W, 3) or (M, F) uint8; of a spectrum the lowest band is at the bottom."""
    if kind == "audio":
        mel = values.numpy()
        return (255 * (mel - mel.min()) / max(float(mel.max() - mel.min()), 1e-6)).astype(np.uint8)[::-1]
    assert senses.config.eye is not None
    scale = senses.config.eye.pixels
    mean, std = (torch.tensor(v)[:, None, None] for v in (scale.mean, scale.std))
    return (255 * (values * std + mean)).round().clamp(0, 255).permute(1, 2, 0).byte().numpy()


def _png(pixels: np.ndarray) -> str:
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()
