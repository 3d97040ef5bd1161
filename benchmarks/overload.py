"""What a server still answers in time when far more is asked than it can do; no peer, a property of ours.

    python benchmarks/overload.py [--quick] [--seconds 30] [--json FILE]

Requests for 64 tokens come at random times (Poisson), at several loads up to twice what a closed loop of 64 streams
found possible, and then at ten times that. Goodput is the tokens per second of finished answers whose first token came
within 2 s. The same generator makes both loads, on the same two cores. Then it stops, and one request a second tells
how soon the first token comes as fast as on the idle server before (twice as long at most). Memory is the server's own
resident size. Goals: 90 % of the best goodput at ten times the load, no more than 5 % more memory than after the
load that it can carry, and normal again within 5 s.
"""

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from peers import machine
from serve import Server, start, write_models
from serve_load import Answer, Connections, Load, figures, offer, prompts, run

TOKENS, LATEST_S = 64, 2.0
LOADS = (0.5, 0.75, 1.0, 1.5, 2.0)                       # of what the closed loop did


async def _arrivals(url: str, fields: dict[str, Any], rate: float, seconds: float) -> list[tuple[Answer, float]]:
    """Requests at random times over kept connections, as many as are needed, and when each answer ended."""
    rng, found, tasks = random.Random(1), list[tuple[Answer, float]](), set[asyncio.Task[None]]()
    texts, connections = [row[0] for row in prompts(Load(512, 1), seed=3)], Connections(url)

    async def one(number: int) -> None:
        answer = Answer(time.perf_counter())
        body = {"prompt": f"{number} {texts[number % len(texts)]}", "max_tokens": TOKENS, "temperature": 0,
                "stream": True, "stream_options": {"include_usage": True}, **fields}
        try:
            await connections.ask(body, answer)
        except (OSError, EOFError) as error:                         # refused or reset: no answer
            answer.error = str(error)
        found.append((answer, time.perf_counter()))

    begin, due, number = time.perf_counter(), 0.0, 0
    while due < seconds:
        await asyncio.sleep(max(0.0, begin + due - time.perf_counter()))
        tasks.add(task := asyncio.create_task(one(number)))
        task.add_done_callback(tasks.discard)
        due, number = due + rng.expovariate(rate), number + 1
    await asyncio.wait(tasks, timeout=60) if tasks else None
    connections.close()
    return found


def goodput(server: Server, rate: float, seconds: float) -> dict[str, float]:
    """Tokens per second of useful answers from requests that came in the second half of the time, and what the rest
    became; the first half is for the queue to fill."""
    begin = time.perf_counter()
    found = run(_arrivals(f"{server.url}/v1/completions", server.fields, rate, seconds))
    inside = [(a, end) for a, end in found if begin + seconds / 2 <= end <= begin + seconds]     # ended in that half
    good = [a for a, _ in inside if a.tokens == TOKENS and a.pieces[0] - a.sent <= LATEST_S]
    late = [a for a, _ in inside if a.tokens == TOKENS and a.pieces[0] - a.sent > LATEST_S]
    return {"requests_per_s": rate, "goodput": len(good) * TOKENS / (seconds / 2), "too_late": len(late),
            "refused": sum(a.error is not None for a, _ in inside),
            "first_ms": 1e3 * statistics.median(a.pieces[0] - a.sent for a in good) if good else float("nan"),
            "resident_bytes": resident_bytes(server)}


def resident_bytes(server: Server) -> int:
    """Of the server and the process of its engine."""
    own = psutil.Process(server.process.pid)
    return sum(process.memory_info().rss for process in (own, *own.children(recursive=True)))


def first_token_s(server: Server) -> float:
    """Of one request on an idle server."""
    answers, _ = offer(f"{server.url}/v1/completions", server.fields, Load(1, 1, max_tokens=8), seed=int(time.time()))
    return answers[0].pieces[0] - answers[0].sent if answers[0].pieces else float("inf")


def recovery_s(server: Server, normal_s: float) -> float:
    """Seconds until a first token comes in twice the normal time."""
    begin = time.perf_counter()
    while first_token_s(server) > 2 * normal_s:
        if time.perf_counter() - begin > 60:
            break
        time.sleep(0.2)
    return time.perf_counter() - begin


def main() -> None:
    """Print a line for each load, then the worst ratio to a goal."""
    options = _options()
    with tempfile.TemporaryDirectory() as scratch:
        files = write_models("bundled", Path(scratch) / "bundled", "bfloat16")
        server = start("ayllu", files, 64, options, Path(scratch) / "ayllu.log")
        try:
            normal = statistics.median(first_token_s(server) for _ in range(5))
            load = Load(64, 1, max_tokens=TOKENS, limit_s=60)
            answers, seconds = offer(f"{server.url}/v1/completions", server.fields, load, seed=1)
            possible = figures(answers, seconds, load)["tokens_per_s"] / TOKENS               # requests per second
            print(f"closed loop of 64 streams: {possible * TOKENS:,.0f} tokens/s, {possible:.1f} requests/s")
            print("| load | tokens/s in time | first token ms | refused | too late | resident MB |\n"
                  "|---|---:|---:|---:|---:|---:|")
            rows = []
            for factor in ((1.0,) if options.quick else LOADS) + (10.0,):
                server.wait_until_idle()
                rows.append({"load": factor, **goodput(server, possible * factor, options.seconds)})
                r = rows[-1]
                print(f"| {factor:g}x | {r['goodput']:,.0f} | {r['first_ms']:,.0f} | {r['refused']:,} "
                      f"| {r['too_late']:,} | {r['resident_bytes'] / 1e6:,.0f} |", flush=True)
            after = recovery_s(server, normal)
        finally:
            server.stop()
    best = max(r["goodput"] for r in rows[:-1])
    cells = {"goodput at 10 times the load": rows[-1]["goodput"] / (0.9 * best),
             "memory at 10 times the load": 1.05 * rows[-2]["resident_bytes"] / rows[-1]["resident_bytes"],
             "seconds until normal": 5 / max(after, 1e-3)}
    print(f"normal again after {after:.1f} s (first token {1e3 * normal:.0f} ms on the idle server)")
    if options.json:
        options.json.write_text(json.dumps({"machine": machine(), "rows": rows, "recovery_s": after, "cells": cells},
                                           indent=1) + "\n", encoding="utf-8")
    worst = min(cells, key=lambda name: cells[name])
    print(f"worst ratio: {cells[worst]:.2f} ({worst})")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two loads, 16 s each")
    parser.add_argument("--seconds", type=float, default=30, help="of each load")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    options.seconds = 16 if options.quick else options.seconds
    return options


if __name__ == "__main__":
    sys.exit(main())
