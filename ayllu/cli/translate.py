"""`ayllu translate`."""

import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ayllu.cli.output import Json, print_json
from ayllu.errors import AylluError, ConfigError, DataError, Refused

if TYPE_CHECKING:
    from ayllu.apps.translate.document import Done
    from ayllu.apps.translate.fetch import Limits
    from ayllu.apps.translate.formats import Format

Sources = Annotated[list[str] | None, typer.Argument(help="Files, folders of a site, or addresses; - reads a text from "
                                                     "stdin.")]
To = Annotated[str, typer.Option("--to", help="The language to translate into: zh, en, de, ...")]
From = Annotated[str | None, typer.Option("--from", help="The language of the source; found out by default.")]
Out = Annotated[Path | None, typer.Option(help="The file or folder to write; NAME.zh.html beside the source by "
                                          "default.")]
Bilingual = Annotated[bool, typer.Option("--bilingual", help="Both languages side by side (not JSON and PO).")]
GlossaryFile = Annotated[Path | None, typer.Option("--glossary", help="A CSV file of term,translation; a term alone is "
                                                   "kept.")]
MemoryFile = Annotated[Path | None, typer.Option("--memory", help="The translation memory; by default one in your own "
                                                 "folder.")]
NoMemory = Annotated[bool, typer.Option("--no-memory", help="Keep nothing; a run that was stopped begins anew.")]
Check = Annotated[bool, typer.Option("--check", help="Translate back, too, and mark what doesn't come back.")]
Least = Annotated[float, typer.Option(min=0, max=1, help="Keep the source where the mean probability is lower.")]
Prompt = Annotated[str | None, typer.Option(help="How the model is asked: text with {text}, {source}, {target}.")]
Serve = Annotated[str | None, typer.Option("--serve", help="A site's folder or address, to be seen translated in a "
                                           "browser of this machine.")]


def translate(sources: Sources = None, to: To = "zh", source: From = None, out: Out = None,
              bilingual: Bilingual = False, glossary: GlossaryFile = None, memory: MemoryFile = None,
              no_memory: NoMemory = False, check: Check = False, least: Least = 0.0, prompt: Prompt = None,
              model: Annotated[str, typer.Option(help="A model: a name, a folder or a file.")] = "ayllu-mini-chat",
              device: Annotated[str, typer.Option(help="cpu, cuda, mps or auto.")] = "auto",
              allow_private: Annotated[bool, typer.Option("--allow-private", help="Let addresses of this machine and "
                                                          "its network be read.")] = False,
              serve: Serve = None, port: Annotated[int, typer.Option(min=0, max=65535, help="Of --serve.")] = 8090,
              as_json: Json = False) -> None:
    """Translate pages and files: HTML, Markdown, TXT, SRT, VTT, JSON, PO, DOCX. All but the words stays as it is.

    Ctrl-C keeps what is done in the memory, and the same command goes on.

    Examples: ayllu translate page.html --to zh

    ayllu translate site/ --to zh --out site-zh --glossary terms.csv

    ayllu translate --serve site/ --to zh
    """
    from ayllu.apps.translate.fetch import Limits
    from ayllu.files import state_folder
    memory = None if no_memory else memory or state_folder() / "translations.sqlite"
    work = _Work(to, source, bilingual, glossary, memory, check, least, prompt, model, device)
    limits = Limits(allow_private=allow_private)
    if serve is not None:
        return _serve(work, serve, port, limits)
    if not sources:
        raise ConfigError("nothing to translate: name a file, a folder or an address, or give --serve")
    if out is not None and len(sources) > 1 and not out.is_dir():
        raise ConfigError(f"--out {out} is no folder, and there are {len(sources)} sources: make the folder first")
    start = time.perf_counter()
    reports = [report for one in sources for report in _one(work, one, out, limits)]
    found = {"files": reports, "seconds": round(time.perf_counter() - start, 3)}
    if len(reports) > 1:
        typer.echo("\n".join(_summary(reports)), err=True)
    if as_json:
        print_json(found)
    failed = [r for r in reports if "error" in r]
    if failed and len(failed) == len([r for r in reports if not r.get("copied") or "error" in r]):
        raise DataError(failed[0]["error"])
    return None


class _Work:
    """What all sources share: the model is loaded once, when the first needs it."""

    def __init__(self, to: str, source: str | None, bilingual: bool, glossary: Path | None, memory: Path | None,
                 check: bool, least: float, prompt: str | None, model: str, device: str) -> None:
        from ayllu.apps.translate.holes import Glossary
        from ayllu.apps.translate.languages import NAMES
        from ayllu.apps.translate.memory import Memory
        from ayllu.apps.translate.prompts import check_prompt
        for code in filter(None, (to, source)):
            if code not in NAMES:
                raise ConfigError(f"the language {code!r} isn't known: give one of {', '.join(NAMES)}")
        self.to, self.source, self.bilingual, self.model, self.device = to, source, bilingual, model, device
        self.settings: dict[str, Any] = {
            "glossary": Glossary() if glossary is None else Glossary.load(glossary), "check": check, "least": least,
            "memory": None if memory is None else Memory(memory), "prompt": prompt and check_prompt(prompt)}
        self._speaker: Any = None

    def make(self, pair: Any) -> Any:
        """A translator of a pair of languages."""
        from ayllu.apps.speaker import LocalSpeaker
        from ayllu.apps.translate.measured import said
        from ayllu.apps.translate.translator import Translator
        if self._speaker is None:
            self._speaker = LocalSpeaker.load(self.model, device=self.device)
            typer.echo(said(self._speaker.name, pair), err=True)
            if self._speaker.is_small:
                typer.echo(f"{self.model} is a small model: it manages short everyday sentences; for pages use one "
                           "of 7 billion parameters or more (--model)", err=True)
        return Translator(self._speaker, pair, **self.settings)

    def translate(self, raw: bytes, format: "Format", charset: str | None, name: str) -> "Done":
        """One file."""
        from ayllu.apps.translate.document import translate_bytes
        told = time.monotonic()

        def progress(done: int, total: int) -> None:
            nonlocal told
            if time.monotonic() - told > 2:              # a large page has hundreds of thousands of texts
                told = time.monotonic()
                typer.echo(f"{name}: {done:,} of {total:,}", err=True)

        return translate_bytes(raw, format, self.to, self.make, source=self.source, header=charset,
                               bilingual=self.bilingual, progress=progress)


