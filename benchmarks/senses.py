"""What a senses folder can do, on the held-out rows of recipes/senses, beside simple methods that learn the same rows.

digit         handwritten (mnist_10k); beside logistic regression on pixels
spoken digit  the set's own test side (fsdd); beside the nearest neighbour on mel features
emoji         skin tones whose plain form is learned, in English and Chinese: the name said outright, and the five
              likeliest of all names of the language (a best-first search over their tokens); beside chance and
              the nearest neighbours on pixels. A neighbour can't have a held-out name, because none is in the training
              rows; so `emoji base` counts the name before the colon on both sides ("waving hand")
syllable      toned pinyin (audio_cmn), each held out as a whole: initial, final and tone, said apart ("zh ang 1") or
              as one word; beside the nearest neighbour

    python benchmarks/senses.py SENSES --data runs/senses/data [--adapter FOLDER] [--quick] [--json FILE]
                                [--leave-out george|all]

--leave-out trains an ear without a speaker's spoken digits, from scratch, and tests it on all of them
(recipes/senses_ear.toml with spoken digits alone, 32 at a time); with `all`, one ear after the other. The last line has
the worst of the ratios to the goals: 98 % of the digits, 97 % of the spoken digits, emoji over the neighbours' and ten
times chance's, syllables' errors under the neighbour's. Needs the extra `baselines`.
"""

import argparse
import heapq
import json
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import senses_peers
import torch
from torch import Tensor

from ayllu.adapters.lora import attach
from ayllu.adapters.store import read_adapter
from ayllu.checkpoint.load import load_checkpoint, open_checkpoint
from ayllu.config import load_recipe
from ayllu.data.chats import ends, template_of
from ayllu.data.media_loader import MediaLoader, MediaSample, counter, samples
from ayllu.data.media_rows import media_rows
from ayllu.engine.perception import adapter_of
from ayllu.errors import ConfigError, DataError
from ayllu.evaluate.intervals import bootstrap_mean
from ayllu.files import write_json
from ayllu.log import say, setup
from ayllu.media.senses import Senses, read_senses
from ayllu.model.attend import sdpa
from ayllu.model.llama import Llama
from ayllu.text.tokenizer import Tokenizer
from ayllu.train.align_config import MediaSource
from ayllu.train.align_loss import Aligned
from ayllu.train.contrast import ContrastRecipe, contrast_train

ROOT = Path(__file__).resolve().parents[1]
KINDS = ("digit", "spoken digit", "emoji", "syllable")
GOALS = {"digit": 0.98, "spoken digit": 0.97}
INITIAL = re.compile(r"(zh|ch|sh|[bpmfdtnlgkhjqxrzcsyw])?(.+?)([1-5])?$")
SIDES = ("ours", "peer")
LONGEST, ROWS, TOP, OVER_CHANCE = 40, 32, 5, 10
OPENED = 100                                             # nodes of the tree of names that one search looks into
Values = dict[str, np.ndarray]


class Read:
    """Plain attention that keeps the keys and values of a prompt."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        self.k, self.v = k, v                            # (B, P, K, E)
        return sdpa(q, k, v, causal=True)


@dataclass(frozen=True)
class After:
    """Attention of what was said (B, T) to a prompt (B, P) and to what was said before it."""

    k: Tensor                                            # (B, P, K, E)
    v: Tensor

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        P, T = self.k.shape[1], k.shape[1]
        return sdpa(q, torch.cat((self.k, k), 1), torch.cat((self.v, v), 1),
                    mask=torch.ones(T, P + T, dtype=torch.bool).tril(P))


@dataclass(frozen=True)
class Item:
    """A row of the recipe's data, ready for the model."""

    kind: str
    file: str
    text: str
    is_chinese: bool
    sample: MediaSample

    @property
    def answer(self) -> tuple[int, ...]:
        """The ids that should come, the end of the turn among them."""
        return tuple(self.sample.ids[self.sample.weights > 0].tolist())

    @property
    def start(self) -> int:
        return int((self.sample.weights > 0).argmax())


