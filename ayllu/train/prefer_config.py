"""The recipe of learning from preferences."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from ayllu.data.pairs import Pairs
from ayllu.train.sft_config import Tuning

Method = Literal["dpo", "ipo", "kto", "orpo", "simpo", "reward"]
BETAS = {"dpo": 0.1, "ipo": 0.1, "kto": 0.1, "orpo": 0.1, "simpo": 2.0, "reward": 1.0}
WITH_REFERENCE = ("dpo", "ipo", "kto")


class PreferConfig(Tuning):
    """A recipe of `ayllu prefer`; paths are relative to its folder, `out` to the working directory."""

    RATES: ClassVar[tuple[float, float]] = (5e-6, 5e-5)

    method: Method = "dpo"                               # what is made of two answers (docs/preferences.md)
    beta: float | None = Field(default=None, gt=0)       # how much a difference counts; None: 0.1, of simpo 2
    gamma: float = Field(default=1.0, ge=0)              # of simpo: the difference of scaled means that is wanted
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)    # of dpo: the share of labels that are held to be wrong
    good_weight: float = Field(default=1.0, ge=0)        # of kto: of an answer with a good verdict
    bad_weight: float = Field(default=1.0, ge=0)         # of kto: of one with a bad verdict
    margin: float = Field(default=0.0, ge=0)             # of reward: by how much the better answer should score higher
    data: Pairs
    epochs: float = Field(default=1.0, gt=0)             # over the rows, where loop.steps is 0
    compile: Literal["auto", "on", "off"] = "off"        # rows of ever new widths are compiled anew
    eval_rows: int = Field(default=200, gt=0)            # held-out rows that are judged on the way; all at the end
    resamples: int = Field(default=2000, ge=100)         # of the held-out rows, for the intervals of what is reported

    @property
    def strength(self) -> float:
        """Beta as it counts."""
        return BETAS[self.method] if self.beta is None else self.beta

    @property
    def has_reference(self) -> bool:
        """Whether the loss asks for the base's own log-probabilities."""
        return self.method in WITH_REFERENCE

    @model_validator(mode="after")
    def _fits_the_method(self) -> "PreferConfig":
        for key, method in (("label_smoothing", "dpo"), ("gamma", "simpo"), ("good_weight", "kto"),
                            ("bad_weight", "kto"), ("margin", "reward")):
            if getattr(self, key) != type(self).model_fields[key].default and self.method != method:
                raise ValueError(f"{key}={getattr(self, key)} is for method={method}, and this is {self.method}: leave "
                                 "it out")
        if self.method == "reward" and (self.beta is not None or self.merge or self.samples or self.loop.ema or
                                        self.quant != "none" or self.adapt.kind != "off"):
            raise ValueError("a reward model has no beta, answers nothing and is trained plainly: leave beta, merge, "
                             "samples, loop.ema, quant and adapt out")
        if self.method == "kto" and self.loop.batch_size < 2:
            raise ValueError("kto compares a prompt with another row's answer: set loop.batch_size=2 or more")
        if self.loss.z_loss or self.loss.label_smoothing or self.loss.chunk is not None:
            raise ValueError("[loss] is of next-token losses: leave it out")
        if self.loop.patience and not self.data.held_out and not self.data.held_out_sources:
            raise ValueError("loop.patience stops by the held-out loss, and nothing is held out: set data.held_out or "
                             "data.held_out_sources")
        return self
