"""The peers' own environments, made once and kept, and what machine this is."""

import os
import platform
import subprocess
import sys
import venv
from pathlib import Path

FOLDER = Path(__file__).parent.parent / ".ci" / "cache" / "peers"
PACKAGES = {"transformers": ("torch>=2.11,<2.14", "transformers>=5,<6"),
            "litgpt": ("torch>=2.11,<2.14", "litgpt>=0.5.13,<0.6"),
            "datatrove": ("datatrove>=0.10,<0.11", "orjson", "zstandard", "regex", "xxhash<4", "nltk", "fasteners",
                          "tokenizers", "ftfy", "spacy>=3.8,<4", "jieba", "pyahocorasick", "tldextract")}


def python_of(name: str) -> str:
    """The Python of a peer's environment, made by the first run; this one for whatever is no peer."""
    if name not in PACKAGES:
        return sys.executable
    folder, wanted = FOLDER / name, "\n".join(PACKAGES[name])
    python, stamp = folder / ("Scripts" if os.name == "nt" else "bin") / "python", folder / "installed.txt"
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != wanted:
        print(f"making an environment for {name} in {folder}", file=sys.stderr, flush=True)
        venv.create(folder, clear=True, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *PACKAGES[name]], check=True, stdout=sys.stderr)
        stamp.write_text(wanted, encoding="utf-8")
    return str(python)


def machine() -> str:
    """The processor and how many cores there are."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or platform.machine()}, {os.cpu_count()} cores"
