"""The recipe of fine-tuning, and what it shares with those of the other methods that begin with a trained model."""

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from ayllu.adapters.config import LoraConfig
from ayllu.data.chat_loader import ChatPacking
from ayllu.data.chats import Chats
from ayllu.model.config import LlamaConfig
from ayllu.train.distill import DistillConfig
from ayllu.train.loop import LoopConfig
from ayllu.train.recipe import Recipe


class SftLoop(LoopConfig):
    """As in pretraining, with numbers for short runs; the steps may follow from `epochs`."""

    steps: int = Field(default=0, ge=0)                  # 0: as many as `epochs` says
    batch_size: int = Field(default=16, gt=0)            # rows per step over all ranks and micro-batches
    eval_every: int = Field(default=50, gt=0)
    checkpoint_every: int = Field(default=100, gt=0)


class Lora(LoraConfig):
    """An adapter that is trained in place of the weights, which stay as they are."""

    plus: float = Field(default=1.0, ge=1)               # B's rate, as a multiple of A's (LoRA+, arXiv:2402.12354: 16)

    def own(self) -> LoraConfig:
        """What the adapter is, without how it is trained."""
        return LoraConfig.model_validate(self.model_dump(exclude={"plus"}))


class Tuning(Recipe):
    """What every method has that begins with a trained model: the model, and an adapter or all of its weights."""

    RATES: ClassVar[tuple[float, float]] = (5e-5, 2e-4)  # of optim.lr where a recipe has none: all weights, an adapter

    base: str                                            # the model that learns: a folder, a file, a hub name
    model: LlamaConfig | None = None                     # its shape; None: read from it. All that a dry run needs
    lora: Lora | None = None                             # lora.r=16 and so on; None: all weights are trained
    merge: bool = False                                  # at the end, the adapter in the 16-bit base, with a check
    base_dtype: Literal["auto", "float32", "bfloat16"] = "auto"      # of a frozen base; auto: by loop.precision
    quant: Literal["none", "nf4"] = "none"               # of a frozen base's blocks; nf4: QLoRA (arXiv:2305.14314)
    loop: SftLoop = SftLoop()
    context: int = Field(default=512, gt=1)              # tokens per training window: the longest sample
    epochs: float = Field(default=3.0, gt=0)             # over the windows, where loop.steps is 0
    samples: tuple[str, ...] = ()                        # messages of a user that are answered on the way

    @model_validator(mode="before")
    @classmethod
    def _gentler(cls, values: Any) -> Any:
        """A trained model wants a lower rate, no decay and a short warm-up; what a recipe names stays."""
        if not isinstance(values, dict) or not isinstance(values.get("optim", {}), dict):
            return values
        if values.get("quant", "none") != "none":        # its products unpack weights, which isn't compiled
            values = {"compile": "off", **values}
        rate = cls.RATES[values.get("lora") is not None]
        return {**values, "optim": {"lr": rate, "weight_decay": 0.0, "schedule": {"warmup_steps": 10},
                                    **values.get("optim", {})}}

    @model_validator(mode="after")
    def _base_is_frozen(self) -> "Tuning":
        if self.lora is None and (self.merge or self.base_dtype != "auto" or self.quant != "none"):
            raise ValueError("merge, base_dtype and quant are for a frozen base with an adapter: set lora.r=16, or "
                             "leave them out")
        if self.quant != "none" and self.compile != "off":
            raise ValueError(f"quant={self.quant} isn't compiled: leave compile out")
        return self


class SftConfig(Tuning):
    """A recipe of fine-tuning; paths are relative to its folder, `out` to the working directory."""

    method: Literal["sft"] = "sft"
    data: Chats
    packing: ChatPacking = ChatPacking()
    neftune: float = Field(default=0.0, ge=0)            # alpha of noise on the embeddings (arXiv:2310.05914: 5 to 15)
    anchor: float = Field(default=0.0, ge=0)             # times KL(base || model), which keeps answers near the base's
    distill: DistillConfig | None = None                 # distill.teacher=BIGGER and so on; None: no teacher
    eval_tokens: int = Field(default=50_000, gt=0)       # places of held-out windows on the way; all at the end

    @property
    def beside(self) -> list[str]:
        """What keeps each rank's models whole."""
        return [name for name in ("lora", "anchor", "distill") if getattr(self, name)]

    @model_validator(mode="after")
    def _stops_by_what_is_held_out(self) -> "SftConfig":
        if self.loop.patience and not self.data.held_out and not self.data.held_out_sources:
            raise ValueError("loop.patience stops by the held-out loss, and nothing is held out: set data.held_out or "
                             "data.held_out_sources")
        return self
