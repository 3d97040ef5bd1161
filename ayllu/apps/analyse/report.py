"""The report of an analysis as one self-contained HTML page: both languages, light and dark, charts without script."""

import json
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any

from ayllu.apps.analyse.charts import highlighted, over_time, plain, shares, spark, two_sides
from ayllu.explain.shell import Words, spans
from ayllu.files import write_text

HERE = Path(__file__).parent
MEASURED = HERE / "measured.json"                        # written by benchmarks/analyse.py --write
UNMEASURED = ("emotions", "spam", "insults")             # word lists; no labelled posts were at hand
PAGE = Words(HERE / "report.toml")
TOLD, WORDS, both, _section = PAGE.tables, PAGE.words, PAGE.both, PAGE.section
Table = dict[str, Any]


def write_report(summary: Table, path: Path) -> Path:
    """Make the page."""
    write_text(path, page(summary))
    return path


def measured() -> Table:
    """What benchmarks/analyse.py measured of the default: by set, accuracy, macro-F1 and calibration error."""
    found: Table = json.loads(MEASURED.read_text(encoding="utf-8"))
    return found


def page(summary: Table) -> str:
    """The whole page as text."""
    parts = (_actions, _time, _topics, _aspects, _segments, _voice, _labels, _feelings, _examples, _checks, _trust)
    return PAGE.page("".join(part(summary) for part in parts), model=_told(summary), pick=_tiles(summary))


def _bars(rows: Iterable[tuple[str, str, str]]) -> str:
    """Lines of a name, a bar and a number."""
    lines = "".join(f"<span>{name}</span>{bar}<b>{number}</b>" for name, bar, number in rows)
    return f'<div class="rows">{lines}</div>'


def _name(of: str) -> str:
    """An aspect, or a series such as "topic: price", in both languages."""
    kind, colon, rest = of.partition(": ")
    if of in TOLD["aspects"]:
        return spans(*TOLD["aspects"][of])
    if colon and kind in ("topic", "group"):
        return both(kind) + " " + _name(rest)
    return both("all") if of == "all" else escape(of)


def _told(summary: Table) -> str:
    def said(text: str) -> str:
        return both(text) if text in WORDS else escape(text)
    return " · ".join(f"{said(name)}: {said(told)}" for name, told in summary["told"].items())


def _tiles(summary: Table) -> str:
    total, n = summary["sentiment"], summary["posts"]
    shown = [(f"{n:,}", both("posts"))]
    if buckets := summary["trends"].get("buckets"):
        shown.append((f"<small>{buckets[0]}<br>{buckets[-1]}</small>", both("period")))
    shown += [(f"{total[v] / n:.0%}", f'<i class="dot {v}"></i>{both(v)}') for v in ("positive", "neutral", "negative")]
    shown.append((str(len(summary["trends"].get("changes", []))), both("changes")))
    return '<span class="tiles">' + "".join(f"<span><b>{value}</b>{name}</span>" for value, name in shown) + "</span>"


def _actions(summary: Table) -> str:
    out = []
    for action in summary["actions"]:
        name = _name(action["about"])
        said = "".join(f'<span lang="{lang}">{_put(action[lang], name)}</span>' for lang in ("en", "zh"))
        cited = "".join(_post(id_, summary["cited"][id_]) for id_ in action["posts"] if id_ in summary["cited"])
        more = f'<details><summary>{both("cited", len(action["posts"]))}</summary>{cited}</details>' if cited else ""
        out.append(f'<li class="{action["kind"]}">{said}{more}</li>')
    return _section("actions", f'<ol class="actions">{"".join(out)}</ol>' if out else "", both("actions_note"))


def _put(text: str, name: str) -> str:
    before, found, after = text.partition("{about}")
    return f"{escape(before)}<b>{name}</b>{escape(after)}" if found else escape(before)


def _post(id_: str, row: Table) -> str:
    return (f'<blockquote class="{row["sentiment"]}"><small>{escape(id_)} · {both(row["sentiment"])} · '
            f'{row["positive"]:.2f}</small>{highlighted(row["text"], row.get("why"))}</blockquote>')


def _time(summary: Table) -> str:
    trends = summary["trends"]
    if not trends:
        return ""
    where = {name: i for i, name in enumerate(trends["buckets"])}
    flags: dict[str, dict[int, str]] = {}
    for change in trends["changes"]:
        reason = f"{change['when']}: {change['what']} {_value(change, 'found')}, expected {_value(change, 'expected')}"
        flags.setdefault(change["of"], {})[where[change["when"]]] = reason
    main = over_time(trends["buckets"], trends["series"]["all"], flags.get("all", {}))
    small = "".join(f'<figure>{spark(table, flags.get(name, {}))}<figcaption>{_name(name)} '
                    f"<b>{sum(map(sum, table.values())):,}</b></figcaption></figure>"
                    for name, table in trends["series"].items() if name != "all")
    told = "".join(f"<tr><td>{escape(c['when'])}</td><td>{_name(c['of'])}</td><td>{both(c['what'])}</td>"
                   f"<td>{_value(c, 'found')}</td><td>{_value(c, 'expected')}</td><td>{c['p']:.1g}</td></tr>"
                   for c in trends["changes"][:20])
    head = "".join(f"<th>{both(key)}</th>" for key in ("when", "where", "what", "found", "expected", "chance"))
    table = f'<div class="scroll"><table class="told"><tr>{head}</tr>{told}</table></div>' if told else ""
    drawn = f'<div class="legend">{_legend()}</div><div class="scroll">{main}</div>{table}'
    return _section("time", f'{drawn}<div class="sparks">{small}</div>', both("time_note", *(WORDS[trends["unit"]])))


