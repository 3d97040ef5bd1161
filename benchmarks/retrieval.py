"""Answers from documents: is the right passage found, is the answer in it, and is silence kept where it isn't there?

    python benchmarks/retrieval.py --data ../shared/data --json retrieval.json
    python benchmarks/retrieval.py --data ../shared/data --only search answers refusals rerank scale [--sets SET ...]
    python benchmarks/retrieval.py --data ../shared/data --choose       # fits what was fitted, on the separate parts
    python benchmarks/retrieval.py --data ../shared/data --quick

search: cmrc2018 (trial), drcd (test), xquad_en_zh (7 in 10 articles) and banking77 (test; right is a passage of
the same intent), over all passages of a set at once: recall at 1 and 5 and the mean reciprocal rank, by words (BM25),
by vectors and by both, with 95 % intervals and the paired intervals of "both minus one"; bm25s beside, if installed.
answers: 320 questions of each set through `ask`: does each quote stand in the source, does the cited passage hold the
gold answer; exact match and F1 of the bundled chat model on the found passage beside the sentence that is quoted.
rerank: the five passages found first, ordered anew by the bundled chat model (`--rerank`), for as many questions.
refusals: the same questions with their passage taken out of what is found: precision and recall of "not found".
scale: 10,000 documents: seconds, resident memory on the way, milliseconds for a question.
The dev parts of cmrc2018 and drcd, 3 in 10 articles of XQuAD and a part of banking77's training side are for choosing.
"""

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from retrieval_answers import answers, refusals, reranking
from retrieval_choose import choose
from retrieval_sets import Library, Part, parts, place_of

from ayllu.apps.collection import DEEP, Collection
from ayllu.apps.docqa.extract import extract, read
from ayllu.apps.index.ranking import mixed
from ayllu.evaluate.intervals import bootstrap_mean, compare, mean
from ayllu.files import write_json
from ayllu.log import say, setup

GOAL_MS = 100.0
SETS = ("cmrc2018", "drcd", "xquad_en", "xquad_zh", "banking77")
N_ASKED = 320                                            # of each set
ONLY = ("search", "answers", "refusals", "rerank", "scale")


def scores(places: Sequence[int | None]) -> dict[str, np.ndarray]:
    ranks = np.array([place or np.inf for place in places])
    return {"recall@1": (ranks <= 1).astype(float), "recall@5": (ranks <= 5).astype(float), "mrr": 1 / ranks}


def search(part: Part, folder: Path) -> dict[str, Any]:
    """Every way of searching, on one set, with the weight that a collection of such texts has."""
    library = Library(part, folder)
    weight = library.collection.dense_weight()
    places: dict[str, list[int | None]] = {"words": [], "dense": [], "hybrid": []}
    seconds = dict.fromkeys(places, 0.0)
    for asked in part.asked:
        begun = time.perf_counter()
        said = library.collection.ranked(asked.text, DEEP, way="words")
        middle = time.perf_counter()
        near = library.collection.ranked(asked.text, DEEP, way="dense")
        end = time.perf_counter()
        seconds["words"] += middle - begun
        seconds["dense"] += end - middle
        seconds["hybrid"] += end - begun
        both = mixed(said, near, weight, DEEP)
        for way, ranked in (("words", said), ("dense", near), ("hybrid", both)):
            places[way].append(place_of(library.passages(ranked), asked.right))
    peer, seconds["bm25s"] = bm25s_places(part)
    ms = {way: 1000 * each / len(part.asked) for way, each in seconds.items()}
    found = {way: scores(each) for way, each in places.items()} | ({"bm25s": scores(peer)} if peer else {})
    groups = [asked.group for asked in part.asked]
    result: dict[str, Any] = {"n": len(part.asked), "passages": len(part.passages), "ms": ms}
    print(f"\n{part.name}: {len(part.asked):,} questions, {len(part.passages):,} passages, vectors weigh {weight}, "
          f"ms a question: {', '.join(f'{way} {each:.1f}' for way, each in ms.items())}")
    for way, metrics in found.items():
        each = {m: bootstrap_mean(v, groups=groups) for m, v in metrics.items()}
        result[way] = {m: (i.value, i.low, i.high) for m, i in each.items()}
        print(f"  {way:<16}{shown(each)}")
    for one, other in (("hybrid", "words"), ("hybrid", "dense"), ("words", "bm25s")):
        if other in found:
            pair = {m: compare(mean(found[other][m]), mean(found[one][m]), len(groups), groups=groups).difference
                    for m in found["words"]}
            result[f"{one} - {other}"] = {m: (d.value, d.low, d.high) for m, d in pair.items()}
            print(f"  {one + ' - ' + other:<16}{shown(pair)}")
    return result


def shown(each: dict[str, Any]) -> str:
    return "   ".join(f"{m} {100 * i.value:.2f} ({100 * i.low:.2f} to {100 * i.high:.2f})" for m, i in each.items())


