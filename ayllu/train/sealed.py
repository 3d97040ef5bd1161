"""A folder's seal: a manifest with the size and SHA-256 of each of its files, compared before the folder is trusted."""

import json
from pathlib import Path
from typing import Any

from ayllu.errors import DamagedCheckpoint
from ayllu.files import sha256, write_json

MANIFEST = "manifest.json"


def seal(folder: Path, **facts: Any) -> None:
    """Write the manifest of all files in `folder`, with `facts` beside it; a file that is added later is not covered.

    Where several ranks write into one folder, one of them seals it after all have finished.
    """
    files = {str(f.relative_to(folder)): {"bytes": f.stat().st_size, "sha256": sha256(f)}
             for f in sorted(folder.rglob("*")) if f.is_file() and f.name != MANIFEST}
    write_json(folder / MANIFEST, {**facts, "files": files})


def read_seal(folder: Path) -> dict[str, Any]:
    """The manifest; DamagedCheckpoint where there is none that can be read."""
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        manifest["files"].items()
    except OSError as error:
        missing = "it doesn't exist" if not folder.is_dir() else f"{MANIFEST} can't be read ({error.strerror})"
        raise DamagedCheckpoint(f"{folder} is not whole: {missing}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedCheckpoint(f"{folder} is damaged: {MANIFEST} is no manifest "
                                f"({type(error).__name__}: {error})") from error
    return manifest


def check_seal(folder: Path) -> dict[str, Any]:
    """Compare every byte with the manifest and return it; DamagedCheckpoint names the first file that differs."""
    manifest = read_seal(folder)
    for name, facts in manifest["files"].items():
        file = folder / name
        size = file.stat().st_size if file.is_file() else None
        if size is None:
            raise DamagedCheckpoint(f"{folder} is damaged: {name} is missing")
        if size != facts["bytes"]:
            raise DamagedCheckpoint(f"{folder} is damaged: {name} has {size:,} bytes, the manifest says "
                                    f"{facts['bytes']:,}")
        if sha256(file) != facts["sha256"]:
            raise DamagedCheckpoint(f"{folder} is damaged: the SHA-256 of {name} differs from the manifest's")
    return manifest
