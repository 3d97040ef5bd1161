"""`ayllu generate` continues a text; `ayllu next` shows what may come next, with probabilities."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ayllu import files
from ayllu.cli import sampling as flags
from ayllu.cli.output import Json, print_json, write_text
from ayllu.log import say

if TYPE_CHECKING:
    from ayllu.engine.llm import LLM
    from ayllu.engine.result import Result

Prompt = Annotated[str | None, typer.Argument(help="The text to continue; without it, stdin.")]
BAR = 24                                                 # characters of the longest bar


def generate(
    prompt: Prompt = None,
    model: flags.Model = "ayllu-mini",
    max_tokens: flags.MaxTokens = None,
    temperature: flags.Temperature = None,
    top_k: flags.TopK = None,
    top_p: flags.TopP = None,
    min_p: flags.MinP = None,
    repetition_penalty: flags.Penalty = None,
    seed: flags.Seed = None,
    n: Annotated[int, typer.Option("--n", min=1, help="So many different texts.")] = 1,
    beams: Annotated[int, typer.Option(min=1, help="Beam search with so many beams instead of sampling.")] = 1,
    stop: Annotated[list[str] | None, typer.Option(help="End before this text; may be given several times.")] = None,
    adapter: flags.Adapter = None,
    rope_scaling: flags.RopeScaling = None,
    dtype: flags.Dtype = None,
    device: flags.Device = "auto",
    out: Annotated[Path | None, typer.Option(help="Write the texts to a file too (.json: with ids and all).")] = None,
    verbose: flags.Verbose = False,
    as_json: Json = False,
) -> None:
    """Continue a text, token by token as it is written."""
    text = flags.read_prompt(prompt)
    options = flags.stated(max_tokens=max_tokens, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p,
                           repetition_penalty=repetition_penalty, seed=seed, n=n, num_beams=beams,
                           stop=tuple(stop or ()))
    llm = flags.load_llm(model, dtype, device, adapter, rope_scaling)
    if n == beams == 1 and not as_json:
        results = [_stream(llm, text, options)]
    else:
        results = llm.generate(text, **options)
        if not as_json:
            _print_all(text, results)
    record = {"model": model, "prompt": text, "results": [_record(result) for result in results]}
    if out is not None:
        _write(out, record, [text + result.text for result in results])
    if verbose:
        say(flags.stats_line(results, llm))
    if as_json:
        print_json(record)


def next_token(
    prompt: Prompt = None,
    model: flags.Model = "ayllu-mini",
    k: Annotated[int, typer.Option("--k", "-k", min=1, help="So many of the likeliest tokens.")] = 10,
    candidates: Annotated[str | None, typer.Option(help="Score these texts, separated by commas; they may have several "
                                                   "tokens. Begin one with a space where the text needs it.")] = None,
    seed: flags.Seed = None,
    adapter: flags.Adapter = None,
    rope_scaling: flags.RopeScaling = None,
    dtype: flags.Dtype = None,
    device: flags.Device = "auto",
    as_json: Json = False,
) -> None:
    """Show what may come next: a table of probabilities, the greedy choice and a sampled one."""
    text = flags.read_prompt(prompt)
    words = [word for word in (candidates or "").split(",") if word]
    if candidates is not None and not words:
        raise typer.BadParameter("--candidates holds no text: separate texts by commas, --candidates 阅读,编程")
    llm = flags.load_llm(model, dtype, device, adapter, rope_scaling)
    found = _look(llm, text, k, words, seed)
    print_json({"model": model, **found}) if as_json else _print_tables(found)


def _stream(llm: "LLM", prompt: str, options: dict[str, Any]) -> "Result":
    stream = llm.stream(prompt, **options)
    write_text(prompt)
    for piece in stream:
        write_text(piece)
    write_text("\n")
    assert stream.result is not None
    return stream.result


def _print_all(prompt: str, results: "list[Result]") -> None:
    for number, result in enumerate(results, 1):
        score = "" if result.score is None else f" (score {result.score:.3f})"
        write_text(f"[{number}]{score} {prompt}{result.text}\n")


def _record(result: "Result") -> dict[str, Any]:
    return {"text": result.text, "ids": result.ids, "finish_reason": result.finish_reason, "seed": result.seed,
            "prompt_tokens": result.prompt_tokens, "score": result.score,
            "first_token_s": round(result.timing.first_token_s, 4), "total_s": round(result.timing.total_s, 4)}


def _write(out: Path, record: dict[str, Any], texts: list[str]) -> None:
    if out.suffix == ".json":
        files.write_json(out, record)
    else:
        files.write_text(out, "\n---\n".join(texts) + "\n")
    say(f"written to {out}")


def _look(llm: "LLM", prompt: str, k: int, words: list[str], seed: int | None) -> dict[str, Any]:
    """The distribution and the two choices; with candidates, among them."""
    from ayllu.model.sample import new_seed, uniform

    seed = new_seed() if seed is None else seed
    tokens = [{"text": t.text or t.piece, "id": t.id, "probability": t.probability} for t in llm.next_tokens(prompt, k)]
    found: dict[str, Any] = {"prompt": prompt, "tokens": tokens, "seed": seed}
    if not words:
        drawn = llm.generate(prompt, max_tokens=1, temperature=1.0, seed=seed)[0]
        piece = llm.tokenizer.id_to_piece(drawn.ids[0]) if llm.tokenizer else ""
        is_whole = drawn.text and "\N{REPLACEMENT CHARACTER}" not in drawn.text
        return {**found, "greedy": tokens[0]["text"], "sampled": drawn.text if is_whole else piece}
    scored = llm.score(prompt, words)
    u, below = uniform(seed, 0, 0), 0.0
    shares = [(c.text, below := below + c.share) for c in scored]
    drawn_word = next((text for text, mass in shares if u < mass), scored[-1].text)
    return {**found, "candidates": [{"text": c.text, "logprob": c.logprob, "share": c.share, "n_tokens": c.n_tokens,
                                     "is_merged": c.is_merged} for c in scored],
            "greedy": scored[0].text, "sampled": drawn_word}


def _print_tables(found: dict[str, Any]) -> None:
    from math import exp

    from rich.console import Console

    console = Console(highlight=False)
    if "candidates" in found:
        words = [(c["text"], f"{100 * exp(c['logprob']):.3g} %", f"{100 * c['share']:.1f} %", str(c["n_tokens"]),
                 c["share"]) for c in found["candidates"]]
        console.print(_table(("candidate", "probability", "among these", "tokens"), words, console.width))
        console.print()
    rows = [(_visible(t["text"]), f"{100 * t['probability']:.2f} %", t["probability"]) for t in found["tokens"]]
    console.print(_table(("next token", "probability"), rows, console.width))
    of = " among the candidates" if "candidates" in found else ""
    console.print(f"\ngreedy{of}: {_visible(found['greedy'])}\nsampled{of}: {_visible(found['sampled'])} "
                  f"(seed {found['seed']})", markup=False)


def _table(heads: tuple[str, ...], rows: list[tuple[Any, ...]], width: int) -> Any:
    """A table whose last column is a bar, as long as the row's share of the largest."""
    from rich.box import SIMPLE_HEAD
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for number, head in enumerate((*heads, "")):
        table.add_column(head, justify="left" if number in (0, len(heads)) else "right",
                         no_wrap=number > 0, min_width=len(head))
    largest = max(row[-1] for row in rows) or 1.0
    text = sum(max(map(cell_len, column)) + 2 for column in zip(heads, *(row[:-1] for row in rows), strict=True))
    longest = max(1, min(BAR, width - text - 3))         # on a narrow terminal the bars give way, not the words
    for row in rows:
        bar = "█" * max(round(longest * row[-1] / largest), 0)
        table.add_row(*(Text(cell) for cell in row[:-1]), Text(bar, "cyan"))
    return table


def _visible(text: str) -> str:
    """Line breaks and edge spaces made visible."""
    shown = text.replace("\n", "⏎").replace("\t", "⇥")
    return f"{shown!r}" if shown != shown.strip() or not shown else shown
