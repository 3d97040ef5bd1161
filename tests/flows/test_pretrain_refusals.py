"""What a recipe or a machine can not do is said before training."""

import os

import pytest
from flows.tiny import packed
from forked import ayllu

from ayllu.config import load_recipe
from ayllu.errors import ConfigError
from ayllu.train.pretrain import PretrainConfig


@pytest.mark.parametrize(("override", "message"), [
    ("loop.stepz=3", "unknown key 'loop.stepz'; did you mean 'steps'?"),
    ("model.dimm=3", "did you mean 'dim'?"),
    ("loop.steps=0", "loop.steps: Input should be greater than 0"),
    ("loop.steps", "should read key=value"),
    ("model.kind=mamba", "kind is 'llama' (the default) or 'transformer'"),
])
def test_bad_overrides(recipe, override, message):
    with pytest.raises(ConfigError) as error:
        load_recipe(PretrainConfig, recipe("run"), [override])
    assert message in str(error.value)


@pytest.mark.parametrize(("override", "message"), [
    ("model.vocab_size=500", "model.vocab_size=500, but the tokenizer has 480 ids"),
    ("context=64", "context=64 is longer than model.max_context=32"),
    ("data.root=nowhere", "set data.root=FOLDER"),
    ("compile=on", "compile=on, but there is no C++ compiler"),
])
def test_what_does_not_fit_is_said_before_training(recipe, override, message, tmp_path):
    path = {**os.environ, "PATH": str(tmp_path)} if "compile" in override else None
    done = ayllu("pretrain", recipe("run"), override, env=path)
    assert done.returncode == 2
    assert message in done.stderr


@pytest.mark.parametrize(("override", "message"), [
    ("packing.kind=none", "masks hide parts of whole documents"),
    ("packing.attention=flex", "needs a GPU and a compiler"),
])
def test_masks_that_can_not_be(recipe, override, message):
    done = ayllu("pretrain", packed(recipe, "run"), override, "device=cpu")
    assert done.returncode == 2
    assert message in done.stderr


def test_without_a_compiler_training_runs_eager_and_says_so(recipe, tmp_path):
    done = ayllu("pretrain", recipe("run"), "compile=auto", "loop.steps=2", env={**os.environ, "PATH": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    assert "training runs eager, not compiled" in done.stderr
