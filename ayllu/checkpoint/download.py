"""`ayllu download NAME`: fetch what a model needs and nothing that could run (extra `download`)."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ayllu.checkpoint.licence import Licence, licence_of
from ayllu.errors import CheckpointError, extra

ALIASES = {"facebook/llama2-7b": "meta-llama/Llama-2-7b-hf"}      # names that texts about Llama use, and the true ones

# Plain data only: no *.py, no other archives. Licence files come along always.
_SMALL = re.compile(r"(config|generation_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab|"
                    r"chat_template|params)\.json|merges\.txt|chat_template\.jinja|tokenizer\.(model|tiktoken|bin)|README\.md|"
                    r"(?i:licen[cs]e|use_policy|acceptable_use\w*|notice|copying)([._-][\w.-]*)?")
_SAFETENSORS = re.compile(r"model(-\d+-of-\d+)?\.safetensors|model\.safetensors\.index\.json")
_PICKLES = re.compile(r"pytorch_model(-\d+-of-\d+)?\.bin|pytorch_model\.bin\.index\.json")
_META = re.compile(r"consolidated\.\d\d\.pth")


@dataclass(frozen=True)
class Download:
    """What lies where now, and under which licence."""

    name: str
    path: Path
    files: tuple[str, ...]
    licence: Licence | None


def download(name: str, *, folder: Path | None = None, revision: str | None = None,
             file: str | None = None) -> Download:
    """Fetch a repository into the hub's cache (or `folder`). `file` picks one .gguf where there are many."""
    name = ALIASES.get(name, name)
    hub = _hub()
    try:
        info = hub.HfApi().model_info(name, revision=revision, timeout=20)       # asks once: no network shows at once
        listed = [sibling.rfilename for sibling in info.siblings or ()]
        wanted = choose(listed, name, file)
        path = hub.snapshot_download(name, revision=revision, allow_patterns=[_literal(w) for w in wanted],
                                     local_dir=None if folder is None else str(folder))
    except Exception as error:
        raise _explained(error, name) from error
    licence, _ = licence_of(Path(path))
    return Download(name, Path(path), tuple(wanted), licence)


def choose(listed: list[str], name: str, file: str | None = None) -> list[str]:
    """The files to fetch: config, tokenizer, licence and one form of the weights, safetensors before all others."""
    small = [f for f in listed if _SMALL.fullmatch(f)]
    if file is not None:
        if file not in listed or not file.endswith(".gguf"):
            raise CheckpointError(f"{name} has no file {file!r}; its .gguf files are: {_joined(listed, '.gguf')}")
        return [*small, file]
    for pattern in (_SAFETENSORS, _PICKLES, _META):
        weights = [f for f in listed if pattern.fullmatch(f)]
        if weights:
            return [*small, *weights]
    ggufs = [f for f in listed if f.endswith(".gguf")]
    if len(ggufs) == 1:
        return [*small, *ggufs]
    if ggufs:
        raise CheckpointError(f"{name} holds {len(ggufs)} GGUF files: name one with --file, for example "
                              f"{next((f for f in ggufs if 'Q8_0' in f.upper()), ggufs[0])}")
    raise CheckpointError(f"{name} holds no weights that Ayllu reads (safetensors, .bin, consolidated.*.pth, .gguf)")


def _hub() -> Any:
    with extra("download", "fetching models"):
        import huggingface_hub
    return huggingface_hub


def _literal(name: str) -> str:
    """A pattern of snapshot_download that matches this name only."""
    return re.sub(r"([\[*?])", r"[\1]", name)


def _explained(error: Exception, name: str) -> Exception:
    """The hub's error in words that say what to do; anything unknown stays as it is."""
    from huggingface_hub import errors

    page = f"the page of {name} on the hub"
    if isinstance(error, CheckpointError):
        return error
    if isinstance(error, errors.GatedRepoError):
        return CheckpointError(
            f"{name} is gated: its owner asks everybody to accept the licence first. Open {page} in a browser, accept, "
            "make a token under Settings > Access Tokens, run `hf auth login` (or set HF_TOKEN), then download again.")
    if isinstance(error, errors.RevisionNotFoundError):
        return CheckpointError(f"{name} has no such revision: {_first_line(error)}")
    if isinstance(error, errors.RepositoryNotFoundError):
        return CheckpointError(f"the hub knows no {name}, or it is private: check the spelling, or run `hf auth login` "
                               "with an account that may see it")
    if isinstance(error, errors.HFValidationError):
        return CheckpointError(f"{name!r} is not a name of the hub: expected owner/model")
    network = (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, OSError)
    if isinstance(error, network) or type(error).__module__.startswith(("httpx", "httpcore", "requests", "urllib3")):
        return CheckpointError(f"{name} can't be fetched ({type(error).__name__}: {_first_line(error)}): no network, "
                               "or the hub is not reachable from here")
    return error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no details"])[0][:200]


def _joined(listed: list[str], suffix: str) -> str:
    return ", ".join(f for f in listed if f.endswith(suffix)) or "none"
