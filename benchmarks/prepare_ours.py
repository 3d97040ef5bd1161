"""Ayllu's preparation as a worker of benchmarks/prepare.py."""

import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lines import serve

from ayllu.data.part import Preparation, load_libraries
from ayllu.data.prepare import Raw, prepare_documents

OFF = {"cleaning": {"line_ends": False, "control": False, "nfc": False, "line_tails": False, "blank_lines": "off"},
       "personal_data": "keep", "identify": False}


def load(texts: str) -> dict[str, Any]:
    """All libraries, so that a run begins at once."""
    load_libraries(Preparation())
    return {"version": version("ayllu")}


def run(source: str, out: str, texts: str, processes: int, everything: bool) -> dict[str, Any]:
    """Clean documents from the raw files."""
    settings = Preparation.model_validate({} if everything else OFF)
    start = time.perf_counter()
    report = prepare_documents([Raw(Path(source), "texts", ("text",))], [], settings, Path(out), processes)
    return {"seconds": time.perf_counter() - start, **{k: report["total"].get(k, 0) for k in ("documents", "kept")}}


if __name__ == "__main__":
    serve({"load": load, "run": run})
