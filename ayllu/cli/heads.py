"""`ayllu train-head` and `ayllu classify`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ayllu.cli.output import Json, print_json, write_text
from ayllu.cli.pretrain import DryRun, Resume, show, told_to_go_on
from ayllu.errors import ConfigError

What = Annotated[list[str], typer.Argument(help="A file of labelled rows (.csv, .tsv, .jsonl, .parquet), or a recipe "
                                           "(.toml, or a run's config.json). Overrides may follow: optim.lr=1e-3")]
Kind = Annotated[str | None, typer.Option(help="single, multi (some of many labels), tokens (a label for each word) or "
                                          "regression.")]
Method = Annotated[str | None, typer.Option(help="What learns: full (all weights), lora, or head (the head alone).")]
TooLong = Annotated[str | None, typer.Option(help="Texts past the context: error, begin (read their first tokens) or "
                                             "ends (first and last).")]
METHODS = {"full": "all", "lora": "adapter", "head": "head"}


def train_head(what: What, text: Annotated[str | None, typer.Option(help="The texts' column.")] = None,
               label: Annotated[str | None, typer.Option(help="The labels' column.")] = None,
               test: Annotated[str | None, typer.Option(help="A file to measure on; without one, rows are kept apart "
                                                        "by a fixed hash.")] = None,
               model: Annotated[str | None, typer.Option(help="The model to stand on.")] = None,
               kind: Kind = None, method: Method = None, too_long: TooLong = None,
               epochs: Annotated[float | None, typer.Option(help="Times that each row is seen.")] = None,
               context: Annotated[int | None, typer.Option(help="Tokens of a text at most.")] = None,
               out: Annotated[str | None, typer.Option(help="The run's folder; the head lies in its head/.")] = None,
               resume: Resume = False, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Train a classifier, a tagger of words or a regression on labelled rows, and measure it on rows kept apart.

    Prints accuracy and macro-F1 with 95 % intervals, beside an answer that ignores the text. Ctrl-C saves, and
    --resume goes on exactly where it stopped.

    Example: ayllu train-head reviews.csv --text review --label stars
    """
    from ayllu.dist import is_main
    from ayllu.train import plan
    from ayllu.train.heads import train_head as train
    from ayllu.train.heads_lesson import prepared_head
    from ayllu.train.worst import counts
    if method is not None and method not in METHODS:
        raise ConfigError(f"--method {method!r} is unknown: use one of {', '.join(METHODS)}")
    named: dict[str, Any] = {
        "data.text": text, "data.label": label, "data.test": test, "base": model, "kind": kind,
        "learns": METHODS.get(method or ""), "data.too_long": too_long, "epochs": epochs, "context": context,
        "out": out}
    options = [f"{key}={_quoted(value)}" for key, value in named.items() if value is not None]
    config, folder = read_head([*what, *options])
    config, lesson = prepared_head(config, folder)
    rows = counts(lesson)
    worst = config.model_copy(update={"context": rows["longest"]})
    if dry_run:
        show(plan.dry_run(worst) | rows, as_json)
        return
    plan.ready(worst, resume)
    with told_to_go_on("the same command with --resume goes on"):
        result = train(config, lesson, folder, resume)
    if is_main():
        print_json(result) if as_json else typer.echo(_told(result))


def read_head(words: list[str]) -> tuple[Any, Path]:
    """The settings that the words of a command line mean, and the folder that their paths are relative to."""
    from ayllu.config import build_recipe, load_recipe
    from ayllu.train.heads_config import HeadRecipe
    overrides = [word for word in words if "=" in word and not Path(word).exists()]
    names = [word for word in words if word not in overrides]
    if len(names) != 1:
        raise ConfigError(f"give one file of labelled rows, or a recipe; found {', '.join(names) or 'none'}")
    if Path(names[0]).suffix in (".toml", ".json"):
        return load_recipe(HeadRecipe, names[0], overrides), Path(names[0]).parent
    name = f"{Path(names[0]).name.partition('.')[0]}-head"
    table = {"name": name, "out": f"runs/{name}", "base": "ayllu-mini", "data": {"path": names[0]}}
    return build_recipe(HeadRecipe, table, overrides, where="the command line"), Path(".")


def _quoted(value: Any) -> str:
    """A text as TOML has it, so that `--label 1` stays a name."""
    import json
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else str(value)


def _told(found: dict[str, Any]) -> str:
    """The result for people."""
    plain = found["majority"]
    lines = [f"{found['rows']:,} test rows" + "".join(f", {n:,} {name} texts cut" for name, n in found["cut"].items())]
    for key, title in (("accuracy", "accuracy"), ("macro_f1", "macro-F1"), ("mean_absolute_error", "mean error")):
        if key in found:
            one = found[key]
            lines.append(f"{title:<14}{one['value']:.4f}  (95 %: {one['low']:.4f} to {one['high']:.4f}; without "
                         f"reading {plain[key]:.4f})")
    for key, title in (("span_f1", "span F1"), ("correlation", "correlation"),
                       ("calibration_error", "calibration error")):
        if key in found:
            lines.append(f"{title:<20}{found[key]:.4f}")
    return "\n".join([*lines, f"head                {found['head']}",
                      f"use it: ayllu classify {found['head']} \"a text\""])


def classify(head: Annotated[str, typer.Argument(help="The folder of a head, or of its run.")],
             texts: Annotated[list[str] | None, typer.Argument(help="Texts to label.")] = None,
             file: Annotated[Path | None, typer.Option(help="Rows to label: .csv, .tsv, .jsonl or .parquet with a "
                                                       "column of texts, or .txt with one in each line.")] = None,
             text: Annotated[str, typer.Option(help="The texts' column in the file.")] = "text",
             out: Annotated[Path | None, typer.Option(help="Write answers here as JSON Lines.")] = None,
             device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto", as_json: Json = False) -> None:
    """Label texts with a trained head; its probabilities are calibrated.

    Example: ayllu classify runs/reviews-head "a wonderful film"
    """
    import json

    from ayllu.data.labelled import read_texts
    from ayllu.files import write_text as write_file
    from ayllu.train.labeller import Labeller
    if bool(texts) == (file is not None):
        raise ConfigError("give texts, or --file with rows of them: one of the two")
    many = list(texts or []) or read_texts(file or Path(), text)
    answers = Labeller.load(head, device)(many)
    rows = [{"text": said, **answer.table()} for said, answer in zip(many, answers, strict=True)]
    if out is not None:
        write_file(out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    if as_json:
        print_json({"answers": rows} if out is None else {"out": str(out), "rows": len(rows)})
    elif out is None:
        write_text("".join(f"{_line(row)}\n" for row in rows))
    else:
        typer.echo(str(out))


def _line(row: dict[str, Any]) -> str:
    said = row["text"] if len(row["text"]) <= 60 else row["text"][:59] + "…"
    if "value" in row:
        return f"{row['value']:.4f}\t{said}"
    if "words" in row:
        return " ".join(f"{word}/{name}" for word, name in zip(row["text"].split(), row["labels"], strict=True))
    sure = ", ".join(f"{name} {row['probabilities'][name]:.3f}" for name in row["labels"]) or "(none)"
    return f"{sure}\t{said}" + "\t(cut)" * row["cut"]
