"""A trained head as a folder: `ayllu_head.json` says what it computes and means, safetensors hold the weights.

Where all weights were trained they are in model.safetensors under Hugging Face's names, with `score.weight`. If they
are also used as LlamaForSequenceClassification uses them (causal, the last token), config.json is written, too, and
transformers loads the folder. Where the base stayed as it was, it is named with its fingerprint, and the folder holds
score.safetensors and perhaps an adapter in PEFT's form.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from ayllu.checkpoint.hf import hf_name, our_name
from ayllu.checkpoint.hf_config import config_from_hf, config_to_hf
from ayllu.checkpoint.licence import Licence, write_licence
from ayllu.checkpoint.safefile import read_safetensors, write_safetensors
from ayllu.checkpoint.sidecar import open_tokenizer
from ayllu.checkpoint.source import Entry, check_finite
from ayllu.config import Settings, validate
from ayllu.errors import CheckpointError
from ayllu.folder import inside, read_json
from ayllu.model.build import build_model
from ayllu.model.config import LlamaConfig, ModelSettings
from ayllu.model.heads import Classifier, HeadConfig, TooLong
from ayllu.model.init import Uninitialised

if TYPE_CHECKING:
    from ayllu.text.tokenizer import Tokenizer

FILE, WHOLE, SCORE, ADAPTER = "ayllu_head.json", "model.safetensors", "score.safetensors", "adapter"


class HeadFacts(Settings):
    """What a head means, and what was measured when it was trained."""

    head: HeadConfig
    body: ModelSettings                                  # the shape of what it stands on
    names: tuple[str, ...] = ()                          # of the outputs; none where the output is a number
    context: int = Field(gt=0)                           # tokens of a text at most
    too_long: TooLong = "error"                          # what becomes of longer ones
    temperature: float = Field(default=1.0, gt=0)        # logits are divided by it
    thresholds: tuple[float, ...] = ()                   # from which probability each label of many is given
    ngrams: bool = False                                 # whether grams.safetensors holds a linear layer beside it
    mean: float = 0.0                                    # of the numbers that were learned, and their spread
    spread: float = Field(default=1.0, gt=0)
    base: str | None = None                              # the model that it stands on, where the folder has not all
    fingerprint: str | None = None                       # of that model
    measured: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True)
class OpenHead:
    """A folder that was understood, but whose weights aren't read yet."""

    path: Path
    facts: HeadFacts
    entries: dict[str, Entry]                            # by our names: score.weight, and the body's where it is here

    def build(self) -> Classifier:
        """The model in eval mode and float32, of a folder that has all weights."""
        with torch.device("meta"), Uninitialised():
            body = build_model(self.facts.body)
        for name, entry in self.entries.items():
            if name != "score.weight":
                owner, _, leaf = name.rpartition(".")
                setattr(body.get_submodule(owner), leaf, nn.Parameter(_read(entry)))
        return self.with_score(body)

    def with_score(self, body: Any) -> Classifier:
        """The head on a body that came from elsewhere."""
        model = Classifier(body, self.facts.head)
        model.score.weight = nn.Parameter(_read(self.entries["score.weight"]))
        return model.eval()

    def open_tokenizer(self) -> "Tokenizer | None":
        """The tokenizer beside the weights, or None."""
        return open_tokenizer(self.path)


