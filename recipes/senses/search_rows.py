"""Texts of emoji for `ayllu align recipes/emoji_search.toml`: their names and search tags in English and Chinese.

    python recipes/senses/search_rows.py --data ../shared/data/noto_emoji --out runs/search/data

writes media.tar, train.jsonl and held_out.jsonl. Held out are the same pictures as by recipes/senses/make.py: of those
with a skin tone every fifth whose plain form is learned. They are searched for by their names alone.
"""

import argparse
import json
import sys
import tarfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from make import add, chosen, labels

ASKS = ("find the picture of {}", "a picture of {}", "找出{}的图片")


def texts(row: dict) -> list[str]:
    """What a picture is called and asked for by."""
    tags = [*map(", ".join, (row["en_tags"], row["zh_tags"]))]
    return [row["en"], row["zh"], ASKS[0].format(row["en"]), ASKS[1].format(row["en"]), ASKS[2].format(row["zh"]),
            *(tag for tag in tags if tag)]


def main() -> int:
    """Read, split, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder of noto_emoji")
    parser.add_argument("--out", type=Path, required=True, help="a folder, made where it is missing")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    sides: dict[bool, list[str]] = {False: [], True: []}
    with tarfile.open(options.data / "files.tar") as source, tarfile.open(options.out / "media.tar", "w") as tar:
        for row in labels(options.data):
            stream = source.extractfile(row["file"])
            assert stream is not None
            add(tar, row["file"], stream.read())
            held_out = "skin tone" in row["en"] and ":" in row["en"] and chosen(row["hexcode"], 5)
            said = [row["en"], row["zh"]] if held_out else texts(row)
            sides[held_out] += [json.dumps({"image": row["file"], "text": text}, ensure_ascii=False) for text in said]
    for held_out, name in ((False, "train"), (True, "held_out")):
        (options.out / f"{name}.jsonl").write_text("\n".join(sides[held_out]) + "\n", encoding="utf-8")
    print(json.dumps({"train": len(sides[False]), "held_out": len(sides[True])}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
