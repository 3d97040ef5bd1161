"""`ayllu train-head`: a head on a pretrained model, by the one loop; measured on rows that it didn't learn from."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from ayllu import dist
from ayllu.adapters.lora import attach, fingerprint, new_adapter, taken
from ayllu.adapters.store import write_adapter
from ayllu.checkpoint.head_file import ADAPTER, HeadFacts, write_weights
from ayllu.checkpoint.load import build_model
from ayllu.checkpoint.source import OpenCheckpoint
from ayllu.checkpoint.transformer import OpenTransformer
from ayllu.data.grams import CUT
from ayllu.data.label_loader import IGNORED, LabelLoader, Texts, as_numbers
from ayllu.data.labelled import Labelled
from ayllu.data.text_packs import PackLoader
from ayllu.errors import ConfigError
from ayllu.files import atomic_folder, write_json
from ayllu.log import warn
from ayllu.model.build import CausalModel
from ayllu.model.heads import Classifier, HeadConfig
from ayllu.model.llama import Llama
from ayllu.model.parallel import Layout
from ayllu.native.pool import pool_memory
from ayllu.train import course
from ayllu.train.calibrate import probabilities, temperature, thresholds
from ayllu.train.course import begun, follow, reached, taken_up, whole_models
from ayllu.train.heads_config import HeadRecipe
from ayllu.train.heads_lesson import HeadLesson, Side, name_of
from ayllu.train.heads_loss import balanced, flat, label_loss, logits_of, mean_loss
from ayllu.train.heads_measure import measure
from ayllu.train.heads_packed import PackedLoss, packed_loss, why_by_torch, why_padded
from ayllu.train.loop import LossFunction
from ayllu.train.run_folder import Resume
from ayllu.train.state import TrainState
from ayllu.train.wide import Wide, fit_beside

ROWS = 32                                                # texts at once where nothing is trained


def train_head(config: HeadRecipe, lesson: HeadLesson, recipe_folder: Path, resume: Resume = False) -> dict[str, Any]:
    """Run what `prepared_head` gave to its end and return what was measured; Ctrl-C saves and raises Interrupted."""
    with begun(config, resume) as device:
        return _train(config, lesson, Path(config.folder or recipe_folder).resolve(), resume, device)


def _train(config: HeadRecipe, lesson: HeadLesson, folder: Path, resume: Resume,
           device: torch.device) -> dict[str, Any]:
    run = Path(config.out)
    layout = whole_models(config, lesson.source.config, folder, device, "training of heads")
    model, base = head_model(config, lesson, device)
    mean, spread, texts = _standard(config, lesson.train.texts)
    held = lesson.held_out.texts if config.kind != "regression" else _shifted(lesson.held_out.texts, mean, spread)
    state = new_state(config, model, layout, {"data": lesson.digest, "base": base})
    rows = LabelLoader(texts, config.loop.batch_size, config.seed, layout.data_rank, layout.data)
    padded = why_padded(config, device)
    if packed := padded is None:
        pool_memory()
    if config.loop.precision == "bf16_masters" and (reason := padded or why_by_torch(config, model)):
        warn(f"loop.precision=bf16_masters is of the kernels for packed texts, and {reason}: this run computes in "
             "float32; loop.precision=autocast computes in bfloat16")
    resumed = taken_up(config, state, resume)

    def look(state: TrainState) -> dict[str, Any]:
        logits = logits_of(model, held, ROWS, device)
        return {"held_out": mean_loss(logits, held, config.kind), **_right(logits, held, config.kind)}

    length = max(sum(map(len, texts.ids)) // len(texts), 1)
    last = follow(config, state, PackLoader(rows) if packed else rows, head_loss(config, texts, model, device, packed),
                  length, resumed, device, lambda state: ([], look(state)), look)
    with state.averaged():
        facts, wide = _facts(config, lesson, model, held, mean, spread, base, device)
        made = dist.from_first(_write(config, lesson, model, facts, wide, run) if dist.is_main() else {})
    return {**reached(state, last, run=str(run), **made), **facts.measured, "names": list(lesson.names)}


def head_model(config: HeadRecipe, lesson: HeadLesson, device: torch.device) -> tuple[Classifier, str]:
    """The base with a new head, what isn't learned frozen, and the base's fingerprint. The weights lie in memory of
    their own: those that a file lends must not be written to."""
    body: CausalModel = (lesson.source.build() if isinstance(lesson.source, OpenTransformer)
                         else build_model(lesson.source, dtype=torch.float32, device=device)).to(device)
    base = fingerprint(body) if isinstance(body, Llama) else ""
    if config.learns == "all":
        with torch.no_grad():
            for parameter in body.parameters():
                parameter.data = parameter.data.clone()
    elif not isinstance(body, Llama):
        raise ConfigError(f"learns={config.learns} leaves the base as it was and names it, which only the Llama family "
                          "allows: take learns=all")
    head = HeadConfig(kind=config.kind, n_outputs=max(len(lesson.names), 1), pooling=config.pooling,
                      attention=config.attention, dropout=config.dropout)
    model = Classifier(body, head, config.seed)
    for part in body.modules():
        if isinstance(part, nn.Dropout):
            part.p = config.dropout
    body.requires_grad_(config.learns == "all")
    if config.learns == "adapter":
        assert isinstance(body, Llama)
        attach(body, new_adapter(body, config.lora.own(), config.seed))
    return model, base


def new_state(config: HeadRecipe, model: Classifier, layout: Layout, facts: dict[str, Any]) -> TrainState:
    """The state before the first step."""
    plus = config.lora.plus if config.learns == "adapter" else 1.0
    state = course.new_state(config, model, layout, plus, context=config.context, **facts)
    if config.layer_decay < 1:
        slow_lower_layers(state.optimizer, model, config.layer_decay)
    return state


def slow_lower_layers(optimizer: torch.optim.Optimizer, model: Classifier, decay: float) -> None:
    """Layer-wise rates (arXiv:1801.06146, section 3.2): each layer's is `decay` times the one's above; the head has
    the whole rate, the embeddings the lowest."""
    depth = {id(p): model.config.n_layers - n for n, layer in enumerate(model.body.layers) for p in layer.parameters()}
    depth |= {id(p): model.config.n_layers + 1 for p in model.body.tok_embeddings.parameters()}
    groups: list[dict[str, Any]] = []
    for group in optimizer.param_groups:
        for far in sorted({depth.get(id(p), 0) for p in group["params"]}):
            some = [p for p in group["params"] if depth.get(id(p), 0) == far]
            groups.append({**group, "params": some, "plus": group.get("plus", 1.0) * decay**far})
    optimizer.param_groups[:] = groups


def head_loss(config: HeadRecipe, texts: Texts, model: Classifier, device: torch.device,
              packed: bool = False) -> LossFunction:
    """The loss that the recipe asks for, of padded texts or of packed ones."""
    weights = None
    if config.class_weights == "balanced":
        weights = balanced(texts, model.head.n_outputs, config.kind).to(device)
    extras: dict[str, Any] = {"weights": weights, "smoothing": config.label_smoothing, "hidden": config.word_dropout}
    if not packed:
        return cast(LossFunction, partial(label_loss, **extras))
    if why_by_torch(config, model) is None:
        return cast(LossFunction, PackedLoss(partial(packed_loss, **extras), config.loop.precision))
    return cast(LossFunction, lambda model, batch: packed_loss(model, model.body, batch, native=False, **extras))


def _standard(config: HeadRecipe, texts: Texts) -> tuple[float, float, Texts]:
    """Numbers with mean 0 and spread 1, which a head without a bias can learn; classes as they are."""
    if config.kind != "regression":
        return 0.0, 1.0, texts
    values = torch.tensor(texts.labels, dtype=torch.float64)
    mean, spread = values.mean().item(), values.std(correction=0).item() or 1.0
    return mean, spread, _shifted(texts, mean, spread)


def _shifted(texts: Texts, mean: float, spread: float) -> Texts:
    return Texts(texts.ids, [(cast(float, label) - mean) / spread for label in texts.labels])


def _right(logits: list[Tensor], texts: Texts, kind: str) -> dict[str, float]:
    if kind not in ("single", "tokens"):
        return {}
    found, labels = flat(logits, texts, kind)            # type: ignore[arg-type]
    return {"accuracy_held_out": (found.argmax(-1) == labels).float().mean().item()}


def usual(texts: Texts, kind: str, n_outputs: int) -> Tensor:
    """The answer that is right most often where the text isn't read: the commonest class, the labels that most rows
    have, or the mean."""
    if kind == "multi":
        return (torch.tensor(texts.labels).mean(0) > 0.5).float()
    if kind == "regression":
        return torch.tensor(texts.labels).mean()
    numbers = [n for label in texts.labels for n in (label if isinstance(label, list) else [label]) if n != IGNORED]
    return torch.bincount(torch.tensor(numbers, dtype=torch.long), minlength=n_outputs).argmax()


def _facts(config: HeadRecipe, lesson: HeadLesson, model: Classifier, held: Texts, mean: float, spread: float,
           base: str, device: torch.device) -> tuple[HeadFacts, Wide | None]:
    """What the head means, calibrated on the held-out side and measured on the test side; and what stands beside it."""
    by, cuts = 1.0, list[float]()
    logits, test = logits_of(model, held, ROWS, device), lesson.test.texts
    tested = logits_of(model, test, ROWS, device)
    alone, wide = _right(tested, test, config.kind).get("accuracy_held_out"), None
    if config.ngrams:
        wide, logits, count = _beside(config, lesson, logits)
        tested = wide.beside(tested, _texts(lesson.test.rows))
    if config.kind != "regression":
        found, labels = flat(logits, held, config.kind)
        by = temperature(found, labels, config.kind)
        if config.kind == "multi":
            cuts = thresholds(probabilities(found, "multi", by), labels)
    train = lesson.train.texts if config.kind != "regression" else _shifted(lesson.train.texts, mean, spread)
    most = usual(train, config.kind, model.head.n_outputs)
    measured = measure(tested, test, config.kind, by, cuts, most, lesson.names, spread, mean) | {
        "also_trained": lesson.also_trained, "temperature": by,
        "cut": {name: side.cut for name, side in _sides(lesson).items() if side.cut}}
    if wide is not None:
        measured["shares"] = dict(zip(("model", "ngrams"), wide.shares, strict=True))
        measured["accuracy_without_ngrams"] = alone
        measured["chinese_words"] = wide.vocabulary.form == CUT
        if lesson.related:
            measured["related"] = {"rows": len(lesson.related), "count": count}
    stays = config.learns != "all"
    return HeadFacts(head=model.head, body=model.config, names=lesson.names, context=config.context,
                     too_long=config.data.too_long, temperature=by, thresholds=tuple(cuts), mean=mean, spread=spread,
                     base=name_of(lesson.source) if stays else None, fingerprint=base if stays else None,
                     ngrams=config.ngrams, measured=measured), wide


def _beside(config: HeadRecipe, lesson: HeadLesson, held: list[Tensor]) -> tuple[Wide, list[Tensor], float]:
    near, own, *related = ((_texts(rows), as_numbers(rows, lesson.names, config.kind))
                           for rows in (lesson.held_out.rows, lesson.train.rows, lesson.related) if rows)
    return fit_beside(held, *near, *own, config.kind, *related)


def _texts(rows: Sequence[Labelled]) -> list[str]:
    return [str(row.text) for row in rows]


def _sides(lesson: HeadLesson) -> dict[str, Side]:
    return {"train": lesson.train, "held_out": lesson.held_out, "test": lesson.test}


def _write(config: HeadRecipe, lesson: HeadLesson, model: Classifier, facts: HeadFacts, wide: Wide | None,
           run: Path) -> dict[str, str]:
    """RUN/head, whole or not at all."""
    licence = lesson.source.licence if isinstance(lesson.source, OpenCheckpoint) else None
    with atomic_folder(run / "head") as folder:
        write_weights(folder, model, facts, licence and licence.derived(lesson.source.path.name))
        lesson.reading.tokenizer.save(folder)
        if wide is not None:
            wide.write(folder)
        if config.learns == "adapter":
            assert isinstance(model.body, Llama)
            write_adapter(folder / ADAPTER, taken(model.body, config.lora.own(), facts.fingerprint),
                          base_name=facts.base)
    write_json(run / "measured.json", facts.measured)
    return {"head": str(run / "head")}
