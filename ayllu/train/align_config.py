"""The recipe of `ayllu align`: an eye or an ear for a Llama."""

from typing import Any, Literal

from pydantic import Field, model_validator

from ayllu.config import Settings
from ayllu.data.media_jitter import Jitter
from ayllu.media.senses import EarConfig, EyeConfig
from ayllu.train.loop import LoopConfig
from ayllu.train.recipe import Recipe
from ayllu.train.sft_config import Lora


class MediaSource(Settings):
    """Rows of a JSONL file or a tar shard."""

    path: str
    files: str | None = None                             # folder or tar of the images and sounds; None: beside the rows
    times: int = Field(default=1, gt=0)                  # that each row comes in an epoch
    licence: str | None = None


class MediaData(Settings):
    """Conversations with images and sounds, or captions of them."""

    root: str = "."                                      # paths are relative to this; itself relative to the recipe
    sources: tuple[MediaSource, ...] = Field(min_length=1)
    held_out: tuple[MediaSource, ...] = ()               # evaluated on; none: a share by a fixed hash of each row
    held_out_share: float = Field(default=0.1, ge=0, lt=1)
    bad_rows: Literal["error", "drop"] = "error"         # of rows that nothing can be learned from
    jitter: Jitter = "none"                              # images and sounds are seen a little moved


class AlignLoop(LoopConfig):
    """As in pretraining, with numbers for short runs; the steps may follow from `epochs`."""

    steps: int = Field(default=0, ge=0)                  # 0: as many as `epochs` says
    batch_size: int = Field(default=32, gt=0)
    micro_batch: int = Field(default=32, gt=0)
    eval_every: int = Field(default=200, gt=0)
    checkpoint_every: int = Field(default=200, gt=0)
    precision: Literal["float32", "autocast"] = "float32"


class Cross(Settings):
    """Gated cross-attention instead of features in the text (ayllu/media/cross.py)."""

    every: int = Field(default=2, gt=0)                  # layers of the Llama from one to the next
    n_heads: int = Field(default=4, gt=0)


class Kl(Settings):
    """The Llama that reads the transcript is the teacher of the one that hears the sound (Ultravox)."""

    weight: float = Field(default=1.0, gt=0, le=1)       # the answers as written have the rest
    temperature: float = Field(default=2.0, gt=0)        # of both distributions


class AlignRecipe(Recipe):
    """Paths are relative to the recipe's folder, `out` to the working directory. Stage one of the usual two has
    learns="projector" beside an encoder that is trained already, stage two begins with its `senses` and learns
    "adapter" or "all" as well."""

    method: Literal["align"] = "align"
    base: str                                            # the Llama: a folder, a file, a hub name
    senses: str | None = None                            # a folder to begin with; None: eye and ear below
    eye: EyeConfig | None = None
    ear: EarConfig | None = None
    eye_weights: str | None = None                       # a folder of CLIP, SigLIP or own senses, with its shape
    ear_weights: str | None = None                       # a folder of Whisper or own senses
    learns: Literal["projector", "encoder", "adapter", "all"] = "encoder"    # each with those before it
    lora: Lora = Lora()                                  # of `adapter`
    cross: Cross | None = None                           # None: features stand in the text
    kl: Kl | None = None                                 # rows then need a "transcript" of each image or sound
    template: str = "auto"                               # auto: the model's; a format's name; a Jinja file
    data: MediaData
    context: int = Field(default=512, gt=1)              # tokens of a row with its placeholders
    epochs: float = Field(default=3.0, gt=0)
    loop: AlignLoop = AlignLoop()
    shown: int = Field(default=3, ge=0)                  # held-out rows that are answered on the way

    @model_validator(mode="before")
    @classmethod
    def _rates(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not isinstance(values.get("optim", {}), dict):
            return values
        return {**values, "optim": {"lr": 1e-3, "weight_decay": 0.01, "schedule": {"warmup_steps": 50},
                                    **values.get("optim", {})}}

    @model_validator(mode="after")
    def _something_to_learn(self) -> "AlignRecipe":
        if self.senses is None and self.eye is None and self.ear is None:
            raise ValueError("there is no eye and no ear: give [eye], [ear] or senses")
        if self.senses is not None and (self.eye is not None or self.ear is not None):
            raise ValueError("senses has its own eye and ear: leave [eye] and [ear] out")
        if self.senses is not None and self.cross is not None:
            raise ValueError("whether senses cross is said in their folder: leave [cross] out")
        if self.kl is not None and self.learns in ("adapter", "all"):
            raise ValueError("with [kl] the Llama is its own teacher and must stay as it is: set learns to projector "
                             "or encoder")
        return self
