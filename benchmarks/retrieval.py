"""Answers from documents: is the right passage found, is the answer in it, and is silence kept where it isn't there?

    python benchmarks/retrieval.py --data ../shared/data --json retrieval.json
    python benchmarks/retrieval.py --data ../shared/data --only search answers refusals scale
    python benchmarks/retrieval.py --data ../shared/data --choose       # fits what was fitted, on the separate parts
    python benchmarks/retrieval.py --data ../shared/data --quick

search: cmrc2018 (trial), drcd (test), xquad_en_zh (7 in 10 articles) and banking77 (test; right is a passage of
the same intent), over all passages of a set at once: recall at 1 and 5 and the mean reciprocal rank, by words (BM25),
by vectors and by both, with 95 % intervals and the paired intervals of "both minus one"; bm25s beside, if installed.
answers: 1,000 questions through `ask`: does each quote stand in the source, does the cited passage hold the gold
answer; exact match and F1 of the bundled chat model on the found passage beside the sentence that is quoted.
refusals: the same questions with their passage taken out of what is found: precision and recall of "not found".
scale: 10,000 documents: seconds, resident memory on the way, milliseconds for a question.
The dev parts of cmrc2018 and drcd, 3 in 10 articles of XQuAD and a part of banking77's training side are for choosing.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import zstandard

from ayllu.apps.collection import DEEP, DENSE, DENSE_SHORT, Collection
from ayllu.apps.docqa.ask import ask
from ayllu.apps.docqa.cite import Span, spans_of
from ayllu.apps.docqa.extract import FOUND, SURE, extract, read
from ayllu.apps.docqa.overlap import WEIGHTS
from ayllu.apps.index.ranking import fused
from ayllu.data.units import is_chinese
from ayllu.evaluate.intervals import bootstrap_mean, compare, mean
from ayllu.evaluate.metrics import answer_f1, exact_match
from ayllu.files import write_json
from ayllu.log import say, setup

WEIGHTS_TRIED = (0.0, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7)
GOAL_MS = 100.0


@dataclass(frozen=True)
class Asked:
    """A question, the passages that are right, and its answers."""

    text: str
    right: frozenset[int]
    answers: tuple[str, ...]
    group: str


@dataclass(frozen=True)
class Part:
    """Passages with questions."""

    name: str
    passages: list[str]
    asked: list[Asked]

    @property
    def convention(self) -> Any:
        return "squad" if self.name in ("xquad_en", "banking77") else "cmrc"


def rows(data: Path, file: str) -> list[dict[str, Any]]:
    with open(data / file, "rb") as packed:
        return [json.loads(line) for line in zstandard.ZstdDecompressor().stream_reader(packed).read().splitlines()]


def reading(name: str, found: list[dict[str, Any]], keep: Callable[[dict[str, Any]], bool] = lambda row: True) -> Part:
    """A set of questions on passages; `keep` says which are asked, the passages are always all of them."""
    passages = list(dict.fromkeys(row["context"] for row in found))
    place = {text: i for i, text in enumerate(passages)}
    return Part(name, passages, [Asked(row["question"], frozenset([place[row["context"]]]), tuple(row["answers"]),
                                       row["context"]) for row in found if keep(row)])


def banking(data: Path, is_test: bool) -> Part:
    """Right is every passage of the question's intent. For choosing, 1,500 of the training side are asked."""
    train = rows(data, "banking77/train.jsonl.zst")
    random.Random(0).shuffle(train)
    asked, known = (rows(data, "banking77/test.jsonl.zst"), train) if is_test else (train[:1500], train[1500:])
    by_label: dict[str, set[int]] = {}
    for i, row in enumerate(known):
        by_label.setdefault(row["label"], set()).add(i)
    return Part("banking77", [row["text"] for row in known],
                [Asked(row["text"], frozenset(by_label[row["label"]]), (), row["label"]) for row in asked])


def is_separate(row: dict[str, Any]) -> bool:
    """XQuAD has no dev part: 3 in 10 of its articles are for choosing."""
    return row["article"] % 10 in (0, 3, 6)


def parts(data: Path, is_test: bool) -> Iterator[Part]:
    yield reading("cmrc2018", rows(data, f"cmrc2018/{'trial' if is_test else 'dev'}.jsonl.zst"))
    yield reading("drcd", rows(data, f"drcd/{'test' if is_test else 'dev'}.jsonl.zst"))
    for language in ("en", "zh"):
        yield reading(f"xquad_{language}", rows(data, f"xquad_en_zh/test_{language}.jsonl.zst"),
                      lambda row: is_separate(row) != is_test)
    yield banking(data, is_test)


