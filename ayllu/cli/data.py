"""`ayllu data prepare`: from raw files, or the sources of a recipe, to clean documents and token shards."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from ayllu.cli.output import Json, human_bytes, print_json
from ayllu.config import Settings, load_recipe
from ayllu.errors import ConfigError


def prepare(
    inputs: Annotated[list[str], typer.Argument(help="A recipe (.toml), or files and folders of texts (.txt, .md, "
                                                ".html, .jsonl, .csv, .parquet, also .gz, .xz, .zst); then "
                                                "overrides such as data.prepare.quality.min_words=20")],
    out: Annotated[Path, typer.Option(help="The folder for what comes out.")],
    tokenizer: Annotated[str | None, typer.Option(help="A tokenizer (file, folder, or ayllu-mini); by default the "
                                                   "recipe's. Raw files without one become clean documents only.")]
    = None,
    field: Annotated[list[str] | None, typer.Option("--field", help="Field of a row that holds text, for raw files; "
                                                    "may be given several times (default: text).")] = None,
    licence: Annotated[str, typer.Option(help="Licence of raw files, for the manifest.")] = "unknown",
    language: Annotated[str, typer.Option(help="Language of raw files (en, zh, mixed); held-out loss is reported for "
                                          "each.")] = "und",
    workers: Annotated[int, typer.Option(min=1, help="Processes; the result doesn't depend on them.")] = 2,
    ray: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Clean the texts over Ray: the address of a "
                                            "cluster, auto, or local for one that is started here.")] = None,
    against: Annotated[list[Path] | None, typer.Option(help="A file or folder of evaluation texts (--against may be "
                                                       "given several times): documents that share 13 words in a row "
                                                       "with one are dropped.")] = None,
    as_json: Json = False,
) -> None:
    """Clean texts, drop what is bad or double, take out personal data, and write shards of token ids with a manifest.

    Raw files are always prepared; a recipe's sources where it has a table [data.prepare]. Ctrl-C keeps what is done:
    the same command goes on.

    Writes into --out: of raw files without a tokenizer, documents/*.jsonl.zst, report.json (what was dropped, by which
    rule) and rejects.jsonl (rows that can't be read); else token shards with manifest.json, which
    `ayllu data inspect` and `ayllu data verify` read.

    Examples: ayllu data prepare texts/ more.jsonl.zst --out clean

    ayllu data prepare texts/ --tokenizer tokenizer.model --out shards data.prepare.quality.min_words=20
    """
    paths, overrides = _sorted_out(inputs)
    work = out.with_name(f".{out.name}.work")
    try:
        found = _tokenizer_at(tokenizer, work) if tokenizer else None
        if paths[0].suffix == ".toml":
            facts = _from_recipe(paths, overrides, against or [], ray, out, work, found, workers)
        else:
            facts = _from_files(paths, overrides, against or [], ray, {"fields": field or ["text"], "licence": licence,
                                                        "language": language}, out, work, found, workers)
    except KeyboardInterrupt:
        typer.echo(f"\nstopped; finished parts are kept beside {out}: run the same command again to go on", err=True)
        raise typer.Exit(130) from None
    print_json(facts) if as_json else typer.echo("\n".join(_lines(facts)))


def verify(
    folder: Annotated[Path, typer.Argument(help="What `ayllu data prepare` made.")],
    as_json: Json = False,
) -> None:
    """Read every byte of prepared data, and compare with the checksums that were written beside it.

    Writes nothing; says how many files and bytes were right, and with exit code 2 the name of the first that differs.

    Example: ayllu data verify shards
    """
    from ayllu.data.verify import check_sizes, check_sums, sums
    files = sums(folder)
    check_sizes(folder, files)
    n_bytes = check_sums(folder, files)
    print_json({"folder": str(folder), "files": len(files), "bytes": n_bytes}) if as_json else typer.echo(
        f"{len(files):,} files, {human_bytes(n_bytes)}: all as they were written")


def _sorted_out(inputs: list[str]) -> tuple[list[Path], list[str]]:
    """A word with = is an override, unless there is a file of that name."""
    overrides = [word for word in inputs if "=" in word and not Path(word).exists()]
    paths = [Path(word) for word in inputs if word not in overrides]
    if not paths or (len(paths) > 1 and any(path.suffix == ".toml" for path in paths)):
        raise ConfigError("give one recipe, or files and folders of texts, before the overrides")
    return paths, overrides


def _tokenizer_at(name: str, work: Path) -> Path:
    if Path(name).is_file() and not name.endswith(".gguf"):
        return Path(name)
    from ayllu.train.pretrain import tokenizer_at
    return tokenizer_at(name, Path(), work)


def _from_recipe(paths: list[Path], overrides: list[str], against: list[Path], ray: str | None, out: Path, work: Path,
                 tokenizer: Path | None, workers: int) -> dict[str, Any]:
    from ayllu.data.corpus import compared_with, over_ray, prepared
    from ayllu.data.shards import prepare_into
    from ayllu.train.pretrain import PretrainConfig, find_tokenizer
    config = load_recipe(PretrainConfig, paths[0], overrides)
    config = config.model_copy(update={"data": over_ray(compared_with(config.data, against), ray)})
    folder = paths[0].parent
    if tokenizer is None:                                # it may have to be trained, on the clean texts
        ready, _ = prepared(config.data, folder, work / "prepared" if config.data.prepare else None, workers)
        tokenizer = find_tokenizer(config.model_copy(update={"data": ready}), folder, Path(config.out))
    return _facts(out, prepare_into(out, config.data, folder, tokenizer, workers, work).manifest)


def _from_files(paths: list[Path], overrides: list[str], against: list[Path], ray: str | None, source: dict[str, Any],
                out: Path, work: Path, tokenizer: Path | None, workers: int) -> dict[str, Any]:
    from ayllu.data.corpus import Corpus, compared_with, over_ray, prepared
    from ayllu.data.shards import prepare_into
    for path in paths:
        if not path.exists():
            raise ConfigError(f"no file or folder at {path}")

    class Files(Settings):
        data: Corpus

    with TemporaryDirectory() as folder:                 # a recipe that the command line has written
        recipe = Path(folder) / "command line"
        rows = [[f"{k} = {json.dumps(v)}" for k, v in {**source, "path": str(path)}.items()] for path in paths]
        sources = ", ".join("{" + ", ".join(row) + "}" for row in rows)
        recipe.write_text(f"[data]\nsources = [{sources}]\n[data.prepare]\n", encoding="utf-8")
        corpus = over_ray(compared_with(load_recipe(Files, recipe, overrides).data, against), ray)
    if tokenizer is not None:
        return _facts(out, prepare_into(out, corpus, Path("."), tokenizer, workers, work).manifest)
    _, report = prepared(corpus, Path("."), out, workers)
    return {"out": str(out), "prepared": {k: v for k, v in (report or {}).items() if k in {"total", "sources"}}}


def _facts(out: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    report = manifest.get("prepared")
    return {"out": str(out), "tokens": manifest["tokens"], "held_out": manifest["held_out"],
            "tokenizer": manifest["tokenizer"],
            **({"prepared": {k: report[k] for k in ("total", "sources")}} if report else {})}


def _lines(facts: dict[str, Any]) -> list[str]:
    lines = [f"{facts['tokens']:,} tokens in {facts['out']}"] if "tokens" in facts else []
    if "prepared" in facts:
        total = facts["prepared"]["total"]
        lines.append(f"{total.get('kept', 0):,} of {total.get('documents', 0):,} documents kept, "
                     f"{total.get('rejected', 0):,} bad rows; details in {Path(facts['out']) / 'report.json'}")
        lines += [f"  dropped by {rule}: {n:,}" for rule, n in sorted(total["dropped"].items(), key=lambda x: -x[1])]
        lines += [f"  personal data, {kind}: {n:,}" for kind, n in total["personal_data"].items()]
    return lines
