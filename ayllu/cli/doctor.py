"""`ayllu doctor`: this machine, what works, what fits, how to fix the rest."""

from typing import TYPE_CHECKING

import typer

from ayllu.cli.output import Json, human_bytes, print_json

if TYPE_CHECKING:
    from ayllu.doctor import Report

MARKS = {"ok": "✓", "note": "!", "problem": "✗"}


def doctor(as_json: Json = False) -> None:
    """Check this machine: what works, what fits, how to fix the rest. Exit code 0 when Ayllu can be used here."""
    from ayllu.doctor import examine
    report = examine()
    print_json(report.as_table()) if as_json else typer.echo(_page(report))
    if not report.usable:
        raise typer.Exit(1)


def _page(report: "Report") -> str:
    from ayllu.doctor import RUN_CONTEXT, TRAIN_CONTEXT
    lines = []
    for check in report.checks:
        lines.append(f"{MARKS[check.status]} {check.name:<16} {check.found}")
        if check.fix:
            lines.append(f"  {'':<16} fix: {check.fix}")
    uses = list(report.fits[0].needs)
    lines += ["", f"what fits into the {human_bytes(report.free_bytes)} free on {report.device} (✓), by estimate; "
                  f"running with {RUN_CONTEXT:,} tokens, training with 1 × {TRAIN_CONTEXT:,}",
              f"  {'':<16}" + "".join(f"{use:>18}" for use in uses)]
    for fit in report.fits:
        cells = (f"{human_bytes(fit.needs[use])} {'✓' if fit.fits[use] else '·'}" for use in uses)
        lines.append(f"  {fit.model:<16}" + "".join(f"{cell:>18}" for cell in cells))
    lines += ["", "Ayllu can be used here." if report.usable else "Ayllu can't be used here yet: see the lines with ✗."]
    return "\n".join(lines)
