"""`ayllu convert` and `ayllu download`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from ayllu.cli.output import Json, human_bytes, print_json
from ayllu.errors import ConfigError


def convert(source: Annotated[str, typer.Argument(help="A folder, a file of any format, a hub name, or ayllu-mini.")],
            destination: Annotated[Path, typer.Argument(help="A new folder; for gguf also a new file.gguf.")],
            to: Annotated[Literal["hf", "meta", "llama2c", "gguf", "senses"],
                          typer.Option(help="The format to write; senses: eye or ear of LLaVA-1.5 or Ultravox.")],
            dtype: Annotated[str | None, typer.Option(help="float32, float16, bfloat16; q8_0 for gguf.")] = None,
            overwrite: Annotated[bool, typer.Option(help="Replace a checkpoint that Ayllu wrote.")] = False,
            encoder: Annotated[Path | None, typer.Option(help="With senses: a folder of CLIP or Whisper, where the "
                                                         "source holds its projector alone.")] = None,
            json: Json = False) -> None:
    """Convert a checkpoint to another format and check the result.

    What was written is read again: every tensor, the logits of a probe text, tokenizer, chat template and licence must
    be right, or nothing is left behind.

    Example: ayllu convert ayllu-mini my-model --to hf
    """
    if to == "senses":
        return _senses(source, destination, encoder, overwrite, json)
    if encoder is not None:
        raise ConfigError("--encoder goes with --to senses")
    from ayllu.checkpoint.convert import convert as run

    done = run(source, destination, to=to, dtype=dtype, overwrite=overwrite)
    if json:
        return print_json(done.as_table())
    print(f"{done.path}: {done.format}, {done.dtype}, {done.n_tensors} tensors, {human_bytes(done.n_bytes)}, "
          f"{done.seconds:.1f} s")
    weights = f"{done.largest_weight_difference:.3g} in {done.differs_most}" if done.differs_most else "0"
    print(f"largest difference of a weight: {weights}")
    print(f"largest difference of a logit: {done.largest_logit_difference:.3g} (their deviation is "
          f"{done.logit_deviation:.3g}); the likeliest next token agrees at {done.same_next_token:.1%} of "
          f"{done.probe_tokens} positions")
    print(f"licence: {done.licence or 'none stated'}")
    return None


def _senses(source: str, destination: Path, encoder: Path | None, overwrite: bool, json: bool) -> None:
    from dataclasses import asdict

    from ayllu.engine.published import convert_senses
    done = convert_senses(source, destination, encoder, overwrite)
    if json:
        return print_json(asdict(done))
    print(f"{done.path}: senses, {human_bytes(done.n_bytes)}; features at most: "
          + ", ".join(f"{kind} {n:,}" for kind, n in done.features.items()))
    return None


def download(name: Annotated[str, typer.Argument(help="A name on the hub, for example meta-llama/Llama-2-7b-hf.")],
             out: Annotated[Path | None, typer.Option(help="A folder to fetch into; else the hub's own cache.")] = None,
             revision: Annotated[str | None, typer.Option(help="A branch, tag or commit.")] = None,
             file: Annotated[str | None, typer.Option(help="Which .gguf file, where there are several.")] = None,
             lang: Annotated[Literal["en", "zh"], typer.Option(help="Language of the licence's summary.")] = "en",
             json: Json = False) -> None:
    """Fetch a model from the Hugging Face hub, with its licence.

    Only plain data is fetched: weights, config, tokenizer, README and licence files; never code.

    Example: ayllu download meta-llama/Llama-2-7b-hf
    """
    from ayllu.checkpoint.download import download as run

    done = run(name, folder=out, revision=revision, file=file)
    if json:
        return print_json({"name": done.name, "path": str(done.path), "files": list(done.files),
                           "licence": done.licence.model_dump(mode="json") if done.licence else None})
    print(f"{done.name}: {len(done.files)} files in {done.path}")
    if done.licence is not None:
        print(done.licence.plain_words(lang))
    else:
        print("未注明许可证：使用前请询问作者。" if lang == "zh" else "No licence is stated: ask its authors first.")
    return None
