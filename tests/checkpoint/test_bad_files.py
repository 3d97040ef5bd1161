"""Damaged and hostile files of every format: a CheckpointError that names the file, no crash, little memory."""

import json
import pickle
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from checkpoint.models import source
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ayllu.checkpoint.hf import hf_name
from ayllu.checkpoint.load import build_model, open_checkpoint
from ayllu.checkpoint.save import write_checkpoint
from ayllu.errors import CheckpointError

WEIGHTS = {"hf": "model.safetensors", "bin": "pytorch_model.bin", "meta": "consolidated.00.pth", "llama2c": "model.bin",
           "gguf": "model.gguf"}
BUDGET = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def written(kind: str, folder: Path) -> Path:
    """A folder of this kind; `bin` is Hugging Face's with weights in torch's format."""
    if kind != "bin":
        return write_checkpoint(source("plain"), folder, to=kind)
    write_checkpoint(source("plain"), folder)
    torch.save({hf_name(n): t for n, t in source("plain").tensors()}, folder / WEIGHTS["bin"])
    (folder / "model.safetensors").unlink()
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("formats")
    return {kind: written(kind, base / kind) for kind in WEIGHTS}


def read_all(path: Path) -> None:
    """Open, build, and ask for the tokenizer: all that a load does."""
    found = open_checkpoint(path)
    build_model(found)
    found.open_tokenizer()


def refusal(path: Path) -> str | None:
    """What a load refuses with, or None where it goes well; any other exception is a failure."""
    try:
        read_all(path)
    except CheckpointError as error:
        return str(error)
    return None


@pytest.mark.parametrize("kind", WEIGHTS)
@BUDGET
@given(part=st.floats(0, 0.9999))
@example(part=0.0)
@example(part=0.9999)
def test_truncated(kind: str, part: float, folders: dict[str, Path]) -> None:
    file = folders[kind] / WEIGHTS[kind]
    whole = file.read_bytes()
    try:
        file.write_bytes(whole[:int(len(whole) * part)])
        with pytest.raises(CheckpointError) as found:
            read_all(folders[kind])
        assert str(folders[kind]) in str(found.value)
    finally:
        file.write_bytes(whole)


@pytest.mark.parametrize("kind", WEIGHTS)
@BUDGET
@given(data=st.data())
def test_flipped_header_bytes(kind: str, data: st.DataObject, folders: dict[str, Path]) -> None:
    """Any few bytes of the header (torch's zip: of the whole file, its directory is at the end) may be anything."""
    file = folders[kind] / WEIGHTS[kind]
    whole = file.read_bytes()
    reach = {"hf": 3000, "llama2c": 28, "gguf": 3000}.get(kind, len(whole))
    places = st.lists(st.tuples(st.integers(0, reach - 1), st.integers(1, 255)), min_size=1, max_size=4)
    changed = bytearray(whole)
    for at, value in data.draw(places):
        changed[at] ^= value
    try:
        file.write_bytes(bytes(changed))
        error = refusal(folders[kind])
        assert error is None or str(folders[kind]) in error or "tokenizer" in error
    finally:
        file.write_bytes(whole)


@BUDGET
@given(key=st.sampled_from(["hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
                            "vocab_size",
                            "intermediate_size", "head_dim", "max_position_embeddings", "rope_theta", "rms_norm_eps",
                            "rope_scaling", "rope_parameters", "tie_word_embeddings", "eos_token_id", "model_type",
                            "architectures", "layer_types", "attention_dropout"]),
       value=st.one_of(st.none(), st.integers(-2**70, 2**70), st.floats(), st.text(max_size=5), st.booleans(),
                       st.lists(st.integers(), max_size=2), st.dictionaries(st.text(max_size=4), st.integers(),
                                                                            max_size=2)))
def test_any_value_in_config_json(key: str, value: object, folders: dict[str, Path]) -> None:
    file = folders["hf"] / "config.json"
    whole = file.read_text()
    try:
        file.write_text(json.dumps(json.loads(whole) | {key: value}))
        error = refusal(folders["hf"])
        assert error is None or str(folders["hf"]) in error
    finally:
        file.write_text(whole)


