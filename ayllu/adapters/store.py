"""PEFT folders in and out: adapter_config.json and adapter_model.safetensors. Pickles are not read.

Our own files also say which base they were made for, in the safetensors header, which PEFT passes over.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ayllu.adapters.config import LoraConfig, config_from_peft, config_to_peft
from ayllu.adapters.lora import Adapter, Pair
from ayllu.adapters.names import PREFIX, SHORT, hf_module, modules, our_module
from ayllu.errors import CheckpointError
from ayllu.files import atomic_folder
from ayllu.folder import inside, read_json
from ayllu.model.config import LlamaConfig

CONFIG, WEIGHTS, PICKLE = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
TEMPLATE = "chat_template.jinja"                         # as transformers names it
MARK, BASE = "ayllu_adapter.json", "ayllu_base"          # a file that says the folder is ours; a key in the header
_LEAVES = {"lora_A.weight": "a", "lora_B.weight": "b", "lora_magnitude_vector": "magnitude",
           "lora_magnitude_vector.weight": "magnitude"}
_FLOATS = ("F64", "F32", "F16", "BF16")
_AGAIN = "the file is damaged or another tool's: make the adapter again, or fetch it again"


def read_adapter(folder: str | Path, model: LlamaConfig, most_bytes: int | None = None) -> Adapter:
    """Read a PEFT folder for a model of this shape. Shapes are checked before a matrix is read; `most_bytes` bounds
    what is taken into memory."""
    folder = Path(folder)
    if not (folder / CONFIG).is_file():
        raise CheckpointError(f"{folder} holds no adapter: expected {CONFIG} and {WEIGHTS}, as PEFT writes them")
    config = config_from_peft(read_json(inside(folder, CONFIG)), where=str(folder / CONFIG))
    path = inside(folder, WEIGHTS)
    if not path.is_file():
        if (folder / PICKLE).exists():
            raise CheckpointError(f"{folder / PICKLE} is a pickle, which can run code when it is read: save the "
                                  "adapter again with safe_serialization=True")
        raise CheckpointError(f"{path} is missing: the download is incomplete")
    if most_bytes is not None and path.stat().st_size > most_bytes:
        raise CheckpointError(f"{path} has {path.stat().st_size} bytes, more than the {most_bytes} that may be loaded")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            names = _places(path, list(file.keys()), config, model)
            for key, (module, leaf) in names.items():
                row = file.get_slice(key)
                _check_row(f"{path}: {key}", row.get_dtype(), tuple(row.get_shape()),
                           _shape(leaf, modules(model)[module], config.rank(module)))
            base = (file.metadata() or {}).get(BASE)
            tensors = {place: _finite(f"{path}: {key}", file.get_tensor(key)) for key, place in names.items()}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: {error}: {_AGAIN}") from error
    pairs = {module: Pair(tensors[module, "a"], tensors[module, "b"], tensors.get((module, "magnitude")))
             for module, leaf in tensors if leaf == "a"}
    return Adapter(config, {name: pairs[name] for name in modules(model) if name in pairs}, base, str(folder))


@dataclass(frozen=True)
class Manner:
    """How an adapter was taught to answer: the chat template, and the ids that end an answer."""

    template: str | None
    eos_ids: tuple[int, ...]


def read_manner(folder: str | Path) -> Manner | None:
    """None for an adapter that another tool made, or that was taught without one."""
    table = read_json(inside(Path(folder), MARK)) if (Path(folder) / MARK).is_file() else {}
    ends = table.get("eos_ids")
    if not isinstance(ends, list) or not all(isinstance(end, int) for end in ends):
        return None
    file = Path(folder) / TEMPLATE
    return Manner(file.read_text(encoding="utf-8") if file.is_file() else None, tuple(ends))


def write_adapter(folder: str | Path, adapter: Adapter, *, base: str | None = None, base_name: str | None = None,
                  overwrite: bool = False, manner: Manner | None = None) -> Path:
    """Write a PEFT folder. `base` is the model's fingerprint (lora.py), `base_name` where PEFT finds the model."""
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()) and not (overwrite and (folder / MARK).is_file()):
        raise CheckpointError(f"{folder} exists: name another place, or allow that an adapter of ours is replaced "
                              "(overwrite)")
    tensors = dict[str, Tensor]()
    for name, pair in adapter.pairs.items():
        stem = PREFIX + hf_module(name)
        tensors |= {f"{stem}.lora_A.weight": pair.a, f"{stem}.lora_B.weight": pair.b}
        if pair.magnitude is not None:
            tensors[f"{stem}.lora_magnitude_vector"] = pair.magnitude
    header = {"format": "pt"} | ({BASE: base or adapter.base or ""} if base or adapter.base else {})
    mark = {"digest": adapter.digest} | ({"eos_ids": list(manner.eos_ids)} if manner else {})
    with atomic_folder(folder) as temporary:
        if manner and manner.template:
            (temporary / TEMPLATE).write_text(manner.template, encoding="utf-8")
        for file, table in ((CONFIG, config_to_peft(adapter.config, base_name)), (MARK, mark)):
            (temporary / file).write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
        save_file({key: t.detach().cpu().contiguous() for key, t in tensors.items()}, temporary / WEIGHTS, header)
    return folder


