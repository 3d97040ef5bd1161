"""Who is asking. Every call carries a `Principal`, also while there is only one user.

A module of its own, on the lowest floor, because jobs, the engine's requests, the audit trail and the server all name
it, and none of them should have to import another (jobs brings SQLite) to do so.
"""

from dataclasses import dataclass

from ayllu.errors import NotAllowed


@dataclass(frozen=True)
class Principal:
    """One caller: the tenant they belong to, their own name within it, and what they may do.

    Scopes are words such as "generate" or "jobs"; "*" stands for all of them.
    """

    tenant: str
    owner: str
    scopes: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        for name, value in (("tenant", self.tenant), ("owner", self.owner)):
            if not value or not value.isprintable():
                raise NotAllowed(f"a principal's {name} must be a printable, non-empty name, found {value!r}")

    def may(self, scope: str) -> bool:
        """Whether this caller holds a scope."""
        return scope in self.scopes or "*" in self.scopes

    def require(self, scope: str) -> None:
        """Refuse unless this caller holds a scope."""
        if not self.may(scope):
            held = ", ".join(sorted(self.scopes)) or "none"
            raise NotAllowed(f"{self.owner} of {self.tenant} lacks the scope {scope!r} (held: {held}): "
                             "use a key that has it")


LOCAL = Principal("local", "local", frozenset({"*"}))    # the person at this machine: the only user until keys exist
