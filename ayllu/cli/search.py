"""`ayllu search`."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from ayllu.cli.output import Json, print_json
from ayllu.errors import ConfigError


def search(folder: Annotated[Path, typer.Argument(help="Where the pictures and sounds are, with its subfolders.")],
           question: Annotated[str | None, typer.Argument(help="What to find, in English or Chinese.")] = None,
           like: Annotated[Path | None, typer.Option(help="A picture or a sound to find others like.")] = None,
           k: Annotated[int, typer.Option("--k", min=1, help="How many.")] = 5,
           kind: Annotated[Literal["image", "audio"] | None, typer.Option(help="Only these.")] = None,
           space: Annotated[str, typer.Option(help="A folder that ayllu align made with method=\"contrast\".")]
           = "ayllu-mini-search",
           index: Annotated[Path | None, typer.Option(help="Where the vectors are kept; by default in the folder.")]
           = None, as_json: Json = False) -> None:
    """Find pictures or sounds in a folder by words, or by a picture. The folder is read once; later only what is new.

    Example: ayllu search pictures/ "find the picture of a red apple"
    """
    from ayllu.apps.gallery import Gallery, Seeker
    from ayllu.cli.documents import shown
    from ayllu.data.media_rows import IMAGES, SOUNDS, kind_of
    from ayllu.engine.parts import file_bytes
    if question is not None and like is not None:
        raise ConfigError("give words or --like FILE, not both")
    seeker = Seeker.open(space)
    vector = None if question is None else seeker.text(question)
    if like is not None:
        found_kind = kind_of(like.name)
        if found_kind is None:
            raise ConfigError(f"{like} has no ending of a picture or a sound: give one of "
                              f"{', '.join(sorted((*IMAGES, *SOUNDS)))}")
        (found,) = seeker.media([("image" if found_kind == "image" else "audio", file_bytes(like), str(like))])
        if isinstance(found, str):
            raise ConfigError(found)
        vector = found
    gallery = Gallery(folder, seeker, index)
    try:
        with shown("media") as progress:
            brought = gallery.update(progress)
        hits = [] if vector is None else gallery.search(vector, k, kind)
    finally:
        gallery.close()
    if as_json:
        return print_json({"hits": [asdict(hit) for hit in hits], **asdict(brought)})
    for hit in hits:
        typer.echo(f"{hit.score:6.3f}  {hit.path}")
    typer.echo(f"{brought.encoded:,} encoded, {brought.kept:,} known, {brought.removed:,} gone, "
               f"{len(brought.left_out):,} left out", err=True)
    for path, reason in brought.left_out.items():
        typer.echo(f"left out: {path}: {reason}", err=True)
    return None
