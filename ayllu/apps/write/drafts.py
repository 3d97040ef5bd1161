"""Drafts with all their versions in one SQLite file, and what changed between two."""

import json
import re
import secrets
import time
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any, Literal

from ayllu.apps.write.brief import Brief
from ayllu.database import Database
from ayllu.errors import NotFound
from ayllu.principal import Principal

MIGRATIONS = (
    """
    CREATE TABLE drafts (
        number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, tenant TEXT NOT NULL, owner TEXT NOT NULL,
        title TEXT NOT NULL, brief TEXT NOT NULL, created_s REAL NOT NULL
    );
    CREATE INDEX drafts_by_owner ON drafts (tenant, owner, number);
    CREATE TABLE versions (
        draft TEXT NOT NULL REFERENCES drafts (id), version INTEGER NOT NULL, text TEXT NOT NULL, note TEXT NOT NULL,
        created_s REAL NOT NULL, PRIMARY KEY (draft, version)
    );
    """,
)
MOST_PARTS = 4000                                        # paragraphs of a text, or words of a paragraph
Change = tuple[Literal["same", "removed", "added"], str]


class Drafts:
    """One person sees only their own."""

    def __init__(self, path: Path) -> None:
        self._db = Database(path, MIGRATIONS, "the drafts file")

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def begin(self, principal: Principal, title: str, brief: Brief, text: str, note: str = "") -> str:
        """A new draft with its first version; gives its id."""
        principal.require("jobs")
        draft = secrets.token_hex(8)
        with self._db.write() as db:
            db.execute("INSERT INTO drafts (id, tenant, owner, title, brief, created_s) VALUES (?, ?, ?, ?, ?, ?)",
                       (draft, principal.tenant, principal.owner, title, brief.model_dump_json(), time.time()))
            db.execute("INSERT INTO versions VALUES (?, 1, ?, ?, ?)", (draft, text, note, time.time()))
        return draft

    def add(self, principal: Principal, draft: str, text: str, note: str = "") -> int:
        """A further version; gives its number."""
        self._db.owned("drafts", draft, principal)
        with self._db.write() as db:
            number = db.execute("SELECT max(version) + 1 FROM versions WHERE draft = ?", (draft,)).fetchone()[0]
            db.execute("INSERT INTO versions VALUES (?, ?, ?, ?, ?)", (draft, number, text, note, time.time()))
        return number

    def list(self, principal: Principal, limit: int = 100) -> list[dict[str, Any]]:
        """The newest first, without their texts."""
        principal.require("jobs")
        return [dict(row) for row in self._db.read(
            "SELECT id, title, created_s, (SELECT max(version) FROM versions WHERE draft = id) AS versions FROM drafts "
            "WHERE tenant = ? AND owner = ? ORDER BY number DESC LIMIT ?", (principal.tenant, principal.owner, limit))]

    def get(self, principal: Principal, draft: str) -> dict[str, Any]:
        """One with its brief and all its versions, the oldest first."""
        row = self._db.owned("drafts", draft, principal)
        versions = self._db.read("SELECT version, text, note, created_s FROM versions WHERE draft = ? "
                                 "ORDER BY version", (draft,))
        return {"id": draft, "title": row["title"], "brief": json.loads(row["brief"]), "created_s": row["created_s"],
                "versions": [dict(version) for version in versions]}

    def id_of(self, principal: Principal, name: str, *, or_none: bool = False) -> str | None:
        """The id of the newest draft with this title or id."""
        principal.require("jobs")
        rows = self._db.read("SELECT id FROM drafts WHERE tenant = ? AND owner = ? AND (title = ? OR id = ?) "
                             "ORDER BY number DESC LIMIT 1", (principal.tenant, principal.owner, name, name))
        if not rows and not or_none:
            titles = ", ".join(row["title"][:40] for row in self.list(principal, 5)) or "none"
            raise NotFound(f"there is no draft {name[:40]!r}; the newest are: {titles}")
        return rows[0]["id"] if rows else None

    def delete(self, principal: Principal, draft: str) -> None:
        """Remove one with all its versions."""
        self._db.owned("drafts", draft, principal)
        with self._db.write() as db:
            db.execute("DELETE FROM versions WHERE draft = ?", (draft,))
            db.execute("DELETE FROM drafts WHERE id = ?", (draft,))


def diff(old: str, new: str) -> list[Change]:
    """What changed: by paragraphs first, and within those that changed by words and characters. "same" and "removed"
    joined are the old text, "same" and "added" the new one."""
    found: list[Change] = []
    for kind, a, b in _compare(re.findall(r"[^\n]*\n+|[^\n]+", old), re.findall(r"[^\n]*\n+|[^\n]+", new)):
        if kind == "same":
            found.append(("same", a))
        else:
            for inner, c, d in _compare(_words(a), _words(b)):
                if inner == "same":
                    found.append(("same", c))
                else:
                    found.extend([("removed", c)] * bool(c))
                    found.extend([("added", d)] * bool(d))
    merged: list[Change] = []
    for change in found:
        if merged and merged[-1][0] == change[0]:
            merged[-1] = (change[0], merged[-1][1] + change[1])
        else:
            merged.append(change)
    return merged


def _compare(old: list[str], new: list[str]) -> list[tuple[str, str, str]]:
    if max(len(old), len(new)) > MOST_PARTS:             # the time grows with the square
        return [("same" if old == new else "changed", "".join(old), "".join(new))]
    matcher = SequenceMatcher(None, old, new, autojunk=False)
    return [("same" if tag == "equal" else "changed", "".join(old[i:j]), "".join(new[k:m]))
            for tag, i, j, k, m in matcher.get_opcodes()]


def _words(text: str) -> list[str]:
    return re.findall(r"[\u3400-\u9fff]|[^\W\u3400-\u9fff]+|\s+|.", text)
