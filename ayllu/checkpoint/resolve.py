"""From what a person types to a place on disk: a path, the name of a bundled model, or one of the Hugging Face hub."""

import os
import re
from pathlib import Path

from ayllu.checkpoint.download import ALIASES, download
from ayllu.errors import CheckpointError, MissingExtra
from ayllu.log import say

BUNDLED = "ayllu-mini"                                   # the base, and the same taught to answer
BUNDLED_CHAT = "ayllu-mini-chat"
BUNDLED_MODELS = (BUNDLED, BUNDLED_CHAT, "ayllu-small")  # the last: twice the size, and fifteen times the tokens
BUNDLED_SENSES = "ayllu-mini-senses"                     # the eye and ear of the latter
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")


def resolve(name_or_path: str | Path) -> Path:
    """The folder or file meant. A hub name is looked up in the local cache first, else fetched."""
    if not isinstance(name_or_path, str | Path) or not str(name_or_path).strip():
        raise CheckpointError(f"{name_or_path!r} is no name of a model: give a folder, a file, a hub name, "
                              f"or {BUNDLED}")
    path = Path(name_or_path).expanduser()
    if path.exists():
        return path.resolve() if path.is_dir() else path
    name = str(name_or_path)
    if name in BUNDLED_MODELS:
        return bundled(name)
    true_name = ALIASES.get(name, name)
    if true_name != name:
        say(f"{name} is not a name on the hub; its true name is {true_name}: taking that one.")
    if not _HUB_NAME.fullmatch(true_name) or path.suffix in (".gguf", ".bin", ".safetensors", ".pth"):
        raise CheckpointError(f"no checkpoint at {name}: expected a folder, a file (.gguf, llama2.c's .bin), a hub "
                              f"name such as meta-llama/Llama-2-7b-hf, or {BUNDLED}")
    return in_cache(true_name) or _fetch(true_name)


def bundled(name: str = BUNDLED) -> Path:
    """The folder of a model that comes with the package."""
    folder = Path(__file__).resolve().parent.parent / "weights" / name
    if not folder.is_dir():
        raise CheckpointError(f"this installation of Ayllu came without the bundled model (expected at {folder}): "
                              "install from a release, or train it with the recipe in recipes/")
    return folder


def bundled_name(path: Path) -> str | None:
    """The name of the bundled model at this place, a folder or the file in it; None where it is none."""
    folder = path if path.is_dir() else path.parent
    is_one = folder.name in BUNDLED_MODELS and folder.parent == Path(__file__).resolve().parent.parent / "weights"
    return folder.name if is_one else None


def senses_of(model: str | Path) -> Path | None:
    """The senses that come with a model: of the bundled chat model, where they were installed too."""
    folder = Path(__file__).resolve().parent.parent / "weights" / BUNDLED_SENSES
    if not folder.is_dir() or (str(model) != BUNDLED_CHAT and Path(model).resolve() != folder.parent / BUNDLED_CHAT):
        return None
    return folder


def hub_cache() -> Path:
    """Where huggingface_hub keeps repositories, by its own environment variables."""
    if os.environ.get("HF_HUB_CACHE"):
        return Path(os.environ["HF_HUB_CACHE"]).expanduser()
    home = os.environ.get("HF_HOME")
    if home:
        return Path(home).expanduser() / "hub"
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "huggingface" / "hub"


def in_cache(name: str, revision: str = "main") -> Path | None:
    """The snapshot of a hub repository in the local cache, if it holds weights. Needs no extra package."""
    repository = hub_cache() / ("models--" + name.replace("/", "--"))
    pointer = repository / "refs" / revision
    if not pointer.is_file():
        return None
    commit = pointer.read_text(encoding="utf-8").strip()
    if not re.fullmatch(r"[0-9a-f]{7,64}", commit):
        raise CheckpointError(f"{pointer} should hold a commit's hash, found {commit[:80]!r}: remove the file and "
                              "fetch again")
    snapshot = repository / "snapshots" / commit
    if any((snapshot / file).exists() for file in _WEIGHTS) or any(snapshot.glob("*.gguf")):
        return snapshot
    return None


def _fetch(name: str) -> Path:
    try:
        return download(name).path
    except MissingExtra as error:
        raise MissingExtra(f"{name} is not on this machine. {error} Without network, use {BUNDLED}, the model that "
                           "comes with Ayllu.") from error
    except CheckpointError as error:
        raise CheckpointError(f"{error}\nWithout network or access, use {BUNDLED}, the model that comes with "
                              "Ayllu.") from error
