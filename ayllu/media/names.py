"""The names and shapes of published encoders: Hugging Face's config.json and tensors -> ours.

CLIP and SigLIP keep their vision side under `vision_model.`, LLaVA below `vision_tower.` as well, Whisper its encoder
under `model.encoder.`: whatever stands before is left out, and the text sides are not looked at.
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ayllu.errors import CheckpointError
from ayllu.media.audio import AudioConfig, AudioEncoder
from ayllu.media.encoder import Activation, Shape
from ayllu.media.store import filled
from ayllu.media.vision import VisionConfig, VisionTransformer

ACTIVATIONS: dict[str, Activation] = {"quick_gelu": "quick_gelu", "gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh",
                                      "gelu_new": "gelu_tanh"}
LAYER = {                                                # theirs -> ours, in both kinds of encoder
    "layer_norm1": "attention_norm", "layer_norm2": "ffn_norm", "self_attn_layer_norm": "attention_norm",
    "final_layer_norm": "ffn_norm", "mlp.fc1": "feed_forward.w1", "mlp.fc2": "feed_forward.w2",
    "fc1": "feed_forward.w1", "fc2": "feed_forward.w2", "self_attn.q_proj": "attention.wq",
    "self_attn.k_proj": "attention.wk", "self_attn.v_proj": "attention.wv", "self_attn.out_proj": "attention.wo"}
VISION = {
    "embeddings.patch_embedding": "patches", "embeddings.position_embedding.weight": "places",
    "embeddings.class_embedding": "class_token", "pre_layrnorm": "first_norm", "post_layernorm": "last_norm",
    "head.probe": "pool.query", "head.layernorm": "pool.norm", "head.mlp.fc1": "pool.feed_forward.w1",
    "head.mlp.fc2": "pool.feed_forward.w2", "head.attention.out_proj": "pool.attention.wo"}
AUDIO = {"conv1": "conv1", "conv2": "conv2", "embed_positions.weight": "places", "layer_norm": "last_norm"}


def vision_config(config: Mapping[str, Any]) -> VisionConfig:
    """From the config of a CLIP or SigLIP model, or of its vision side."""
    kind = str(config.get("model_type", ""))
    side = config.get("vision_config", config)
    if not kind.startswith(("clip", "siglip")):
        raise CheckpointError(f"an encoder of type {kind!r}: CLIP's and SigLIP's are read")
    if kind.startswith("siglip2"):
        raise CheckpointError("SigLIP 2 with patches of any number isn't read: take one of a fixed size (siglip)")
    is_clip = kind.startswith("clip")
    default: dict[str, Any] = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
                               "intermediate_size": 3072, "image_size": 224, "patch_size": 32 if is_clip else 16,
                               "hidden_act": "quick_gelu" if is_clip else "gelu_pytorch_tanh",
                               "layer_norm_eps": 1e-5 if is_clip else 1e-6}
    facts = {**default, **{key: side[key] for key in default if side.get(key) is not None}}
    return VisionConfig(kind="clip" if is_clip else "siglip", shape=_shape(facts), image_size=facts["image_size"],
                        patch_size=facts["patch_size"], pools=bool(side.get("vision_use_head", True)))


def audio_config(config: Mapping[str, Any]) -> AudioConfig:
    """From the config of a Whisper model."""
    if config.get("model_type") not in ("whisper", "whisper_encoder"):
        raise CheckpointError(f"an audio encoder of type {config.get('model_type')!r}: Whisper's are read")
    facts = {"hidden_size": config["d_model"], "num_hidden_layers": config["encoder_layers"],
             "num_attention_heads": config["encoder_attention_heads"], "intermediate_size": config["encoder_ffn_dim"],
             "hidden_act": config.get("activation_function", "gelu"), "layer_norm_eps": 1e-5}
    return AudioConfig(shape=_shape(facts).model_copy(update={"key_bias": False}),
                       n_mels=config.get("num_mel_bins", 80), seconds=config.get("max_source_positions", 1500) // 50)


def _shape(facts: Mapping[str, Any]) -> Shape:
    activation = ACTIVATIONS.get(facts["hidden_act"])
    if activation is None:
        raise CheckpointError(f"an encoder with the activation {facts['hidden_act']!r}: {', '.join(ACTIVATIONS)} are "
                              "known")
    return Shape(dim=facts["hidden_size"], n_layers=facts["num_hidden_layers"], n_heads=facts["num_attention_heads"],
                 hidden_dim=facts["intermediate_size"], activation=activation, norm_eps=facts["layer_norm_eps"])


def vision_weights(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Ours, by name; SigLIP's query has its three projections in one."""
    found = {}
    for name, tensor in tensors.items():
        tail = re.split(r"(?:^|\.)vision_model\.", name)[-1]
        if name.startswith(("text_model.", "model.text_model.", "language_model.")):
            continue
        if tail.startswith("head.attention.in_proj_"):
            kind = tail.removeprefix("head.attention.in_proj_")
            for letter, part in zip("qkv", tensor.chunk(3), strict=True):
                found[f"pool.attention.w{letter}.{kind}"] = part
        elif (ours := _ours(tail, VISION)) is not None:
            found[ours] = tensor
    return found


def audio_weights(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Ours, by name."""
    found = {}
    for name, tensor in tensors.items():
        *before, tail = re.split(r"(?:^|\.)encoder\.", name)
        if (before or not name.startswith(("decoder.", "model."))) and (ours := _ours(tail, AUDIO)) is not None:
            found[ours] = tensor
    return found


def _ours(name: str, outside: Mapping[str, str]) -> str | None:
    match = re.fullmatch(r"(?:encoder\.)?layers\.(\d+)\.(.+)\.(weight|bias)", name)
    if match:
        return f"layers.{match[1]}.{LAYER[match[2]]}.{match[3]}" if match[2] in LAYER else None
    if name in outside:
        return outside[name]
    stem, _, kind = name.rpartition(".")
    return f"{outside[stem]}.{kind}" if stem in outside and kind in ("weight", "bias") else None


def vision_from(config: Mapping[str, Any], tensors: Mapping[str, Tensor], where: str = "the file") -> VisionTransformer:
    """A CLIP or SigLIP encoder with its weights."""
    vision = vision_config(config)
    return filled(lambda: VisionTransformer(vision), vision_weights(tensors), where)


def audio_from(config: Mapping[str, Any], tensors: Mapping[str, Tensor], where: str = "the file") -> AudioEncoder:
    """A Whisper encoder with its weights."""
    audio = audio_config(config)
    return filled(lambda: AudioEncoder(audio), audio_weights(tensors), where)
