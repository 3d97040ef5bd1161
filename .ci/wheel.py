"""Check what a wheel or a source archive of Ayllu holds, and print its size: python .ci/wheel.py FILE..."""

import sys
import tarfile
import zipfile
from pathlib import Path

MODEL = "ayllu/weights/ayllu-mini/"
LARGER = "ayllu/weights/ayllu-small/"
CHAT = "ayllu/weights/ayllu-mini-chat/"
SENSES = "ayllu/weights/ayllu-mini-senses/"
SEARCH = "ayllu/weights/ayllu-mini-search/"
READER = "ayllu/weights/ayllu-reader/"
WEIGHTS = (MODEL + "model.gguf", LARGER + "model.gguf", CHAT + "model.gguf", READER + "weights.npy",
           SENSES + "senses.safetensors", SENSES + "senses.json",
           SENSES + "adapter/adapter_model.safetensors", SENSES + "adapter/adapter_config.json",
           SEARCH + "space.safetensors", SEARCH + "space.json")
NEEDED = {
    ".whl": ("ayllu/__init__.py", "ayllu/py.typed", "ayllu/cli/table.py", *WEIGHTS, MODEL + "README.md",
             LARGER + "README.md", CHAT + "README.md", SENSES + "README.md", SEARCH + "README.md", READER + "README.md",
             "ayllu/server/ui/index.html", "ayllu/server/ui/js/main.js", "ayllu/server/ui/css/theme.css"),
    ".gz": ("ayllu/__init__.py", "ayllu/py.typed", *WEIGHTS, "README.md", "README.zh-CN.md", "LICENSE",
            "constraints.txt", "recipes/mini.toml", "tests/test_architecture.py", "docs/architecture.md"),
}
FORMATS_OF_WEIGHTS = (".safetensors", ".gguf", ".npy", ".bin", ".pt")     # a stray checkpoint must not ship
MOST_BYTES = 60 * 1000**2                                # what the bundled weights may take


def names_of(archive: Path) -> dict[str, int]:
    """Bytes by name; a source archive's top folder is left out of the names."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return {info.filename: info.file_size for info in wheel.infolist()}
    with tarfile.open(archive) as source:
        return {member.name.partition("/")[2]: member.size for member in source if member.isfile()}


def faults_of(archive: Path) -> list[str]:
    names = names_of(archive)
    faults = [f"lacks {name}" for name in NEEDED[archive.suffix] if name not in names]
    if archive.suffix == ".whl":
        faults += [f"holds {name}" for name in names if not name.startswith(("ayllu/", "ayllu-"))]
    faults += [f"holds {name}" for name in names if name.endswith(".pyc") or "__pycache__" in name]
    faults += [f"holds {name}" for name in names if name.endswith(FORMATS_OF_WEIGHTS) and name not in WEIGHTS]
    weights = sum(size for name, size in names.items() if name.startswith("ayllu/weights/"))
    if weights > MOST_BYTES:
        faults.append(f"holds {weights:,} bytes of weights, the most is {MOST_BYTES:,}")
    print(f"{archive.name}: {archive.stat().st_size:,} bytes, {len(names)} files, {weights:,} bytes of weights")
    return [f"{archive.name} {fault}" for fault in faults]


if __name__ == "__main__":
    found = [fault for name in sys.argv[1:] for fault in faults_of(Path(name))]
    sys.exit("\n".join(found) or 0)
