"""Any resolution by tiles: which grid, what is in it, and that media of different lengths get on."""

import io

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from ayllu.data.media_jitter import jittered
from ayllu.data.media_loader import counter
from ayllu.data.media_rows import Folder, MediaFile
from ayllu.media.pixels import Pixels, grid, to_tensor, views
from ayllu.media.senses import Senses, SensesConfig

SHAPE = {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 32}


def senses(tiles: int) -> Senses:
    torch.manual_seed(0)
    eye = {"pixels": {"size": 16}, "vision": {"shape": SHAPE, "image_size": 16, "patch_size": 8, "pools": False},
           "project": {"width": 16, "out": 24}, "tiles": tiles}
    ear = {"audio": {"shape": SHAPE, "n_mels": 16, "seconds": 2}, "project": {"width": 16, "out": 24}, "fills": False}
    return Senses(SensesConfig.model_validate({"eye": eye, "ear": ear})).eval()


def png(width: int, height: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (height, width, 3), np.uint8)).save(out, "PNG")
    return out.getvalue()


@pytest.mark.parametrize("most", [1, 4, 6])
@pytest.mark.parametrize("size", [(3, 3), (16, 16), (17, 16), (40, 16), (16, 200), (64, 48), (1000, 999)])
def test_the_grid_is_llava_nexts(size, most):
    from transformers.image_processing_utils import select_best_resolution
    width, height = size
    choices = [(16 * rows, 16 * columns) for columns in range(1, most + 1) for rows in range(1, most // columns + 1)]
    rows, columns = (side // 16 for side in select_best_resolution((height, width), choices))
    assert grid(width, height, 16, most) == (columns, rows)


def test_tiles_show_the_image_itself():
    image = Image.open(io.BytesIO(png(32, 16)))
    found = views(image, Pixels(size=16), 4)             # 2 x 1 tiles of exactly its pixels: nothing is resized
    assert found.shape == (3, 3, 16, 16)
    assert torch.equal(found[0], to_tensor(image, Pixels(size=16)))
    assert torch.equal(found[1], to_tensor(image.crop((0, 0, 16, 16)), Pixels(size=16)))
    assert torch.equal(found[2], to_tensor(image.crop((16, 0, 32, 16)), Pixels(size=16)))


def test_a_long_image_keeps_its_shape_in_its_grid():
    found = views(Image.new("RGB", (100, 10), (255, 0, 0)), Pixels(size=16), 6)
    assert len(found) == 1 + 6                           # 6 x 1
    red = found[1:, 0] > 1
    assert red.sum() == 96 * 10                          # 9.6 rows, rounded up; the rest is the mean colour
    assert found[1:, 0][~red].abs().max() < 0.05


@torch.no_grad()
def test_features_of_tiles_are_those_of_each_alone():
    many = senses(tiles=4)
    small, wide = many.image(png(10, 10)), many.image(png(32, 16))
    assert (small.n_features, wide.n_features) == (4, 12)
    first, second = many.features([small, wide])
    assert (len(first), len(second)) == (4, 12)
    alone = torch.cat([many.eye(view[None])[0] for view in wide.values])
    torch.testing.assert_close(second, alone, atol=1e-6, rtol=0)              # a batch sums in another order
    off = senses(tiles=0)
    assert torch.equal(off.image(png(32, 16)).values, wide.values[0])
    torch.testing.assert_close(off.features([off.image(png(32, 16))])[0], second[:4], atol=1e-6, rtol=0)


@torch.no_grad()
def test_sounds_of_different_lengths():
    ear, media = senses(0), []
    for seconds in (0.5, 1.0, 0.5):
        out = io.BytesIO()
        soundfile.write(out, np.sin(np.arange(int(seconds * 16_000)) / 9), 16_000, format="WAV")
        media.append(ear.sound(out.getvalue()))
    found = ear.features(media)
    assert [len(rows) for rows in found] == [medium.n_features for medium in media] == [25, 50, 25]
    torch.testing.assert_close(found[2], found[0], atol=1e-6, rtol=0)


def test_files_are_counted_and_moved_by_what_they_hold(tmp_path):
    (tmp_path / "a.png").write_bytes(png(32, 16))
    many, folder = senses(tiles=4), Folder(tmp_path)
    assert counter(many)(MediaFile("image", "a.png", folder)) == 12
    assert many.config.most_features == {"image": 20, "audio": 100}
    medium = many.image(png(32, 16))
    assert medium.values.shape[0] > 1
    for kind in ("shift", "warp"):
        assert jittered(medium, kind, np.random.default_rng(3)).values.shape == medium.values.shape
        one = jittered(many.image(png(10, 10)), kind, np.random.default_rng(3))
        assert one.values.shape == (1, 3, 16, 16)
