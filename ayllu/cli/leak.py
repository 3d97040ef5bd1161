"""`ayllu evaluate --leak` and `--overfit`: what a model has memorised, and whether a run overfits."""

import random
from pathlib import Path
from typing import Any

import typer

from ayllu.cli.output import print_json
from ayllu.errors import DataError

Files = tuple[Path | None, Path | None, Path | None]     # training texts, others, canaries


def show_leak(model: str, adapter: Path | None, dtype: str | None, device: str, batch: int, files: Files,
              limit: int | None, seed: int, out: Path | None, as_json: bool) -> None:
    """Audit, write leak.json, and print what was found."""
    from ayllu.evaluate.leak import Audit, audit
    from ayllu.evaluate.subject import Subject
    from ayllu.files import write_json
    canaries = [] if files[2] is None else _canaries(files[2])
    members, others = (_texts(path, limit, seed) for path in files[:2])
    subject = Subject.load(model, adapter=None if adapter is None else str(adapter), dtype=dtype, device=device,
                           batch=batch)
    found = {"model": model, **audit(subject, members, others, canaries, Audit(seed=seed))}
    folder = out or Path("runs") / f"leak-{Path(model).stem}"
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "leak.json", {**found, "subject": dict(subject.facts), "files": list(map(str, files))})
    if as_json:
        return print_json({**found, "out": str(folder)})
    _print(found)
    typer.echo(f"details: {folder / 'leak.json'}")
    return None


def _print(found: dict[str, Any]) -> None:
    for one in found.get("canaries", ()):
        typer.echo(f"canary {one['format']!r}: exposure {one['exposure']:.1f} bits of {one['most']:.1f}, "
                   f"rank {one['rank']:,}")
    n = found["settings"]
    for name, one in found["extraction"].items():
        typer.echo(f"extraction, {name} texts: {100 * one['value']:.1f} % of {one['n']:,} give their next "
                   f"{n['suffix']} tokens after {n['prefix']}, 95 % interval {100 * one['low']:.1f} to "
                   f"{100 * one['high']:.1f}")
    for what, sides in found["too_short"].items():
        for name, n_short in sides.items():
            if n_short:
                typer.echo(f"{n_short:,} {name} texts are too short for {what}, and aren't counted")
    for name, one in found.get("membership", {}).items():
        auc = one["auc"]
        typer.echo(f"membership by {name}: AUC {auc['value']:.3f} (0.5 is chance), 95 % interval {auc['low']:.3f} to "
                   f"{auc['high']:.3f}, n = {auc['n']:,}; at 1 % false alarms it finds "
                   f"{100 * one['found_at_1_percent']:.1f} %")
    if "membership" not in found:
        typer.echo("membership: needs texts that the model did not see (--held-out)")


def _texts(path: Path | None, limit: int | None, seed: int) -> list[str]:
    """Every document; `limit` of them drawn by the seed."""
    from ayllu.data.folders import files_below
    from ayllu.data.texts import is_plain, single_texts
    if path is None:
        return []
    found = [text for file in files_below(path) for text in single_texts(file, () if is_plain(file) else ("text",))]
    if not found:
        raise DataError(f"{path} holds no text: expected rows with a column `text`, or plain texts")
    return found if limit is None or limit >= len(found) else random.Random(seed).sample(found, limit)


def _canaries(path: Path) -> list[Any]:
    from ayllu.config import validate
    from ayllu.data.readers import columns
    from ayllu.data.texts import each_row
    from ayllu.evaluate.leak import Canary
    found = []
    for where, row in each_row(path, (), columns):
        if not isinstance(row, dict):
            raise DataError(f"{where}: expected a row with format and secret, found {row[:80]!r}")
        found.append(validate(Canary, row, where=where))
    if not found:
        raise DataError(f"{path} holds no row: expected rows with format and secret")
    return found


def show_overfitting(run: Path, as_json: bool) -> None:
    """What the run's curves say."""
    from ayllu.evaluate.overfit import overfitting
    found = overfitting(run)
    if as_json:
        return print_json(found)
    gap = "" if found["gap"] is None else f", gap {found['gap']:.4f}"
    typer.echo(f"{run}: {found['verdict']}")
    typer.echo(f"  training loss {found['train']:.4f}, held-out {found['held_out']:.4f}{gap}; the best held-out "
               f"{found['best']:.4f} at step {found['best_step']:,} of {found['steps']:,}")
    for one in found["advice"]:
        typer.echo(f"  {one['en']}: {one['setting']}\n  {one['zh']}：{one['setting']}")
    return None