def _one(work: _Work, source: str, out: Path | None, limits: "Limits") -> list[dict[str, Any]]:
    from ayllu.apps.translate.fetch import fetch, is_url
    from ayllu.apps.translate.formats import format_of
    from ayllu.apps.translate.site import translate_folder
    if source == "-":
        return [_text(work)]
    if not is_url(source) and Path(source).is_dir():
        target = out or Path(source).with_name(f"{Path(source).resolve().name}-{work.to}")
        reports = []
        for report in translate_folder(Path(source), target, work.translate):
            if not report.get("copied") or "error" in report:
                _tell(report)
            reports.append(report)
        return reports
    try:
        if is_url(source):
            page = fetch(source, limits)
            name = source.split("?")[0].rstrip("/").rpartition("/")[2] or "page"
            format = format_of(name, page.media)
            name = name if name.lower().endswith(format.suffixes) else name + format.suffixes[0]
            done, target = work.translate(page.data, format, page.charset, source), Path(name)
        else:
            target, format = Path(source), format_of(source)
            done = work.translate(target.read_bytes(), format, None, source)
    except (DataError, Refused, OSError) as error:
        says = str(error) if isinstance(error, AylluError) or error.strerror is None else \
            f"{error.strerror.lower()}: give a file, a folder or an address that can be read"
        report = {"file": source, "error": says}
        _tell(report)
        return [report]
    target = target.with_name(f"{target.stem}.{work.to}{target.suffix}") if out is None or out.is_dir() else out
    return [_written(done, (out / target.name) if out is not None and out.is_dir() else target, source)]


def _written(done: "Done", path: Path, source: str) -> dict[str, Any]:
    from ayllu.files import write_bytes
    write_bytes(path, done.data)
    report = {"file": source, **done.report, "out": str(path)}
    _tell(report)
    return report


def _text(work: _Work) -> dict[str, Any]:
    import sys

    from ayllu.apps.translate.formats import format_of
    done = work.translate(sys.stdin.buffer.read(), format_of("stdin.txt"), None, "stdin")
    sys.stdout.buffer.write(done.data)
    sys.stdout.flush()
    report = {"file": "-", **done.report}
    _tell(report)
    return report


def _tell(report: dict[str, Any]) -> None:
    if "error" in report:
        return typer.echo(f"{report['file']}: left out: {report['error']}", err=True)
    by = ", ".join(f"{n:,} {how}" for how, n in report.get("by", {}).items())
    again = {k: n for k, n in report.get("sentences", {}).items() if n and k != "model"}
    reused = f"; sentences from the memory: {sum(again.values()):,}" if again else ""
    typer.echo(f"{report['file']}: {report['segments']:,} texts{f' ({by})' if by else ''}{reused}" +
               (f"; {report['n_low']:,} to be looked at" if report.get("n_low") else "") +
               "".join(f"; {note}" for note in report["notes"]) +
               (f" -> {report['out']}" if "out" in report else ""), err=True)
    for one in report.get("low", [])[:5]:
        why = "; ".join(one["notes"]) or f"probability {one.get('probability', 0):.2f}"
        typer.echo(f"    {why}: {one['source'][:60]} = {one['translation'][:60]}", err=True)
    return None


def _summary(reports: list[dict[str, Any]]) -> list[str]:
    """What became of many files, and why some were left out: their own lines may have scrolled by."""
    failed = [one for one in reports if "error" in one]
    copied = Counter(Path(one["file"]).suffix or "without an ending" for one in reports
                     if one.get("copied") and "error" not in one)
    empty = [one for one in reports if one.get("segments") == 0]
    counts = (("translated", len(reports) - len(failed) - copied.total() - len(empty)), ("left out", len(failed)),
              ("with nothing to translate", len(empty)),
              (f"copied ({', '.join(f'{n:,} {kind}' for kind, n in sorted(copied.items()))})", copied.total()))
    return [f"{len(reports):,} files: " + ", ".join(f"{n:,} {what}" for what, n in counts if n),
            *(f"  left out: {one['file']}: {one['error']}" for one in failed),
            *(f"  {one['file']}: {'; '.join(one['notes'])}" for one in empty)]


def _serve(work: _Work, origin: str, port: int, limits: "Limits") -> None:
    from ayllu.apps.translate.fetch import is_url
    from ayllu.apps.translate.site import Mirror, server_of
    if not is_url(origin) and not Path(origin).is_dir():
        raise ConfigError(f"--serve {origin}: no such folder; give a site's folder or its address")
    mirror = Mirror(origin if is_url(origin) else Path(origin), work.translate, limits)
    with server_of(mirror, port) as server:
        typer.echo(f"{origin} in {work.to}: http://127.0.0.1:{server.server_address[1]}/ (Ctrl-C ends it)", err=True)
        server.serve_forever()