class Library:
    """A part's passages as a collection. Passages are named by their numbers, which say nothing."""

    def __init__(self, part: Part, folder: Path, vectors: bool = True) -> None:
        self.part = part
        self.collection = Collection(folder / f"{part.name}-{len(part.passages)}.sqlite")
        self.collection.add_texts({f"{i:06d}": text for i, text in enumerate(part.passages)})
        if vectors:
            self.collection.add_vectors()
        self.place = {row["id"]: int(row["source"]) for row in self.collection.store.rows(
            "SELECT c.id, d.source FROM chunks c JOIN documents d ON d.id = c.document")}

    def passages(self, ranked: Sequence[tuple[int, float]]) -> list[int]:
        """The passages that chunks belong to, each once."""
        return list(dict.fromkeys(self.place[number] for number, _ in ranked))

    def both(self, question: str) -> tuple[list[tuple[int, float]], list[tuple[int, float]]]:
        """By words, and by vectors."""
        return self.collection.ranked(question, DEEP, way="words"), self.collection.ranked(question, DEEP, way="dense")


def place_of(found: Sequence[int], right: frozenset[int]) -> int | None:
    return next((i for i, passage in enumerate(found, start=1) if passage in right), None)


def scores(places: Sequence[int | None]) -> dict[str, np.ndarray]:
    ranks = np.array([place or np.inf for place in places])
    return {"recall@1": (ranks <= 1).astype(float), "recall@5": (ranks <= 5).astype(float), "mrr": 1 / ranks}


def search(part: Part, folder: Path) -> dict[str, Any]:
    """Every way of searching, on one set, with the weight that a collection of such texts has."""
    library = Library(part, folder)
    weight = library.collection.dense_weight()
    places: dict[str, list[int | None]] = {"words": [], "dense": [], "hybrid": []}
    begun = time.perf_counter()
    for asked in part.asked:
        said, near = library.both(asked.text)
        both = fused([(1 - weight, [i for i, _ in said]), (weight, [i for i, _ in near])])
        for way, ranked in (("words", said), ("dense", near), ("hybrid", both)):
            places[way].append(place_of(library.passages(ranked), asked.right))
    ms = 1000 * (time.perf_counter() - begun) / len(part.asked)
    peer = bm25s_places(part)
    found = {way: scores(each) for way, each in places.items()} | ({"bm25s": scores(peer)} if peer else {})
    groups = [asked.group for asked in part.asked]
    result: dict[str, Any] = {"n": len(part.asked), "passages": len(part.passages), "ms": ms}
    print(f"\n{part.name}: {len(part.asked):,} questions, {len(part.passages):,} passages, vectors weigh {weight}, "
          f"{ms:.1f} ms a question")
    for way, metrics in found.items():
        each = {m: bootstrap_mean(v, groups=groups) for m, v in metrics.items()}
        result[way] = {m: (i.value, i.low, i.high) for m, i in each.items()}
        print(f"  {way:<16}{shown(each)}")
    for other in ("words", "dense"):
        pair = {m: compare(mean(found[other][m]), mean(found["hybrid"][m]), len(groups), groups=groups).difference
                for m in found["words"]}
        result[f"hybrid - {other}"] = {m: (d.value, d.low, d.high) for m, d in pair.items()}
        print(f"  hybrid - {other:<7}{shown(pair)}")
    return result


def shown(each: dict[str, Any]) -> str:
    return "   ".join(f"{m} {100 * i.value:.2f} ({100 * i.low:.2f} to {100 * i.high:.2f})" for m, i in each.items())


def bm25s_places(part: Part) -> list[int | None]:
    """An outside peer for the words: bm25s with rjieba's words, without pairs and single characters."""
    try:
        import bm25s
        import rjieba
    except ImportError:
        return []
    cut = [[w for w in rjieba.cut_for_search(text.lower()) if any(map(str.isalnum, w))] for text in part.passages]
    index = bm25s.BM25(method="lucene")
    index.index(cut, show_progress=False)
    known = set(index.vocab_dict)
    places: list[int | None] = []
    for asked in part.asked:
        query = [w for w in rjieba.cut_for_search(asked.text.lower()) if w in known]
        found = index.retrieve([query], k=min(DEEP, len(cut)), show_progress=False).documents[0] if query else []
        places.append(place_of([int(i) for i in found], asked.right))
    return places


