"""recipes/senses: of some senses and the mean of their weights, the best on the development rows is written."""

import json
import tarfile

import torch
from adapters.small import filled
from media.small import png, senses_of, wav
from scripts import load_script

from ayllu.adapters.store import read_adapter, write_adapter
from ayllu.checkpoint.load import load_checkpoint
from ayllu.media.senses import ADAPTER, read_senses, write_senses


def test_the_best_of_all_means_is_written(chat_checkpoint, tmp_path, monkeypatch, capsys):
    rows = []
    for number in range(2):
        for kind, name, data in (("image", f"{number}.png", png(number)), ("audio", f"{number}.wav", wav(number))):
            (tmp_path / name).write_bytes(data)
            rows.append({kind: name, "prompt": "What is it?", "text": str(number)})
    (tmp_path / "dev.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with tarfile.open(tmp_path / "media.tar", "w") as tar:
        for row in rows:
            name = row.get("image") or row["audio"]
            tar.add(tmp_path / name, name)
    model = load_checkpoint(chat_checkpoint, dtype="float32").model
    for seed in range(2):
        senses = senses_of(seed=seed)
        senses.config = senses.config.model_copy(update={"base": str(chat_checkpoint)})
        write_senses(tmp_path / f"{seed}", senses, torch.float32)
        write_adapter(tmp_path / f"{seed}" / ADAPTER, filled(model, seed))
    choose = load_script("recipes/senses/choose.py")
    folders = [str(tmp_path / "0"), str(tmp_path / "1")]
    monkeypatch.setattr("sys.argv", ["choose.py", "--data", str(tmp_path), "--out", str(tmp_path / "best"), *folders])
    assert choose.main() == 0
    told = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    assert [names for _, names, _ in told] == [*folders, " + ".join(folders)]
    best = min(told, key=lambda parts: float(parts[0]))[1].split(" + ")
    state = read_senses(tmp_path / "best").state_dict()
    for name, value in state.items():
        wanted = torch.stack([read_senses(folder).state_dict()[name] for folder in best]).mean(0)
        torch.testing.assert_close(value, wanted, atol=1e-2, rtol=1e-3)               # written in half precision
    adapter = read_adapter(tmp_path / "best" / ADAPTER, model.config)
    those = [read_adapter(tmp_path / folder / ADAPTER, model.config) for folder in best]
    for name, pair in adapter.pairs.items():
        torch.testing.assert_close(pair.b, torch.stack([one.pairs[name].b for one in those]).mean(0))
