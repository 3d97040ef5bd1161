"""The eight pairs as files."""

import json

import pytest
from media_pairs import NAMES, png, wav


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "media").mkdir()
    rows = []
    for n, name in enumerate(NAMES):
        kind, data = ("image", png(n)) if n < 4 else ("audio", wav(n))
        file = f"{n}.{'png' if n < 4 else 'wav'}"
        (tmp_path / "media" / file).write_bytes(data)
        rows.append({kind: file, "prompt": "What is it?", "text": name})
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path
