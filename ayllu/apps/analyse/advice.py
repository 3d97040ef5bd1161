"""What may be done: rules over the numbers, each with what it stands on and the posts to read. A person decides."""

from collections.abc import Iterator
from typing import Any

from ayllu.apps.analyse.trends import Change, discovered, fisher

LEAST = 5                                                # mentions that an action stands on
MOST = 12                                                # actions


def advise(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """Actions in both languages, those that concern most posts first within each kind."""
    found = [*_repair(summary), *_changed(summary), *_segments(summary), *_praise(summary), *_answer(summary),
             *_clean(summary)]
    return found[:MOST]


def _action(kind: str, n: int, posts: list[str], english: str, chinese: str, about: str = "") -> dict[str, Any]:
    return {"kind": kind, "about": about, "n": n, "posts": posts, "en": english, "zh": chinese}


def _repair(summary: dict[str, Any]) -> Iterator[dict[str, Any]]:
    bad = [(name, row) for name, row in summary["aspect"].items()
           if row["n"] >= LEAST and row["negative"] > row["n"] * 0.5]
    for name, row in sorted(bad, key=lambda one: -one[1]["negative"])[:4]:
        yield _action("repair", row["negative"], row["posts"].get("negative", []),
                      f"Look into {{about}}: {row['negative']:,} of {row['n']:,} opinions are negative.",
                      f"检查{{about}}：{row['n']:,} 条看法中有 {row['negative']:,} 条是负面的。", name)


def _praise(summary: dict[str, Any]) -> Iterator[dict[str, Any]]:
    good = [(name, row) for name, row in summary["aspect"].items()
            if row["n"] >= LEAST and row["positive"] > row["n"] * 0.7]
    for name, row in sorted(good, key=lambda one: -one[1]["positive"])[:2]:
        yield _action("praise", row["positive"], row["posts"].get("positive", []),
                      f"Speak of {{about}} in advertising: {row['positive']:,} of {row['n']:,} opinions are positive. "
                      "Ask the authors before you quote them.",
                      f"宣传时可以突出{{about}}：{row['n']:,} 条看法中有 {row['positive']:,} 条是正面的。"
                      "引用前请征得作者同意。", name)


def _changed(summary: dict[str, Any]) -> Iterator[dict[str, Any]]:
    changes = summary["trends"].get("changes", [])
    for change in [c for c in changes if c["found"] > c["expected"]][:3]:
        if change["what"] == "posts":
            yield _action("change", int(change["found"]), change["posts"],
                          f"Find out what happened at {change['when']} ({{about}}): {change['found']:.0f} posts, about "
                          f"{change['expected']:.0f} were expected.",
                          f"查明 {change['when']} 发生了什么（{{about}}）：{change['found']:.0f} 条，预期约 "
                          f"{change['expected']:.0f} 条。", change["of"])
        else:
            yield _action("change", 0, change["posts"],
                          f"Find out what went wrong at {change['when']} ({{about}}): {change['found']:.0%} negative, "
                          f"{change['expected']:.0%} before.",
                          f"查明 {change['when']} 出了什么问题（{{about}}）：负面占 {change['found']:.0%}，此前为 "
                          f"{change['expected']:.0%}。", change["of"])


def _segments(summary: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Groups that are less content than all others together, by Fisher's exact test; false alarms held as in trends."""
    groups, total = summary["group"], summary["sentiment"]
    tests = [Change(name, "negative share", 0, row["negative"] / row["n"],
                    (total["negative"] - row["negative"]) / (total["n"] - row["n"]),
                    fisher(row["negative"], row["n"], total["negative"] - row["negative"], total["n"] - row["n"]))
             for name, row in groups.items() if LEAST <= row["n"] < total["n"]]
    for change in [c for c in discovered(tests, 0.05) if c.found > c.expected][:2]:
        row = groups[change.of]
        yield _action("segment", row["negative"], row["posts"].get("negative", []),
                      f"Ask the group {{about}}: {change.found:.0%} of its posts are negative, {change.expected:.0%} "
                      "of the others.",
                      f"了解“{{about}}”群体：其负面占 {change.found:.0%}，其他为 {change.expected:.0%}。", change.of)


def _answer(summary: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if (n := summary["flags"].get("question", 0)) >= LEAST:
        yield _action("answer", n, summary["flagged"]["question"], f"Answer the {n:,} posts that end with a question.",
                      f"回答 {n:,} 条以问句结尾的帖子。")


def _clean(summary: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if n := summary["flags"].get("spam", 0):
        yield _action("spam", n, summary["flagged"]["spam"], f"Check {n:,} posts that look like advertising.",
                      f"核对 {n:,} 条疑似广告的帖子。")
    if n := summary["flags"].get("toxic", 0):
        yield _action("toxic", n, summary["flagged"]["toxic"],
                      f"Let a person read {n:,} posts with insults or threats.",
                      f"请人工阅读 {n:,} 条含辱骂或威胁的帖子。")
    if summary["copies"]:
        row = summary["copies"][0]
        yield _action("copies", row["times"], [row["id"]],
                      f"One text was posted {row['times']:,} times: a campaign, or a template.",
                      f"同一段文字被发布 {row['times']:,} 次：可能是刷评或模板。")
