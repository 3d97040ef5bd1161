"""Eight pairs of a picture or a sound and its name, and a recipe that learns them, for the tests of media."""

import io

import numpy as np
import soundfile
from PIL import Image

from ayllu.config import build_recipe
from ayllu.train.align_config import AlignRecipe

NAMES = ["red sun", "blue sea", "green hill", "white snow", "black night", "grey stone", "gold bell", "pink rose"]
SHAPE = {"dim": 32, "n_layers": 1, "n_heads": 2, "hidden_dim": 64}


def png(number: int) -> bytes:
    rng, out = np.random.default_rng(number), io.BytesIO()
    Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8)).resize((16, 16), 0).save(out, "PNG")
    return out.getvalue()


def wav(number: int) -> bytes:
    t, out = np.arange(8000) / 16_000, io.BytesIO()
    soundfile.write(out, 0.5 * np.sin(2 * np.pi * (200 + 300 * number) * t), 16_000, format="WAV")
    return out.getvalue()


def recipe(folder, base, **changes) -> AlignRecipe:
    table = {"name": "t", "out": str(folder / "run"), "base": str(base), "shown": 2, "context": 128,
             "eye": {"pixels": {"size": 16}, "vision": {"shape": SHAPE, "image_size": 16, "patch_size": 8,
                                                        "pools": False}, "project": {"width": 32, "out": 32}},
             "ear": {"audio": {"shape": SHAPE, "n_mels": 16, "seconds": 1},
                     "project": {"width": 32, "out": 32, "gather": "stack", "every": 10}},
             "data": {"sources": [{"path": "rows.jsonl", "files": "media"}], "held_out_share": 0.0,
                      "held_out": [{"path": "rows.jsonl", "files": "media"}]},
             "loop": {"steps": 100, "batch_size": 8, "micro_batch": 4, "eval_every": 100, "checkpoint_every": 100},
             "optim": {"lr": 5e-3, "schedule": {"warmup_steps": 10}}, "learns": "all", "compile": "off"}
    return build_recipe(AlignRecipe, {**table, **changes}, [], where="test")


def model_of(folder):
    from ayllu.checkpoint.load import load_checkpoint
    return load_checkpoint(folder, dtype="float32").model
