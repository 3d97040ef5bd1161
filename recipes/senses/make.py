"""What ayllu-mini-senses learns from: emoji and digits to see, spoken digits and pinyin syllables to hear.

    python recipes/senses/make.py --data ../shared/data --out runs/senses/data

writes media.tar (all pictures and sounds) and rows for `ayllu align`: train.jsonl, which is the KIND.jsonl of all, and
held_out.jsonl with a question and its answer (recipes/senses.toml); KIND.texts.jsonl and KIND.held_out.texts.jsonl with
what is true of a picture or sound (recipes/senses_eye.toml, senses_ear.toml); and counts.json. Held out are: of the
digits every tenth by a fixed hash, of the spoken digits their own test side, of the syllables every tenth, and of the
emoji with a skin tone every fifth whose plain form is learned. Sounds over 2 seconds
are left out: two digits and ten syllables. The licences of all sources allow it.

dev.jsonl is what to choose by, so that nothing is chosen on the held-out rows: of the digits to learn every twentieth
by a fixed hash, of the spoken ones numbers 5 to 7 of each speaker and digit. KIND.less.jsonl are the rows without
them, from which recipes/senses_last.toml learns. All other recipes learn them as well (KIND.jsonl, KIND.texts.jsonl),
so figures on dev.jsonl are a little too good.
"""

import argparse
import gzip
import hashlib
import io
import json
import lzma
import re
import sys
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import zstandard
from PIL import Image

LONGEST_S = 2.0                                          # of a sound: recipes/senses.toml's ear
KINDS = ("digit", "emoji", "spoken digit", "syllable")
DEV_ONE_OF, DEV_SPOKEN = 20, range(5, 8)                 # rows to choose by; fsdd's test side is 0 to 4
SYLLABLE = re.compile(r"(zh|ch|sh|[bpmfdtnlgkhjqxrzcsyw])?(.+?)([1-5])?$")
FIND = ("find the picture of {}", "a picture of {}", "找出{}的图片")
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
ASKS = {"digit": ("Which digit is this?", "这是哪个数字？"), "emoji": ("What is this?", "这是什么？"),
        "spoken digit": ("Which digit is said?", "说的是哪个数字？"), "syllable": ("这是什么音？",)}


@dataclass(frozen=True)
class Example:
    """One row, and whether it is kept for testing."""

    kind: str
    file: str
    prompt: str
    text: str
    held_out: bool
    of: str = "image"
    true: tuple[str, ...] = ()                           # what else could be said of it
    exact: tuple[str, ...] = ()                          # what is said of it alone, if not `text`
    dev: bool = False                                    # to choose by, if it is not held out

    def texts(self) -> list[str]:
        """What it is found by; where it's held out, only what is meant to be found out."""
        return [*(self.exact or (self.text,)), *(() if self.held_out else self.true)]

    def row(self) -> dict[str, str]:
        """As ayllu align reads it; `kind` is for benchmarks."""
        return {self.of: self.file, "prompt": self.prompt, "text": self.text, "kind": self.kind}


def chosen(name: str, one_of: int) -> bool:
    """By a fixed hash."""
    return int(hashlib.sha256(name.encode()).hexdigest(), 16) % one_of == 0


def parts(syllable: str) -> tuple[str, str, str]:
    """Initial, final, tone as pinyin writes them: zhang1 -> zh, ang, 1."""
    match = SYLLABLE.match(syllable)
    return (match[1] or "", match[2], match[3] or "") if match else ("", "", "")


def labels(folder: Path) -> list[dict]:
    """The rows of a set."""
    data = zstandard.decompress((folder / "labels.jsonl.zst").read_bytes(), max_output_size=1 << 26)
    return [json.loads(line) for line in data.decode().splitlines()]


def digits(folder: Path, tar: tarfile.TarFile) -> Iterator[Example]:
    """Handwritten ones, as PNG files."""
    pixels = np.frombuffer(gzip.decompress((folder / "images-idx3-ubyte.gz").read_bytes())[16:], np.uint8)
    names = np.frombuffer(gzip.decompress((folder / "labels-idx1-ubyte.gz").read_bytes())[8:], np.uint8)
    for number, (image, digit) in enumerate(zip(pixels.reshape(-1, 28, 28), names, strict=True)):
        out, file = io.BytesIO(), f"digits/{number:05}.png"
        Image.fromarray(image).save(out, "PNG")
        add(tar, file, out.getvalue())
        ask = ASKS["digit"][number % 2]
        yield Example("digit", file, ask, str(digit), chosen(file, 10), true=of_digit(int(digit)),
                      dev=chosen(f"dev {file}", DEV_ONE_OF))


def of_digit(digit: int) -> tuple[str, ...]:
    """Other words for it."""
    return f"the digit {digit}", DIGITS[digit], f"数字{digit}"


