"""benchmarks/long_context.py: keys are hidden and weighed where they should be; tables find their place."""

import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = str(Path(__file__).parents[1] / "benchmarks")
sys.path.append(BENCHMARKS)
import long_context  # noqa: E402
import passkey_model  # noqa: E402

sys.path.remove(BENCHMARKS)
TEXT = bytes(97 + i % 26 for i in range(3000))


@pytest.mark.parametrize("depth", [0.0, 0.3, 1.0])
def test_a_key_stands_at_its_depth_and_is_asked_for_at_the_end(depth):
    prompt, told = passkey_model.hide(TEXT[:1000], 48213, depth)
    assert prompt[told:told + 5] == b"48213"
    assert told == round(depth * 1000) + len(" The pass key is ")
    assert prompt.count(b"48213") == 1
    assert prompt.endswith(b"The pass key is ")
    assert len(passkey_model.prompt_of(TEXT, 500, 48213, depth, 7)) == 500


def test_rows_weigh_the_answer_and_not_the_key_where_it_is_first_told():
    batches = passkey_model.Hidden(TEXT, ((2, 128, 3), (2, 256, 2)), seed=1)
    shapes = {tuple(batches.batch(step).ids.shape) for step in range(4)}
    assert shapes <= {(3, 128), (2, 256), (4, 128)}
    rows = batches.batch(1)
    assert torch.equal(rows.ids, batches.batch(1).ids)                        # a function of the step
    assert torch.equal(rows.ids[:, 1:], rows.labels[:, :-1])
    for labels, weights in zip(rows.labels, rows.weights, strict=True):
        key = bytes(labels[-5:].tolist())
        assert key.isdigit()
        assert bytes(labels[weights == 0].tolist()) == key
        assert weights[-5:].tolist() == [passkey_model.ANSWER_WEIGHT] * 5


def test_the_worst_cell_and_the_place_of_a_table(tmp_path):
    rows = [{"way": way, "length": n, "step_ms": step, "prompt_ms": prompt} for way, n, step, prompt in (
        ("pages", 512, 2.0, 1.0), ("transformers", 512, 5.0, 1.5), ("pages", 1024, 3.0, 1.0),
        ("transformers", 1024, 6.0, 1.2))]
    assert long_context.worst_ratio(rows) == (1.2, "1024 tokens, prompt token")
    page = tmp_path / "long-context.zh-CN.md"
    page.write_text("a\n<!-- long_context.py: cost -->\nold\n<!-- end -->\nb\n", encoding="utf-8")
    long_context.put(page, "cost", "| context | way |")
    long_context.put(page, "loss", "nowhere")
    assert page.read_text(encoding="utf-8") == \
        "a\n<!-- long_context.py: cost -->\n| 上下文 | 方式 |\n<!-- end -->\nb\n"
