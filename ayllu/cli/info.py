"""`ayllu info`: what a model is, and what it takes to run or train it."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ayllu.cli.output import Json, human_bytes, human_count, human_flops, print_json
from ayllu.errors import CheckpointError, ConfigError
from ayllu.model.account import BYTES
from ayllu.model.presets import PRESETS, preset


def info(
    model: Annotated[str, typer.Argument(help="A checkpoint (folder, file, hub name, ayllu-mini) or a published shape "
                                         "such as llama2-7b, whose weights aren't needed.")] = "ayllu-mini",
    context: Annotated[int | None, typer.Option(min=1, help="Tokens; by default what the model takes.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Sequences at a time.")] = 1,
    dtype: Annotated[str, typer.Option(help=f"For the memory estimate: {', '.join(BYTES)}.")] = "bfloat16",
    mermaid: Annotated[bool, typer.Option("--mermaid", help="Draw the model as a Mermaid flowchart instead.")] = False,
    as_json: Json = False,
) -> None:
    """Show a model's shape, parameters, memory and licence; weights are not loaded."""
    from ayllu.explain.describe import describe_shape
    if dtype not in BYTES:
        raise ConfigError(f"dtype {dtype!r} is unknown: use one of {', '.join(BYTES)}")
    config, facts = _find(model)
    if mermaid:
        from ayllu.explain.mermaid import draw
        chart = draw(config)
        print_json({"model": model, "mermaid": chart}) if as_json else typer.echo(chart, nl=False)
        return
    facts = {"model": model, **facts, **describe_shape(config, context or config.max_context, batch, dtype)}
    print_json(facts) if as_json else typer.echo(_page(facts))


def _find(name: str) -> tuple[Any, dict[str, Any]]:
    """The config, and what the checkpoint brings where there is one; a name that is neither names both."""
    if name.lower() in PRESETS and not Path(name).exists():
        return preset(name), {"format": "published shape, no weights"}
    from ayllu.checkpoint.load import open_checkpoint
    from ayllu.checkpoint.transformer import is_transformer, open_transformer
    from ayllu.explain.describe import describe_checkpoint
    if is_transformer(name):
        baseline = open_transformer(name)
        return baseline.config, describe_checkpoint(baseline)
    try:
        source = open_checkpoint(name)
    except CheckpointError as error:
        if "/" in name or Path(name).exists():
            raise
        raise CheckpointError(f"{error}\npublished shapes that need no weights: {', '.join(PRESETS)}") from error
    return source.config, describe_checkpoint(source)


def _page(facts: dict[str, Any]) -> str:
    return "\n".join([facts["model"], *_section("", _about(facts)), *_section("shape", _shape(facts["shape"])),
                      *_section("parameters", _parameters(facts["parameters"])), *_section("cost", _costs(facts))])


def _section(title: str, rows: list[tuple[str, str]]) -> list[str]:
    return [*([f"\n{title}"] if title else []), *(f"  {name:<22} {value}" for name, value in rows)]


def _about(facts: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [("format", ", ".join([facts["format"], *facts.get("stored_as", [])]))]
    if "licence" not in facts:
        return rows
    tokenizer, template = facts["tokenizer"], facts["chat_template"]
    has = f"{tokenizer['kind']}, {tokenizer['vocab_size']:,} pieces" if tokenizer else "none beside the weights"
    return [*rows, ("path", facts["path"]),
            ("licence", facts["licence"]["id"] if facts["licence"] else "unknown: ask who gave you the weights"),
            ("tokenizer", has), ("chat template", f"yes, {len(template):,} characters" if template else "none")]


def _shape(shape: dict[str, Any]) -> list[tuple[str, str]]:
    return [(name, f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value))
            for name, value in shape.items() if value not in (None, False, 0.0)]


def _parameters(parameters: dict[str, Any]) -> list[tuple[str, str]]:
    total = parameters["total"]
    rows = [(name, f"{n:>17,}  {n / total:6.1%}" if n or name != "output" else f"{'tied to embedding':>17}")
            for name, n in parameters["parts"].items()]
    return [*rows, ("total", f"{total:>17,}  {human_count(total)}")]


def _costs(facts: dict[str, Any]) -> list[tuple[str, str]]:
    flops, memory, training = facts["flops_per_token"], facts["inference_memory"], facts.get("training_memory")
    rows = [
        ("weights", ", ".join(f"{human_bytes(n)} {name}" for name, n in facts["weight_bytes"].items()
                              if name != "float16")),
        ("KV cache per token", ", ".join(f"{human_bytes(n)} {name}" for name, n in facts["kv_bytes_per_token"].items()
                                         if name != "float16")),
        ("work per token", f"{human_flops(flops['forward_first'])} for the first, "
                           f"{human_flops(flops['forward_last'])} at {flops['context']:,}; "
                           f"training {human_flops(flops['training_mean'])}"),
        ("memory to run", f"{human_bytes(memory['total'])}: "
                          f"{memory['dtype']} weights {human_bytes(memory['weights'])}, "
                          f"cache {human_bytes(memory['kv'])}, work {human_bytes(memory['activations'])} "
                          f"(context {memory['context']:,}, batch {memory['batch']})"),
    ]
    if training:
        rows.append(("memory to train", f"{human_bytes(training['total'])}: AdamW, bfloat16 autocast, not compiled "
                                        f"(context {training['context']:,}, batch {training['batch']})"))
    return rows
