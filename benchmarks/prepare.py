"""`ayllu data prepare` beside datatrove, in turns: read, judge by Gopher's rules, drop near duplicates, write.

    python benchmarks/prepare.py --json results.json           # English and Chinese, 24 MB each
    python benchmarks/prepare.py --texts english --megabytes 8
    python benchmarks/prepare.py --quick                       # 1 MB of English, one round each

Both do the steps that both have: JSON Lines are read, documents judged by Gopher's rules of quality and repetition,
near duplicates found by MinHash over 5-grams (ours 128 values at Jaccard 0.8, datatrove its default of 14 buckets of
8), and the rest written compressed. Cleaning, personal data and languages are off, since datatrove's language filter
downloads its model; "all steps" is Ayllu with them on, for orientation. Each has two processes, started by fork from a
process that has everything loaded. datatrove runs its documented stages, with its own word tokenizer (spaCy; jieba for
Chinese) and results on the disk between them; its tokens count punctuation as words, so that its rule about alphabetic
words drops more of the English, which then needs no signatures. The texts are books in pieces of 3,000 characters, one
in 20 of them a second time with a sentence left out.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

import zstandard
from lines import Worker
from peers import machine, python_of

HERE = Path(__file__).parent
DATA = HERE.parents[1] / "shared" / "data"
TEXTS = {"english": "classic_books_en", "chinese": "vernacular_zh"}
SCRIPTS = {"ayllu": "prepare_ours.py", "datatrove": "prepare_datatrove.py"}
PIECE = 3000                                             # characters


def main() -> None:
    """Measure the texts that are asked for and print a table for each."""
    options = _options()
    log = Path(tempfile.gettempdir()) / f"ayllu-benchmark-{os.getpid()}.log"
    start, tables = time.perf_counter(), {}
    with tempfile.TemporaryDirectory() as folder:
        for texts in options.texts:
            source = Path(folder) / texts
            n_bytes = write_corpus(texts, source, options.megabytes * 1_000_000)
            tables[texts] = measure(texts, source, n_bytes, Path(folder), options, log)
            _show(texts, n_bytes, tables[texts])
    ratio, cell = min((table["ratio"], f"{texts}, MB/s beside datatrove") for texts, table in tables.items())
    print(f"{time.perf_counter() - start:.0f} s; logs of the workers: {log}", file=sys.stderr)
    if options.json:
        report = {"date": date.today().isoformat(), "machine": machine(), "processes": options.processes,
                  "quick": options.quick, "tables": tables, "worst": {"ratio": ratio, "cell": cell}}
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(f"worst ratio: {ratio:.2f} ({cell})")


def write_corpus(texts: str, folder: Path, most: float) -> int:
    """Pieces of books in as many files as a run may have processes; returns the bytes of text."""
    path = DATA / TEXTS[texts] / "train.jsonl.zst"
    if not path.exists():
        raise SystemExit(f"{path} is missing: this benchmark reads the data sets beside the checkout")
    folder.mkdir()
    pieces: list[str] = []
    size = 0
    with zstandard.open(path, "rt", encoding="utf-8") as stream:
        for line in stream:
            text = json.loads(line)["text"]
            for start in range(0, len(text), PIECE):
                piece = text[start:start + PIECE]
                pieces.append(piece)
                if len(pieces) % 20 == 0:
                    stop = "。" if texts == "chinese" else ". "
                    pieces.append(piece.replace(piece.split(stop)[1] + stop, "", 1) if stop in piece else piece)
                size += len(piece.encode())
            if size >= most:
                break
    for number in range(2):
        with open(folder / f"{number}.jsonl", "w", encoding="utf-8") as out:
            out.writelines(json.dumps({"text": p, "id": str(i)}, ensure_ascii=False) + "\n"
                           for i, p in enumerate(pieces) if i * 2 // len(pieces) == number)
    return sum(len(piece.encode()) for piece in pieces)


def measure(texts: str, source: Path, n_bytes: int, folder: Path, options: argparse.Namespace, log: Path) -> Any:
    """Both sides loaded, then in turns; who begins changes from round to round."""
    workers = {name: Worker(options.peer_python if name == "datatrove" and options.peer_python else python_of(name),
                            HERE / script, 1, log) for name, script in SCRIPTS.items()}
    rates: dict[str, list[float]] = {name: [] for name in [*SCRIPTS, "all steps"]}
    kept: dict[str, int] = {}
    try:
        versions = {name: worker.ask("load", texts=texts)["version"] for name, worker in workers.items()}
        for number in range(options.rounds):
            order = list(SCRIPTS)[::1 if number % 2 else -1]
            for name in [*order, "all steps"]:
                out = folder / f"{texts}-{name}-{number}".replace(" ", "-")
                worker = workers["ayllu" if name == "all steps" else name]
                answer = worker.ask("run", source=str(source), out=str(out), texts=texts, processes=options.processes,
                                    everything=name == "all steps")
                rates[name].append(n_bytes / answer["seconds"])
                kept[name] = answer["kept"]
                print(f"  {texts} {name}: {rates[name][-1] / 1e6:.2f} MB/s, {answer['kept']:,} of "
                      f"{answer['documents']:,} documents kept", file=sys.stderr, flush=True)
    finally:
        for worker in workers.values():
            worker.close()
    ratios = [a / b for a, b in zip(rates["ayllu"], rates["datatrove"], strict=True)]
    return {"bytes": n_bytes, "versions": versions, "kept": kept, "ratio": statistics.median(ratios), "ratios": ratios,
            "rates": {name: statistics.median(found) for name, found in rates.items()}}


def _show(texts: str, n_bytes: int, table: dict[str, Any]) -> None:
    print(f"\n{texts}, {n_bytes / 1e6:.1f} MB, documents of about {PIECE:,} characters\n"
          "| | MB/s | documents kept | Ayllu's rate over it |\n|---|---:|---:|---:|")
    for name, rate in table["rates"].items():
        ratio = f"{table['ratio']:.2f}" if name == "datatrove" else ""
        print(f"| {name} | {rate / 1e6:.2f} | {table['kept'][name]:,} | {ratio} |", flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="1 MB of English, one round")
    parser.add_argument("--texts", help=f"some of {','.join(TEXTS)}")
    parser.add_argument("--megabytes", type=float)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1), help="at most 2")
    parser.add_argument("--peer-python", help="a Python that has datatrove, in place of the cached environment")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    options.texts = (options.texts or ("english" if options.quick else ",".join(TEXTS))).split(",")
    options.megabytes = options.megabytes or (1 if options.quick else 24)
    options.rounds = options.rounds or (1 if options.quick else 3)
    if unknown := set(options.texts) - set(TEXTS):
        parser.error(f"--texts: {', '.join(sorted(unknown))} is none of {', '.join(TEXTS)}")
    return options


if __name__ == "__main__":
    main()