HOSTILE = {
    "safetensors header length": ("hf", lambda b: struct.pack("<Q", 2**60) + b[8:], "header says"),
    "safetensors header over 100 MB": ("hf", lambda b: struct.pack("<Q", 10**8 + 1) + b[8:], "header says"),
    "safetensors shape": ("hf", lambda b: b.replace(b'"shape":[128,64]', b'"shape":[1e2,64]'), "whole numbers"),
    "safetensors not JSON": ("hf", lambda b: b.replace(b'"shape":[128,64]', b'"shape":[1<2,64]'), "not JSON"),
    "safetensors offsets": ("hf", lambda b: b.replace(b'"data_offsets":[0,', b'"data_offsets":[4,'), "header gives it"),
    "safetensors dtype": ("hf", lambda b: b.replace(b'"dtype":"F32"', b'"dtype":"I32"', 1), "stored as 'I32'"),
    "safetensors deep JSON": ("hf", lambda b: struct.pack("<Q", 100_000) + b"[" * 100_000 + b, "not JSON"),
    "llama2c layers": ("llama2c", lambda b: b[:8] + struct.pack("<i", 2**31 - 1) + b[12:], "not that of a llama2.c"),
    "gguf tensors": ("gguf", lambda b: b[:8] + struct.pack("<Q", 2**63) + b[16:], "tensors"),
    "gguf text": ("gguf", lambda b: b[:24] + struct.pack("<Q", 2**62) + b[32:], "letters"),
    "not a zip": ("bin", lambda b: b"PK\x03\x04" + b"\0" * 100, "can't read"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_headers(case: str, folders: dict[str, Path]) -> None:
    kind, change, says = HOSTILE[case]
    file = folders[kind] / WEIGHTS[kind]
    whole = file.read_bytes()
    assert change(whole) != whole
    try:
        file.write_bytes(change(whole))
        with pytest.raises(CheckpointError, match=says) as found:
            read_all(file if kind in ("gguf", "llama2c") else folders[kind])
        assert file.name in str(found.value)
    finally:
        file.write_bytes(whole)


def test_absurd_sizes_take_no_memory(folders: dict[str, Path], tmp_path: Path) -> None:
    """A config that promises 10 million layers of width 2**20, read with 300 MB to spare."""
    folder = write_checkpoint(source("plain"), tmp_path / "out")
    config = json.loads((folder / "config.json").read_text())
    huge = {"num_hidden_layers": 10**7, "hidden_size": 2**20, "vocab_size": 2**30, "num_attention_heads": 2**10}
    (folder / "config.json").write_text(json.dumps(config | huge))
    program = (
        "import resource, sys\n"
        "from ayllu.checkpoint.load import load_checkpoint\n"
        "from ayllu.errors import CheckpointError\n"
        "import ayllu.text.tokenizer\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 300 * 2**20,) * 2)\n"
        "try: load_checkpoint(sys.argv[1])\n"
        "except CheckpointError as error: print('refused:', error)\n")
    done = subprocess.run([sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("refused:"), done.stderr
    assert "10000000 layers" in done.stdout


class Evil:
    def __reduce__(self) -> tuple[Callable, tuple]:
        return Path.touch, (Path("owned"),)


@pytest.mark.parametrize("kind", ["bin", "meta"])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_code_in_pickles_never_runs(kind: str, zipped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = written(kind, tmp_path / "out")
    monkeypatch.chdir(tmp_path)
    table = {"model.embed_tokens.weight": torch.ones(2), "x": Evil()}
    torch.save(table, folder / WEIGHTS[kind], _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match="never allows") as found:
        open_checkpoint(folder)
    assert WEIGHTS[kind] in str(found.value)
    assert "safetensors" in str(found.value)
    (folder / WEIGHTS[kind]).write_bytes(pickle.dumps(Evil()))
    with pytest.raises(CheckpointError):
        open_checkpoint(folder)
    assert not (tmp_path / "owned").exists()


def test_zip_bombs_and_lying_views(tmp_path: Path) -> None:
    folder = written("bin", tmp_path / "out")
    file = folder / WEIGHTS["bin"]
    with zipfile.ZipFile(file) as archive:
        members = {m.filename: archive.read(m) for m in archive.infolist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    with pytest.raises(CheckpointError, match="compressed"):
        open_checkpoint(folder)
    torch.save({"model.embed_tokens.weight": torch.ones(1).expand(2**20, 2**12)}, file)      # 16 GB over 4 bytes
    with pytest.raises(CheckpointError, match=r"embed_tokens.*claims shape"):
        open_checkpoint(folder)
    torch.save({"model.embed_tokens.weight": [1, 2]}, file)
    with pytest.raises(CheckpointError, match="not a tensor"):
        open_checkpoint(folder)
    torch.save([torch.ones(1)], file)
    with pytest.raises(CheckpointError, match="not a table"):
        open_checkpoint(folder)


@pytest.mark.parametrize("kind", ["hf", "bin", "meta", "gguf", "llama2c"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_nan_and_infinity(kind: str, value: float, tmp_path: Path) -> None:
    from checkpoint.models import CONFIGS, random_model

    from ayllu.checkpoint.save import save_checkpoint
    model = random_model(CONFIGS["plain"])
    folder = save_checkpoint(tmp_path / "out", model, to="hf" if kind == "bin" else kind)
    file = folder / ("model.safetensors" if kind == "bin" else WEIGHTS[kind])
    mark = struct.pack("<f", model.layers[0].feed_forward.w2.weight[2, 3].item())
    data = file.read_bytes()
    assert data.count(mark) == 1
    file.write_bytes(data.replace(mark, struct.pack("<f", value)))
    if kind == "bin":
        from safetensors.torch import load_file
        torch.save(load_file(file), folder / WEIGHTS["bin"])
        file.unlink()
    name = {"hf": r"model\.layers\.0\.mlp\.down_proj", "bin": r"model\.layers\.0\.mlp\.down_proj",
            "gguf": r"blk\.0\.ffn_down",
            "meta": r"layers\.0\.feed_forward\.w2", "llama2c": r"layers\.0\.feed_forward\.w2"}[kind]
    with pytest.raises(CheckpointError, match=rf"{WEIGHTS[kind]}.*{name}.* 1 values that are NaN or infinite"):
        read_all(folder)


def change_weights(folder: Path, change: Callable[[dict], None]) -> None:
    from safetensors.torch import load_file, save_file
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors")


@pytest.mark.parametrize(("change", "says"), [
    (lambda w: w.pop("model.norm.weight"), r"tensor norm\.weight is missing"),
    (lambda w: w.update({"model.layers.0.mlp.experts.weight": torch.ones(2)}), r"mlp\.experts\.weight is not expected"),
    (lambda w: w.update({"model.norm.weight": torch.ones(65)}), r"model\.norm\.weight has shape \(65,\).*says \(64,\)"),
    (lambda w: w.clear() or w.update({"a": torch.ones(1), "b": torch.ones(1)}), "tensors"),
    (lambda w: w.update({"model.layers.7.mlp.up_proj.weight": torch.ones(2)}), r"layers\.7"),
])
def test_tensors_that_do_not_fit(change: Callable[[dict], None], says: str, tmp_path: Path) -> None:
    folder = written("hf", tmp_path / "out")
    change_weights(folder, change)
    with pytest.raises(CheckpointError, match=says) as found:
        open_checkpoint(folder)
    assert str(folder) in str(found.value)


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd", "a/../../b", "sub/model.safetensors", "",
                                  "..",
                                  "x\0y", "..\\secret", 7, None, ["a"]])
def test_index_names_that_lead_outside(name: object, tmp_path: Path) -> None:
    folder = written("hf", tmp_path / "out")
    (folder / "model.safetensors").rename(tmp_path / "secret.safetensors")
    index = {"weight_map": {"model.norm.weight": name}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="leads out of the folder"):
        open_checkpoint(folder)


def test_links_may_not_lead_outside(tmp_path: Path) -> None:
    folder = written("hf", tmp_path / "out")
    secret = tmp_path / "secret.txt"
    secret.write_text("Apache License, my secret")
    (folder / "LICENSE").symlink_to(secret)
    with pytest.raises(CheckpointError, match="outside of its folder"):
        open_checkpoint(folder)
    (folder / "LICENSE").unlink()
    (folder / "model.safetensors").rename(folder / "weights")
    (folder / "model.safetensors").symlink_to("weights")          # within the folder is fine
    read_all(folder)


def test_incomplete_folders(tmp_path: Path) -> None:
    folder = written("hf", tmp_path / "out")
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"model.norm.weight": "gone.safetensors"}}')
    with pytest.raises(CheckpointError, match=r"gone\.safetensors is missing"):
        open_checkpoint(folder)
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"nobody": "model.safetensors"}}')
    with pytest.raises(CheckpointError, match="'nobody' is missing"):
        open_checkpoint(folder)
    for text in ("[]", "{", '{"weight_map": 3}', "{}"):
        (folder / "model.safetensors.index.json").write_text(text)
        with pytest.raises(CheckpointError, match=r"index\.json"):
            open_checkpoint(folder)
    (folder / "model.safetensors.index.json").unlink()
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="download is incomplete"):
        open_checkpoint(folder)
