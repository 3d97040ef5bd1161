"""What a model is and what it costs, as plain numbers for people and programs."""

from typing import TYPE_CHECKING, Any

from ayllu.model import account
from ayllu.model.config import LlamaConfig, TransformerConfig

if TYPE_CHECKING:
    from ayllu.checkpoint.source import OpenCheckpoint
    from ayllu.checkpoint.transformer import OpenTransformer


def describe_shape(config: LlamaConfig | TransformerConfig, context: int, batch: int, dtype: str) -> dict[str, Any]:
    """Everything that follows from the config alone. FLOPs are per token, memory is in bytes."""
    facts: dict[str, Any] = {
        "shape": config.model_dump(exclude_defaults=False),
        "parameters": {"total": account.n_parameters(config),
                       "parts": {part.name: part.parameters for part in account.parts(config)}},
        "weight_bytes": {name: account.weight_bytes(config, name) for name in (*account.BYTES, "q8_0")},
        "kv_bytes_per_token": {name: account.kv_bytes(config, name) for name in account.BYTES},
        "flops_per_token": {"context": context,
                            "forward_first": account.forward_flops(config, 1),
                            "forward_last": account.forward_flops(config, context),
                            "training_mean": account.training_flops(config, context)},
        "inference_memory": _memory(account.inference_memory(config, dtype, context, batch), context, batch, dtype),
    }
    if isinstance(config, LlamaConfig):
        facts["training_memory"] = _memory(account.training_memory(config, context, batch), context, batch, "bfloat16")
    return facts


def describe_checkpoint(source: "OpenCheckpoint | OpenTransformer") -> dict[str, Any]:
    """What a checkpoint brings beside its config; None stands for what it doesn't have."""
    tokenizer = source.open_tokenizer()
    licence, template = source.licence, source.chat_template
    return {
        "path": str(source.path),
        "format": source.format,
        "stored_as": sorted({entry.stored_as for entry in source.entries.values()}),
        "licence": licence.model_dump() if licence else None,
        "tokenizer": {"kind": tokenizer.kind, "vocab_size": tokenizer.vocab_size, "bos_id": tokenizer.bos_id,
                      "eos_ids": list(tokenizer.eos_ids), "fingerprint": tokenizer.fingerprint} if tokenizer else None,
        "chat_template": template,
    }


def _memory(memory: account.Memory, context: int, batch: int, dtype: str) -> dict[str, Any]:
    return {"context": context, "batch": batch, "dtype": dtype, "weights": memory.weights, "kv": memory.kv,
            "activations": memory.activations, "state": memory.state, "total": memory.total}