def emoji(folder: Path, tar: tarfile.TarFile) -> Iterator[Example]:
    """By their English and their Chinese names."""
    with tarfile.open(folder / "files.tar") as source:
        for row in labels(folder):
            file = f"emoji/{row['file']}"
            add(tar, file, _bytes(source, row["file"]))
            held_out = "skin tone" in row["en"] and ":" in row["en"] and chosen(row["hexcode"], 5)
            # A plain form has the tags of its tones; a tone is a tag of all pictures that have it.
            names = [row["en"], row["zh"]] if "skin tone" in row["en"] else []
            tones = [tone for name in names for tone in re.split("[:：] ?", name, maxsplit=1)[1:]]
            tags = [text for text in (", ".join(row["en_tags"]), ", ".join(row["zh_tags"])) if text]
            true = (FIND[0].format(row["en"]), FIND[1].format(row["en"]), FIND[2].format(row["zh"]), *tags, *tones)
            for ask, name in zip(ASKS["emoji"], (row["en"], row["zh"]), strict=True):
                yield Example("emoji", file, ask, name, held_out, true=true)


def spoken_digits(folder: Path, tar: tarfile.TarFile) -> Iterator[Example]:
    """By six speakers, with the set's own split."""
    with lzma.open(folder / "files.tar.xz") as stream, tarfile.open(fileobj=stream, mode="r|") as source:
        for member in source:
            stream_of = source.extractfile(member)
            if stream_of is not None:
                add(tar, f"spoken/{Path(member.name).name}", stream_of.read())
    for row in labels(folder):
        if row["seconds"] <= LONGEST_S:
            ask = ASKS["spoken digit"][row["index"] % 2]
            yield Example("spoken digit", f"spoken/{row['file']}", ask, str(row["digit"]), row["split"] == "test",
                          "audio", of_digit(row["digit"]), dev=row["index"] in DEV_SPOKEN)


def syllables(folder: Path, tar: tarfile.TarFile) -> Iterator[Example]:
    """One speaker's toned pinyin, each once."""
    with tarfile.open(folder / "files.tar") as source:
        for row in labels(folder):
            if row["kind"] == "syllable" and row["text"][0] != "_":
                file = f"syllables/{row['file']}"
                data = _bytes(source, row["file"])
                if soundfile.info(io.BytesIO(data)).duration <= LONGEST_S:
                    add(tar, file, data)
                    initial, final, tone = parts(row["text"])
                    true = row["text"], initial + final, f"initial {initial}", f"final {final}", f"tone {tone}"
                    # In its parts, which are the same tokens in every syllable: zhuang1 is z, hu, ang, 1 and guang1
                    # is g, u, ang, 1, of which nobody learns that both end alike.
                    said = f"{initial} {final} {tone}".strip()
                    yield Example("syllable", file, ASKS["syllable"][0], said, chosen(row["text"], 10), "audio",
                                  true, (f"{initial} {final} {tone}",))


def _bytes(source: tarfile.TarFile, name: str) -> bytes:
    stream = source.extractfile(name)
    assert stream is not None
    return stream.read()


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """A file of the tar, with nothing in it that changes from run to run."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def main() -> int:
    """Make, split, count, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder with the sources")
    parser.add_argument("--out", type=Path, required=True, help="a folder, made where it is missing")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    found: list[Example] = []
    with tarfile.open(options.out / "media.tar", "w") as tar:
        for name, make in (("mnist_10k", digits), ("noto_emoji", emoji), ("fsdd", spoken_digits),
                           ("audio_cmn", syllables)):
            found += make(options.data / name, tar)

    def write(name: str, rows: Iterable[Example]) -> None:
        lines = [json.dumps(e.row(), ensure_ascii=False) + "\n" for e in rows]
        (options.out / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")

    learned = [e for e in found if not e.held_out]
    write("train", learned)
    write("held_out", (e for e in found if e.held_out))
    write("dev", (e for e in learned if e.dev))
    for kind in KINDS:
        own = [e for e in found if e.kind == kind]
        write(kind.split()[0], (e for e in learned if e.kind == kind))
        write(f"{kind.split()[0]}.less", (e for e in learned if e.kind == kind and not e.dev))
        for name, side in (("texts", False), ("held_out.texts", True)):
            said = dict.fromkeys((e.of, e.file, text) for e in own if e.held_out == side for text in e.texts())
            lines = [json.dumps({of: file, "text": text}, ensure_ascii=False) + "\n" for of, file, text in said]
            (options.out / f"{kind.split()[0]}.{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    counts = Counter((e.kind, "held out" if e.held_out else "train") for e in found)
    counts.update((e.kind, "dev, of train") for e in learned if e.dev)
    told = {f"{kind}, {side}": n for (kind, side), n in sorted(counts.items())}
    (options.out / "counts.json").write_text(json.dumps(told, indent=1) + "\n")
    print(json.dumps(told))
    return 0


if __name__ == "__main__":
    sys.exit(main())