class Subject:
    """A Llama with senses, asked for its answers."""

    def __init__(self, folder: Path, base: str, adapter: Path | None = None) -> None:
        self.source = open_checkpoint(base)
        tokenizer = self.source.open_tokenizer()
        assert tokenizer is not None
        self.tokenizer: Tokenizer = tokenizer
        self.senses: Senses = read_senses(folder)
        if self.senses.config.cross:
            raise ConfigError(f"{folder} looks beside the text (cross): only features within the text are measured")
        body = load_checkpoint(base, dtype="float32").model
        assert isinstance(body, Llama)
        if adapter := adapter or adapter_of(folder):
            attach(body, read_adapter(adapter, body.config))
        self.model = Aligned(body, self.senses).eval()
        self.ends = set(ends(tokenizer))

    def items(self, data: Path, part: str, keep: Sequence[str] = KINDS) -> list[Item]:
        """Rows of a part of the data."""
        rows = [json.loads(line) for line in (data / f"{part}.jsonl").read_text(encoding="utf-8").splitlines()]
        template = template_of("auto", self.tokenizer, Path())
        assert template is not None
        chosen = [i for i, row in enumerate(rows) if row["kind"] in keep]
        with tempfile.TemporaryDirectory() as top:
            path = Path(top) / "rows.jsonl"
            path.write_text("".join(json.dumps(rows[i]) + "\n" for i in chosen), encoding="utf-8")
            found, rejects = samples(media_rows(path, data / "media.tar", f"{part}.jsonl"), self.tokenizer, template,
                                     counter(self.senses), 4096)
        if rejects:
            raise DataError(f"{len(rejects)} rows of {data / part}.jsonl can't be taken: {rejects[0].reason}")
        return [Item(rows[i]["kind"], sample.media[0].name, rows[i]["text"],
                     any("\u4e00" <= c <= "\u9fff" for c in rows[i]["prompt"]), sample)
                for i, sample in zip(chosen, found, strict=True)]

    def prompts(self, items: Sequence[Item]) -> Iterator[tuple[list[int], Tensor]]:
        """Batches of numbers of items with prompts of one length, and their embeddings with features (B, P, L)."""
        loader = MediaLoader([item.sample for item in items], self.senses, 1)
        by_start = sorted(range(len(items)), key=lambda n: items[n].start)
        for start, numbers in ((s, list(ns)) for s, ns in groupby(by_start, key=lambda n: items[n].start)):
            for first in range(0, len(numbers), ROWS):
                part = numbers[first:first + ROWS]
                yield part, self.model.embedded(loader.rows(part))[:, :start]

    def read(self, prompt: Tensor) -> "list[Read]":
        """What each layer keeps of prompts (B, P, L), so that they are read once."""
        attends = [Read() for _ in self.model.body.layers]
        self.model.body.trunk(prompt, attends=attends)
        return attends

    def after(self, reads: "Sequence[Read]", row: Sequence[int], said: Sequence[Sequence[int]]) -> Tensor:
        """`scores` of what follows the last token of what was said, at least one, after the prompts of some rows."""
        ids, own = padded(said), torch.tensor(row)
        attends = [After(layer.k[own], layer.v[own]) for layer in reads]
        positions = attends[0].k.shape[1] + torch.arange(ids.shape[1])
        h = self.model.body.trunk(self.model.body.embed(ids), positions, attends)
        last = torch.tensor([len(ids) - 1 for ids in said])
        return self.model.body.logits(h[torch.arange(len(h)), last]).float().log_softmax(-1)

    def scores(self, prompt: Tensor, said: Sequence[Sequence[int]]) -> Tensor:
        """(B, V) log-probabilities of what follows each prompt and what was said after it; padded at the right."""
        x = torch.cat((prompt, self.model.body.embed(padded(said))), 1)
        last = torch.tensor([prompt.shape[1] + len(ids) - 1 for ids in said])
        h = self.model.body.trunk(x)[torch.arange(len(x)), last]
        return self.model.body.logits(h).float().log_softmax(-1)

    @torch.no_grad()
    def answers(self, items: Sequence[Item]) -> list[str]:
        """The likeliest next token, until the turn ends."""
        found = [""] * len(items)
        for numbers, prompt in self.prompts(items):
            said: list[list[int]] = [[] for _ in numbers]
            open_rows = list(range(len(numbers)))
            while open_rows:
                best = self.scores(prompt[open_rows], [said[r] for r in open_rows]).argmax(-1).tolist()
                for row, id in zip(open_rows, best, strict=True):
                    said[row].append(id)
                open_rows = [r for r in open_rows if said[r][-1] not in self.ends and len(said[r]) < LONGEST]
            for row, number in enumerate(numbers):
                found[number] = self.tokenizer.decode(said[row], skip_special=True).strip()
        return found

    @torch.no_grad()
    def likeliest(self, items: Sequence[Item], names: dict[tuple[int, ...], str]) -> list[list[str]]:
        """The TOP names of the highest probability for each item, best first.

        A name's probability only falls with each of its tokens, so what is taken from the heap whole is the best of
        all that are left: the search is exact, and reads few of the names. It ends after OPENED rounds; what it hasn't
        found by then counts as not among them.
        """
        tree: dict[tuple[int, ...], set[int]] = {}
        for ids in names:
            for at in range(len(ids)):
                tree.setdefault(ids[:at], set()).add(ids[at])
        follow = {ids: torch.tensor(sorted(those)) for ids, those in tree.items()}
        found: list[list[str]] = [[] for _ in items]
        for numbers, prompt in self.prompts(items):
            reads = self.read(prompt)
            heaps: list[list[tuple[float, tuple[int, ...]]]] = [[] for _ in numbers]
            nodes: list[tuple[int, float, tuple[int, ...]]] = [(r, 0.0, ()) for r in range(len(numbers))]
            logps = self.scores(prompt, [()] * len(nodes))
            for _ in range(OPENED):
                for (r, cost, ids), row in zip(nodes, logps, strict=True):
                    for id, logp in zip(follow[ids].tolist(), row[follow[ids]].tolist(), strict=True):
                        heapq.heappush(heaps[r], (cost - logp, (*ids, id)))
                nodes = []
                for r, n in enumerate(numbers):
                    while heaps[r] and heaps[r][0][1] in names and len(found[n]) < TOP:
                        found[n].append(names[heapq.heappop(heaps[r])[1]])
                    if heaps[r] and len(found[n]) < TOP:
                        nodes.append((r, *heapq.heappop(heaps[r])))
                if not nodes:
                    break
                logps = self.after(reads, [r for r, _, _ in nodes], [ids for _, _, ids in nodes])
        return found


