"""The flags that generating commands share: which model, and how it is sampled. No torch before a model is loaded."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ayllu.engine.llm import LLM
    from ayllu.engine.result import Result

Model = Annotated[str, typer.Option("--model", "-m", help="A folder, a file of any format, a hub name, or ayllu-mini.")]
Adapter = Annotated[Path | None, typer.Option(help="An adapter for the model: a PEFT folder.")]
Senses = Annotated[str | None, typer.Option(metavar="FOLDER", help="An eye and an ear for the model, as `ayllu align` "
                                            "leaves them; the bundled chat model has its own.")]
Dtype = Annotated[str | None, typer.Option(help="float32, bfloat16 or float16; by default the checkpoint's own.")]
RopeScaling = Annotated[str | None, typer.Option(metavar="KIND:FACTOR", help="Stretch the positions beyond the trained "
                                                 "context: linear:4, dynamic:4, yarn:4 or llama3:4; none undoes it.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")]
MaxTokens = Annotated[int | None, typer.Option(min=1, help="At most so many new tokens; by default 256 or what fits.")]
Temperature = Annotated[float | None, typer.Option(min=0, help="0 takes the likeliest token always (greedy); by "
                                                   "default the checkpoint's own, else 0.8 with top-p 0.95.")]
TopK = Annotated[int | None, typer.Option(min=0, help="Draw from the k likeliest tokens only; 0: all.")]
TopP = Annotated[float | None, typer.Option(help="Draw from the fewest tokens that reach this probability; 1: all.")]
MinP = Annotated[float | None, typer.Option(help="Only tokens at least so many times as likely as the likeliest.")]
Penalty = Annotated[float | None, typer.Option("--repetition-penalty", help="Above 1 discourages what came before.")]
Seed = Annotated[int | None, typer.Option(min=0, help="The same seed gives the same text.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Tell tokens, seconds and memory on stderr.")]


def stated(**options: Any) -> dict[str, Any]:
    """The options that were given: what was left out is for the checkpoint to say."""
    return {name: value for name, value in options.items() if value not in (None, (), [])}


def load_llm(model: str, dtype: str | None, device: str, adapter: Path | None = None,
             rope_scaling: str | None = None, senses: str | None = None) -> "LLM":
    """Load the model; importing torch is most of the wait."""
    from ayllu.engine.llm import LLM

    return LLM.load(model, dtype=dtype, device=device, adapter=adapter, rope_scaling=rope_scaling,
                    senses=senses or "auto")


def read_prompt(prompt: str | None) -> str:
    """The argument, or all of stdin where there is none or it is "-"."""
    if prompt is not None and prompt != "-":
        return prompt
    if sys.stdin.isatty():
        raise typer.BadParameter("give a prompt as an argument, or send it to stdin: echo \"Once upon a time\" | ayllu "
                                 "generate")
    return sys.stdin.read().removesuffix("\n")


def stats_line(results: "list[Result]", llm: "LLM") -> str:
    """Tokens, seconds and memory of a call, for people."""
    from ayllu.cli.output import human_bytes

    n = sum(len(result.ids) for result in results)
    timing = results[0].timing
    parts = [f"prompt {sum({r.prompt: r.prompt_tokens for r in results}.values())} tokens",
             f"first token after {timing.first_token_s:.2f} s", f"answer {n} tokens in {timing.total_s:.2f} s"]
    rate = timing.tokens_per_s(n)
    parts += [f"{rate:.1f} tokens/s"] if rate else []
    parts += [f"ended by {results[0].finish_reason}"] if len(results) == 1 else []
    parts += [f"seed {results[0].seed}"] if results[0].seed is not None else []
    return " · ".join([*parts, f"peak memory {human_bytes(peak_memory(llm))}"])


def peak_memory(llm: "LLM") -> int:
    """Bytes: the process's largest resident size, or on a GPU the most that torch had allocated there."""
    device = llm.runner.device
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:                                  # Windows
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
