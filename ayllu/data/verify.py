"""Whether the files of a prepared folder are still the bytes that were written: sizes at once, SHA-256 when asked."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ayllu.errors import DataError
from ayllu.files import sha256, write_json

STAMP = ".verified.json"                                 # which files had which size and time when they were right


def sums(folder: Path) -> dict[str, dict[str, Any]]:
    """{name: {bytes, sha256}} of what a folder says that it holds: shards, clean documents, or both."""
    found: dict[str, dict[str, Any]] = {}
    manifest, report = folder / "manifest.json", folder / "report.json"
    if not manifest.exists() and not report.exists():
        raise DataError(f"{folder} holds no prepared data (neither manifest.json nor report.json is there): give the "
                        "folder that `ayllu data prepare --out` named")
    try:
        if manifest.exists():
            found.update(json.loads(manifest.read_text(encoding="utf-8"))["files"])
        if report.exists():
            sources = json.loads(report.read_text(encoding="utf-8"))["sources"]
            found.update({s["file"]: {"bytes": s["file_bytes"], "sha256": s["sha256"]} for s in sources})
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder}: its manifest or report is damaged, or by an older version "
                        f"({type(error).__name__}: {error}): prepare the data again") from error
    return found


def check_sizes(folder: Path, files: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise DataError unless each file has the size that `files` ({name: {bytes, sha256}}) says."""
    for name, facts in files.items():
        size = (folder / name).stat().st_size if (folder / name).exists() else -1
        if size != facts["bytes"]:
            found = f"{size:,} bytes found" if size >= 0 else "the file is missing"
            raise DataError(f"{folder / name}: {found}, the manifest says {facts['bytes']:,} bytes: "
                            "remove the folder and prepare the data again")


def check_sums(folder: Path, files: Mapping[str, Mapping[str, Any]], again: bool = True) -> int:
    """Raise DataError unless each file has the SHA-256 that `files` says; returns how many bytes were read.

    With `again=False`, files that were right before and have the same size and time since aren't read: that notices
    a file that was written to, but not a disk that has lost bits. The stamp lies in the folder, where that is writable.
    """
    known = {} if again else _stamp(folder)
    stamp, n_read = {}, 0
    for name, facts in files.items():
        status = (folder / name).stat()
        stamp[name] = [facts["sha256"], status.st_size, status.st_mtime_ns]
        if known.get(name) == stamp[name]:
            continue
        if (found := sha256(folder / name)) != facts["sha256"]:
            (folder / STAMP).unlink(missing_ok=True)
            raise DataError(f"{folder / name}: the bytes have changed since they were written (SHA-256 {found[:16]}… "
                            f"found, {facts['sha256'][:16]}… expected): remove the folder and prepare the data again")
        n_read += status.st_size
    if n_read:
        _write_stamp(folder, stamp)
    return n_read


def _stamp(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write_stamp(folder: Path, stamp: dict[str, Any]) -> None:
    try:
        write_json(folder / STAMP, stamp)
    except OSError:
        return                                           # a folder that is read only: the files are read each time
