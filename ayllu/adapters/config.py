"""What an adapter is: LoRA (arXiv:2106.09685), rsLoRA (2312.03732) or DoRA (2402.09353), on which layers, how strong.

The keys are those of PEFT's adapter_config.json. A key that would change the result and isn't known here is refused.
"""

import re
from typing import Any

from pydantic import Field, field_validator

from ayllu.adapters.names import SHORT, hf_module, modules
from ayllu.config import Settings, validate
from ayllu.errors import CheckpointError, ConfigError
from ayllu.model.config import LlamaConfig

ALL_LINEAR = "all-linear"                                # every linear layer but the head
MOST_RANK = 4096
# keys that say nothing about the result once the matrices are there
_SILENT = {"peft_type", "peft_version", "task_type", "auto_mapping", "base_model_name_or_path", "revision",
           "inference_mode", "init_lora_weights", "loftq_config", "eva_config", "corda_config", "lora_ga_config",
           "megatron_config", "megatron_core", "qalora_group_size", "ensure_weight_tying", "runtime_config",
           "layers_pattern", "bias", "fan_in_fan_out"}
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")   # these begin by changing the weights of the base
_WHY = {"modules_to_save": "it holds whole matrices besides; merge it into its base with the tool that made it",
        "trainable_token_indices": "it holds embeddings of its own",
        "lora_bias": "its matrices have biases"}


class LoraConfig(Settings):
    """W x becomes W x + scale * B A x, with A (R, inputs) and B (outputs, R) for each chosen linear layer."""

    r: int = Field(default=16, ge=1, le=MOST_RANK)
    lora_alpha: float = Field(default=32.0, allow_inf_nan=False)
    target_modules: tuple[str, ...] | str = ALL_LINEAR   # names' ends; one text: all-linear or a regular expression
    exclude_modules: tuple[str, ...] = ()                # of them, those that get none
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    use_rslora: bool = False                             # scale = alpha / sqrt(r) instead of alpha / r
    use_dora: bool = False                               # each output also gets a length that is learned
    rank_pattern: dict[str, int] = Field(default_factory=dict)     # names' ends with a rank of their own
    alpha_pattern: dict[str, float] = Field(default_factory=dict)
    layers_to_transform: tuple[int, ...] | None = None   # numbers of layers; None: all

    @field_validator("rank_pattern", "alpha_pattern")
    @classmethod
    def _plain(cls, value: dict[str, Any]) -> dict[str, Any]:
        for key in value:
            if not re.fullmatch(r"[\w.]+", key):
                raise ValueError(f"{key[:80]!r} is a regular expression; only ends of names are understood, as in "
                                 "layers.3.self_attn.q_proj")
        return value

    def rank(self, module: str) -> int:
        """The rank for a linear layer, by our name."""
        return _by_end(self.rank_pattern, module, self.r)

    def scale(self, module: str) -> float:
        """What the product of the two matrices is multiplied by."""
        r, alpha = self.rank(module), _by_end(self.alpha_pattern, module, self.lora_alpha)
        return alpha / r**0.5 if self.use_rslora else alpha / r

    def targets(self, model: LlamaConfig) -> list[str]:
        """The linear layers that get an adapter, by our names, in the model's order. Each target must be met."""
        known = modules(model)
        wanted = self.layers_to_transform or ()
        if bad := [i for i in wanted if not 0 <= i < model.n_layers]:
            raise ConfigError(f"layers_to_transform names layer {bad[0]}, the model has 0 to {model.n_layers - 1}")
        found = [name for name in known if self.is_target(name)]
        missed = self.unmet(model)
        if missed or not found:
            what = missed[0] if missed else str(self.target_modules)
            raise ConfigError(f"target_modules: {what!r} is no linear layer of this model's blocks: use "
                              f"{ALL_LINEAR!r} or some of {', '.join(SHORT)}")
        return found

    def is_target(self, module: str) -> bool:
        """Whether this linear layer, by our name, is meant."""
        name, number = hf_module(module), int(module.split(".")[1])
        if any(_ends(name, end) for end in self.exclude_modules):
            return False
        if self.is_pattern:                              # PEFT counts layers for lists only
            return re.fullmatch(str(self.target_modules), name) is not None
        if self.layers_to_transform is not None and number not in self.layers_to_transform:
            return False
        return self.target_modules == ALL_LINEAR or any(_ends(name, end) for end in self.target_modules)

    @property
    def is_pattern(self) -> bool:
        """Whether the targets are a regular expression."""
        return isinstance(self.target_modules, str) and self.target_modules != ALL_LINEAR

    def unmet(self, model: LlamaConfig) -> list[str]:
        """The listed targets that mean nothing in this model."""
        if isinstance(self.target_modules, str):
            return []
        names = [hf_module(name) for name in modules(model)]
        return [target for target in self.target_modules if not any(_ends(name, target) for name in names)]


def config_from_peft(table: dict[str, Any], where: str) -> LoraConfig:
    """Read adapter_config.json. `where` stands before each message."""
    kind = table.get("peft_type")
    if kind != "LORA":
        raise CheckpointError(f"{where}: peft_type is {kind!r}, expected 'LORA': other kinds of adapters are not read")
    if table.get("bias", "none") not in ("none", None):
        raise CheckpointError(f"{where}: bias is {table['bias']!r}: an adapter that changes biases is not read; train "
                              "it with bias='none'")
    if table.get("fan_in_fan_out"):
        raise CheckpointError(f"{where}: fan_in_fan_out is set, which is for GPT-2's layers: this adapter's base is no "
                              "Llama")
    begin = table.get("init_lora_weights")
    if isinstance(begin, str) and begin.startswith(_CHANGES_BASE):
        raise CheckpointError(f"{where}: init_lora_weights is {begin!r}, which changes the base's own weights: convert "
                              "it to plain LoRA (PEFT: path_initial_model_for_weight_conversion)")
    known = {key: table[key] for key in LoraConfig.model_fields if table.get(key) is not None}
    for key, value in table.items():
        if value and key not in known and key not in _SILENT:
            raise CheckpointError(f"{where}: {key} is {str(value)[:80]!r}, which is not supported: "
                                  f"{_WHY.get(key, 'its result would be another one')}")
    if isinstance(known.get("layers_to_transform"), int):
        known["layers_to_transform"] = (known["layers_to_transform"],)
    try:
        return validate(LoraConfig, known, where=where)
    except ConfigError as error:
        raise CheckpointError(str(error)) from error


def config_to_peft(config: LoraConfig, base: str | None) -> dict[str, Any]:
    """The table of adapter_config.json."""
    table = config.model_dump(mode="json")
    if config.target_modules == ALL_LINEAR:
        table["target_modules"] = SHORT
    return {"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base, "bias": "none",
            "fan_in_fan_out": False, "inference_mode": True, "init_lora_weights": True, "modules_to_save": None} | table


def _ends(name: str, end: str) -> bool:
    return name == end or name.endswith(f".{end}")


def _by_end(table: dict[str, Any], module: str, default: Any) -> Any:
    name = hf_module(module)
    return next((value for end, value in table.items() if _ends(name, end)), default)
