"""benchmarks/media.py: both workers run every cell at small shapes, on equal inputs."""

import sys

import pytest
from scripts import ROOT, load_script

sys.path.insert(0, str(ROOT / "benchmarks"))

import media_ours
import media_peer

media = load_script("benchmarks/media.py")               # by its path: tests/media has its name
SMALL = {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64}


@pytest.mark.parametrize("what", sorted({what for what, _ in media.CELLS}))
@pytest.mark.parametrize("worker", [media_ours, media_peer], ids=["ours", "transformers"])
def test_each_cell_runs(monkeypatch, worker, what):
    for module in (media_ours, media_peer):
        monkeypatch.setitem(module.TEXT, "n_layers", 2)
        for shape in (module.VISION, module.AUDIO):
            for key, value in SMALL.items():
                monkeypatch.setitem(shape, key, value)
    monkeypatch.setattr(worker, "state", {})
    worker.load(what, "float32", 1)
    worker.setting("eager")
    assert worker.run(1)["seconds"] > 0


class Told:
    """A worker that takes turns and always as long."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.asked = seconds, []

    def ask(self, command: str, **options):
        self.asked.append((command, options.get("name")))
        if options.get("name") == "compile":
            raise RuntimeError("no compiler")
        return {"seconds": self.seconds}


def test_the_ratio_says_who_is_ahead():
    ours, theirs = Told(0.5), Told(1.0)
    cell = media.measured("x", ours, theirs, 1, 4, ("eager", "compile"))  # type: ignore[arg-type]
    assert (cell.ratio, cell.setting, list(cell.failed)) == (2.0, "eager", ["compile"])
    assert ours.asked.count(("run", None)) == 5          # once warm, and four rounds
