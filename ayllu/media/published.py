"""Senses out of published models: LLaVA-1.5 (arXiv:2310.03744) in its own layout and in that of transformers, and
Ultravox (github.com/fixie-ai/ultravox).

A file may hold the projector alone, as LLaVA's own and most of Ultravox's do: the encoder then comes from the folder of
CLIP or Whisper that it was trained with.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ayllu.errors import CheckpointError
from ayllu.media.names import audio_config, audio_weights, vision_config, vision_weights
from ayllu.media.pixels import Pixels
from ayllu.media.project import ProjectorConfig
from ayllu.media.senses import EarConfig, EyeConfig, Senses, SensesConfig
from ayllu.media.store import filled

Facts = Mapping[str, Any]
Tensors = Mapping[str, Tensor]
PROJECTORS = ("multi_modal_projector.", "mm_projector.")
TOWERS = ("vision_tower.vision_tower.", "vision_tower.", "audio_tower.")


@dataclass(frozen=True)
class Part:
    """A folder: config.json, preprocessor_config.json where there is one, and tensors."""

    facts: Facts
    tensors: Tensors
    processor: Facts = field(default_factory=dict)


def published_senses(model: Part, encoder: Part | None = None) -> Senses:
    """`encoder` goes before what the model's own file holds of one."""
    kind = model.facts.get("model_type")
    projector, tower = _below(model.tensors, PROJECTORS), _below(model.tensors, TOWERS)
    if not projector:
        raise CheckpointError(f"a model of type {kind!r} without {' or '.join(PROJECTORS)}*: it has no senses that "
                              "are read; LLaVA-1.5's and Ultravox's are")
    match kind:
        case "llava" | "llava_llama":
            return _llava(model, projector, tower, encoder)
        case "ultravox":
            return _ultravox(model.facts, projector, tower, encoder)
    raise CheckpointError(f"senses of a model of type {kind!r} aren't read: LLaVA-1.5's and Ultravox's are")


def _below(tensors: Tensors, prefixes: tuple[str, ...]) -> dict[str, Tensor]:
    """Those whose names have one of the prefixes, after `model.` perhaps, without it."""
    found = {}
    for name, tensor in tensors.items():
        tail = name.removeprefix("model.")
        prefix = next((p for p in prefixes if tail.startswith(p)), None)
        if prefix is not None:
            found[tail.removeprefix(prefix)] = tensor
    return found


def _llava(model: Part, projector: Tensors, tower: Tensors, encoder: Part | None) -> Senses:
    facts, is_own = model.facts, "vision_config" not in model.facts
    first, second = ("0", "2") if is_own else ("linear_1", "linear_2")
    _known("the projector", facts.get("mm_projector_type", "mlp2x_gelu"), ("mlp2x_gelu",))
    _known("the projector's activation", facts.get("projector_hidden_act", "gelu"), ("gelu",))
    _known("the selected features", facts.get("mm_vision_select_feature", "patch"), ("patch",))
    _known("the selected features", facts.get("vision_feature_select_strategy", "default"), ("default",))
    source = encoder.facts if encoder else facts.get("vision_config")
    if source is None or not (encoder or tower):
        raise _without_encoder(facts.get("mm_vision_tower", "a vision tower"))
    vision = vision_config(source)
    w1, w2 = _tensor(projector, f"{first}.weight"), _tensor(projector, f"{second}.weight")
    eye = EyeConfig(pixels=_pixels(model, vision.image_size), vision=vision,
                    depth=_layer(facts.get("mm_vision_select_layer", facts.get("vision_feature_layer", -2))),
                    project=ProjectorConfig(kind="mlp", width=vision.shape.dim, hidden=len(w1), out=len(w2)))
    weights = {f"eye.encoder.{name}": tensor for name, tensor in
               vision_weights(encoder.tensors if encoder else tower).items()}
    for ours, theirs in (("w1", first), ("w2", second)):
        for leaf in ("weight", "bias"):
            weights[f"eye.projector.{ours}.{leaf}"] = _tensor(projector, f"{theirs}.{leaf}")
    return _senses(SensesConfig(eye=eye), weights)


def _pixels(model: Part, size: int) -> Pixels:
    """LLaVA's own evaluation pads where its config says so, its copy in transformers crops as CLIP does."""
    said = model.processor
    pads = model.facts.get("image_aspect_ratio") == "pad" or bool(said.get("do_pad"))
    scales = {key: tuple(said[name]) for key, name in (("mean", "image_mean"), ("std", "image_std")) if name in said}
    return Pixels(size=size, fit="pad" if pads else "crop", **scales)


def _ultravox(facts: Facts, projector: Tensors, tower: Tensors, encoder: Part | None) -> Senses:
    """linear_1 holds the value in its first half and SwiGLU's gate in its second; weights have no biases."""
    _known("the projector's activation", facts.get("projector_act", "swiglu"), ("swiglu",))
    source = encoder.facts if encoder else facts.get("audio_config")
    if not isinstance(source, Mapping) or "d_model" not in source or not (encoder or tower):
        raise _without_encoder(facts.get("audio_model_id") or "an audio tower")
    audio, every = audio_config(source), int(facts.get("stack_factor", 8))
    first, second = _tensor(projector, "linear_1.weight"), _tensor(projector, "linear_2.weight")
    value, gate = first.chunk(2)
    norms = next((kind for kind in ("mid", "post") if f"ln_{kind}.weight" in projector), None)
    if norms is None:
        raise CheckpointError("Ultravox's projector has neither ln_mid nor ln_post: the file is incomplete")
    project = ProjectorConfig(kind="swiglu", gather="stack", every=every, width=audio.shape.dim, hidden=len(gate),
                              out=len(second), norms="mid" if norms == "mid" else "post")
    own = audio_weights(tower) or audio_weights(encoder.tensors if encoder else {})
    weights = {f"ear.encoder.{name}": tensor for name, tensor in own.items()}
    weights |= {"ear.projector.w1.weight": gate, "ear.projector.w3.weight": value, "ear.projector.w2.weight": second,
                "ear.projector.first_norm.weight": _tensor(projector, "ln_pre.weight"),
                "ear.projector.last_norm.weight": projector[f"ln_{norms}.weight"]}
    return _senses(SensesConfig(ear=EarConfig(audio=audio, project=project, fills=False)), weights)


def _layer(said: Any) -> int:
    if not isinstance(said, int):
        raise CheckpointError(f"features of the layers {said!r}: those of one layer are read, as LLaVA-1.5's are")
    return said


def _known(what: str, found: Any, known: tuple[str, ...]) -> None:
    if found not in known:
        raise CheckpointError(f"{what}: {found!r} isn't computed, {', '.join(known)} is")


def _tensor(tensors: Tensors, name: str) -> Tensor:
    if name not in tensors:
        raise CheckpointError(f"the projector has no {name}: the file is incomplete, or its layout isn't known")
    return tensors[name]


def _without_encoder(name: str) -> CheckpointError:
    return CheckpointError(f"the encoder ({name}) isn't in this file: name the folder of its own with --encoder")


def _senses(config: SensesConfig, weights: Tensors) -> Senses:
    return filled(lambda: Senses(config), {name: tensor.float() for name, tensor in weights.items()}, "the model")
