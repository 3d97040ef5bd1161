"""What a model makes of 40 briefs, 20 in English and 20 in Chinese, by the checks of `ayllu write`.

    python benchmarks/write.py --json write.json
    python benchmarks/write.py --model FOLDER --length 300
    python benchmarks/write.py --quick

Each brief has two points that must be covered. It counts, with 95 % intervals over the briefs: texts that reach 80 to
125 % of their length, points that are spoken of, runs of four words that stood before, texts in which a sentence comes
again, outlines that the model gave itself, and texts that meet all checks. None of this says that a text is good: a
person has to read it. --out keeps the texts.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from ayllu.apps.speaker import Answer, LocalSpeaker, Speaker
from ayllu.apps.write.brief import Brief
from ayllu.apps.write.checks import check
from ayllu.apps.write.compose import compose, plan
from ayllu.evaluate.intervals import bootstrap_mean

KINDS = ("article", "story", "poem", "product", "post", "dialogue")
BRIEFS = {
    "en": {"The sea in winter": "storms; cold water", "A fox and a river": "a bridge; the other side",
           "Why we sleep": "memory; children", "A lost key": "an old door; the neighbour",
           "Solar power at home": "cost; batteries", "Learning to cook": "simple meals; mistakes",
           "The first day at school": "a friend; the teacher", "Trees in the city": "shade; clean air",
           "A letter from the moon": "silence; the earth", "Working from home": "focus; breaks",
           "The history of bread": "grain; ovens", "A rainy day": "the window; tea", "Saving water": "showers; gardens",
           "The night train": "strangers; a song", "Walking every day": "health; nature",
           "An honest merchant": "a trick; trust", "Music and mood": "memories; rhythm",
           "The smallest bird": "the wind; courage", "A garden on the roof": "soil; vegetables",
           "Reading with children": "pictures; patience"},
    "zh": {"未来科技": "机器人; 生活", "冬天的大海": "风浪; 渔船", "狐狸和河": "小桥; 对岸",
           "为什么要睡觉": "记忆; 孩子", "丢失的钥匙": "旧门; 邻居", "家里的太阳能": "费用; 电池",
           "学做饭": "简单的菜; 错误", "上学第一天": "朋友; 老师",
           "城市里的树": "树荫; 空气", "月亮来信": "安静; 地球", "在家工作": "专心; 休息", "面包的历史": "粮食; 烤炉",
           "下雨天": "窗户; 茶", "节约用水": "洗澡; 花园", "夜行列车": "陌生人; 歌", "每天走路": "健康; 自然",
           "诚实的商人": "骗局; 信任", "音乐与心情": "回忆; 节奏", "最小的鸟": "风; 勇气", "屋顶花园": "泥土; 蔬菜"},
}


def briefs(length: int, n: int) -> list[Brief]:
    """The first n of each language, the kinds in turn."""
    return [Brief(topic=topic, kind=(kind := KINDS[i % len(KINDS)]), length=length, points=tuple(points.split(";")),
                  sections=2 if kind in ("article", "story", "dialogue") else 1)
            for of_language in BRIEFS.values() for i, (topic, points) in enumerate(list(of_language.items())[:n])]


def measure(brief: Brief, speaker: Speaker, seed: int) -> dict[str, Any]:
    """One text and its checks."""
    begun = time.perf_counter()
    headings = plan(brief, speaker, seed)
    plain = plan(brief, Silent(), seed)                  # what a model that gives no outline gets
    *_, last = compose(brief, speaker, seed=seed, outline=headings)
    report = check(last.text, brief)
    return {"topic": brief.topic, "kind": brief.kind, "language": brief.tongue, "text": last.text,
            "seconds": time.perf_counter() - begun, "length": "length" not in report.faults,
            "share": report.length / report.target, "repetition": report.repetition, "again": bool(report.repeated),
            "points": sum(p["covered"] for p in report.points) / len(report.points),
            "outline": None if len(headings) == 1 else headings != plain, "met": not report.faults}


class Silent:
    """A speaker without an outline."""

    def room(self, messages: Any) -> int:
        """Enough."""
        return 1000

    def answers(self, prompts: Any, **options: Any) -> list[Answer]:
        """Nothing."""
        return [Answer("", "stop", 0, 0) for _ in prompts]


def table(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One line for each language, and for both."""
    found = []
    for name in ("en", "zh", "both"):
        of = [row for row in rows if name in (row["language"], "both")]
        line: dict[str, Any] = {"language": name, "n": len(of)}
        for key in ("length", "points", "repetition", "again", "outline", "met"):
            values = [float(row[key]) for row in of if row[key] is not None]
            interval = bootstrap_mean(values)
            line[key] = [round(v, 3) for v in (interval.value, interval.low, interval.high)]
        found.append(line)
    return found


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="ayllu-mini-chat")
    parser.add_argument("--length", type=int, default=300, help="words, in Chinese characters")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="three briefs of each language")
    parser.add_argument("--json", type=Path, help="keep the figures")
    parser.add_argument("--out", type=Path, help="keep the texts, JSON Lines")
    args = parser.parse_args()
    speaker = LocalSpeaker.load(args.model)
    rows = []
    for number, brief in enumerate(briefs(args.length, 3 if args.quick else 20)):
        rows.append(measure(brief, speaker, args.seed + 10_000 * number))
        print(f"{brief.topic}: {rows[-1]['share']:.0%} of the length, {rows[-1]['seconds']:.1f} s", flush=True)
    lines = table(rows)
    print("\nlanguage  length reached   points covered   runs repeated    a sentence again  own outline      all met")
    for line in lines:
        print(f"{line['language']:8s}  " + "  ".join(f"{v:.0%} [{low:.0%}, {high:.0%}]".ljust(15) for v, low, high in (
            line[key] for key in ("length", "points", "repetition", "again", "outline", "met"))))
    if args.out:
        args.out.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    if args.json:
        args.json.write_text(json.dumps({"model": args.model, "length": args.length, "rows": lines}, indent=1))


if __name__ == "__main__":
    main()
