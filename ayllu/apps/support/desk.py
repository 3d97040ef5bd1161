"""The desk: conversations, tickets and feedback, as tables beside those of the collection, in one SQLite file.

    open ──ticket──> waiting ──take──> taken ──release──> open          (close from each; a customer's word reopens)

A conversation has a number, by which people of the business see it, and a secret of 128 bits, of which only a digest
is kept: who knows the secret is the customer. Another tenant's rows look as if they weren't there. Texts pass through
one codec, which the vault can take over. Times are seconds since 1970.
"""

import hashlib
import json
import secrets
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from ayllu.errors import NotFound
from ayllu.jobs import Codec, Plain
from ayllu.principal import Principal

State = Literal["open", "waiting", "taken", "closed"]
Role = Literal["customer", "assistant", "operator"]
TABLES = (
    """CREATE TABLE IF NOT EXISTS support_conversations (
        number INTEGER PRIMARY KEY AUTOINCREMENT, digest TEXT NOT NULL UNIQUE, tenant TEXT NOT NULL,
        owner TEXT NOT NULL, customer TEXT NOT NULL, language TEXT NOT NULL,
        state TEXT NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'waiting', 'taken', 'closed')), operator TEXT,
        satisfaction INTEGER CHECK (satisfaction BETWEEN 1 AND 5), created_s REAL NOT NULL, updated_s REAL NOT NULL)""",
    "CREATE INDEX IF NOT EXISTS support_by_tenant ON support_conversations (tenant, updated_s)",
    """CREATE TABLE IF NOT EXISTS support_messages (
        number INTEGER PRIMARY KEY AUTOINCREMENT, conversation INTEGER NOT NULL, role TEXT NOT NULL, kind TEXT NOT NULL,
        text BLOB NOT NULL, facts TEXT NOT NULL, thumb INTEGER CHECK (thumb IN (-1, 1)), created_s REAL NOT NULL)""",
    "CREATE INDEX IF NOT EXISTS support_in_order ON support_messages (conversation, number)",
    """CREATE TABLE IF NOT EXISTS support_tickets (
        number INTEGER PRIMARY KEY AUTOINCREMENT, conversation INTEGER NOT NULL, tenant TEXT NOT NULL,
        topic TEXT NOT NULL, summary BLOB NOT NULL, created_s REAL NOT NULL, done_s REAL)""",
)


class Sql(Protocol):
    """A database that gives transactions: the collection's, or one of its own (ayllu/database.py)."""

    def write(self) -> AbstractContextManager[sqlite3.Connection]: ...


@dataclass(frozen=True)
class Conversation:
    """A row."""

    number: int
    tenant: str
    owner: str                                           # whose key it came through
    customer: str                                        # what the web page calls them; "" where it says nothing
    language: str
    state: State
    operator: str | None
    satisfaction: int | None
    created_s: float
    updated_s: float


@dataclass(frozen=True)
class Message:
    """One message. `facts` of the assistant's: citations, confidence, topic, ms, prompt_tokens, n_tokens."""

    number: int
    role: Role
    kind: str                                            # answer, unknown, hand_over, decline, greeting, ...; or text
    text: str
    facts: dict[str, Any]
    thumb: int | None
    created_s: float


@dataclass(frozen=True)
class Ticket:
    """Work for a person."""

    number: int
    conversation: int
    topic: str
    summary: str
    created_s: float
    done_s: float | None


COLUMNS = ", ".join(Conversation.__dataclass_fields__)


