"""The recipe of training a head."""

from typing import Any, Literal

from pydantic import Field, model_validator

from ayllu.config import Settings
from ayllu.model.config import ModelSettings
from ayllu.model.heads import Kind, TooLong
from ayllu.train.loop import LoopConfig
from ayllu.train.recipe import Recipe
from ayllu.train.sft_config import Lora


class LabelData(Settings):
    """Rows with labels. Parts that no file is named for are taken from `path` by a fixed hash of each text."""

    path: str
    test: str | None = None                              # a file that is measured on; None: a share of `path`
    held_out: str | None = None                          # a file for early stopping and calibration; None: a share
    related: tuple[str, ...] = ()                        # files of other sources with these labels, for `ngrams` alone
    test_share: float = Field(default=0.15, gt=0, lt=1)  # where no file is named
    held_out_share: float = Field(default=0.15, gt=0, lt=1)
    text: str = "text"                                   # the column's name
    label: str = "label"
    too_long: TooLong = "error"


class HeadLoop(LoopConfig):
    """As in pretraining, with numbers for short runs; steps and evaluations may follow from `epochs`."""

    steps: int = Field(default=0, ge=0)                  # 0: as many as `epochs` says
    batch_size: int = Field(default=32, gt=0)
    micro_batch: int = Field(default=32, gt=0)
    eval_every: int = Field(default=0, ge=0)             # 0: after each epoch
    checkpoint_every: int = Field(default=0, ge=0)       # 0: as often as it is evaluated
    patience: int = Field(default=3, ge=0)


class HeadRecipe(Recipe):
    """Paths are relative to the recipe's folder, `out` to the working directory."""

    method: Literal["head"] = "head"
    base: str                                            # whose hidden states are read: a folder, a file, a hub name
    model: ModelSettings | None = None                   # its shape; None: read from it
    data: LabelData
    kind: Kind = "single"
    pooling: Literal["mean", "last"] = "mean"
    attention: Literal["both", "causal"] = "both"
    learns: Literal["all", "adapter", "head"] = "all"    # all weights; LoRA and the head; the head alone
    lora: Lora = Lora()                                  # of `adapter`
    context: int = Field(default=0, ge=0)                # tokens of a text at most; 0: as many as the base takes
    dropout: float = Field(default=0.1, ge=0, lt=1)      # of the base's residuals and embeddings, and before the head
    word_dropout: float = Field(default=0.0, ge=0, lt=1)     # the share of tokens that a step doesn't see at all
    class_weights: Literal["none", "balanced"] = "none"  # balanced: each class counts the same
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    layer_decay: float = Field(default=1.0, gt=0, le=1)  # the rate of each layer, as a share of the one above it
    ngrams: bool = False                                 # a linear layer over words, letters, lexicon beside it
    epochs: float = Field(default=10.0, gt=0)
    loop: HeadLoop = HeadLoop()
    native: bool = True                                  # on a CPU: texts packed; in bfloat16 with AMX: C++ kernels

    @model_validator(mode="before")
    @classmethod
    def _rates(cls, values: Any) -> Any:
        """What a recipe doesn't name: the rate that suits what is trained."""
        if not isinstance(values, dict) or not isinstance(values.get("optim", {}), dict):
            return values
        rate = {"all": 5e-4, "adapter": 1e-3, "head": 1e-2}.get(values.get("learns", "all"), 5e-4)
        return {**values, "optim": {"lr": rate, "weight_decay": 0.1, "schedule": {"warmup_steps": 20},
                                    **values.get("optim", {})}}

    @model_validator(mode="after")
    def _shares(self) -> "HeadRecipe":
        data = self.data
        taken = data.test_share * (data.test is None) + data.held_out_share * (data.held_out is None)
        if taken >= 1:
            raise ValueError(f"data.test_share and data.held_out_share take {taken:.0%} of the rows: lower them")
        if self.kind == "regression" and (self.class_weights != "none" or self.label_smoothing):
            raise ValueError("class_weights and label_smoothing are for classes: leave them out with kind=regression")
        if self.ngrams and self.kind not in ("single", "multi"):
            raise ValueError(f"ngrams=true knows the labels of whole texts: leave it out with kind={self.kind}")
        if data.related and not self.ngrams:
            raise ValueError("data.related is for the layer beside the model: add ngrams=true, or leave it out")
        if self.word_dropout and (self.attention != "both" or self.pooling != "mean" or self.kind == "tokens"):
            raise ValueError("word_dropout hides tokens, which attention=both and pooling=mean allow for whole texts")
        return self
