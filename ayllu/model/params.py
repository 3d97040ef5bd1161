"""The settings of one request for text: what may be asked of sampling and beams. Free of torch."""

import math

from pydantic import Field, model_validator

from ayllu.config import Settings


class SamplingParams(Settings):
    """How one request is continued. Temperature 0 is greedy; `seed=None` draws a seed, which the result names."""

    max_tokens: int | None = Field(default=None, ge=1)   # None: as many as the context has room for
    temperature: float = Field(default=1.0, ge=0, le=100, allow_inf_nan=False)
    top_k: int = Field(default=0, ge=0)                  # 0: off
    top_p: float = Field(default=1.0, gt=0, le=1)        # 1: off
    min_p: float = Field(default=0.0, ge=0, le=1)        # 0: off
    typical_p: float = Field(default=1.0, gt=0, le=1)    # 1: off (arXiv:2202.00666)
    repetition_penalty: float = Field(default=1.0, gt=0, allow_inf_nan=False)   # prompt and answer (arXiv:1909.05858)
    presence_penalty: float = Field(default=0.0, ge=-2, le=2)                   # over the answer, once per distinct id
    frequency_penalty: float = Field(default=0.0, ge=-2, le=2)                  # over the answer, once per occurrence
    logit_bias: dict[int, float] = Field(default_factory=dict)
    seed: int | None = Field(default=None, ge=0, lt=2**64)
    n: int = Field(default=1, ge=1, le=1024)             # samples per prompt
    stop: tuple[str, ...] = ()                           # texts; the text face looks for them
    stop_ids: tuple[int, ...] = ()                       # besides the checkpoint's own end ids
    ignore_eos: bool = False
    logprobs: int | None = Field(default=None, ge=0, le=100)    # 0: of the chosen ids; k: of the k likeliest ids too
    num_beams: int = Field(default=1, ge=1, le=256)
    length_penalty: float = Field(default=1.0, ge=-30, le=30)       # beams: sum / length ** length_penalty
    early_stopping: bool | None = False                  # beams: None is what transformers calls "never"

    @model_validator(mode="after")
    def _consistent(self) -> "SamplingParams":
        if self.num_beams > 1 and self.n > self.num_beams:
            raise ValueError(f"n={self.n} sequences can't come from num_beams={self.num_beams}: raise num_beams")
        if self.num_beams == 1 and self.n > 1 and self.temperature == 0:
            raise ValueError(f"n={self.n} with temperature 0 would give one text {self.n} times: "
                             "set a temperature above 0, or use num_beams")
        if any(not text for text in self.stop):
            raise ValueError("a stop string is empty: every text would end at once")
        if any(math.isnan(value) or value == math.inf for value in self.logit_bias.values()):
            raise ValueError("a logit_bias is NaN or +inf: use a large number to force an id, -inf to forbid one")
        return self

    @property
    def is_greedy(self) -> bool:
        """Whether the likeliest id is taken, so that no noise is needed."""
        return self.temperature == 0