def bm25s_places(part: Part) -> tuple[list[int | None], float]:
    """An outside peer for the words: bm25s with rjieba's words, without pairs and single characters; and the seconds
    that all questions took."""
    try:
        import bm25s
        import rjieba
    except ImportError:
        return [], 0.0
    cut = [[w for w in rjieba.cut_for_search(text.lower()) if any(map(str.isalnum, w))] for text in part.passages]
    index = bm25s.BM25(method="lucene")
    index.index(cut, show_progress=False)
    known = set(index.vocab_dict)
    places: list[int | None] = []
    begun = time.perf_counter()
    for asked in part.asked:
        query = [w for w in rjieba.cut_for_search(asked.text.lower()) if w in known]
        found = index.retrieve([query], k=min(DEEP, len(cut)), show_progress=False).documents[0] if query else []
        places.append(place_of([int(i) for i in found], asked.right))
    return places, time.perf_counter() - begun


def scale(data: Path, folder: Path, n: int) -> dict[str, Any]:
    """n files of shuffled sentences; resident memory of this process, which writes, and of its readers."""
    source = [text for part in parts(data, is_test=True) if part.convention == "cmrc" for text in part.passages]
    sentences = [s for text in source for s in text.replace("。", "。\n").splitlines() if s]
    rng = random.Random(3)
    files = folder / "files"
    files.mkdir()
    for i in range(n):
        text = "".join(rng.choice(sentences) for _ in range(rng.randrange(4, 30)))
        (files / f"{i:06d}.txt").write_text(f"{i}\n{text}", encoding="utf-8")
    process, memory = psutil.Process(), []

    def watch(done: int, of: int, _: str) -> None:
        if done % max(of // 10, 1) == 0:
            memory.append((done, process.memory_info().rss, sum(c.memory_info().rss for c in process.children())))
            say(f"{done:,} of {of:,}: {memory[-1][1] / 2**20:.0f} MiB, readers {memory[-1][2] / 2**20:.0f} MiB")

    collection = Collection(folder / "scale.sqlite")
    begun = time.perf_counter()
    collection.add([files], progress=watch)
    indexed = time.perf_counter() - begun
    collection.add_vectors()
    vectored = time.perf_counter() - begun - indexed
    questions = [asked.text for part in parts(data, is_test=True) if part.convention == "cmrc"
                 for asked in rng.sample(part.asked, 30)]
    result: dict[str, Any] = {
        "documents": n, "chunks": int(collection.store.one("SELECT count(*) FROM chunks")), "index_s": indexed,
        "vectors_s": vectored, "memory": memory, "file_bytes": (folder / "scale.sqlite").stat().st_size}
    print(f"\n{n:,} documents, {result['chunks']:,} chunks: indexed in {indexed:.0f} s, vectors {vectored:.0f} s, "
          f"resident {memory[0][1] / 2**20:.0f} MiB after a tenth, {memory[-1][1] / 2**20:.0f} MiB at the end")
    for way in ("words", "hybrid"):
        collection.search(questions[0], way=way)
        times = []
        for question in questions:
            begun = time.perf_counter()
            extract(read(question, collection), collection.search(question, way=way, weight=0.3))
            times.append(1000 * (time.perf_counter() - begun))
        result[f"{way}_ms"] = {"median": float(np.median(times)), "p95": float(np.quantile(times, 0.95))}
        print(f"  {way}: {np.median(times):.0f} ms to search and extract (median), {np.quantile(times, 0.95):.0f} ms "
              "(95 %)")
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--only", nargs="+", default=ONLY, choices=ONLY)
    parser.add_argument("--sets", nargs="+", default=SETS, choices=SETS, metavar="SET")
    parser.add_argument("--choose", action="store_true", help="fit on the separate parts instead")
    parser.add_argument("--limit", type=int, default=10**6, help="questions of each set")
    parser.add_argument("--model-answers", type=int, default=150, help="of each set, that the chat model reads")
    parser.add_argument("--documents", type=int, default=10_000)
    parser.add_argument("--quick", action="store_true", help="a few of everything: does it run?")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    setup()
    if args.quick:
        args.limit, args.model_answers, args.documents = 40, 5, 100
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if args.choose:
            result = choose(args.data, folder, args.limit)
        else:
            result = measure(args, folder)
    if args.json:
        write_json(args.json, result)
    return 0


def measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for part in parts(args.data, is_test=True):
        if part.name not in args.sets:
            continue
        short = Part(part.name, part.passages, random.Random(0).sample(part.asked, min(args.limit, len(part.asked))))
        is_reading = part.name != "banking77"
        if "search" in args.only:
            result.setdefault("search", {})[part.name] = search(short, folder)
        if "answers" in args.only and is_reading:
            result.setdefault("answers", {})[part.name] = answers(short, folder, N_ASKED, args.model_answers)
        if "rerank" in args.only:
            result.setdefault("rerank", {})[part.name] = reranking(short, folder, args.model_answers)
        if "refusals" in args.only and is_reading:
            result.setdefault("refusals", {})[part.name] = refusals(short, folder, min(args.limit, 500))
    if "scale" in args.only:
        result["scale"] = scale(args.data, folder, args.documents)
        print(f"worst ratio: {GOAL_MS / max(result['scale']['hybrid_ms']['p95'], 1e-9):.2f} (a question to "
              f"{args.documents:,} documents, 95 %)")
    return result


if __name__ == "__main__":
    sys.exit(main())
