"""The manifest finds what changed since a folder was written."""

from pathlib import Path

import pytest
from checkpoint.models import source

from ayllu.checkpoint.manifest import read_manifest, verify_manifest
from ayllu.checkpoint.save import FORMATS, write_checkpoint
from ayllu.errors import CheckpointError


@pytest.mark.parametrize("to", FORMATS)
def test_whole_and_then_changed(to: str, tmp_path: Path) -> None:
    folder = write_checkpoint(source("plain"), tmp_path / "out", to=to)
    manifest = verify_manifest(folder)
    assert (manifest.format, manifest.source_format, manifest.dtype) == (to, "memory", "float32")
    assert manifest.n_tensors == len(source("plain").entries)
    names = {row.name for row in manifest.files}
    assert names == {p.name for p in folder.iterdir()} - {"ayllu_manifest.json"}
    largest = max(manifest.files, key=lambda row: row.n_bytes)
    file = folder / largest.name
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(CheckpointError, match=f"{largest.name} differs"):
        verify_manifest(folder)
    file.unlink()
    with pytest.raises(CheckpointError, match=f"{largest.name} is missing"):
        verify_manifest(folder)


def test_none_or_broken(tmp_path: Path) -> None:
    assert read_manifest(tmp_path) is None
    with pytest.raises(CheckpointError, match="nothing to verify"):
        verify_manifest(tmp_path)
    (tmp_path / "ayllu_manifest.json").write_text('{"files": [{"name": "../x", "n_bytes": 1, "sha256": "0"}]}')
    with pytest.raises(CheckpointError, match="no manifest that Ayllu wrote"):
        verify_manifest(tmp_path)
