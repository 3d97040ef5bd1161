"""What benchmarks/retrieval.py measures of answers: quotes, short answers, refusals, and passages in a new order."""

import random
import time
from pathlib import Path
from typing import Any

import numpy as np
from retrieval_sets import Library, Part, place_of

from ayllu.apps.docqa import reader
from ayllu.apps.docqa.ask import ask
from ayllu.apps.docqa.cite import Span, spans_of
from ayllu.apps.docqa.extract import SURE, extract, read
from ayllu.apps.docqa.rerank import reranked
from ayllu.data.units import is_chinese
from ayllu.evaluate.intervals import bootstrap_mean
from ayllu.evaluate.metrics import answer_f1, exact_match


def answers(part: Part, folder: Path, limit: int, n_model: int) -> dict[str, Any]:
    """`ask` with the default way on a part's questions, drawn by a seed; and what the chat model makes of the place."""
    library = Library(part, folder, vectors=False)
    chosen = random.Random(1).sample(part.asked, min(limit, len(part.asked)))
    total = n_quotes = n_exist = n_passage = n_answer = 0
    quoted, read_, model = [], [], []
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
        best = extract(read(asked.text, library.collection), library.collection.search(asked.text))
        quote = best[0].span.text if best else ""
        short = reader.short_answer(asked.text, quote)
        said = [(quoted, quote), (read_, quote[short.start:short.end] if short else quote)]
        if speaker and i < n_model:
            said.append((model, short_answer(speaker, asked.text, best[0].span) if best else ""))
        for into, text in said:
            into.append((exact_match(text, asked.answers, part.convention),
                         answer_f1(text, asked.answers, part.convention)))
    result: dict[str, Any] = {"n": total, "answered": n_quotes, "quotes_exist": n_exist,
                              "passage_holds_answer": n_passage, "quote_holds_answer": n_answer}
    print(f"\n{part.name}: {total} questions, {n_quotes} answered; quotes that stand in the source: {n_exist} of "
          f"{n_quotes}; the cited passage holds the answer: {n_passage / max(n_quotes, 1):.1%}, the quote itself: "
          f"{n_answer / max(n_quotes, 1):.1%}")
    for name, pairs in (("quoted sentence", quoted), ("reader", read_), ("ayllu-mini-chat", model)):
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


def reranking(part: Part, folder: Path, limit: int) -> dict[str, Any]:
    """The five passages found first, in that order and in the chat model's: how often the right one is first, and the
    mean reciprocal rank, paired over the questions."""
    library, speaker = Library(part, folder), chat_model()
    before, after, seconds = [], [], 0.0
    for asked in random.Random(1).sample(part.asked, min(limit, len(part.asked))):
        found = library.collection.search(asked.text)
        begun = time.perf_counter()
        anew = reranked(asked.text, found, speaker)
        seconds += time.perf_counter() - begun
        for into, order in ((before, found), (after, anew)):
            into.append(place_of([int(p.source) for p in order], asked.right) or np.inf)
    result: dict[str, Any] = {"n": len(before), "seconds": seconds / len(before)}
    places = np.array([before, after])                                        # (2, questions)
    print(f"\n{part.name}: the five found first, ordered anew by ayllu-mini-chat, {result['seconds']:.2f} s a "
          f"question, n = {len(before)}")
    for name, (old, new) in {"recall@1": (places <= 1).astype(float), "mrr": 1 / places}.items():
        found_, anew_, more = bootstrap_mean(old), bootstrap_mean(new), bootstrap_mean(new - old)
        result[name] = {"before": found_.value, "after": anew_.value, "difference": (more.value, more.low, more.high)}
        print(f"  {name} {100 * found_.value:.1f} -> {100 * anew_.value:.1f}, difference {100 * more.value:+.1f} "
              f"({100 * more.low:+.1f} to {100 * more.high:+.1f})")
    return result


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
