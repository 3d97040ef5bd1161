"""`ayllu info` over published shapes and checkpoints."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ayllu.checkpoint.hf import write_hf
from ayllu.checkpoint.source import Entry, OpenCheckpoint
from ayllu.cli.main import run
from ayllu.model.config import LlamaConfig
from ayllu.model.llama import Llama

TINY = LlamaConfig(dim=32, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=8, hidden_dim=64, vocab_size=100)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("info") / "tiny"
    folder.mkdir()
    weights = {name: p.detach() for name, p in Llama(TINY).named_parameters()}
    write_hf(folder, OpenCheckpoint(folder, "memory", TINY, {
        name: Entry(tuple(w.shape), w.dtype, lambda w=w: w, folder, "F32") for name, w in weights.items()}))
    return folder


def facts(capsys: pytest.CaptureFixture[str], *words: str) -> dict:
    assert run(["info", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_a_published_shape_as_json(capsys):
    found = facts(capsys, "llama2-7b", "--context", "1024", "--batch", "4", "--dtype", "float16")
    assert found["parameters"]["total"] == sum(found["parameters"]["parts"].values()) == 6_738_415_616
    memory = found["inference_memory"]
    assert memory["kv"] == 4 * 1024 * found["kv_bytes_per_token"]["float16"] == 4 * 1024 * 524_288
    assert memory["total"] == memory["weights"] + memory["kv"] + memory["activations"]
    assert "licence" not in found                        # a shape has none; its weights do


def test_a_checkpoint(checkpoint: Path, capsys):
    found = facts(capsys, str(checkpoint))
    assert found["parameters"]["total"] == sum(p.numel() for p in Llama(TINY).parameters())
    assert found["shape"]["n_kv_heads"] == 2
    assert (found["format"], found["licence"], found["tokenizer"]) == ("hf", None, None)
    assert run(["info", str(checkpoint)]) == 0
    page = capsys.readouterr().out
    assert "licence                unknown" in page
    assert f"{found['parameters']['total']:,}" in page


def test_the_page_for_people(capsys):
    assert run(["info", "llama3.2-1b", "--context", "4096"]) == 0
    page = capsys.readouterr().out
    assert "tied to embedding" in page
    assert "1.24B" in page
    assert "context 4,096" in page


def test_errors_say_what_to_do(capsys):
    assert run(["info", "llama2-7x"]) == 2
    assert "llama2-7b" in capsys.readouterr().err
    assert run(["info", "llama2-7b", "--dtype", "fp99"]) == 2
    assert "use one of float32" in capsys.readouterr().err
    assert run(["info", "llama2-7b", "--context", "0"]) == 2


def test_mermaid(capsys):
    assert run(["info", "stories15m", "--mermaid"]) == 0
    assert capsys.readouterr().out.startswith("flowchart TD\n")


def test_a_published_shape_needs_no_torch():
    code = "import sys; from ayllu.cli.main import run; run(['info', 'llama2-7b']); print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.stdout.splitlines()[-1] == "False"