def answers(part: Part, folder: Path, limit: int, n_model: int) -> dict[str, Any]:
    """`ask` with the default way on a part's questions, drawn by a seed; and what the chat model makes of the place."""
    library = Library(part, folder, vectors=False)
    chosen = random.Random(1).sample(part.asked, min(limit, len(part.asked)))
    total = n_quotes = n_exist = n_passage = n_answer = 0
    quoted, model = [], []
    speaker = chat_model() if n_model else None
    for i, asked in enumerate(chosen):
        reply = ask(asked.text, library.collection).reply
        total += 1
        for cited in reply.citations:
            text = part.passages[int(cited.source)]
            n_quotes += 1
            n_exist += text[cited.start:cited.end] == cited.quote
            n_passage += any(answer in text for answer in asked.answers)
            n_answer += any(answer in cited.quote for answer in asked.answers)
        if speaker and i < n_model:
            best = extract(read(asked.text, library.collection), library.collection.search(asked.text))
            quote = best[0].span.text if best else ""
            said = short_answer(speaker, asked.text, best[0].span) if best else ""
            for into, text in ((quoted, quote), (model, said)):
                into.append((exact_match(text, asked.answers, part.convention),
                             answer_f1(text, asked.answers, part.convention)))
    result: dict[str, Any] = {"n": total, "answered": n_quotes, "quotes_exist": n_exist,
                              "passage_holds_answer": n_passage, "quote_holds_answer": n_answer}
    print(f"\n{part.name}: {total} questions, {n_quotes} answered; quotes that stand in the source: {n_exist} of "
          f"{n_quotes}; the cited passage holds the answer: {n_passage / max(n_quotes, 1):.1%}, the quote itself: "
          f"{n_answer / max(n_quotes, 1):.1%}")
    for name, pairs in (("quoted sentence", quoted), ("ayllu-mini-chat", model)):
        if pairs:
            em, f1 = (bootstrap_mean([pair[i] for pair in pairs]) for i in (0, 1))
            result[name] = {"em": (em.value, em.low, em.high), "f1": (f1.value, f1.low, f1.high), "n": em.n}
            print(f"  {name:<16} EM {100 * em.value:.1f} ({100 * em.low:.1f} to {100 * em.high:.1f})   "
                  f"F1 {100 * f1.value:.1f} ({100 * f1.low:.1f} to {100 * f1.high:.1f}), n = {em.n}")
    return result


def chat_model() -> Any:
    from ayllu.apps.speaker import LocalSpeaker
    return LocalSpeaker.load("ayllu-mini-chat")


def short_answer(speaker: Any, question: str, span: Span) -> str:
    """As the chat model learned to answer: from a few sentences, in a few words."""
    spans = spans_of(span.passage)
    at = next((i for i, s in enumerate(spans) if s.start == span.start), 0)
    around = span.passage.text[spans[max(0, at - 1)].start - span.passage.start:
                               spans[min(len(spans) - 1, at + 1)].end - span.passage.start]
    label = "问题：" if is_chinese(question) else "Question: "
    messages = [{"role": "user", "content": f"{around}\n\n{label}{question}"}]
    answer = speaker.answers([messages], temperature=0.0, max_tokens=48)
    return str(answer[0].text).strip()


def judged(part: Part, folder: Path, limit: int) -> list[tuple[bool, float, np.ndarray]]:
    """For each question with its passage, and again with the passage out of reach: is it there, how sure is the best
    sentence, and that sentence's features."""
    library = Library(part, folder, vectors=False)
    found = []
    for asked in random.Random(2).sample(part.asked, min(limit, len(part.asked))):
        passages = library.collection.search(asked.text, 8)
        question = read(asked.text, library.collection)
        without = [p for p in passages if int(p.source) not in asked.right][:5]
        for is_there, shown in ((True, passages[:5]), (False, without)):
            if shown:
                best = extract(question, shown)[0]
                found.append((is_there, best.confidence, best.values))
    return found


def refusals(part: Part, folder: Path, limit: int) -> dict[str, Any]:
    """Of the refusals, how many are right, and of those that are due, how many come."""
    found = judged(part, folder, limit)
    refused = np.array([sure < SURE for _, sure, _ in found])
    due = np.array([not is_there for is_there, _, _ in found])
    precision = bootstrap_mean(due[refused].astype(float)) if refused.any() else None
    recall = bootstrap_mean(refused[due].astype(float))
    kept = bootstrap_mean((~refused)[~due].astype(float))
    print(f"{part.name}: refusals right {100 * precision.value if precision else 0:.1f} %, due refusals made "
          f"{100 * recall.value:.1f} % ({100 * recall.low:.1f} to {100 * recall.high:.1f}), answerable ones answered "
          f"{100 * kept.value:.1f} % ({100 * kept.low:.1f} to {100 * kept.high:.1f}), n = {len(found)}")
    return {"precision": precision and (precision.value, precision.low, precision.high), "n": len(found),
            "recall": (recall.value, recall.low, recall.high), "answered": (kept.value, kept.low, kept.high)}


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