def _legend() -> str:
    return "".join(f'<span><i class="dot {v}"></i>{both(v)}</span>' for v in ("negative", "neutral", "positive"))


def _value(change: Table, key: str) -> str:
    return f"{change[key]:.0%}" if change["what"] == "negative share" else f"{change[key]:.0f}"


def _topics(summary: Table) -> str:
    rows, most = summary["topic"], max((row["n"] for row in summary["topic"].values()), default=1)
    return _section("topics", _bars((escape(name), shares(row, most), f"{row['n']:,}") for name, row in rows.items())
                    if rows else "", both("topics_found" if summary["found_topics"] else "topics_given"))


def _aspects(summary: Table) -> str:
    rows = {name: row for name, row in list(summary["aspect"].items())[:14] if row["n"] > 1}
    most = max((max(row["negative"], row["positive"]) for row in rows.values()), default=1)
    return _section("aspects", _bars((_name(name), two_sides(row, most), f"{row['negative']:,} : {row['positive']:,}")
                                     for name, row in rows.items()) if rows else "", both("aspects_note"))


def _segments(summary: Table) -> str:
    out = ""
    for kind in ("group", "language"):
        if len(summary[kind]) > 1:
            most = max(row["n"] for row in summary[kind].values())
            out += f"<h3>{both(kind + 's')}</h3>" + _bars(
                (escape(name) + _tops(summary, name), shares(row, most),
                 f"{row['n']:,} · {row['negative'] / row['n']:.0%}") for name, row in summary[kind].items())
    return _section("segments", out, both("segments_note"))


def _tops(summary: Table, group: str) -> str:
    tops = list(summary["topics_of_groups"].get(group, {}))[:2]
    return f"<small>{escape('; '.join(tops))}</small>" if tops else ""


def _voice(summary: Table) -> str:
    total = sum(row["n"] for row in summary["brand"].values())
    return _section("voice", _bars((escape(name), shares(row, total), f"{row['n'] / total:.0%} · {row['mean']:.2f}")
                                   for name, row in summary["brand"].items()) if total else "", both("voice_note"))


def _labels(summary: Table) -> str:
    out = ""
    for name, counts in summary["labels"].items():
        out += f"<h3>{escape(name)}</h3>" + _bars((escape(label), plain(n, max(counts.values())), f"{n:,}")
                                                 for label, n in counts.items())
    return _section("labels", out)


def _feelings(summary: Table) -> str:
    counts, phrases = summary["emotions"], list(summary["phrases"].items())[:24]
    bars = _bars((both(name), plain(n, max(counts.values())), f"{n:,}") for name, n in counts.items()) if counts else ""
    top = max((n for _, n in phrases), default=1)
    cloud = "".join(f'<span style="font-size:{0.8 + 0.7 * n / top:.2f}rem">{escape(name)} <small>{n}</small></span>'
                    for name, n in phrases)
    things = "".join(f"<span>{escape(name.partition(': ')[2])} <small>{n}</small></span>"
                     for name, n in list(summary["entities"].items())[:14])
    return _section("words", f'{bars}<h3>{both("phrases")}</h3><p class="cloud">{cloud}</p>'
                    + (f'<h3>{both("entities")}</h3><p class="cloud">{things}</p>' if things else ""),
                    both("words_note"))


def _examples(summary: Table) -> str:
    out = ""
    for name, rows in summary["examples"].items():
        verdict, language = name.split()
        if rows:
            posts = "".join(_post(row["id"], row) for row in rows[:4])
            out += f'<div><h3>{both(verdict)} · {both("in_" + language)}</h3>{posts}</div>'
    return _section("examples", f'<div class="pair">{out}</div>' if out else "", both("examples_note"))


def _checks(summary: Table) -> str:
    rows = [(key, n) for key in ("spam", "toxic", "question", "cut") if (n := summary["flags"].get(key, 0))]
    rows += [("copies", len(summary["copies"])), ("rejected", summary["rejected"]), ("undated", summary["undated"])]
    lines = "".join(f"<li>{both(key)}: <b>{n:,}</b></li>" for key, n in rows if n)
    bad = "".join(f"<tr><td>{escape(r['file'])}</td><td>{r['line']}</td><td>{escape(r['reason'])}</td></tr>"
                  for r in summary["rejects"][:20])
    copied = "".join(f"<tr><td>{row['times']}×</td><td>{escape(row['text'])}</td></tr>"
                     for row in summary["copies"][:6])
    more = "".join(f'<details><summary>{both(key)}</summary><table class="told">{cells}</table></details>'
                   for key, cells in (("copies", copied), ("rejected", bad)) if cells)
    return _section("checks", f"<ul>{lines}</ul>{more}" if lines else "")


def _trust(summary: Table) -> str:
    rows = "".join(f"<tr><td>{escape(name)}</td><td>{escape(row['language'])}</td><td>{row['accuracy']:.3f}</td>"
                   f"<td>{row['macro_f1']:.3f}</td><td>{row['calibration_error']:.3f}</td></tr>"
                   for name, row in measured().items())
    head = "".join(f"<th>{both(key)}</th>" for key in ("set", "language", "accuracy", "macro_f1", "calibration"))
    lines, law = ("".join(f"<li>{spans(*line)}</li>" for line in TOLD[part].values()) for part in ("trust", "law"))
    hidden = both("pseudonyms" if summary["pseudonyms"] else "no_pseudonyms")
    table = f'<table class="told"><tr>{head}</tr>{rows}</table>'
    return _section("trust", f"{table}<ul>{lines}<li>{hidden}</li></ul>") + _section("law", f"<ul>{law}</ul>")
