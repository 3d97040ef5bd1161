"""transformers' CLIP, Whisper and LLaVA as a worker of benchmarks/media.py, in an environment of its own: imports no
ayllu. Ultravox isn't in transformers: its parts that are (log-mel, Whisper's encoder, Llama) are put together here."""

import io
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import torch
import transformers
from lines import serve
from media_shapes import AUDIO, MARK, STACK, TEXT, VISION, ids, picture, sound, timed
from PIL import Image
from torch import nn
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    WhisperConfig,
    WhisperFeatureExtractor,
)
from transformers.models.whisper.modeling_whisper import WhisperEncoder

transformers.logging.set_verbosity_error()
state: dict[str, Any] = {}


def load(what: str, dtype: str, threads: int) -> dict[str, Any]:
    """An encoder alone, or with a projector and a Llama; random weights, SDPA attention."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    vision = CLIPVisionConfig(hidden_size=VISION["dim"], num_hidden_layers=VISION["n_layers"],
                              num_attention_heads=VISION["n_heads"], intermediate_size=VISION["hidden_dim"],
                              image_size=VISION["image_size"], patch_size=VISION["patch_size"],
                              hidden_act="quick_gelu")
    text = LlamaConfig(hidden_size=TEXT["dim"], num_hidden_layers=TEXT["n_layers"],
                       num_attention_heads=TEXT["n_heads"], num_key_value_heads=TEXT["n_kv_heads"],
                       intermediate_size=TEXT["hidden_dim"], vocab_size=TEXT["vocab_size"],
                       max_position_embeddings=TEXT["max_context"], rms_norm_eps=1e-5)
    kind = getattr(torch, dtype)
    torch.set_default_dtype(kind)
    vision._attn_implementation = text._attn_implementation = "sdpa"
    match what:
        case "image encoder":
            model: nn.Module = CLIPVisionModel(vision)
        case "audio encoder":
            model = _whisper()
        case "image to first token":
            model = LlavaForConditionalGeneration(LlavaConfig(vision_config=vision, text_config=text,
                                                              image_token_id=MARK, vision_feature_layer=-2))
            model.generation_config.eos_token_id, model.generation_config.pad_token_id = None, 0
            state["prepare"] = CLIPImageProcessor(size={"shortest_edge": VISION["image_size"]}, crop_size={
                "height": VISION["image_size"], "width": VISION["image_size"]})
        case "sound to first token":
            model = LlamaForCausalLM(text)
            width = AUDIO["dim"] * STACK
            state["projector"] = nn.Sequential(nn.Linear(width, TEXT["dim"]), nn.GELU(),
                                               nn.Linear(TEXT["dim"], TEXT["dim"])).eval()
            state["prepare"] = WhisperFeatureExtractor(feature_size=AUDIO["n_mels"])
            state["encoder"] = _whisper().eval()
        case _:
            raise ValueError(what)
    torch.set_default_dtype(torch.float32)
    state.update(model=model.eval(), what=what, dtype=kind, plain={})
    return {"version": transformers.__version__, "torch": torch.__version__}


def _whisper() -> nn.Module:
    config = WhisperConfig(d_model=AUDIO["dim"], encoder_layers=AUDIO["n_layers"],
                           encoder_attention_heads=AUDIO["n_heads"], encoder_ffn_dim=AUDIO["hidden_dim"],
                           num_mel_bins=AUDIO["n_mels"], decoder_layers=1)
    config._attn_implementation = "sdpa"
    return WhisperEncoder(config)


def setting(name: str) -> dict[str, Any]:
    """eager, or compile: each network through torch.compile."""
    torch._dynamo.reset()
    for part in ("model", "encoder", "projector"):
        if part in state:
            own = state["plain"].setdefault(part, state[part].forward)
            state[part].forward = torch.compile(own, dynamic=False) if name == "compile" else own
    return {}


@torch.inference_mode()
def run(batch: int) -> dict[str, Any]:
    """Seconds of one pass."""
    model, what = state["model"], state["what"]
    if what == "image encoder":                          # all layers, as we do; LLaVA leaves the last one out
        x = torch.randn(batch, 3, VISION["image_size"], VISION["image_size"]).to(state["dtype"])
        return timed(lambda: model(x).last_hidden_state)
    if what == "audio encoder":
        x = torch.randn(batch, AUDIO["n_mels"], 100 * AUDIO["seconds"]).to(state["dtype"])
        return timed(lambda: model(x).last_hidden_state)
    data, samples = picture(), sound()
    return timed(lambda: _image(data) if "image" in what else _sound(samples))


def _image(data: bytes) -> int:
    pixels = state["prepare"](Image.open(io.BytesIO(data)).convert("RGB"), return_tensors="pt")["pixel_values"]
    prompt = torch.tensor([ids((VISION["image_size"] // VISION["patch_size"]) ** 2)])
    found = state["model"].generate(input_ids=prompt, attention_mask=torch.ones_like(prompt),
                                    pixel_values=pixels.to(state["dtype"]), max_new_tokens=1, do_sample=False)
    return int(found[0, -1])


def _sound(samples: Any) -> int:
    mel = state["prepare"](samples, sampling_rate=16_000, return_tensors="pt")["input_features"]
    x = state["encoder"](mel.to(state["dtype"])).last_hidden_state            # (1, 1500, D)
    x = nn.functional.pad(x, (0, 0, 0, -x.shape[1] % STACK)).unflatten(1, (-1, STACK)).flatten(2)
    features, model = state["projector"](x)[0], state["model"]
    prompt = torch.tensor([ids(len(features))])
    embeddings = model.get_input_embeddings()(prompt)
    embeddings[prompt == MARK] = features
    return int(model(inputs_embeds=embeddings, logits_to_keep=1).logits[0, -1].argmax())


if __name__ == "__main__":
    serve({"load": load, "setting": setting, "run": run})
