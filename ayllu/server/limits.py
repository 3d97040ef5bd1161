"""What a server lets one caller ask for: sizes, counts and seconds."""

from pydantic import Field

from ayllu.config import Settings
from ayllu.model.params import SamplingParams
from ayllu.server.faults import FieldError


class Limits(Settings):
    """Defaults for one machine and a few people."""

    body_bytes: int = Field(default=8 * 2**20, ge=1)
    upload_bytes: int = Field(default=256 * 2**20, ge=1)     # of a file that is brought to be kept
    head_bytes: int = Field(default=64 * 2**10, ge=1024)     # request line and headers
    head_s: float = Field(default=10, gt=0)              # to send request line and headers
    body_s: float = Field(default=30, gt=0)              # to send the body
    upload_s: float = Field(default=600, gt=0)           # to send a file
    stall_s: float = Field(default=60, gt=0)             # a reader may stop reading for so long
    request_s: float = Field(default=600, gt=0)          # until an answer must be finished
    idle_s: int = Field(default=15, ge=1)                # a connection may stay open unused for so long
    active: int = Field(default=512, ge=1)               # requests at a time; the engine's queue is shorter
    connections: int = Field(default=1024, ge=1)
    tokens: int | None = Field(default=None, ge=1)       # of an answer; None: what the context holds
    n: int = Field(default=16, ge=1)
    prompts: int = Field(default=256, ge=1)              # in one call
    stops: int = Field(default=16, ge=0)
    stop_characters: int = Field(default=256, ge=1)
    biases: int = Field(default=1024, ge=0)
    tools: int = Field(default=128, ge=0)

    def check(self, params: SamplingParams, n: int, n_prompts: int) -> None:
        """Refuse what is beyond a limit, by the field's name."""
        if n > self.n:
            raise FieldError("n", f"n={n}, but this server gives at most {self.n} answers: ask several times")
        if n_prompts > self.prompts:
            raise FieldError("prompt", f"{n_prompts} prompts in one call, at most {self.prompts} are taken: split them")
        if self.tokens is not None and (params.max_tokens or 0) > self.tokens:
            raise FieldError("max_tokens", f"{params.max_tokens} tokens are asked for, at most {self.tokens} are given")
        if len(params.stop) > self.stops:
            raise FieldError("stop", f"{len(params.stop)} stop strings, at most {self.stops} are taken")
        longest = max(map(len, params.stop), default=0)
        if longest > self.stop_characters:
            raise FieldError("stop", f"a stop string has {longest} characters, at most {self.stop_characters} are "
                             "taken")
        if len(params.logit_bias) > self.biases:
            raise FieldError("logit_bias", f"{len(params.logit_bias)} ids are biased, at most {self.biases} are taken")
