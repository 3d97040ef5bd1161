"""API keys: shown once, kept as digests, compared in constant time.

A key is 32 random bytes, so a plain SHA-256 is enough: there is no dictionary that a salt or a slow hash would have to
stand against. A file of keys is JSON: [{"name", "tenant", "scopes", "sha256"}].
"""

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field, TypeAdapter, ValidationError

from ayllu.config import Settings
from ayllu.errors import ConfigError
from ayllu.principal import Principal

PREFIX = "ayllu-"
SHORTEST = 16                                            # characters of a key that a person chose


class Key(Settings):
    """One line of the file: who holds it and what they may do."""

    name: str = Field(min_length=1, max_length=64, pattern=r"^[\w.@-]+$")
    tenant: str = Field(min_length=1, max_length=64, pattern=r"^[\w.@-]+$")
    scopes: tuple[str, ...] = ("generate",)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")

    @property
    def principal(self) -> Principal:
        """Who this is."""
        return Principal(self.tenant, self.name, frozenset(self.scopes))


class Keys:
    """All keys of a server."""

    def __init__(self, keys: Sequence[Key] = ()) -> None:
        self._keys = [(bytes.fromhex(key.sha256), key.principal) for key in keys]

    def __bool__(self) -> bool:
        return bool(self._keys)

    def find(self, presented: str) -> Principal | None:
        """Whose key this is. All are compared, so that time tells nothing about which one nearly fitted."""
        digest, found = _digest(presented), None
        for known, principal in self._keys:
            if hmac.compare_digest(known, digest):
                found = principal
        return found


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def key_of(secret: str, name: str = "default", tenant: str | None = None, scopes: tuple[str, ...] = ("*",)) -> Key:
    """A key that a person chose (AYLLU_API_KEY), as it is kept."""
    if len(secret) < SHORTEST:
        raise ConfigError(f"the API key has {len(secret)} characters: use at least {SHORTEST}, or let `ayllu key` make "
                          "one")
    return Key(name=name, tenant=tenant or name, scopes=scopes, sha256=_digest(secret).hex())


def read_keys(path: Path) -> list[Key]:
    """The keys of a file."""
    try:
        keys = TypeAdapter(list[Key]).validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise ConfigError(f"no file of keys at {path}: make one with `ayllu key {path} --name NAME`") from error
    except ValidationError as error:
        raise ConfigError(f"{path} is no file of keys (JSON list of name, tenant, scopes, sha256): "
                          f"{error.errors()[0]['msg']}") from error
    if not keys:
        raise ConfigError(f"{path} holds no key: make one with `ayllu key {path} --name NAME`")
    return keys


def add_key(path: Path, name: str, tenant: str | None, scopes: tuple[str, ...]) -> str:
    """Make a key, keep its digest in the file (readable by its owner only), and give the key: it is not kept."""
    keys = read_keys(path) if path.exists() else []
    if any(key.name == name for key in keys):
        raise ConfigError(f"{path} has a key named {name} already: choose another name, or remove that line")
    secret = PREFIX + secrets.token_urlsafe(32)
    try:
        new = key_of(secret, name, tenant, scopes)
    except ValidationError as error:
        raise ConfigError(f"the name or tenant {name!r} has signs other than letters, digits and . _ @ -") from error
    text = json.dumps([key.model_dump() for key in [*keys, new]], indent=1) + "\n"
    part = path.with_name(path.name + ".part")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    part.replace(path)
    return secret
