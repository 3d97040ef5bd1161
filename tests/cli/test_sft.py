"""`ayllu sft` and `ayllu data inspect` on conversations, by the command line."""

import json
from pathlib import Path

import pytest

from ayllu.cli.main import run
from ayllu.config import load_recipe
from ayllu.train.sft_config import SftConfig

ROOT = Path(__file__).parents[2]
QUICK = ["data.template=llama2", "context=48", "compile=off", "threads=1", "loop.steps=2", "loop.batch_size=2",
         "loop.micro_batch=2", "data.held_out=0.3"]


@pytest.fixture
def chats(tmp_path):
    rows = [{"instruction": f"the fox {i}", "input": "", "output": "the river"} for i in range(12)]
    path = tmp_path / "chats.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_a_model_and_a_file_are_enough(tiny_checkpoint, chats, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(["sft", str(tiny_checkpoint), "chats.jsonl", *QUICK, "lora.r=2", "--json"]) == 0
    result = json.loads(capfd.readouterr().out.splitlines()[-1])
    name = f"{tiny_checkpoint.name}-chats"
    assert result["adapter"] == f"runs/{name}/adapter"
    assert (tmp_path / result["adapter"] / "adapter_model.safetensors").is_file()
    assert result["held_out"] > 0
    assert run(["sft", f"runs/{name}/config.json", "loop.steps=3", "--resume", "auto"]) == 0
    assert run(["sft", f"runs/{name}/config.json"]) == 2
    assert "holds a run already" in capfd.readouterr().err


def test_columns_are_named_as_the_error_says(tiny_checkpoint, tmp_path, capfd):
    """For every file that the command line names."""
    table, out = tmp_path / "faq.csv", f"out={tmp_path / 'run'}"
    table.write_text("question,reply\n" + "".join(f"the fox {i},the river\n" for i in range(12)), encoding="utf-8")
    assert run(["sft", str(tiny_checkpoint), str(table), *QUICK, out]) == 2
    assert 'columns.prompt = "..."' in capfd.readouterr().err
    named = ["columns.prompt=question", "columns.completion=reply"]
    assert run(["sft", str(tiny_checkpoint), str(table), *QUICK, out, *named, "--json"]) == 0
    assert json.loads(capfd.readouterr().out.splitlines()[-1])["held_out"] > 0


def test_what_teaches_nothing_stops_with_file_and_row(tiny_checkpoint, chats, capfd):
    with open(chats, "a", encoding="utf-8") as file:
        file.write('{"instruction": "the fox", "output": " "}\n')
    assert run(["sft", str(tiny_checkpoint), str(chats), *QUICK]) == 2
    assert "chats.jsonl, row 13: message 1: the answer is empty" in capfd.readouterr().err


def test_inspect_shows_what_is_learned_of_a_file_or_a_recipe(tiny_checkpoint, chats, tmp_path, capfd):
    words = ["data.template=llama2", "data.held_out=0", "--context", "40", "--json"]
    assert run(["data", "inspect", str(chats), "--tokenizer", str(tiny_checkpoint), *words]) == 0
    view = json.loads(capfd.readouterr().out.splitlines()[-1])
    piece = view["windows"][0]["pieces"][0]
    assert piece["objective"] == "chat"
    assert piece["where"] == f"{chats}, row {piece['document'] + 1}"
    assert [label for label in piece["labels"] if label is not None][-1] == 2        # the answer ends with EOS
    assert 0 < piece["learned"] < len(piece["ids"])
    recipe = tmp_path / "sft.toml"
    recipe.write_text(f'name = "x"\nout = "{tmp_path / "x"}"\nbase = "{tiny_checkpoint}"\ncontext = 40\n[data]\n'
                      f'template = "llama2"\nheld_out = 0\nsources = [{{path = "{chats}"}}]\n', encoding="utf-8")
    assert run(["data", "inspect", str(recipe), "--json"]) == 0
    assert json.loads(capfd.readouterr().out.splitlines()[-1])["context"] == 40
    assert run(["data", "inspect", str(chats)]) == 2
    assert "--tokenizer MODEL" in capfd.readouterr().err


@pytest.mark.parametrize("name", ["sft", "qlora-7b"])
def test_recipes_that_come_along_can_be_read(name):
    config = load_recipe(SftConfig, ROOT / "recipes" / f"{name}.toml")
    assert config.method == "sft"
    assert (config.quant == "nf4") == (name == "qlora-7b")


@pytest.mark.slow
def test_a_dry_run_predicts_and_rehearses_an_adapter_over_nf4(tiny_checkpoint, chats, tmp_path, capfd):
    assert run(["sft", str(tiny_checkpoint), str(chats), *QUICK, "lora.r=2", "quant=nf4", "eval_tokens=64",
                f"out={tmp_path / 'dry'}", "--dry-run", "--json"]) == 0
    found = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert found["measured_bytes"] < found["predicted_bytes"] * 1.2
    assert found["steps"] == 2
    assert not (tmp_path / "dry").exists()
