"""API keys: shown once, kept as digests, compared in constant time.

A key is 32 random bytes, so a plain SHA-256 is enough: there is no dictionary that a salt or a slow hash would have to
stand against. A file of keys is JSON: [{"name", "tenant", "scopes", "sha256"}], with "origins" where a key is for the
pages of these alone.
"""

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

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
    origins: tuple[str, ...] = ()                        # pages that it's for; none: it's bound to no page
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")

    @property
    def principal(self) -> Principal:
        """Who this is."""
        return Principal(self.tenant, self.name, frozenset(self.scopes))


class Keys:
    """All keys of a server."""

    def __init__(self, keys: Sequence[Key] = ()) -> None:
        self._keys = [(bytes.fromhex(key.sha256), key) for key in keys]
        self.origins = frozenset(origin for key in keys for origin in key.origins)

    def __bool__(self) -> bool:
        return bool(self._keys)

    def find(self, presented: str, origin: str | None = None) -> Principal | None:
        """Whose key this is; None, too, where it comes from a page that it isn't for. All are compared, so that time
        tells nothing about which one nearly fitted."""
        digest, found = _digest(presented), None
        for known, key in self._keys:
            if hmac.compare_digest(known, digest) and (not key.origins or origin in key.origins):
                found = key.principal
        return found


def origin_in(text: str) -> str:
    """A page's origin as browsers send it."""
    parts = urlsplit(text.strip().lower())
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.query:
        raise ConfigError(f"{text!r} is no origin of a page: write it as https://www.example.org, without a path")
    return f"{parts.scheme}://{parts.netloc}"


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


def add_key(path: Path, name: str, tenant: str | None, scopes: tuple[str, ...], origins: tuple[str, ...] = ()) -> str:
    """Make a key, keep its digest in the file (readable by its owner only), and give the key: it is not kept."""
    keys = read_keys(path) if path.exists() else []
    if any(key.name == name for key in keys):
        raise ConfigError(f"{path} has a key named {name} already: choose another name, or remove that line")
    secret = PREFIX + secrets.token_urlsafe(32)
    try:
        new = key_of(secret, name, tenant, scopes).model_copy(update={"origins": origins})
    except ValidationError as error:
        raise ConfigError(f"the name or tenant {name!r} has signs other than letters, digits and . _ @ -") from error
    text = json.dumps([key.model_dump() for key in [*keys, new]], indent=1) + "\n"
    part = path.with_name(path.name + ".part")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    part.replace(path)
    return secret
