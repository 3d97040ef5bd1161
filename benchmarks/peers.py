"""The peers' own environments and programs, made once and kept, and what machine this is.

With AYLLU_PEERS=here in the environment, a peer that is a Python package runs with this Python, as it is installed: for
a machine without a network, or whose torch was built for its GPU.
"""

import importlib.util
import os
import platform
import subprocess
import sys
import tarfile
import venv
from pathlib import Path

FOLDER = Path(__file__).parent.parent / ".ci" / "cache" / "peers"
PACKAGES = {"transformers": ("torch>=2.11,<2.14", "transformers[serving]>=5,<6"),
            "litgpt": ("torch>=2.11,<2.14", "litgpt>=0.5.13,<0.6"),
            "trl": ("torch>=2.11,<2.14", "trl>=1,<2", "peft>=0.18"),
            "datatrove": ("datatrove>=0.10,<0.11", "orjson", "zstandard", "regex", "xxhash<4", "nltk", "fasteners",
                          "tokenizers", "ftfy", "spacy>=3.8,<4", "jieba", "pyahocorasick", "tldextract"),
            "llama.cpp": ("cmake>=3.25,<5", "ninja", "scikit-build-core")}
LLAMA_CPP = "llama-cpp-python==0.3.36"                   # its source archive holds llama.cpp's, the server included
# gcc 12 drops stores that llama.cpp's AMX code needs (it dies of an illegal instruction), hence the last option
LLAMA_CPP_BUILD = ("-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=ON", "-DLLAMA_BUILD_TESTS=OFF",
                   "-DLLAMA_BUILD_EXAMPLES=OFF", "-DLLAMA_BUILD_UI=OFF", "-DLLAMA_USE_PREBUILT_UI=OFF",
                   "-DLLAMA_OPENSSL=OFF", "-DCMAKE_CXX_FLAGS=-fno-tree-dse")


def python_of(name: str) -> str:
    """The Python of a peer's environment, made by the first run; this one for whatever is no peer."""
    if name not in PACKAGES:
        return sys.executable
    if os.environ.get("AYLLU_PEERS") == "here" and name.isidentifier():
        if importlib.util.find_spec(name) is None:
            raise RuntimeError(f"AYLLU_PEERS=here, but {sys.executable} has no {name}: install "
                               f"{', '.join(PACKAGES[name])}, or leave AYLLU_PEERS out")
        return sys.executable
    folder, wanted = FOLDER / name, "\n".join(PACKAGES[name])
    python, stamp = folder / ("Scripts" if os.name == "nt" else "bin") / "python", folder / "installed.txt"
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != wanted:
        print(f"making an environment for {name} in {folder}", file=sys.stderr, flush=True)
        venv.create(folder, clear=True, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *PACKAGES[name]], check=True, stdout=sys.stderr)
        stamp.write_text(wanted, encoding="utf-8")
    return str(python)


def llama_server() -> Path:
    """llama.cpp's server, compiled for this machine by the first call (20 minutes on two cores)."""
    program = FOLDER / "llama.cpp-build" / "bin" / "llama-server"
    if not program.exists():
        tools = Path(python_of("llama.cpp")).parent
        source, build = FOLDER / "llama.cpp-source", program.parents[1]
        print(f"compiling llama.cpp in {build}", file=sys.stderr, flush=True)
        subprocess.run([tools / "python", "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:",
                        "--no-build-isolation", "-d", source, LLAMA_CPP], check=True, stdout=sys.stderr)
        with tarfile.open(next(source.glob("*.tar.gz"))) as archive:
            archive.extractall(source, filter="data")
        folder = next(source.glob("*/vendor/llama.cpp"))
        paths = {**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ.get('PATH', '')}"}
        for command in (["-S", folder, "-B", build, "-G", "Ninja", *LLAMA_CPP_BUILD],
                        ["--build", build, "--target", "llama-server"]):
            subprocess.run([tools / "cmake", *command], check=True, stdout=sys.stderr, env=paths)
    return program


def machine() -> str:
    """The processor and how many cores there are."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or platform.machine()}, {os.cpu_count()} cores"
