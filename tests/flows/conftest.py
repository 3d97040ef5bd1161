"""Where the recipes of these tests lie."""

import json

import pytest
from flows.tiny import RECIPE


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    animals, verbs = ["goat", "dog", "cow", "hen"], ["ran", "sang", "slept", "ate"]
    rows = [{"text": f"the {a} {v} and the {b} {w} by the river {i}"} for i in range(6)
            for a in animals for b in animals for v in verbs for w in verbs]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")

    def write(name, extra=""):
        path = tmp_path / f"{name}.toml"
        path.write_text(RECIPE.format(out=tmp_path / name, extra=extra), encoding="utf-8")
        return path

    return write
