"""How well a space finds emoji that it has never seen, beside the nearest neighbours by pixels.

Held out are emoji with a skin tone whose plain form is learned (recipes/senses/make.py); names are English or Chinese.

name      of a held-out picture, among all names of the language (those of the training rows and of the held-out ones):
          the right one among the first 5. Pixels have names only for training pictures, so they can't give this one
base      the same, where any name with the right beginning counts ("waving hand"), the tone whatever it is; for pixels
          the names of the nearest training pictures
picture   for a held-out name, among the held-out pictures: the right one among the first 5. By pixels: the training
          picture whose name is most alike (words in common, characters in Chinese), and what is nearest to it
anywhere  the same among all pictures, those of the training rows too; pixels leave out the training picture itself

    python benchmarks/emoji_search.py SPACE --data runs/senses/data [--json FILE]

The last line has the worst of the ratios of ours to the neighbours', of base and picture in both languages.
"""

import argparse
import json
import re
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from ayllu.apps.gallery import Seeker
from ayllu.data.media_rows import Folder
from ayllu.evaluate.intervals import bootstrap_mean
from ayllu.files import write_json
from ayllu.media.space import text_states

TOP = 5
ROWS = 256
GOALS = ("base", "picture")
Rows = list[tuple[str, str]]                             # file, name


def rows_of(path: Path, is_chinese: bool) -> Rows:
    """Files and names in one language."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row["kind"] == "emoji" and any("\u4e00" <= c <= "\u9fff" for c in row["prompt"]) == is_chinese:
            found.append((row["image"], row["text"]))
    return found


def base_of(name: str) -> str:
    """Without its skin tone."""
    return re.split("[:：]", name)[0].strip()


def words(name: str) -> set[str]:
    """What two names may have in common: words, or Chinese characters."""
    return set(re.findall(r"[\u4e00-\u9fff]|[^\W\u4e00-\u9fff]+", name.casefold()))


class Pictures:
    """Each file's vector in the space, and its pixels as the eye is given them."""

    @torch.no_grad()
    def __init__(self, seeker: Seeker, folder: Folder, files: list[str]) -> None:
        self.at = {file: i for i, file in enumerate(files)}
        vectors, pixels = [], []
        for first in range(0, len(files), ROWS):
            part = [seeker.space.senses.image(folder.read(file), file) for file in files[first:first + ROWS]]
            vectors.append(seeker.space.media(part).numpy())
            pixels += [medium.values.numpy().ravel() for medium in part]
        self.vectors, self.pixels = np.concatenate(vectors), np.stack(pixels)

    def apart(self, files: list[str], others: list[str]) -> np.ndarray:
        """Squared distances by pixels."""
        a, b = (self.pixels[[self.at[file] for file in part]] for part in (files, others))
        return (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T


def first_names(order: np.ndarray, names: list[str]) -> list[str]:
    """The first TOP different ones."""
    return list(dict.fromkeys(names[i] for i in order))[:TOP]


@torch.no_grad()
def measured(seeker: Seeker, pictures: Pictures, train: Rows, held: Rows) -> dict[str, dict[str, np.ndarray]]:
    """Right or not, for each held-out emoji."""
    names = list(dict.fromkeys(name for _, name in (*train, *held)))
    seeker.text("a")                                     # opens the Llama
    assert seeker._reads is not None
    texts = seeker.space.texts(text_states(*seeker._reads, names)).numpy()
    at = {name: i for i, name in enumerate(names)}
    files, known = [file for file, _ in held], [name for _, name in train]
    everything = list(pictures.at)
    of_names = texts[[at[name] for _, name in held]]
    ours = np.argsort(-pictures.vectors[[pictures.at[file] for file in files]] @ texts.T, 1, "stable")
    near = np.argsort(pictures.apart(files, [file for file, _ in train]), 1, "stable")
    told = [words(name) for name in known]
    like = []
    for _, name in held:
        own = words(name)
        like.append(int(np.argmax([len(own & other) / len(own | other) for other in told])))
    among = {"picture": files, "anywhere": everything}
    found: dict[str, dict[str, list[bool]]] = {side: {} for side in ("ours", "pixels")}
    for n, (_, name) in enumerate(held):
        for side, first in (("ours", first_names(ours[n], names)), ("pixels", first_names(near[n], known))):
            found[side].setdefault("name", []).append(name in first)
            found[side].setdefault("base", []).append(base_of(name) in map(base_of, first))
    for kind, candidates in among.items():
        vectors = pictures.vectors[[pictures.at[file] for file in candidates]]
        far = pictures.apart([train[i][0] for i in like], candidates)
        for row, i in zip(far, like, strict=True):
            row[[k for k, file in enumerate(candidates) if file == train[i][0]]] = np.inf
        for side, order in (("ours", np.argsort(-of_names @ vectors.T, 1, "stable")),
                            ("pixels", np.argsort(far, 1, "stable"))):
            found[side][kind] = [file in [candidates[i] for i in row[:TOP]]
                                 for file, row in zip(files, order, strict=True)]
    return {side: {kind: np.array(hits, float) for kind, hits in rows.items()} for side, rows in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("space", help="a folder, or ayllu-mini-search")
    parser.add_argument("--data", type=Path, default=Path("runs/senses/data"), help="what recipes/senses/make.py wrote")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    seeker = Seeker.open(args.space)
    sides = {language: [rows_of(args.data / f"{part}.jsonl", language == "zh") for part in ("train", "held_out")]
             for language in ("en", "zh")}
    files = list(dict.fromkeys(file for file, _ in (*sides["en"][0], *sides["en"][1])))
    pictures = Pictures(seeker, Folder(args.data / "media.tar"), files)
    found, ratios = {}, {}
    for language, (train, held) in sides.items():
        rows = measured(seeker, pictures, train, held)
        groups = [base_of(name) for _, name in held]     # tones of one emoji are no independent examples
        found[language] = {side: {kind: asdict(bootstrap_mean(hits, groups=groups)) for kind, hits in kinds.items()}
                           for side, kinds in rows.items()}
        print(f"{language}: {len(held)} held out, {len(train)} learned; among the first {TOP}, in percent")
        for kind in rows["ours"]:
            cells = [found[language][side][kind] for side in ("ours", "pixels")]
            told = "".join(f"{100 * c['value']:10.1f} ({100 * c['low']:.1f} to {100 * c['high']:.1f})" for c in cells)
            print(f"{kind:12}{told}")
            if kind in GOALS:
                ratios[f"{kind}, {language}"] = cells[0]["value"] / max(cells[1]["value"], 1e-9)
    if args.json:
        write_json(args.json, {"found": found, "ratios": ratios})
    name, ratio = min(ratios.items(), key=lambda item: item[1])
    print(f"worst ratio: {ratio:.3f} ({name})")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