def padded(rows: Sequence[Sequence[int]]) -> Tensor:                          # (B, longest)
    """With zeros at the right."""
    longest = max(map(len, rows))
    return torch.tensor([[*ids, *[0] * (longest - len(ids))] for ids in rows], dtype=torch.long)


def parts(syllable: str) -> tuple[str, str, str]:
    """Initial, final, tone as pinyin writes them: zhang1 or zh ang 1 -> zh, ang, 1."""
    match = INITIAL.match(syllable.replace(" ", ""))
    return (match[1] or "", match[2], match[3] or "") if match else ("", "", "")


def base_of(name: str) -> str:
    """Without its skin tone."""
    return re.split("[:：]", name)[0].strip()


def outright(subject: Subject, held: list[Item], guesses: Sequence[str]) -> dict[str, Values]:
    """Right or not, of what is said and of what a simple method guesses."""
    said = subject.answers(held)
    _show(held, said)
    return {"ours": {"right": _equal(said, held)}, "peer": {"right": _equal(guesses, held)}}


def of_emoji(subject: Subject, held: list[Item], train: list[Item]) -> dict[str, Any]:
    """By name and by base, said and among the likeliest, beside the neighbours'."""
    ours, peer = dict[str, np.ndarray](), dict[str, np.ndarray]()
    said = subject.answers(held)
    _show(held, said)
    near = senses_peers.nearest(subject.senses, held, train, TOP)
    top: list[list[str]] = [[] for _ in held]
    n_names = {}
    for is_chinese in (False, True):
        own = [n for n, item in enumerate(held) if item.is_chinese == is_chinese]
        names = {item.answer: item.text for item in (*train, *held) if item.is_chinese == is_chinese}
        n_names["zh" if is_chinese else "en"] = len(set(names.values()))
        for n, likely in zip(own, subject.likeliest([held[n] for n in own], names), strict=True):
            top[n] = likely
    for side, guesses, lists in ((ours, said, top), (peer, [found[0] for found in near], near)):
        pairs = list(zip(lists, held, strict=True))
        side["exact"] = _equal(guesses, held)
        side["base"] = np.array([base_of(s) == base_of(i.text) for s, i in zip(guesses, held, strict=True)], float)
        side["top-5"] = np.array([i.text in found for found, i in pairs], float)
        side["base top-5"] = np.array([base_of(i.text) in map(base_of, found) for found, i in pairs], float)
    return {"ours": ours, "peer": peer, "names": n_names, "chance top-5": TOP / min(n_names.values())}


