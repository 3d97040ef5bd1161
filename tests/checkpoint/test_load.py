"""Finding a checkpoint by what a person types, and loading it tensor by tensor."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from checkpoint.models import CONFIGS, assert_same_tensors, logits, random_model, source

from ayllu.checkpoint import resolve
from ayllu.checkpoint.load import build_model, load_checkpoint, open_checkpoint
from ayllu.checkpoint.save import save_checkpoint, write_checkpoint
from ayllu.errors import CheckpointError, ConfigError


@pytest.mark.parametrize(("to", "file"), [("hf", "model.safetensors"), ("hf", "config.json"),
                                          ("meta", "consolidated.00.pth"),
                                          ("meta", "params.json"), ("llama2c", "model.bin"), ("gguf", "model.gguf")])
def test_a_folder_or_a_file_in_it(to: str, file: str, tmp_path: Path) -> None:
    folder = write_checkpoint(source("plain"), tmp_path / "out", to=to)
    for place in (folder, str(folder), folder / file):
        found = open_checkpoint(place)
        assert found.format == to
        assert_same_tensors(source("plain"), found)


def test_contents_count_and_not_names(tmp_path: Path) -> None:
    path = write_checkpoint(source("plain"), tmp_path / "m.gguf", to="gguf")
    path.rename(tmp_path / "weights.bin")
    assert open_checkpoint(tmp_path / "weights.bin").format == "gguf"


@pytest.mark.parametrize("dtype", [None, "float32", "bf16", torch.float16])
def test_model_is_ready_to_run(dtype: str | torch.dtype | None, tmp_path: Path) -> None:
    model = random_model(CONFIGS["qwen2"])
    found = load_checkpoint(save_checkpoint(tmp_path / "out", model), dtype=dtype)
    wanted = {None: torch.float32, "float32": torch.float32, "bf16": torch.bfloat16}.get(dtype, dtype)
    assert {p.dtype for p in found.model.parameters()} == {wanted}
    assert not found.model.training
    assert not any(p.is_meta for p in found.model.parameters())
    assert (found.model.config, found.tokenizer, found.chat_template) == (CONFIGS["qwen2"], None, None)
    if wanted == torch.float32:
        assert torch.equal(logits(found.model), logits(model))
    found.model.train()
    found.model(torch.tensor([[1, 2, 3]])).sum().backward()              # it can be trained on
    assert all(p.grad is not None for p in found.model.parameters())


def test_mixed_dtypes_become_one(tmp_path: Path) -> None:
    """GGUF keeps norms in float32 beside float16 matrices: a model needs one dtype."""
    path = write_checkpoint(source("plain", torch.float16), tmp_path / "m.gguf", to="gguf")
    assert {e.stored_as for e in open_checkpoint(path).entries.values()} == {"F32", "F16"}
    assert {p.dtype for p in load_checkpoint(path).model.parameters()} == {torch.float16}


@pytest.mark.parametrize("to", ["hf", "gguf", pytest.param("meta", marks=pytest.mark.slow),
                                pytest.param("llama2c", marks=pytest.mark.slow)])
def test_memory_stays_at_one_model(to: str, tmp_path: Path) -> None:
    """Loading 64 MB of weights takes at most 64 MB and a little: nothing is held twice."""
    config = CONFIGS["grouped tied"].model_copy(update={
        "vocab_size": 16_000, "dim": 512, "n_heads": 8, "n_kv_heads": 8, "head_dim": 64, "hidden_dim": 1024,
        "n_layers": 3})
    folder = save_checkpoint(tmp_path / "out", random_model(config), to=to)
    program = ("import sys, resource; from ayllu.checkpoint.load import load_checkpoint\n"
               "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n"
               "before = peak(); model = load_checkpoint(sys.argv[1]).model\n"
               "size = sum(p.numel() * p.element_size() for p in model.parameters()) / 2**20\n"
               "print(peak() - before - size, size)")
    done = subprocess.run([sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=True)
    beyond, size = map(float, done.stdout.split())       # MB
    assert size > 60
    assert beyond < 40                                   # modules imported on the way; one more copy would be over 60


def test_what_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolve, "download", lambda name: pytest.fail("no network should be asked for a path"))
    for name in ("nowhere", "./a/b/c", str(tmp_path / "x" / "y"), "models/m.gguf"):
        with pytest.raises(CheckpointError, match="expected a folder, a file"):
            open_checkpoint(name)
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        open_checkpoint(tmp_path)
    for n in "ab":
        write_checkpoint(source("plain"), tmp_path / f"{n}.gguf", to="gguf")
    with pytest.raises(CheckpointError, match=r"name one of a\.gguf, b\.gguf"):
        open_checkpoint(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(bytes(100))
    with pytest.raises(CheckpointError, match=r"config\.json or params\.json beside it is missing"):
        open_checkpoint(tmp_path / "model.safetensors")
    (tmp_path / "notes.txt").write_text("hello, these are notes and no model at all, whatever their length may be")
    with pytest.raises(CheckpointError, match=r"notes\.txt"):
        open_checkpoint(tmp_path / "notes.txt")


def test_the_bundled_model_or_a_clear_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolve, "__file__", str(tmp_path / "ayllu" / "checkpoint" / "resolve.py"))
    with pytest.raises(CheckpointError, match="came without the bundled model"):
        open_checkpoint("ayllu-mini")
    folder = tmp_path / "ayllu" / "weights" / "ayllu-mini"
    save_checkpoint(folder / "model.gguf", random_model(CONFIGS["plain"]), to="gguf", dtype="q8_0")
    assert open_checkpoint("ayllu-mini").path == folder / "model.gguf"
    assert load_checkpoint("ayllu-mini").config == CONFIGS["plain"]


@pytest.mark.parametrize("name", resolve.BUNDLED_MODELS)
def test_a_bundled_model_knows_its_name(name: str, tmp_path: Path) -> None:
    source = open_checkpoint(name)
    assert resolve.bundled_name(source.path) == resolve.bundled_name(source.path.parent) == name
    assert resolve.bundled_name(tmp_path / name / "model.gguf") is None


def test_a_broken_pointer_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    refs = tmp_path / "models--a--b" / "refs"
    refs.mkdir(parents=True)
    (refs / "main").write_text("../../../../etc")
    with pytest.raises(CheckpointError, match="commit's hash"):
        open_checkpoint("a/b")


def test_verify_compares_with_the_manifest(tmp_path: Path) -> None:
    folder = write_checkpoint(source("plain"), tmp_path / "out")
    assert load_checkpoint(folder, verify=True).format == "hf"
    (folder / "config.json").write_text((folder / "config.json").read_text() + " ")
    assert load_checkpoint(folder).format == "hf"
    with pytest.raises(CheckpointError, match=r"config\.json differs"):
        load_checkpoint(folder, verify=True)


def test_a_tokenizer_with_more_ids_than_the_model_is_said(tiny_checkpoint: Path, tmp_path: Path,
                                                          caplog: pytest.LogCaptureFixture) -> None:
    folder = write_checkpoint(source("plain"), tmp_path / "out")             # 128 ids
    (folder / "tokenizer.model").write_bytes((tiny_checkpoint / "tokenizer.model").read_bytes())
    with caplog.at_level("WARNING", logger="ayllu"):
        assert load_checkpoint(folder).tokenizer is not None
    assert "have no weights" in caplog.text


def test_names_no_file_can_have() -> None:
    for name in ("x" * 5000, "a\0b", ""):
        with pytest.raises(CheckpointError):
            open_checkpoint(name)


def test_unknown_dtype_and_device(tmp_path: Path) -> None:
    found = source("plain")
    with pytest.raises(ConfigError, match="int4"):
        build_model(found, dtype="int4")
    with pytest.raises(ConfigError, match="toaster"):
        build_model(found, device="toaster")
