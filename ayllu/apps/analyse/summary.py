"""All posts together: counts, trends, aspects, segments, voices and examples, in two passes over the store."""

from array import array
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from ayllu.apps.analyse.config import Analysis
from ayllu.apps.analyse.reading import SPAM, TOXIC
from ayllu.apps.analyse.store import Row, Store
from ayllu.apps.analyse.trends import PERIODS, Buckets, changes, named

VERDICTS = ("negative", "neutral", "positive")
EXAMPLES, CITED, MOST_KEPT = 6, 8, 30_000                # posts shown, ids cited, different phrases that are counted
SERIES = 8                                               # topics and groups that have a series of their own


@dataclass
class Tally:
    """What is known of a set of posts."""

    n: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    positive: float = 0.0                                # the sum of probabilities
    ids: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, verdict: str, p: float, id_: str) -> None:
        """One post, or one mention."""
        self.n += 1
        self.verdicts[verdict] += 1
        self.positive += p
        if len(self.ids[verdict]) < CITED:
            self.ids[verdict].append(id_)

    def table(self) -> dict[str, Any]:
        """For JSON."""
        return {"n": self.n, **{name: self.verdicts[name] for name in VERDICTS},
                "mean": round(self.positive / max(self.n, 1), 4), "posts": dict(self.ids)}