def of_syllables(subject: Subject, held: list[Item], train: list[Item]) -> dict[str, Values]:
    """Errors of each part and of the whole, beside the nearest neighbour's."""
    said = subject.answers(held)
    _show(held, said)
    near = [found[0] for found in senses_peers.nearest(subject.senses, held, train, 1)]

    def errors(guesses: Sequence[str]) -> Values:
        split = [(parts(guess), parts(item.text)) for guess, item in zip(guesses, held, strict=True)]
        found = {name: np.array([a[k] != b[k] for a, b in split], float)
                 for k, name in enumerate(("initial error", "final error", "tone error"))}
        return {**found, "syllable error": np.array([a != b for a, b in split], float)}

    return {"ours": errors(said), "peer": errors(near)}


def _equal(said: Sequence[str], held: Sequence[Item]) -> np.ndarray:
    return np.array([guess == item.text for guess, item in zip(said, held, strict=True)], float)


def _show(held: Sequence[Item], said: Sequence[str]) -> None:
    wrong = [f"{item.text} -> {guess}" for item, guess in zip(held, said, strict=True) if guess != item.text]
    say(f"{held[0].kind}: {len(wrong)} of {len(held)} wrong: {'; '.join(wrong[:8])}")


def run(subject: Subject, data: Path, quick: bool) -> dict[str, Any]:
    """All figures with intervals."""
    found: dict[str, Any] = {}
    for kind in KINDS:
        held, train = (subject.items(data, part, (kind,)) for part in ("held_out", "train"))
        held = held[::len(held) // 20 | 1] if quick else held    # odd: both languages of the emoji
        if kind == "digit":
            rows = outright(subject, held, senses_peers.logistic(subject.senses, held, train[::10] if quick else train))
        elif kind == "spoken digit":
            rows = outright(subject, held, [n[0] for n in senses_peers.nearest(subject.senses, held, train, 1)])
        else:
            rows = (of_emoji if kind == "emoji" else of_syllables)(subject, held, train)
        groups = [item.file for item in held]
        found[kind] = {**rows, "n": len(held)}
        for side in SIDES:
            found[kind][side] = {name: asdict(bootstrap_mean(values, groups=groups))
                                 for name, values in rows[side].items()}
    return found


def left_out(config: ContrastRecipe, data: Path, speaker: str, epochs: float, limit: int | None) -> dict[str, Any]:
    """Spoken digits of a speaker whom the ear has never heard: which of the ten texts lies nearest to each."""
    rows = [json.loads(line) for part in ("spoken.texts", "spoken.held_out.texts")
            for line in (data / f"{part}.jsonl").read_text(encoding="utf-8").splitlines()]
    theirs = [row for row in rows if f"_{speaker}_" in row["audio"] and row["text"].isdigit()]
    with tempfile.TemporaryDirectory() as top:
        sides = {"train": [row for row in rows if f"_{speaker}_" not in row["audio"]], "held_out": theirs}
        for part, chosen in sides.items():
            text = "".join(json.dumps(row) + "\n" for row in chosen[:limit])
            (Path(top) / f"{part}.jsonl").write_text(text, encoding="utf-8")
        media = str((data / "media.tar").resolve())
        config = config.model_copy(update={
            "out": f"{top}/run", "epochs": epochs,      # of few sounds: more steps, of fewer each
            "loop": config.loop.model_copy(update={"batch_size": 32, "micro_batch": 32}),
            "data": config.data.model_copy(update={
                "root": top, "sources": (MediaSource(path="train.jsonl", files=media),),
                "held_out": (MediaSource(path="held_out.jsonl", files=media),)})})
        reached = contrast_train(config, ROOT)
    return {"right": reached["media_to_text_top1"], "n": len(theirs[:limit]), "steps": reached["steps"]}


def ratios(found: dict[str, Any]) -> dict[str, float]:
    """How far each goal is reached: 1 and more is reached."""
    def of(kind: str, name: str, side: str = "ours") -> float:
        return float(found[kind][side][name]["value"])

    reached = {f"{kind} over {goal:.0%}": of(kind, "right") / goal for kind, goal in GOALS.items()}
    reached["digit over logistic regression"] = of("digit", "right") / of("digit", "right", "peer")
    chance = found["emoji"]["chance top-5"]
    reached[f"emoji top-5 over {OVER_CHANCE} times chance"] = of("emoji", "top-5") / (OVER_CHANCE * chance)
    for name in ("top-5", "base top-5"):
        if of("emoji", name, "peer"):
            reached[f"emoji {name} over neighbours"] = of("emoji", name) / of("emoji", name, "peer")
    for name in ("initial error", "final error", "tone error"):
        less = of("syllable", name, "peer") / max(of("syllable", name), 1e-9)
        reached[f"syllable, neighbour's {name} over ours"] = less
    return reached


def show(found: dict[str, Any]) -> None:
    """A table."""
    print(f"{'':32}{'n':>6}{'ours':>26}{'simple method':>26}")
    for kind in KINDS:
        for name in found[kind]["ours"]:
            cells = ([100 * found[kind][side][name][key] for key in ("value", "low", "high")] for side in SIDES)
            shown = "".join(f"{value:>9.1f} ({low:5.1f} to {high:5.1f})" for value, low, high in cells)
            print(f"{f'{kind}, {name}, %':32}{found[kind]['n']:>6}{shown}")
    print(f"names to choose from: {found['emoji']['names']}, five of them by chance: "
          f"{100 * found['emoji']['chance top-5']:.2f} %")
    for name, ratio in found["ratios"].items():
        print(f"{ratio:8.3f}  {name}")
    name, ratio = min(found["ratios"].items(), key=lambda item: item[1])
    print(f"worst ratio: {ratio:.3f} ({name})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("senses", type=Path)
    parser.add_argument("--data", type=Path, default=Path("runs/senses/data"), help="what recipes/senses/make.py wrote")
    parser.add_argument("--base", default="ayllu-mini-chat")
    parser.add_argument("--adapter", type=Path, help="another than the one in SENSES/adapter")
    parser.add_argument("--leave-out", metavar="SPEAKER")
    parser.add_argument("--epochs", type=float, default=12, help="of an ear without a speaker")
    parser.add_argument("--quick", action="store_true", help="20 rows of a kind: whether it works")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    setup()
    found: dict[str, Any] = {"senses": args.senses.name}
    if args.leave_out:
        names = senses_peers.SPEAKERS if args.leave_out == "all" else (args.leave_out,)
        config = load_recipe(ContrastRecipe, ROOT / "recipes/senses_ear.toml")
        for name in names:
            found[name] = left_out(config, args.data, name, args.epochs, 64 if args.quick else None)
            print(f"without {name}: {100 * found[name]['right']:.1f} % of {found[name]['n']} right "
                  f"({found[name]['steps']} steps)")
    else:
        found |= run(Subject(args.senses, args.base, args.adapter), args.data, args.quick)
        found["ratios"] = ratios(found)
        show(found)
    if args.json:
        write_json(args.json, found)


if __name__ == "__main__":
    main()
