"""The run's page: everything on it comes from the run's files, and nothing in them can break it."""

import json
import math
import re

import pytest

from ayllu.cli.main import run
from ayllu.errors import ConfigError
from ayllu.train.curve import Line, chart, number, smoothed, thinned, ticks
from ayllu.train.page import page, write_page
from ayllu.train.report import add_events, open_events
from ayllu.train.story import read_story

EVIL = '<script>alert(1)</script>"&'


def write_run(folder, steps=200, final=True):
    """A run folder with every kind of row."""
    folder.mkdir(parents=True, exist_ok=True)
    model = {"dim": 32, "n_layers": 2, "n_heads": 2, "n_kv_heads": 1, "head_dim": 16, "hidden_dim": 48,
             "vocab_size": 64}
    config = {"name": EVIL, "model": model, "loop": {"steps": steps}, "samples": ["Once"], "optim": {"lr": 0.01}}
    rows = []
    for step in range(1, steps + 1):
        loss = None if step == 50 else 5 * math.exp(-step / 80) + 1
        rows.append({"step": step, "tokens": 512 * step, "seconds": 0.1 * step, "loss": loss,
                     "lr": 0.01 * (1 - step / steps), "grad_norm": 1 + 1 / step, "masks/spans": 0.5 * step / steps})
        if step == 50:
            rows.append({"step": 50, "decision": "roll back", "reason": f"loss nan {EVIL}", "batch": 49,
                         "rate_factor": 0.5})
        if step % 40 == 0:
            rows.append({"step": step, "bits_per_byte_en": 4 - step / 100, "bits_per_byte_zh": 4.5 - step / 100})
    if final:
        rows.append({"step": steps, "final": True, "bits_per_byte_en": 1.2345, "bits_per_byte_zh": 2.3456})
    files = {"config.json": json.dumps(config), "environment.json": json.dumps({"torch": "2", "ayllu": "0"}),
             "data.json": json.dumps({"tokens": 9, "tokenizer": "abc", "sources": [
                 {"path": "a.txt", "licence": EVIL, "documents": 3, "bytes": 2_000_000, "language": "en"}]}),
             "metrics.jsonl": "".join(json.dumps(r) + "\n" for r in rows),
             "samples.jsonl": json.dumps({"step": 40, "texts": [f"Once {EVIL}", "从前"]}) + "\n"}
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return rows


def test_the_page_shows_what_the_files_say(tmp_path):
    rows = write_run(tmp_path)
    html = page(read_story(tmp_path))
    for expected in ("1.2345", "2.3456", "roll back", "回退", "masks", "spans", "2.00", "从前", "200 / 200"):
        assert expected in html
    drawn = [json.loads(text.replace("&quot;", '"')) for text in re.findall(r'data-points="([^"]*)"', html)]
    losses = dict(drawn[0]["lines"][0])
    assert losses == {r["step"]: number(math.nan if r["loss"] is None else r["loss"]) for r in rows if "loss" in r}


def test_the_page_names_no_path_of_the_machine(tmp_path):
    """It is made to be sent to others; the run's own name is enough."""
    write_run(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "folder": str(tmp_path / "recipes")}))
    html = page(read_story(tmp_path))
    assert f"{tmp_path.name}/config.json" in html
    assert str(tmp_path) not in html


def test_the_page_needs_no_network_and_text_stays_text(tmp_path):
    write_run(tmp_path)
    html = page(read_story(tmp_path))
    assert "alert(1)</script>" not in html
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//|url\(|@import""", html)


def test_both_languages_say_the_same_things(tmp_path):
    write_run(tmp_path)
    html = page(read_story(tmp_path))
    assert html.count('<span lang="en">') == html.count('<span lang="zh">') > 20


def test_a_run_that_has_just_begun_or_was_killed_has_a_page(tmp_path):
    write_run(tmp_path, steps=3, final=False)
    with open(tmp_path / "metrics.jsonl", "a", encoding="utf-8") as stream:
        stream.write('{"step": 4, "lo')
    assert "not finished" in page(read_story(tmp_path))
    for name in ("metrics.jsonl", "samples.jsonl", "data.json", "environment.json"):
        (tmp_path / name).unlink()
    assert "not finished" in page(read_story(tmp_path))


def test_a_folder_without_a_run_is_named(tmp_path, capsys):
    with pytest.raises(ConfigError, match="holds no run"):
        write_page(tmp_path)
    assert run(["report", str(tmp_path)], False) == 2
    (tmp_path / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(ConfigError, match="is damaged"):
        write_page(tmp_path)


def test_the_command_writes_where_it_is_told(tmp_path, capsys):
    write_run(tmp_path / "run")
    assert run(["report", str(tmp_path / "run"), "--out", str(tmp_path / "page.html"), "--json"], False) == 0
    assert json.loads(capsys.readouterr().out) == {"out": str(tmp_path / "page.html")}
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == page(read_story(tmp_path / "run"))


def test_thinning_keeps_every_spike():
    points = [(float(i), 1.0) for i in range(10_000)]
    points[4321] = (4321.0, 99.0)
    thin = thinned(points)
    assert len(thin) <= 600
    assert (4321.0, 99.0) in thin


def test_smoothing_is_the_plain_average_weighted_by_age():
    values = [3.0, 1.0, 2.0]
    weights = [0.95**2, 0.95, 1.0]
    expected = sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)
    assert smoothed([(i, v) for i, v in enumerate(values)])[-1][1] == pytest.approx(expected)
    assert math.isnan(smoothed([(0, 1.0), (1, math.nan)])[1][1])


@pytest.mark.parametrize(("low", "high", "logarithmic"), [(0, 1, False), (0.97, 1.03, False), (0, 12_345, False),
                                                           (1e-4, 30.0, True), (2.0, 2.5, True)])
def test_ticks_are_round_and_inside(low, high, logarithmic):
    found = ticks(low, high, logarithmic=logarithmic)
    assert 2 <= len(found) <= 6
    assert all(low <= t <= high for t in found)


def test_a_chart_of_one_point_or_none():
    assert chart("t", [Line("a", [], "c0")]) == ""
    assert chart("t", [Line("a", [(1.0, math.nan)], "c0")]) == ""
    assert "<path" in chart("t", [Line("a", [(1.0, 2.0)], "c0")])


def test_tensorboard_gets_the_rows(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = open_events(tmp_path, 0)
    for step, loss in ((1, 3.0), (2, 2.5)):
        add_events(events, {"step": step, "loss": loss})
    add_events(events, {"step": 2, "decision": "shrink", "reason": "why"})
    events.close()
    found = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    assert [(e.step, e.value) for e in found.Scalars("loss")] == [(1, 3.0), (2, 2.5)]
