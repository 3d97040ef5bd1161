"""ayllu_manifest.json: what a folder was written with, so that damage and changes can be found later."""

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ayllu import __version__
from ayllu.config import Settings
from ayllu.errors import CheckpointError
from ayllu.files import sha256, write_json
from ayllu.folder import inside, read_json

FILE = "ayllu_manifest.json"


class FileRow(Settings):
    """One file, by its name in the folder."""

    name: str
    n_bytes: int
    sha256: str


class Manifest(Settings):
    """What was written, from what, by which version."""

    format: str                                          # of the weights in this folder
    source_format: str
    source: str                                          # name of the file or folder it was made from, without its path
    dtype: str
    n_tensors: int
    ayllu: str = __version__
    files: tuple[FileRow, ...] = ()


def list_files(folder: Path) -> tuple[FileRow, ...]:
    """Rows for all files of a folder but the manifest itself."""
    paths = sorted(p for p in folder.iterdir() if p.is_file() and p.name != FILE)
    return tuple(FileRow(name=p.name, n_bytes=p.stat().st_size, sha256=sha256(p)) for p in paths)


def write_manifest(folder: Path, manifest: Manifest) -> Manifest:
    """Complete the manifest with the folder's files and write it."""
    complete = manifest.model_copy(update={"files": list_files(folder)})
    write_json(folder / FILE, complete.model_dump(mode="json"))
    return complete


def read_manifest(folder: Path) -> Manifest | None:
    """The folder's manifest, or None where it has none."""
    path = inside(folder, FILE)
    if not path.is_file():
        return None
    table: dict[str, Any] = read_json(path)
    try:
        return Manifest.model_validate(table)
    except ValidationError as error:
        raise CheckpointError(f"{path} is no manifest that Ayllu wrote: {error.errors()[0]['msg']}") from error


def verify_manifest(folder: Path) -> Manifest:
    """Compare every file with its size and SHA-256; the first that differs is named."""
    manifest = read_manifest(folder)
    if manifest is None:
        raise CheckpointError(f"{folder} has no {FILE}: there is nothing to verify against")
    for row in manifest.files:
        path = inside(folder, row.name)
        if not path.is_file():
            raise CheckpointError(f"{path} is missing, which the manifest lists: copy the folder again")
        if path.stat().st_size != row.n_bytes or sha256(path) != row.sha256:
            raise CheckpointError(f"{path} differs from what was written ({row.n_bytes} bytes, sha256 "
                                  f"{row.sha256[:12]}...): it is damaged or was changed; copy it again")
    return manifest
