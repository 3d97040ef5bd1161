"""`ayllu report`."""

from pathlib import Path
from typing import Annotated

import typer

from ayllu.cli.output import Json, print_json


def report(run: Annotated[Path, typer.Argument(help="A run's folder, such as runs/mine; the run may be going on.")],
           out: Annotated[Path | None, typer.Option(help="The page to write; by default report.html in the run's "
                                                    "folder.")] = None, as_json: Json = False) -> None:
    """Draw a run as one page that needs no network: curves, decisions, samples, results, settings, data and licences.

    Example: ayllu report runs/smoke --out report.html
    """
    from ayllu.train.page import write_page
    path = write_page(run, out)
    print_json({"out": str(path)}) if as_json else typer.echo(path)
