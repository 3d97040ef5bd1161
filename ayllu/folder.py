"""Reading small files of a folder that others made: sizes are bounded, links and names may not lead outside."""

import json
from pathlib import Path
from typing import Any

from ayllu.errors import CheckpointError

MAX_JSON = 64 * 2**20                                    # bytes; a shard index of a large model is about 100 KB


def read_json(path: Path) -> dict[str, Any]:
    """A JSON table from a file of bounded size."""
    size = path.stat().st_size
    if size > MAX_JSON:
        raise CheckpointError(f"{path} has {size} bytes, more than any such file needs: this is not what its name says")
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not valid JSON ({error}): fetch it again") from error
    if not isinstance(table, dict):
        raise CheckpointError(f"{path} should hold a JSON table, found a {type(table).__name__}")
    return table


def read_json_if_there(folder: Path, name: str) -> dict[str, Any] | None:
    """The table in folder/name, or None where there is no such file."""
    path = inside(folder, name)
    return read_json(path) if path.is_file() else None


def inside(folder: Path, name: str) -> Path:
    """folder/name, refused where the name or a link leads out of the folder.

    Hugging Face's cache keeps links from snapshots/<revision>/ to blobs/ of the same model: these are allowed.
    """
    if not isinstance(name, str) or not name or "\0" in name or Path(name).name != name or name == ".." or "\\" in name:
        raise CheckpointError(f"{folder}: the file name {name!r} leads out of the folder, which no honest checkpoint "
                              "needs: do not use it")
    path = folder / name
    if path.is_symlink():
        home = folder.resolve()
        allowed = home.parent.parent if home.parent.name == "snapshots" else home
        if not path.resolve().is_relative_to(allowed):
            raise CheckpointError(f"{path} is a link to {path.resolve()}, outside of its folder: put the file itself "
                                  "there, or name the other folder")
    return path
