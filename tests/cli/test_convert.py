"""`ayllu convert` as a person runs it."""

import json
from pathlib import Path

from forked import ayllu


def test_convert_says_how_far_the_result_is(tiny_checkpoint: Path, tmp_path: Path) -> None:
    done = ayllu("convert", str(tiny_checkpoint), str(tmp_path / "m.gguf"), "--to", "gguf", "--dtype", "q8_0")
    assert done.returncode == 0, done.stderr
    assert "largest difference of a weight: 0.0" in done.stdout
    assert "licence: none stated" in done.stdout
    told = ayllu("convert", str(tmp_path / "m.gguf"), str(tmp_path / "hf"), "--to", "hf", "--json")
    table = json.loads(told.stdout.splitlines()[-1])
    assert (table["source_format"], table["format"], table["largest_logit_difference"]) == ("gguf", "hf", 0.0)
    assert (tmp_path / "hf" / "tokenizer.model").is_file()


def test_mistakes_end_with_2_and_one_message(tiny_checkpoint: Path, tmp_path: Path) -> None:
    for words in (("nowhere", str(tmp_path / "o"), "--to", "hf"), (str(tiny_checkpoint), str(tmp_path / "o"), "--to",
                                                                   "onnx"),
                  (str(tiny_checkpoint), str(tiny_checkpoint), "--to", "hf")):
        done = ayllu("convert", *words)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
        assert done.stderr.strip()
    assert not (tmp_path / "o").exists()