class Desk:
    """All conversations. Who acts is named by a principal."""

    def __init__(self, database: Sql, codec: Codec | None = None, clock: Callable[[], float] = time.time) -> None:
        self.database, self.codec, self.clock = database, codec or Plain(), clock
        with database.write() as sql:
            sql.execute("PRAGMA secure_delete = ON")     # what is deleted is overwritten
            for statement in TABLES:
                sql.execute(statement)

    # Conversations.

    def begin(self, who: Principal, customer: str, language: str) -> tuple[Conversation, str]:
        """A new conversation, and its secret."""
        secret, now = secrets.token_urlsafe(16), self.clock()
        self._run("INSERT INTO support_conversations (digest, tenant, owner, customer, language, created_s, updated_s) "
                  "VALUES (?, ?, ?, ?, ?, ?, ?)",
                  (_digest(secret), who.tenant, who.owner, _sound(customer), language, now, now))
        return self.known(who, secret), secret

    def known(self, who: Principal, secret: str) -> Conversation:
        """The conversation of a secret."""
        return self._one(f"SELECT {COLUMNS} FROM support_conversations WHERE digest = ? AND tenant = ?",
                         (_digest(secret), who.tenant))

    def conversation(self, who: Principal, number: int) -> Conversation:
        """One by its number."""
        return self._one(f"SELECT {COLUMNS} FROM support_conversations WHERE number = ? AND tenant = ?",
                         (number, who.tenant))

    def conversations(self, who: Principal, state: State | None = None, limit: int = 100) -> list[Conversation]:
        """The tenant's, those that wait for a person first, then the newest."""
        rows = self._run(f"SELECT {COLUMNS} FROM support_conversations WHERE tenant = ? AND coalesce(state = ?, 1) "
                         "ORDER BY state = 'waiting' DESC, updated_s DESC LIMIT ?", (who.tenant, state, limit))
        return [Conversation(**row) for row in rows]

    def set_state(self, who: Principal, number: int, state: State, operator: str | None = None) -> Conversation:
        """Take over, give back, close. Closing ends its tickets, too."""
        self.conversation(who, number)
        self._run("UPDATE support_conversations SET state = ?, operator = ?, updated_s = ? WHERE number = ?",
                  (state, operator, self.clock(), number))
        if state == "closed":
            self._run("UPDATE support_tickets SET done_s = ? WHERE conversation = ? AND done_s IS NULL",
                      (self.clock(), number))
        return self.conversation(who, number)

    def forget(self, who: Principal, number: int) -> None:
        """Delete a conversation with all that belongs to it."""
        self.conversation(who, number)
        self._delete("number = ?", (number,))

    def expire(self, days: float) -> int:
        """Delete conversations that nobody has touched for so many days; how many."""
        return self._delete("updated_s < ?", (self.clock() - days * 86400,))

    # Messages.

    def add(self, number: int, role: Role, kind: str, text: str, facts: Mapping[str, Any] | None = None) -> Message:
        """Write a message; a customer's reopens a closed conversation."""
        with self.database.write() as sql:
            last = sql.execute("INSERT INTO support_messages (conversation, role, kind, text, facts, created_s) "
                                 "VALUES (?, ?, ?, ?, ?, ?)",
                                 (number, role, kind, self.codec.encode(_sound(text).encode(), f"support {number}"),
                                  json.dumps(dict(facts or {}), ensure_ascii=False), self.clock())).lastrowid
            sql.execute("UPDATE support_conversations SET updated_s = ?, state = CASE WHEN state = 'closed' AND ? THEN "
                        "'open' ELSE state END WHERE number = ?", (self.clock(), role == "customer", number))
        return self._message(self._run("SELECT * FROM support_messages WHERE number = ?", (last,))[0])

    def messages(self, who: Principal, number: int, after: int = 0, last: int | None = None) -> list[Message]:
        """In their order, those with numbers above `after`; the `last` so many of them."""
        self.conversation(who, number)
        rows = self._run("SELECT * FROM support_messages WHERE conversation = ? AND number > ? ORDER BY number DESC "
                         "LIMIT ?", (number, after, -1 if last is None else last))
        return [self._message(row) for row in reversed(rows)]

    def n_messages(self, number: int) -> int:
        """How long a conversation is."""
        return int(self._run("SELECT count(*) AS n FROM support_messages WHERE conversation = ?", (number,))[0]["n"])

    def unanswered(self, who: Principal, limit: int = 100) -> list[dict[str, Any]]:
        """Questions that the pages said nothing about, newest first: what should be written next."""
        rows = self._run(
            "SELECT a.conversation, a.created_s, a.facts, (SELECT max(number) FROM support_messages q WHERE "
            "q.conversation = a.conversation AND q.number < a.number AND q.role = 'customer') AS question FROM "
            "support_messages a JOIN support_conversations c ON c.number = a.conversation WHERE c.tenant = ? AND "
            "a.role = 'assistant' AND a.kind = 'unknown' ORDER BY a.number DESC LIMIT ?", (who.tenant, limit))
        return [{"conversation": row["conversation"], "question": self._text_of(row["question"]),
                 "confidence": json.loads(row["facts"]).get("confidence"), "created_s": row["created_s"]}
                for row in rows]

    # Tickets and feedback.

    def ticket(self, who: Principal, number: int, topic: str, summary: str) -> Ticket:
        """Ask for a person. A conversation has one open ticket at most: a second one renews its summary."""
        state = self.conversation(who, number).state
        kept = self.codec.encode(_sound(summary).encode(), f"support {number}")
        with self.database.write() as sql:
            if not sql.execute("UPDATE support_tickets SET summary = ?, topic = ? WHERE conversation = ? AND done_s IS "
                               "NULL", (kept, topic, number)).rowcount:
                sql.execute("INSERT INTO support_tickets (conversation, tenant, topic, summary, created_s) VALUES "
                            "(?, ?, ?, ?, ?)", (number, who.tenant, topic, kept, self.clock()))
        if state != "taken":
            self.set_state(who, number, "waiting")
        return next(ticket for ticket in self.tickets(who) if ticket.conversation == number)

    def tickets(self, who: Principal, done: bool = False, limit: int = 1000) -> list[Ticket]:
        """The tenant's open tickets, oldest first; or those that are done."""
        rows = self._run("SELECT number, conversation, topic, summary, created_s, done_s FROM support_tickets WHERE "
                         "tenant = ? AND (done_s IS NOT NULL) = ? ORDER BY number LIMIT ?", (who.tenant, done, limit))
        return [Ticket(**{**row, "summary": self._decoded(row["conversation"], row["summary"])}) for row in rows]

    def finish(self, who: Principal, number: int) -> None:
        """A ticket is done."""
        if not self._count("UPDATE support_tickets SET done_s = coalesce(done_s, ?) WHERE number = ? AND tenant = ?",
                           (self.clock(), number, who.tenant)):
            raise NotFound(f"there is no ticket {number}: list the tickets for their numbers")

    def thumb(self, who: Principal, number: int, message: int, thumb: int) -> None:
        """A customer's word on one answer: 1 or -1."""
        self.conversation(who, number)
        if not self._count("UPDATE support_messages SET thumb = ? WHERE number = ? AND conversation = ? AND role != "
                           "'customer'", (thumb, message, number)):
            raise NotFound(f"there is no answer {message} in this conversation")

    def satisfy(self, who: Principal, number: int, satisfaction: int) -> None:
        """A customer's word on the whole: 1 to 5."""
        self.conversation(who, number)
        self._run("UPDATE support_conversations SET satisfaction = ? WHERE number = ?", (satisfaction, number))

    # Rows.

    def rows(self, query: str, values: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """For figures (figures.py)."""
        return self._run(query, values)

    def _one(self, query: str, values: Sequence[Any]) -> Conversation:
        rows = self._run(query, values)
        if not rows:
            raise NotFound("there is no such conversation: it may have been deleted; begin a new one")
        return Conversation(**rows[0])

    def _run(self, query: str, values: Sequence[Any] = ()) -> list[dict[str, Any]]:
        with self.database.write() as sql:
            return [dict(row) for row in sql.execute(query, values).fetchall()]

    def _count(self, query: str, values: Sequence[Any]) -> int:
        with self.database.write() as sql:
            return sql.execute(query, values).rowcount

    def _delete(self, where: str, values: Sequence[Any]) -> int:
        with self.database.write() as sql:
            numbers = [row[0] for row in sql.execute(f"SELECT number FROM support_conversations WHERE {where}", values)]
            for number in numbers:
                sql.execute("DELETE FROM support_messages WHERE conversation = ?", (number,))
                sql.execute("DELETE FROM support_tickets WHERE conversation = ?", (number,))
                sql.execute("DELETE FROM support_conversations WHERE number = ?", (number,))
        return len(numbers)

    def _message(self, row: Mapping[str, Any]) -> Message:
        values = {name: row[name] for name in Message.__dataclass_fields__}
        return Message(**{**values, "text": self._decoded(row["conversation"], row["text"]),
                          "facts": json.loads(row["facts"])})

    def _text_of(self, message: int | None) -> str:
        rows = self._run("SELECT conversation, text FROM support_messages WHERE number = ?", (message,))
        return self._decoded(rows[0]["conversation"], rows[0]["text"]) if rows else ""

    def _decoded(self, number: int, kept: bytes) -> str:
        return self.codec.decode(kept, f"support {number}").decode()


def _sound(text: str) -> str:
    """Half characters (lone surrogates, which JSON can bring) as question marks: no file can hold them."""
    return text.encode("utf-8", "replace").decode()


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