def _places(path: Path, keys: list[str], config: LoraConfig, model: LlamaConfig) -> dict[str, tuple[str, str]]:
    """For each name in the file, our linear layer and which of its tensors; nothing may be left over or missing."""
    known, found = modules(model), dict[str, tuple[str, str]]()
    for key in keys:
        stem, leaf = next(((key.removesuffix(f".{end}"), _LEAVES[end]) for end in _LEAVES if key.endswith(f".{end}")),
                          (key, ""))
        module = our_module(stem.removeprefix(PREFIX))
        if not leaf or module is None:
            raise CheckpointError(f"{path}: {key} belongs to no layer that takes an adapter here ("
                                  f"{', '.join(SHORT)} of each block): train it on these only")
        if module not in known:
            raise CheckpointError(f"{path}: {key} is of a layer that the model doesn't have (it has {model.n_layers}): "
                                  "the adapter was made for another base")
        if not config.is_pattern and not config.is_target(module):
            raise CheckpointError(f"{path}: {key} is none of the target_modules that {CONFIG} names: {_AGAIN}")
        found[key] = module, leaf
    leaves = {"a", "b", "magnitude"} if config.use_dora else {"a", "b"}
    wanted = {m for m, _ in found.values()} if config.is_pattern else {m for m in known if config.is_target(m)}
    there = set(found.values())
    if len(there) != len(found):
        raise CheckpointError(f"{path} holds one matrix under two names: {_AGAIN}")
    for module in known:
        for leaf in sorted({leaf for m, leaf in there if m == module} ^ (leaves if module in wanted else set())):
            more = (module, leaf) in there
            raise CheckpointError(f"{path}: {PREFIX}{hf_module(module)} {'has a' if more else 'lacks its'} tensor "
                                  f"{leaf!r}, which {CONFIG} does {'not ' * more}promise: {_AGAIN}")
    if missed := config.unmet(model):
        raise CheckpointError(f"{path.with_name(CONFIG)}: target_modules names {missed[0]!r}, which this model's "
                              f"blocks don't have: use some of {', '.join(SHORT)}")
    if not found:
        raise CheckpointError(f"{path} holds no matrix: {_AGAIN}")
    return found


def _shape(leaf: str, widths: tuple[int, int], rank: int) -> tuple[int, ...]:
    inputs, outputs = widths
    return {"a": (rank, inputs), "b": (outputs, rank), "magnitude": (outputs,)}[leaf]


def _check_row(where: str, kind: str, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if kind not in _FLOATS:
        raise CheckpointError(f"{where} is stored as {kind}: expected one of {', '.join(_FLOATS)}")
    if shape != expected:
        raise CheckpointError(f"{where} has shape {shape}, expected {expected} from this model's widths and the rank "
                              f"in {CONFIG}: the adapter was made for another base, or its config is another's")


def _finite(where: str, tensor: Tensor) -> Tensor:
    if not torch.isfinite(tensor).all():
        raise CheckpointError(f"{where} holds NaN or infinity: {_AGAIN}")
    return tensor
