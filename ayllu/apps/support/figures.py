"""What the operator is told in numbers: deflection, time to answer, satisfaction, what it costs and saves."""

import math
from typing import Any

from ayllu.apps.support.desk import Desk
from ayllu.apps.support.rules import Cost
from ayllu.principal import Principal

Z = 1.959964                                             # of an interval of 95 %
MESSAGES = """SELECT m.conversation, m.role, m.kind, m.thumb, m.created_s, json_extract(m.facts, '$.ms') AS ms,
    coalesce(json_extract(m.facts, '$.prompt_tokens'), 0) + coalesce(json_extract(m.facts, '$.n_tokens'), 0) AS tokens
    FROM support_messages m JOIN support_conversations c ON c.number = m.conversation
    WHERE c.tenant = ? AND c.created_s >= ? ORDER BY m.number"""


def figures(desk: Desk, who: Principal, cost: Cost, days: float = 30) -> dict[str, Any]:
    """The tenant's conversations that began in the last days. Deflected: asked something, and no person was needed."""
    since = desk.clock() - days * 86400
    messages = desk.rows(MESSAGES, (who.tenant, since))
    talks = desk.rows("SELECT satisfaction FROM support_conversations WHERE tenant = ? AND created_s >= ?",
                      (who.tenant, since))
    ticketed = {row["conversation"] for row in desk.rows("SELECT conversation FROM support_tickets WHERE tenant = ?",
                                                         (who.tenant,))}
    said = [m for m in messages if m["role"] == "assistant"]
    kinds = {kind: sum(m["kind"] == kind for m in said) for kind in ("answer", "unknown", "hand_over", "decline")}
    asked = {m["conversation"] for m in said if m["kind"] in kinds}
    n_deflected, ms = len(asked - ticketed), sorted(m["ms"] for m in said if m["ms"] is not None)
    marks = [t["satisfaction"] for t in talks if t["satisfaction"] is not None]
    tokens = sum(m["tokens"] for m in said)
    return {
        "days": days, "conversations": len(talks), "with_questions": len(asked), "messages": len(messages), **kinds,
        "deflected": n_deflected, "deflection": share(n_deflected, len(asked)), "deflection_interval":
        wilson(n_deflected, len(asked)), "answer_ms_median": _quantile(ms, 0.5), "answer_ms_95": _quantile(ms, 0.95),
        "assistant_s": round(sum(ms) / 1000, 3), "person_s_median": _quantile(sorted(_waits(messages)), 0.5),
        "satisfaction": round(sum(marks) / len(marks), 2) if marks else None, "satisfaction_n": len(marks),
        "thumbs_up": sum(m["thumb"] == 1 for m in messages), "thumbs_down": sum(m["thumb"] == -1 for m in messages),
        "tokens": tokens, "cost": round(tokens * cost.per_million_tokens / 1e6, 4), "currency": cost.currency,
        "saved_minutes": round(n_deflected * cost.person_minutes, 1)}


def share(k: int, n: int) -> float | None:
    """k of n; None of none."""
    return round(k / n, 4) if n else None


def wilson(k: int, n: int) -> tuple[float, float] | None:
    """The 95 % interval of a share (E. B. Wilson 1927), which stays within 0 and 1 for few."""
    if not n:
        return None
    middle, half = (k + Z * Z / 2) / (n + Z * Z), Z * math.sqrt(k * (n - k) / n + Z * Z / 4) / (n + Z * Z)
    return round(max(0.0, middle - half), 4), round(min(1.0, middle + half), 4)


def _waits(messages: list[dict[str, Any]]) -> list[float]:
    """Seconds from each hand-over to a person's first word after it."""
    asked: dict[str, float] = {}
    waits = []
    for message in messages:
        if message["kind"] == "hand_over":
            asked.setdefault(message["conversation"], message["created_s"])
        elif message["role"] == "operator" and message["conversation"] in asked:
            waits.append(message["created_s"] - asked.pop(message["conversation"]))
    return waits


def _quantile(ordered: list[float], q: float) -> float | None:
    return round(ordered[min(len(ordered) - 1, int(q * len(ordered)))], 3) if ordered else None