def choose(data: Path, folder: Path, limit: int) -> dict[str, Any]:
    """The weight of the vectors, the weights of a sentence's features, and the calibration, on the separate parts."""
    from scipy.optimize import minimize
    table: dict[str, dict[float, float]] = {}
    for part in parts(data, is_test=False):
        library = Library(part, folder)
        asked = random.Random(4).sample(part.asked, min(limit, len(part.asked)))
        pairs = [(library.both(one.text), one.right) for one in asked]
        table[part.name] = {w: float(np.mean([1 / (place_of(library.passages(fused(
            [(1 - w, [i for i, _ in said]), (w, [i for i, _ in near])])), right) or np.inf)
            for (said, near), right in pairs])) for w in WEIGHTS_TRIED}
        by_weight = "  ".join(f"{w}: {100 * v:.2f}" for w, v in table[part.name].items())
        print(f"{part.name:<10} MRR by weight: {by_weight}", flush=True)
    is_short = {"banking77": True}
    best = {kind: max(WEIGHTS_TRIED, key=lambda w: np.mean([row[w] for name, row in table.items()
                                                            if is_short.get(name, False) == kind]))
            for kind in (False, True)}
    print(f"weight of the vectors: {best[False]} among passages, {best[True]} among short texts (in use: {DENSE}, "
          f"{DENSE_SHORT})")
    chosen = [part for part in parts(data, is_test=False) if part.name != "banking77"]
    grid = sentence_grid(chosen, folder, min(limit, 400))
    print(f"weights of a sentence's features: {grid} (in use: {WEIGHTS.tolist()})")
    points = [point for part in chosen for point in judged(part, folder, min(limit, 600))]
    X = np.array([[1.0, f[0], f[0] + f[1], f[0] + f[1] + f[2], f[3]] for _, _, f in points])
    y = np.array([is_there for is_there, _, _ in points], float)
    fit = minimize(lambda w: float(np.logaddexp(0, -(2 * y - 1) * (X @ w)).mean() + 1e-4 * w @ w), FOUND)
    print(f"calibration: {fit.x.round(2).tolist()} (in use: {FOUND.tolist()})")
    return {"weights": table, "best": {"passages": best[False], "short": best[True]}, "sentence": grid,
            "calibration": fit.x.tolist()}


def sentence_grid(chosen: list[Part], folder: Path, limit: int) -> list[float]:
    """Coordinate by coordinate: the share of questions whose best sentence holds the answer."""
    rows_: list[tuple[np.ndarray, np.ndarray]] = []
    for part in chosen:
        library = Library(part, folder, vectors=False)
        for asked in random.Random(5).sample(part.asked, min(limit, len(part.asked))):
            found = extract(read(asked.text, library.collection), library.collection.search(asked.text))
            if found:
                rows_.append((np.stack([f.values for f in found]),
                              np.array([any(a in f.span.text for a in asked.answers) for f in found])))
    weights = WEIGHTS.copy()
    for _ in range(2):
        for i in range(1, len(weights)):
            def right(value: float, i: int = i) -> float:
                tried = weights.copy()
                tried[i] = value
                return float(np.mean([holds[(f @ tried).argmax()] for f, holds in rows_]))
            weights[i] = max((-2.0, -1.0, -0.5, 0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0), key=right)
    print(f"best sentence holds the answer: {np.mean([h[(f @ WEIGHTS).argmax()] for f, h in rows_]):.3f} as in use, "
          f"{np.mean([h[(f @ weights).argmax()] for f, h in rows_]):.3f} as fitted, n = {len(rows_)}")
    return weights.tolist()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--only", nargs="+", default=["search", "answers", "refusals", "scale"],
                        choices=["search", "answers", "refusals", "scale"])
    parser.add_argument("--choose", action="store_true", help="fit on the separate parts instead")
    parser.add_argument("--limit", type=int, default=10**6, help="questions of each set")
    parser.add_argument("--model-answers", type=int, default=150, help="of each set, by the chat model")
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
        short = Part(part.name, part.passages, random.Random(0).sample(part.asked, min(args.limit, len(part.asked))))
        is_reading = part.name != "banking77"
        if "search" in args.only:
            result.setdefault("search", {})[part.name] = search(short, folder)
        if "answers" in args.only and is_reading:
            result.setdefault("answers", {})[part.name] = answers(short, folder, 250, args.model_answers)
        if "refusals" in args.only and is_reading:
            result.setdefault("refusals", {})[part.name] = refusals(short, folder, min(args.limit, 500))
    if "scale" in args.only:
        result["scale"] = scale(args.data, folder, args.documents)
        print(f"worst ratio: {GOAL_MS / max(result['scale']['hybrid_ms']['p95'], 1e-9):.2f} (a question to "
              f"{args.documents:,} documents, 95 %)")
    return result


if __name__ == "__main__":
    sys.exit(main())
