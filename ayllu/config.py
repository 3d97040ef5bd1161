"""Settings: frozen pydantic models, read from TOML recipes with one level of `extends` and key=value overrides.

The resolved settings that a run stores as JSON are read in the same way.

An unknown key is an error that names the nearest known one; nothing is ignored.
"""

import difflib
import json
import tomllib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from ayllu.errors import ConfigError


class Settings(BaseModel):
    """Base of every configuration: immutable, and strict about keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def over(cls, base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
        """One table over another: an extending recipe over its parent, the command line over both."""
        return merge(base, top)


S = TypeVar("S", bound=Settings)


def load_recipe(kind: type[S], path: str | Path, overrides: list[str] | None = None,
                more: dict[str, Any] | None = None) -> S:
    """Read a recipe (with `extends = "other.toml"`, one level), put `more` over it, and apply `a.b=value` overrides."""
    table = read_table(Path(path))
    parent = table.pop("extends", None)
    if parent is not None:
        base = read_table(Path(path).parent / parent)
        if "extends" in base:
            raise ConfigError(f"{parent} itself extends {base['extends']}: recipes extend one level only; "
                              f"let {path} extend {base['extends']} directly")
        table = kind.over(base, table)
    return build_recipe(kind, table | (more or {}), overrides or [], where=str(path))


def build_recipe(kind: type[S], table: dict[str, Any], overrides: list[str], where: str) -> S:
    """Settings from a table and `a.b=value` overrides of it."""
    line: dict[str, Any] = {}
    for override in overrides:
        line = merge(line, _parse_override(override))
    return validate(kind, kind.over(table, line), where=where)


def validate(kind: type[S], table: dict[str, Any], where: str) -> S:
    """Build settings from a plain table; errors name the key, the reason and the nearest known key."""
    try:
        return kind.model_validate(table)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(kind, e, where) for e in error.errors())) from error


def merge(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    """`top` over `base`; tables merge key by key, everything else is replaced."""
    out = dict(base)
    for key, value in top.items():
        both_tables = isinstance(value, dict) and isinstance(out.get(key), dict)
        out[key] = merge(out[key], value) if both_tables else value
    return out


def read_table(path: Path) -> dict[str, Any]:
    """What a recipe or a run's config.json holds, as it stands there."""
    is_json = path.suffix == ".json"
    try:
        text = path.read_text(encoding="utf-8")
        table = json.loads(text) if is_json else tomllib.loads(text)
    except FileNotFoundError as error:
        raise ConfigError(f"no recipe at {path}: give the path of a TOML file, or of a run's config.json") from error
    except ValueError as error:                          # of both formats, and of bytes that are no text
        raise ConfigError(f"{path} is not valid {'JSON' if is_json else 'TOML'}: {error}") from error
    if not isinstance(table, dict):
        raise ConfigError(f"{path} holds a {type(table).__name__}, no settings: give a run's config.json")
    return table


def _parse_override(text: str) -> dict[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"override {text!r} should read key=value, for example loop.steps=100")
    try:
        parsed = tomllib.loads(f"v = {value}")["v"]
    except tomllib.TOMLDecodeError:
        parsed = value                                   # a bare word is a string: device=cpu
    table: Any = parsed
    for part in reversed(key.strip().split(".")):
        table = {part: table}
    return table


def _explain(kind: type[BaseModel], error: Any, where: str) -> str:
    path = [str(part) for part in error["loc"]]
    name = ".".join(path)
    if error["type"] == "missing":
        return f"{where}: {name} is missing and has no default: set it"
    if error["type"] == "value_error":                       # our own sentence, which names what it found
        return f"{where}: {name + ': ' * bool(name)}{error['ctx']['error']}"
    if error["type"] != "extra_forbidden":
        return f"{where}: {name or 'settings'}: {error['msg']} (found {repr(error['input'])[:200]})"
    known = _known_keys(kind, path[:-1])
    near = difflib.get_close_matches(path[-1], known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
    return f"{where}: unknown key {name!r}; {hint}"


def _known_keys(kind: type[BaseModel], path: list[str]) -> list[str]:
    """The field names of the settings that `path` leads to."""
    kinds = [kind]
    for part in path:
        if any(part in k.model_fields for k in kinds):
            kinds = [s for k in kinds if part in k.model_fields for s in _settings_in(k.model_fields[part].annotation)]
        else:                                            # a list index, or the tag of a union
            kinds = [k for k in kinds if "kind" in k.model_fields and k.model_fields["kind"].default == part] or kinds
    return sorted({name for k in kinds for name in k.model_fields})


def _settings_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for part in getattr(annotation, "__args__", ()) for found in _settings_in(part)]
