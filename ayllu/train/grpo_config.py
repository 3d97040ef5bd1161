"""The recipe of learning from rewards."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from ayllu.data.prompts import Prompts
from ayllu.train.rewards import Reward
from ayllu.train.sft_config import Tuning


class GrpoConfig(Tuning):
    """A recipe of `ayllu grpo`; paths are relative to its folder, `out` to the working directory."""

    RATES: ClassVar[tuple[float, float]] = (1e-5, 1e-4)

    method: Literal["grpo"] = "grpo"
    data: Prompts
    rewards: tuple[Reward, ...] = Field(min_length=1)    # added up
    variant: Literal["grpo", "dr_grpo"] = "grpo"         # dr_grpo: without what favours easy prompts and long answers
    group: int = Field(default=8, ge=2)                  # answers to each prompt, which are compared with each other
    max_tokens: int = Field(default=64, gt=0)            # of an answer
    updates: int = Field(default=1, gt=0)                # steps that learn from the same answers
    clip: float = Field(default=0.2, gt=0)               # of the ratio of new and old probabilities, around 1
    clip_high: float | None = Field(default=None, gt=0)  # upwards; None: as downwards (arXiv:2503.14476: 0.28)
    kl: float = Field(default=0.0, ge=0)                 # times KL(model || base), estimated at each id
    tolerance: float | None = Field(default=None, gt=0)  # of the engine's log-probabilities; None: by loop.precision
    eval_prompts: int = Field(default=100, gt=0)         # held-out prompts answered on the way; all at the end
    epochs: float = Field(default=1.0, gt=0)             # over the prompts, where loop.steps is 0
    compile: Literal["auto", "on", "off"] = "off"        # rows of ever new widths are compiled anew

    @property
    def off_by(self) -> float:
        """How far the mean log-probability of the engine's ids may be from the training's: float32 adds in another
        order, and low precisions round each product."""
        return self.tolerance or (1e-3 if self.loop.precision == "float32" else 0.05)

    @property
    def prompts_a_step(self) -> int:
        """Over all ranks."""
        return self.loop.batch_size // self.group

    @model_validator(mode="after")
    def _fits_together(self) -> "GrpoConfig":
        if self.loop.batch_size % self.group:
            raise ValueError(f"loop.batch_size={self.loop.batch_size} counts answers: choose a multiple of "
                             f"group={self.group}")
        if self.max_tokens >= self.context:
            raise ValueError(f"max_tokens={self.max_tokens} leaves no room for a prompt in context={self.context}")
        if self.adapt.kind != "off":
            raise ValueError("adapt goes back over batches, and answers are drawn anew: leave adapt.kind at off")
        if self.quant != "none":
            raise ValueError("the engine would unpack all weights for each id: leave quant out")
        if self.loop.patience:
            raise ValueError("loop.patience looks at a held-out loss, and there is a reward: leave it out")
        return self
