"""What a run folder tells: its settings, rows of metrics, decisions, samples, data and machine."""

import json
import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ayllu.errors import ConfigError
from ayllu.model.account import n_parameters
from ayllu.model.build import ModelSettings

Points = list[tuple[float, float]]                       # (step, value); a value that is no number is NaN
Row = dict[str, Any]


@dataclass(frozen=True)
class Story:
    """One run, read from its files; what isn't there yet is empty."""

    run: Path
    config: dict[str, Any]
    environment: dict[str, Any]
    data: dict[str, Any]
    rows: list[Row]
    samples: list[Row]

    @property
    def trained(self) -> list[Row]:
        """Rows of training steps."""
        return [row for row in self.rows if "loss" in row]

    @property
    def decisions(self) -> list[Row]:
        """The controller's decisions, and early stopping's."""
        return [row for row in self.rows if "decision" in row]

    @property
    def evaluations(self) -> list[Row]:
        """Rows of held-out results on the way."""
        return [row for row in self.rows if not {"loss", "decision", "final"} & set(row)]

    @property
    def final(self) -> Row | None:
        """The results on all held-out text, once training is over."""
        return next((row for row in reversed(self.rows) if "final" in row), None)

    def points(self, key: str, rows: list[Row] | None = None) -> Points:
        """(step, value) of all rows that have the key; a value that was no number is NaN."""
        found = [row for row in (self.rows if rows is None else rows) if key in row and "final" not in row]
        return [(row["step"], math.nan if row[key] is None else row[key]) for row in found]

    def throughput(self) -> Points:
        """Tokens per second between each row of training and the one before."""
        rows = self.trained
        return [(b["step"], (b["tokens"] - a["tokens"]) / (b["seconds"] - a["seconds"]))
                for a, b in pairwise(rows) if b["seconds"] > a["seconds"]]

    def keys(self, *beginnings: str) -> list[str]:
        """The rows' keys with one of these beginnings, in order."""
        return sorted({key for row in self.rows for key in row if key.startswith(beginnings)})

    def parameters(self) -> int | None:
        """Of the model; None where its settings are of another version."""
        try:
            return n_parameters(TypeAdapter(ModelSettings).validate_python(self.config["model"]))
        except (KeyError, ValidationError):
            return None


def read_story(run: Path) -> Story:
    """Read a run folder; a line that a killed run was writing is left out."""
    if not (run / "config.json").is_file():
        raise ConfigError(f"{run} holds no run (config.json is missing): give the folder that a recipe's `out` names")
    return Story(run, _object(run / "config.json"), _object(run / "environment.json"), _object(run / "data.json"),
                 _lines(run / "metrics.jsonl"), _lines(run / "samples.jsonl"))


def _object(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ConfigError(f"{path} is damaged: {error}") from error
    return found if isinstance(found, dict) else {}


def _lines(path: Path) -> list[Row]:
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows
