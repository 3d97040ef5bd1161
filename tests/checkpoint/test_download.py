"""Downloads with the real huggingface_hub client from a small hub on this machine."""

import json
import os
import subprocess
import sys
from pathlib import Path

import forked
import pytest
from checkpoint.hub import COMMIT, serve
from checkpoint.models import assert_same_tensors, source

from ayllu.checkpoint.download import choose
from ayllu.checkpoint.load import open_checkpoint
from ayllu.checkpoint.save import write_checkpoint
from ayllu.errors import CheckpointError

LLAMA = "meta-llama/Llama-2-7b-hf"
CARD = "---\nlicense: llama2\nlanguage:\n- en\n---\n# A card\n"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """What such a repository holds: weights twice, licence, policy, and things nobody should fetch."""
    folder = write_checkpoint(source("grouped tied"), tmp_path / "repository")
    (folder / "README.md").write_text(CARD)
    (folder / "LICENSE.txt").write_text("LLAMA 2 COMMUNITY LICENSE AGREEMENT\nRelease Date: July 18, 2023\n")
    (folder / "USE_POLICY.md").write_text("# Llama 2 Acceptable Use Policy\n")
    for name in ("modeling_evil.py", "run.sh", "pytorch_model.bin", "optimizer.pt", "original/consolidated.00.pth",
                 "a.pkl"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"code")
    return folder


def ayllu(*words: str, home: Path, endpoint: str = "http://127.0.0.1:9",
          **environment: str) -> subprocess.CompletedProcess:
    """The command line in a process of its own: huggingface_hub reads its environment once, when imported."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("HF_") and not k.lower().endswith("_proxy")}
    clean |= {"HF_HOME": str(home), "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1"}
    return forked.ayllu(*words, env=clean | environment)


def test_a_download_brings_weights_and_licence_and_nothing_that_runs(repository: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    with serve({LLAMA: repository}) as (endpoint, asked):
        done = ayllu("download", "facebook/llama2-7b", home=home,
                     endpoint=endpoint)     # the alias goes to the true name
        again = ayllu("download", LLAMA, "--lang", "zh", home=home, endpoint=endpoint)
        told = ayllu("download", LLAMA, "--json", home=home, endpoint=endpoint)
        out = ayllu("download", LLAMA, "--out", str(tmp_path / "here"), home=home, endpoint=endpoint)
    assert done.returncode == 0, done.stderr
    for words in ("Llama 2 Community License", "700 million", "called Notice", "Acceptable Use Policy",
                  "no legal advice"):
        assert words in done.stdout
    assert "7 亿" in again.stdout
    assert "不是法律意见" in again.stdout
    assert json.loads(told.stdout.splitlines()[-1])["licence"]["id"] == "llama2"
    assert out.returncode == 0
    fetched = {path.split(f"/resolve/{COMMIT}/")[-1] for path in asked if "/resolve/" in path}
    assert {"LICENSE.txt", "USE_POLICY.md", "README.md", "model.safetensors", "config.json"} <= fetched
    assert not {name for name in fetched if name.endswith((".py", ".sh", ".bin", ".pt", ".pth", ".pkl"))}
    snapshot = home / "hub" / "models--meta-llama--Llama-2-7b-hf" / "snapshots" / COMMIT
    for folder in (snapshot, tmp_path / "here"):         # the cache holds links to blobs, the folder files
        found = open_checkpoint(folder)
        assert_same_tensors(source("grouped tied"), found)
        assert found.licence is not None
        assert found.licence.id == "llama2"
        assert set(found.licence_texts) == {"LICENSE.txt", "USE_POLICY.md"}


def test_names_load_from_the_cache_without_network(repository: Path, tmp_path: Path,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    with serve({LLAMA: repository}) as (endpoint, _):
        assert ayllu("download", LLAMA, home=home, endpoint=endpoint).returncode == 0
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("HF_HOME", str(home))
    for name in (LLAMA, "facebook/llama2-7b"):
        assert_same_tensors(source("grouped tied"), open_checkpoint(name))
    done = ayllu("convert", LLAMA, str(tmp_path / "out"), "--to", "meta", home=home)     # its endpoint does not answer
    assert done.returncode == 0, done.stderr
    assert {"LICENSE.txt", "USE_POLICY.md", "Notice",
            "ayllu_licence.json"} <= {p.name for p in (tmp_path / "out").iterdir()}


def test_gated_unknown_and_unreachable(repository: Path, tmp_path: Path) -> None:
    with serve({LLAMA: repository}, gated={LLAMA}) as (endpoint, _):
        gated = ayllu("download", LLAMA, home=tmp_path / "a", endpoint=endpoint)
        unknown = ayllu("download", "nobody/nothing", home=tmp_path / "a", endpoint=endpoint)
    offline = ayllu("convert", "facebook/llama2-7b", str(tmp_path / "o"), "--to", "hf", home=tmp_path / "a")
    switched_off = ayllu("download", LLAMA, home=tmp_path / "a", HF_HUB_OFFLINE="1")
    odd = ayllu("download", "no name", home=tmp_path / "a")
    assert [d.returncode for d in (gated, unknown, offline, switched_off, odd)] == [2] * 5
    assert "is gated" in gated.stderr
    assert "hf auth login" in gated.stderr
    assert "knows no nobody/nothing" in unknown.stderr
    assert "its true name is meta-llama/Llama-2-7b-hf" in offline.stderr
    assert "use ayllu-mini" in offline.stderr
    assert "can't be fetched" in switched_off.stderr
    assert "owner/model" in odd.stderr
    for done in (gated, unknown, offline, switched_off, odd):
        assert "Traceback" not in done.stderr


def test_without_the_extra_it_says_what_to_install(tmp_path: Path) -> None:
    hide = "import sys; sys.modules['huggingface_hub'] = None; from ayllu.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", hide, "download", LLAMA], capture_output=True, text=True, check=False,
                          env=os.environ | {"HF_HOME": str(tmp_path)})
    assert done.returncode == 2
    assert "pip install 'ayllu[download]'" in done.stderr


SMALL = ["config.json", "tokenizer.model", "LICENSE"]


@pytest.mark.parametrize(("weights", "wanted"), [
    (["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json",
      "pytorch_model.bin"], 3),
    (["pytorch_model-00001-of-00001.bin", "pytorch_model.bin.index.json", "x.py"], 2), (["consolidated.00.pth"], 1),
    (["only.gguf"], 1)])
def test_one_form_of_the_weights(weights: list[str], wanted: int) -> None:
    assert choose([*SMALL, *weights], "a/b") == [*SMALL, *weights[:wanted]]


def test_choices_that_need_a_word() -> None:
    with pytest.raises(CheckpointError, match=r"--file, for example m\.Q8_0\.gguf"):
        choose([*SMALL, "m.Q4_K.gguf", "m.Q8_0.gguf"], "a/b")
    assert choose([*SMALL, "m.Q4_K.gguf", "m.Q8_0.gguf"], "a/b", "m.Q8_0.gguf") == [*SMALL, "m.Q8_0.gguf"]
    with pytest.raises(CheckpointError, match=r"no file 'x\.py'"):
        choose([*SMALL, "x.py"], "a/b", "x.py")
    with pytest.raises(CheckpointError, match="no weights"):
        choose([*SMALL, "model.onnx"], "a/b")