def write_weights(folder: Path, model: Classifier, facts: HeadFacts, licence: Licence | None = None) -> None:
    """Write facts and weights into an existing folder; with a base named, of the head alone."""
    score: dict[str, Tensor] = {"score.weight": model.score.weight}
    if facts.base is None:
        is_llama = isinstance(model.config, LlamaConfig)
        named = {hf_name(n) if is_llama else n: p for n, p in model.body.named_parameters()}
        _write(folder / WHOLE, named | score)
        if isinstance(facts.body, LlamaConfig) and computes_as_hf(facts.head):
            (folder / "config.json").write_text(json.dumps(_to_hf(facts), indent=2, ensure_ascii=False) + "\n",
                                                encoding="utf-8")
    else:
        _write(folder / SCORE, score)
    write_licence(folder, licence, {})
    (folder / FILE).write_text(json.dumps(facts.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n",
                               encoding="utf-8")


def computes_as_hf(head: HeadConfig) -> bool:
    """Whether LlamaForSequenceClassification gives the same logits."""
    return head.kind != "tokens" and head.attention == "causal" and head.pooling == "last"


def open_head(path: str | Path) -> OpenHead:
    """A folder that Ayllu wrote, or one of LlamaForSequenceClassification and its relatives."""
    folder = Path(path)
    if (folder / "head" / FILE).is_file():               # the run's folder stands for what it made
        folder = folder / "head"
    if (folder / FILE).is_file():
        facts = validate(HeadFacts, read_json(inside(folder, FILE)), where=str(folder / FILE))
    elif (folder / "config.json").is_file():
        facts = _from_hf(read_json(inside(folder, "config.json")), folder / "config.json")
    else:
        raise CheckpointError(f"{folder} holds no head: expected {FILE}, which `ayllu train-head` writes, or the "
                              "config.json of a sequence classifier")
    file = inside(folder, WHOLE if facts.base is None else SCORE)
    if not file.is_file():
        raise CheckpointError(f"{file} is missing: the folder holds a description without its weights")
    entries = {our_name(name): entry for name, entry in read_safetensors(file).items()}
    _check(entries, facts, file)
    return OpenHead(folder, facts, entries)


def _check(entries: Mapping[str, Entry], facts: HeadFacts, file: Path) -> None:
    expected: dict[str, tuple[int, ...]] = {"score.weight": (facts.head.n_outputs, facts.body.dim)}
    if facts.base is None:
        with torch.device("meta"), Uninitialised():
            expected |= {name: tuple(p.shape) for name, p in build_model(facts.body).named_parameters()}
    for name in expected | dict(entries):
        found, wanted = entries[name].shape if name in entries else "nothing", expected.get(name, "nothing")
        if found != wanted:
            raise CheckpointError(f"{file}: {name} is {found}, expected {wanted}: description and weights belong to "
                                  "different models")


def _to_hf(facts: HeadFacts) -> dict[str, Any]:
    assert isinstance(facts.body, LlamaConfig)
    table = config_to_hf(facts.body)
    names = facts.names or ("value",)
    problem = {"single": "single_label_classification", "multi": "multi_label_classification"}
    return table | {"architectures": [table["architectures"][0].replace("CausalLM", "SequenceClassification")],
                    "tie_word_embeddings": False, "num_labels": len(names), "dtype": "float32",
                    "torch_dtype": "float32", "problem_type": problem.get(facts.head.kind, "regression"),
                    "id2label": {str(i): name for i, name in enumerate(names)},
                    "label2id": {name: i for i, name in enumerate(names)}}


def _from_hf(raw: dict[str, Any], where: Path) -> HeadFacts:
    named = raw.get("architectures") or [""]
    table = raw.get("id2label")
    if not str(named[0]).endswith("ForSequenceClassification") or not isinstance(table, dict):
        raise CheckpointError(f"{where} describes {named[0] or 'no model'}: expected a sequence classifier with "
                              "id2label, or a folder that `ayllu train-head` wrote")
    body = config_from_hf(raw, where=str(where)).model_copy(update={"tie_embeddings": True})   # no head of words
    names = tuple(str(table[key]) for key in sorted(table, key=int))
    problem = raw.get("problem_type") or ("regression" if len(names) == 1 else "single_label_classification")
    kind = {"multi_label_classification": "multi", "regression": "regression"}.get(problem, "single")
    head = validate(HeadConfig, {"kind": kind, "n_outputs": len(names), "pooling": "last", "attention": "causal"},
                    where=str(where))
    return HeadFacts(head=head, body=body, names=() if kind == "regression" else names, context=body.max_context,
                     thresholds=(0.5,) * len(names) if kind == "multi" else ())


def _write(file: Path, tensors: Mapping[str, Tensor]) -> None:
    rows = [(name, lambda t=t: t, tuple(t.shape)) for name, t in tensors.items()]
    write_safetensors(file, rows, lambda name: torch.float32)


def _read(entry: Entry) -> Tensor:
    tensor = entry.read()
    check_finite(tensor, f"{entry.file}: {entry.name}")
    return tensor.float()
