"""The picture of examples shows what the model is given: pixels, spectra, and which tokens are learned."""

import base64
import io
import re

import numpy as np
import pytest
from media_pairs import NAMES, png, recipe
from PIL import Image

from ayllu.errors import ConfigError
from ayllu.train.align import prepared_media
from ayllu.train.align_look import looked_at, pixels_of


def pictures(page: str) -> dict[str, np.ndarray]:
    found = re.findall(r'<img class="\w+" alt="([^"]+)" src="data:image/png;base64,([^"]+)">', page)
    return {name: np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))) for name, data in found}


def test_images_are_those_of_the_files_and_the_learned_tokens_are_the_answers(folder, chat_checkpoint):
    config, lesson = prepared_media(recipe(folder, chat_checkpoint), folder)
    counts = looked_at(config, lesson, 8, folder / "look.html")
    page = (folder / "look.html").read_text()
    found = pictures(page)
    assert len(found) == 8
    for n in range(4):
        expected = np.asarray(Image.open(io.BytesIO(png(n))).convert("RGB"))
        assert np.abs(found[f"{n}.png"].astype(int) - expected).max() <= 1    # scaled and back
    assert found["5.wav"].shape == (16, 100)
    loudest = [int(found[f"{n}.wav"][:, :50].mean(1).argmax()) for n in (4, 7)]
    assert loudest[1] < loudest[0]                       # a higher tone stands higher: low bands are at the bottom
    assert page.count('<span class="learned">') == counts["learned"] + 1      # the legend has one, too
    learned = ["".join(re.findall(r'<span class="learned">([^<]*)</span>', part))
               for part in page.split("<article>")[1:]]
    said = [re.sub(r"[▁\s]+|&lt;.*", " ", one).strip() for one in learned]
    assert sorted(said) == sorted(NAMES)


def test_another_ending_is_refused(folder, chat_checkpoint):
    config, lesson = prepared_media(recipe(folder, chat_checkpoint), folder)
    with pytest.raises(ConfigError, match=r"\.html"):
        looked_at(config, lesson, 1, folder / "look.png")


def test_silence_is_no_division_by_zero(folder, chat_checkpoint):
    import torch
    _, lesson = prepared_media(recipe(folder, chat_checkpoint), folder)
    assert pixels_of(torch.zeros(16, 100), "audio", lesson.senses).max() == 0
