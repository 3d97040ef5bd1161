"""Where the recipes of these tests lie."""

from functools import partial

import pytest
from flows.tiny import write_recipe, write_texts


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_texts(tmp_path)
    return partial(write_recipe, tmp_path)