@dataclass
class Gathering:
    """All tallies of a run."""

    neutral: float
    buckets: Buckets | None
    all: Tally = field(default_factory=Tally)
    tallies: dict[str, dict[str, Tally]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(Tally)))
    counts: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    series: dict[str, Counter[tuple[int, str]]] = field(default_factory=lambda: defaultdict(Counter))
    flagged: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    examples: dict[str, list[tuple[float, Row]]] = field(default_factory=lambda: defaultdict(list))

    def add(self, row: Row) -> None:
        """One post."""
        p, verdict, id_, topics = row["positive"], row["sentiment"], row["id"], _topics(row)
        self.all.add(verdict, p, id_)
        bucket = self.buckets.of(row["time"]) if self.buckets and row["time"] is not None else None
        for kind, names in (("language", [row["language"]]), ("group", [row["group"]] if row["group"] else []),
                            ("topic", topics), ("brand", row.get("brands", []))):
            for name in names:
                self.tallies[kind][name].add(verdict, p, id_)
                if bucket is not None and kind in ("topic", "group"):
                    self.series[f"{kind}: {name}"][bucket, verdict] += 1
                if kind == "topic" and row["group"]:
                    self.counts[f"topics of {row['group']}"][name] += 1
        if bucket is not None:
            self.series["all"][bucket, verdict] += 1
        for name, value in row["aspects"].items():
            self.tallies["aspect"][name].add(_verdict(value, self.neutral), value, id_)
        self._count(row, topics)
        self._keep(row, p)

    def _count(self, row: Row, topics: list[str]) -> None:
        if row["emotions"]:
            self.counts["emotion"][max(row["emotions"], key=lambda name: row["emotions"][name])] += 1
        self.counts["phrase"].update(row["phrases"])
        self.counts["entity"].update(f"{kind}: {what}" for kind, what in row["entities"] if kind != "url")
        for name in ("phrase", "entity"):
            if len(self.counts[name]) > MOST_KEPT:       # so that memory stays flat; rare ones are counted anew
                self.counts[name] = Counter(dict(self.counts[name].most_common(MOST_KEPT // 3)))
        for name, (label, _) in row["labels"].items():
            self.counts[f"label {name}"][label] += 1
        for flag, is_so in (("spam", row["spam"] >= SPAM), ("toxic", row["toxic"] >= TOXIC), ("cut", "is_cut" in row),
                            ("question", row["text"].rstrip().endswith(("?", "？")))):
            if is_so:
                self.counts["flag"][flag] += 1
                if len(self.flagged[flag]) < CITED:
                    self.flagged[flag].append(row["id"])

    def _keep(self, row: Row, p: float) -> None:
        """The clearest posts of readable length, each text once."""
        if not 15 <= len(row["text"]) <= 400 or row["spam"] >= SPAM:
            return
        size = min(1.0, len(row["text"]) / (60 if row["language"] == "zh" else 120))
        for name, clear in (("negative", 1 - p), ("positive", p), ("unclear", 0.5 - abs(p - 0.5))):
            worth = clear * size
            kept = self.examples[f"{name} {'zh' if row['language'] == 'zh' else 'other'}"]
            if len(kept) >= EXAMPLES and worth <= kept[-1][0]:
                continue
            if any(other["text"] == row["text"] for _, other in kept):
                continue
            kept.append((worth, row))
            kept.sort(key=lambda one: -one[0])
            del kept[EXAMPLES:]


def summarise(store: Store, settings: Analysis, told: dict[str, str]) -> dict[str, Any]:
    """All of a run as one table for JSON."""
    times = array("d", (row["time"] for _, row in store.rows() if row["time"] is not None))
    buckets, last = _buckets(times, settings)
    found = Gathering(settings.neutral, buckets)
    for _, row in store.rows():
        found.add(row)
    rejects, left_out = store.rejects(), store.left_out()
    return {
        "posts": found.all.n, "sentiment": found.all.table(), "told": told,
        "rejected": sum(left_out.values()), "left_out": left_out,
        "rejects": [{"file": r.file, "line": r.line, "reason": r.reason} for r in rejects],
        **{kind: {name: tally.table()
                  for name, tally in sorted(found.tallies[kind].items(), key=lambda x: -x[1].n)[:most]}
           for kind, most in (("language", 12), ("group", 30), ("topic", 30), ("brand", 30), ("aspect", 30))},
        "topics_of_groups": {name.removeprefix("topics of "): dict(count.most_common(3))
                             for name, count in found.counts.items() if name.startswith("topics of ")},
        "labels": {name.removeprefix("label "): dict(count.most_common()) for name, count in found.counts.items()
                   if name.startswith("label ")},
        **{key: dict(found.counts[name].most_common(most)) for key, name, most in
           (("emotions", "emotion", 6), ("phrases", "phrase", 40), ("entities", "entity", 40), ("flags", "flag", 9))},
        "flagged": dict(found.flagged), "copies": _copies(store),
        "examples": {name: [row for _, row in kept] for name, kept in sorted(found.examples.items())},
        "trends": _behind(store, _trends(found, buckets, last, settings), buckets), "undated": found.all.n - len(times),
        "pseudonyms": settings.pseudonyms}


def _verdict(p: float, neutral: float) -> str:
    return "neutral" if abs(p - 0.5) < neutral else "positive" if p > 0.5 else "negative"


def _buckets(times: array, settings: Analysis) -> tuple[Buckets | None, float]:
    """The buckets and the last moment; a few dates far from all others (such as 1970) don't stretch them."""
    ranked = sorted(times)
    if len(ranked) < 2 or ranked[0] == ranked[-1]:
        return None, 0.0
    low, high = ranked[len(ranked) // 100], ranked[-1 - len(ranked) // 100]
    first, last = (low, high) if ranked[-1] - ranked[0] > 3 * max(high - low, 86400) else (ranked[0], ranked[-1])
    return Buckets.over(first, last, len(ranked), settings.unit), last


def _trends(found: Gathering, buckets: Buckets | None, last: float, settings: Analysis) -> dict[str, Any]:
    if buckets is None:
        return {}
    n = buckets.of(last) + 1
    largest = sorted(found.series, key=lambda name: (name != "all", -sum(found.series[name].values())))
    kept = ["all", *(name for kind in ("topic", "group") for name in
                     [one for one in largest if one.startswith(kind)][:SERIES])]
    series = {name: {verdict: [found.series[name][i, verdict] for i in range(n)] for verdict in VERDICTS}
              for name in kept if name in found.series}
    whole = n - buckets.is_open(last)                    # a bucket that isn't over would seem to have too few
    tested = {name: ([sum(table[v][i] for v in VERDICTS) for i in range(whole)], table["negative"][:whole])
              for name, table in series.items()}
    return {"unit": buckets.unit, "buckets": [buckets.name(i) for i in range(n)], "series": series,
            "last_is_open": whole < n, "changes": [named(c, buckets) for c in changes(tested, settings.false_alarms,
                                                                PERIODS.get(buckets.unit, 1))]}


def _behind(store: Store, trends: dict[str, Any], buckets: Buckets | None) -> dict[str, Any]:
    """The trends with the posts that each change stands on: of a share of negative posts the negative ones."""
    changes = trends.get("changes", ())
    for _, row in store.rows() if changes else ():
        when = buckets.name(buckets.of(row["time"])) if buckets and row["time"] is not None else None
        series = {"all", f"group: {row['group']}", *(f"topic: {topic}" for topic in _topics(row))}
        for change in changes:
            is_of = change["when"] == when and change["of"] in series
            if is_of and (change["what"] == "posts" or row["sentiment"] == "negative") and len(change["posts"]) < CITED:
                change["posts"].append(row["id"])
    return trends


def _topics(row: Row) -> list[str]:
    return row.get("topics") or ([row["found_topic"]] if "found_topic" in row else [])


def _copies(store: Store) -> list[dict[str, Any]]:
    rows = store.copies()
    firsts = {first for _, first in rows}
    texts = {n: row for n, row in store.rows() if n in firsts} if rows else {}
    return [{"times": times, "id": texts[first]["id"], "text": texts[first]["text"][:200]} for times, first in rows]


def cite(store: Store, summary: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The posts that actions name, by id: so that a reader has them at hand."""
    wanted = {id_ for action in summary["actions"] for id_ in action["posts"]}
    out: dict[str, dict[str, Any]] = {}
    for _, row in store.rows() if wanted else ():
        if row["id"] in wanted and row["id"] not in out:
            out[row["id"]] = {key: row.get(key) for key in ("text", "why", "sentiment", "positive")}
    return out
