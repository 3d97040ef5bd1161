"""Numbers for people, and JSON for programs."""

import json

import pytest

from ayllu.cli.output import human_bytes, human_count, human_flops, print_json
from ayllu.cli.pretrain import show


def test_bytes_counts_and_operations():
    assert human_bytes(0) == "0 B"
    assert human_bytes(13_476_831_232) == "12.6 GiB"
    assert human_bytes(150 * 2**30) == "150 GiB"
    assert human_count(6_738_415_616) == "6.74B"
    assert human_count(999) == "999"
    assert human_count(405_853_388_800) == "406B"
    assert human_flops(13_214_154_752) == "13.2 GFLOP"
    assert human_flops(999_900_000) == "1 GFLOP"


def test_json_is_one_line_of_true_json(capsys):
    print_json({"text": "喜欢\n", "n": 1})
    out = capsys.readouterr().out
    assert out == '{"text": "喜欢\\n", "n": 1}\n'
    assert json.loads(out) == {"text": "喜欢\n", "n": 1}
    with pytest.raises(ValueError, match="not JSON compliant"):
        print_json({"n": float("nan")})


def test_results_keep_names_and_numbers_apart(capsys):
    show({"lr": 1.25e-5, "held_out": 4.60883, "likelihood_accuracy_by_id_gain_high": 0.0, "run": "runs/x"}, False)
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows == [["lr", "1.25e-05"], ["held_out", "4.6088"], ["likelihood_accuracy_by_id_gain_high", "0.0000"],
                    ["run", "runs/x"]]
