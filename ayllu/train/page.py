"""A run's report as one self-contained HTML page: no outside resource, both languages, light and dark, any width."""

from collections import Counter
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any

from ayllu.explain.shell import Words, spans
from ayllu.files import write_text
from ayllu.train.curve import Line, Mark, chart, number, smoothed
from ayllu.train.story import Row, Story, read_story

WORDS = Words(Path(__file__).with_name("report.toml"))
ACTIONS, _both, _section = WORDS.tables["actions"], WORDS.both, WORDS.section
MOST_ROWS = 60                                           # decisions shown
MOST_LOOKS = 12                                          # evaluations and samples shown, evenly chosen
BITS = "bits_per_byte_"
ROWS = ("rows", "kept", "kept_held_out", "bad_rows", "too_long", "split", "parts_without_answer", "teach_the_end")


def write_page(run: Path, out: Path | None = None) -> Path:
    """Make `report.html` of a run folder, whatever the run has come to."""
    path = out or run / "report.html"
    write_text(path, page(read_story(run)))
    return path


def page(story: Story) -> str:
    """The whole page as text."""
    parts = (_curves, _results, _decisions, _samples, _data, _settings)
    return WORDS.page("".join(part(story) for part in parts), name=str(story.config.get("name", story.run.name)),
                      model=_status(story), pick=_tiles(story))


def _table(head: Iterable[str], rows: Iterable[Iterable[str]], look: str = "") -> str:
    top = "".join(f"<th>{cell}</th>" for cell in head)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="scroll"><table class="plain {look}"><tr>{top}</tr>{body}</table></div>'


def _evenly(items: list[Any], most: int = MOST_LOOKS) -> list[Any]:
    """The first, the last, and others between them."""
    if len(items) <= most:
        return items
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def _status(story: Story) -> str:
    machine = [story.environment[k] for k in ("device", "platform") if k in story.environment]
    facts = [_both("done" if story.final else "open"), *(escape(str(fact)) for fact in machine),
             escape(f"ayllu {story.environment.get('ayllu', '?')}, torch {story.environment.get('torch', '?')}")]
    return " · ".join(facts)


def _tiles(story: Story) -> str:
    last = story.trained[-1] if story.trained else {}
    shown: list[tuple[str, str]] = []
    if (parameters := story.parameters()) is not None:
        shown.append((_both("parameters"), number(parameters)))
    if last:
        of = story.config.get("loop", {}).get("steps", last["step"])
        shown += [(_both("steps"), f"{last['step']:,} / {of:,}"), (_both("tokens"), number(last["tokens"])),
                  (_both("hours"), f"{last['seconds'] / 3600:.2f}")]
    results = story.final or (story.evaluations[-1] if story.evaluations else {})
    shown += [(_both("bits", key.removeprefix(BITS)), f"{value:.3f}") for key, value in results.items()
              if key.startswith(BITS) and value is not None]
    if (starts := len(story.environment.get("starts", []))) > 1:
        shown.append((_both("starts"), str(starts)))
    return '<span class="tiles">' + "".join(f"<span><b>{value}</b>{name}</span>" for name, value in shown) + "</span>"


def _named(action: str) -> str:
    return spans(action, ACTIONS.get(action) or action)


def _look(action: str) -> str:
    return "do-" + action.replace(" ", "-")


def _curves(story: Story) -> str:
    marks = [Mark(row["step"], _look(row["decision"]), f"{row['step']}: {row['decision']}: {row['reason']}")
             for row in story.decisions]
    counts = Counter(row["decision"] for row in story.decisions)
    legend = "".join(f'<span class="key {_look(action)}"><i></i>{_named(action)} '
                     f"<output>{n}</output></span>" for action, n in counts.items())
    loss, norm = story.points("loss"), story.points("grad_norm")
    held = [Line(escape(key.removeprefix(BITS)), story.points(key), f"c{i % 5}")
            for i, key in enumerate(story.keys(BITS, "held_out"))]
    masks = [Line(escape(key.removeprefix("masks/")), story.points(key), f"c{i % 5}")
             for i, key in enumerate(k for k in story.keys("masks/") if k != "masks/loss")]    # no share
    return _section("curves", '<div class="charts">' + "".join((
        chart(_both("loss"), [Line(_both("each"), loss, "faint"), Line(_both("smooth"), smoothed(loss), "c0")], marks,
              legend),
        chart(_both("held_out" if story.keys(BITS) else "held_out_loss"), held),
        chart(_both("rate"), [Line("", story.points("lr"), "c0")], marks, from_zero=True),
        chart(_both("norm"), [Line(_both("each"), norm, "faint"), Line(_both("smooth"), smoothed(norm), "c1")],
              logarithmic=True),
        chart(_both("masks"), masks, from_zero=True),
        chart(_both("speed"), [Line("", story.throughput(), "c2")], from_zero=True))) + "</div>"
        ) if story.trained else ""


def _results(story: Story) -> str:
    rows = _evenly(story.evaluations) + ([story.final] if story.final else [])
    keys = sorted({key for row in rows for key in row} - {"step", "final"})
    cells = [[(_both("final") if "final" in row else f"{row['step']:,}"), *(_value(row, key) for key in keys)]
             for row in rows]
    head = [_both("step"), *(escape(key.replace("_", " ")) for key in keys)]
    return _section("results", _table(head, cells) if rows else "", _both("results_note"))


def _value(row: Row, key: str) -> str:
    value = row.get(key)
    return f"{value:.4f}" if isinstance(value, float) else escape("–" if value is None else str(value))


def _decisions(story: Story) -> str:
    shown = story.decisions[:MOST_ROWS]
    rows = [[f"{row['step']:,}", f'<span class="key {_look(row["decision"])}"><i></i>'
             f'{_named(row["decision"])}</span>', escape(row["reason"])]
            for row in shown]
    left = len(story.decisions) - len(shown)
    more = f"<p class='dim'>{_both('decisions_left', left)}</p>" if left else ""
    table = _table((_both("step"), "", ""), rows, "words")
    return _section("decisions", table + more if rows else "", _both("decisions_note"))


def _samples(story: Story) -> str:
    shown = _evenly(story.samples)
    return _section("samples", "".join(
        f'<details{" open" if row is shown[-1] else ""}><summary>{_both("step")} {row["step"]:,}</summary>'
        + "".join(f"<blockquote>{_sample(text, story)}</blockquote>" for text in row["texts"]) + "</details>"
        for row in shown))


def _sample(text: str, story: Story) -> str:
    for prompt in story.config.get("samples", ()):
        if text.startswith(prompt):
            return f"<b>{escape(prompt)}</b>{escape(text[len(prompt):])}"
    return escape(text)


def _data(story: Story) -> str:
    head = [_both(key) for key in ("source", "language", "licence", "documents", "megabytes", "epochs")]
    rows = [[escape(str(s.get("path", "?"))), escape(str(s.get("language", "?"))),
             escape(s["licence"]) if s.get("licence") else _both("no_licence"), f"{s.get('documents', 0):,}",
             f"{s.get('bytes', 0) / 1e6:.2f}", f"{s.get('epochs', 1):g}"] for s in story.data.get("sources", [])]
    tokenizer = str(story.data.get("tokenizer", "?"))
    note = _both("data_note", story.data.get("tokens", 0), tokenizer if len(tokenizer) < 40 else tokenizer[:16] + "…")
    return _section("data", _table(head, rows) + _rows_of(story) if rows else "", note)


def _rows_of(story: Story) -> str:
    """Of conversations: what became of the rows, and the first of those that were left out."""
    found = story.data.get("rows")
    if not found:
        return ""
    left = story.data.get("left_out", [])
    shown = [[f"{escape(row['file'])}, {row['row']}", escape(row["reason"])] for row in left[:MOST_ROWS]]
    counted = _table(tuple(_both(f"row_{key}") for key in ROWS if key in found),
                     [[f"{found[key]:,}" for key in ROWS if key in found]])
    return counted + (f"<details><summary>{_both('left_out', len(left))}</summary>"
                      f"{_table((_both('row'), _both('why')), shown, 'words')}</details>" if left else "")


def _settings(story: Story) -> str:
    rules = story.config.get("sized") or {}
    kept = {k: v for k, v in story.config.items() if k not in ("sized", "folder")}   # no path: pages are sent to others
    flat = dict(_flat(kept))
    rows = [[f"<code>{escape(key)}</code>", escape(str(value)), escape(str(rules.get(key, "")))]
            for key, value in flat.items() if value is not None and not key.startswith("data.sources")]
    machine = [[f"<code>{escape(key)}</code>", escape(str(value)), ""] for key, value in story.environment.items()]
    method = escape(str(story.config.get("method", "pretrain")))
    note = f"{_both('settings_note')}<code>ayllu {method} {escape(f'{story.run.name}/config.json')} out=…</code>"
    return _section("settings", f"<details><summary>{len(rows)} {_both('settings')}</summary>"
                    f"{_table(('', '', ''), rows, 'words')}</details><details><summary>{_both('machine')}</summary>"
                    f"{_table(('', '', ''), machine, 'words')}</details>", note)


def _flat(table: dict[str, Any], before: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value
