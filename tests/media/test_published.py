"""LLaVA-1.5 and Ultravox, scaled down, with random weights: their files give what their own code computes."""

import io
import json

import numpy as np
import pytest
import soundfile
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from ayllu.checkpoint.load import load_checkpoint
from ayllu.engine.published import convert_senses, open_senses
from ayllu.errors import CheckpointError, ConfigError, RequestError
from ayllu.media.pixels import Pixels, to_tensor
from ayllu.media.senses import read_senses
from ayllu.media.splice import expanded, spliced

CLOSE = {"atol": 1e-4, "rtol": 0}                        # float32, the same sums in another order
IMAGE_ID, SIZE = 60, 28
VISION = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64,
          "image_size": SIZE, "patch_size": 7, "model_type": "clip_vision_model"}
TEXT = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "intermediate_size": 96, "vocab_size": 64, "max_position_embeddings": 128, "rms_norm_eps": 1e-5}


def shaken(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


@pytest.fixture(scope="module")
def llava(tmp_path_factory):
    """transformers' model and the folder that it writes."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration
    torch.manual_seed(1)
    config = LlavaConfig(vision_config=CLIPVisionConfig(**VISION), text_config=LlamaConfig(**TEXT),
                         image_token_index=IMAGE_ID, tie_word_embeddings=False)
    model = shaken(LlavaForConditionalGeneration(config))
    folder = tmp_path_factory.mktemp("llava")
    model.save_pretrained(folder)
    return model, folder


def png(width=40, height=30) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(2).integers(0, 255, (height, width, 3), np.uint8)).save(out, "PNG")
    return out.getvalue()


def logits_of(folder, senses, medium, ids, image_id=IMAGE_ID):
    ids, places = expanded(ids, [image_id], [medium.n_features])
    model = load_checkpoint(folder, dtype="float32").model
    x = spliced(model.embed(torch.tensor([ids]))[0], places, senses.features([medium]))
    return ids, model.logits(model.trunk(x[None]))


@pytest.mark.parametrize("names", ["as saved", "as its modules are called"])
def test_llava_is_transformers_llava(llava, tmp_path, names):
    theirs, folder = llava
    saved = load_file(folder / "model.safetensors")
    tensors = saved if names == "as saved" else {name: tensor.clone() for name, tensor in theirs.state_dict().items()}
    assert ("language_model.lm_head.weight" in tensors) == (names == "as saved")
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    senses = open_senses(tmp_path)
    medium = senses.image(png())
    with torch.no_grad():
        ids, ours = logits_of(tmp_path, senses, medium, [1, 5, IMAGE_ID, 7, 9])
        expected = theirs(input_ids=torch.tensor([ids]), pixel_values=medium.values[None]).logits
    assert medium.n_features == ids.count(IMAGE_ID) == (SIZE // 7) ** 2
    torch.testing.assert_close(ours, expected, **CLOSE)
    ids, places = expanded([1, IMAGE_ID], [IMAGE_ID], [medium.n_features])
    with pytest.raises(RequestError, match="15 features and 16 placeholders"):
        spliced(torch.zeros(len(ids), 48), places, [senses.features([medium])[0][1:]])


@pytest.fixture(scope="module")
def original(llava, tmp_path_factory):
    """The same weights as LLaVA's authors lay them out: no eye in the file, a folder of CLIP beside it."""
    _, folder = llava
    own, clip = tmp_path_factory.mktemp("original"), tmp_path_factory.mktemp("clip")
    names = {"multi_modal_projector.linear_1": "model.mm_projector.0",
             "multi_modal_projector.linear_2": "model.mm_projector.2"}
    text, eye = {}, {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        stem, _, leaf = name.rpartition(".")
        if name.startswith("vision_tower."):
            inner = name.removeprefix("vision_tower.").removeprefix("vision_model.")
            eye["vision_model." + inner] = tensor
        else:
            text[f"{names[stem]}.{leaf}" if stem in names else name.removeprefix("language_model.")] = tensor
    save_file(text, own / "model.safetensors")
    save_file(eye, clip / "model.safetensors")
    (clip / "config.json").write_text(json.dumps(VISION))
    facts = {"model_type": "llava", "architectures": ["LlavaLlamaForCausalLM"], "image_aspect_ratio": "pad",
             "mm_hidden_size": 32, "mm_projector_type": "mlp2x_gelu", "mm_vision_select_feature": "patch",
             "mm_vision_select_layer": -2, "mm_vision_tower": "openai/clip-vit-large-patch14-336"}
    (own / "config.json").write_text(json.dumps({**TEXT, **facts}))
    return own, clip


def test_llavas_own_layout(llava, original):
    theirs, _ = llava
    own, clip = original
    senses = open_senses(own, clip)
    assert senses.config.eye.pixels.fit == "pad"
    medium = senses.image(png())
    with torch.no_grad():
        ids, ours = logits_of(own, senses, medium, [1, IMAGE_ID, 3])
        expected = theirs(input_ids=torch.tensor([ids]), pixel_values=medium.values[None]).logits
    torch.testing.assert_close(ours, expected, **CLOSE)
    with pytest.raises(CheckpointError, match=r"openai/clip-vit-large-patch14-336.*--encoder"):
        open_senses(own)


def test_padding_is_transformers_llava_processor():
    from transformers import LlavaImageProcessor
    image = Image.open(io.BytesIO(png()))
    theirs = LlavaImageProcessor(do_pad=True, size={"shortest_edge": SIZE},
                                 crop_size={"height": SIZE, "width": SIZE}, use_fast=False)
    expected = np.asarray(theirs(image, return_tensors="np")["pixel_values"][0])
    ours = to_tensor(image, Pixels(size=SIZE, fit="pad")).numpy()
    assert np.abs(ours - expected).max() < 0.04          # two levels of 255: theirs may round at another place


@pytest.mark.slow
def test_llava_at_the_real_shapes(tmp_path):
    """CLIP ViT-L/14-336, the projector and one of the 32 layers of Llama 2 7B: 0.8 billion random weights."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration
    torch.manual_seed(1)
    vision = CLIPVisionConfig(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096,
                              image_size=336, patch_size=14)
    text = LlamaConfig(hidden_size=4096, num_hidden_layers=1, num_attention_heads=32, intermediate_size=11008,
                       vocab_size=32064, max_position_embeddings=4096)
    theirs = LlavaForConditionalGeneration(LlavaConfig(vision_config=vision, text_config=text, image_token_index=32000,
                                                       tie_word_embeddings=False)).eval()
    theirs.save_pretrained(tmp_path)
    senses = open_senses(tmp_path)
    medium = senses.image(png(500, 400))
    with torch.no_grad():
        ids, ours = logits_of(tmp_path, senses, medium, [1, 5, 32000, 7, 9], 32000)
        expected = theirs(input_ids=torch.tensor([ids]), pixel_values=medium.values[None]).logits
    (tmp_path / "model.safetensors").unlink()            # 3.2 GB, which pytest would keep
    assert medium.n_features == 576
    assert expected.abs().max() > 1
    torch.testing.assert_close(ours, expected, **CLOSE)


def test_the_real_shapes_have_576_features():
    from ayllu.media.names import vision_config
    assert vision_config({**VISION, "image_size": 336, "patch_size": 14}).n_patches == 576


def test_senses_are_written_and_read(llava, tmp_path):
    _, folder = llava
    done = convert_senses(folder, tmp_path / "senses")
    assert (done.sees, done.hears, done.features) == (True, False, {"image": 16})
    one, two = open_senses(folder), read_senses(tmp_path / "senses")
    assert all(torch.equal(tensor, two.state_dict()[name]) for name, tensor in one.state_dict().items())
    with pytest.raises(ConfigError, match="--overwrite"):
        convert_senses(folder, tmp_path / "senses")


@pytest.mark.parametrize(("key", "value", "says"), [
    ("vision_feature_layer", [-2, -5], "of one layer"), ("vision_feature_select_strategy", "full", "'full'"),
    ("projector_hidden_act", "relu", "'relu'"), ("model_type", "fuyu", "'fuyu'")])
def test_what_is_not_computed_is_refused(llava, tmp_path, key, value, says):
    _, folder = llava
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    facts = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**facts, key: value}))
    with pytest.raises(CheckpointError, match=says):
        open_senses(tmp_path)


class UltravoxProjector(nn.Module):
    """Written from the description in Ultravox's model card and configuration, not from ours: frames stacked, RMSNorm,
    a matrix to value and gate, SwiGLU, a norm between the matrices or after them."""

    def __init__(self, width: int, hidden: int, out: int, factor: int, ln_mid: bool) -> None:
        super().__init__()
        self.factor, self.is_mid = factor, ln_mid
        self.ln_pre = nn.RMSNorm(width * factor, 1e-6)
        self.linear_1 = nn.Linear(width * factor, hidden, bias=False)
        self.linear_2 = nn.Linear(hidden // 2, out, bias=False)
        if ln_mid:
            self.ln_mid = nn.RMSNorm(hidden // 2, 1e-6)
        else:
            self.ln_post = nn.RMSNorm(out, 1e-6)

    def forward(self, x):
        missing = -x.shape[1] % self.factor
        x = torch.cat((x, torch.zeros(len(x), missing, x.shape[2])), 1)
        x = self.linear_1(self.ln_pre(x.reshape(len(x), -1, x.shape[2] * self.factor)))
        value, gate = torch.chunk(x, 2, -1)
        x = F.silu(gate) * value
        x = self.linear_2(self.ln_mid(x) if self.is_mid else x)
        return x if self.is_mid else self.ln_post(x)


@pytest.mark.parametrize("holds", ["everything", "the projector alone"])
@pytest.mark.parametrize("ln_mid", [True, False])
def test_ultravox(tmp_path, ln_mid, holds):
    from transformers import WhisperConfig, WhisperModel
    torch.manual_seed(3)
    config = WhisperConfig(d_model=16, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=32, num_mel_bins=80,
                           decoder_layers=1, decoder_attention_heads=2, decoder_ffn_dim=32, max_source_positions=1500,
                           vocab_size=99, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1)
    whisper = shaken(WhisperModel(config)).encoder
    projector = shaken(UltravoxProjector(16, 40, 48, 8, ln_mid))
    tensors = {f"multi_modal_projector.{name}": tensor for name, tensor in projector.state_dict().items()}
    facts = {"model_type": "ultravox", "stack_factor": 8, "projector_act": "swiglu", "projector_ln_mid": ln_mid,
             "text_model_id": "meta-llama/Llama-3.1-8B-Instruct", "audio_model_id": "openai/whisper-small"}
    encoder = None
    if holds == "everything":
        tensors |= {f"audio_tower.{name}": tensor for name, tensor in whisper.state_dict().items()}
        facts["audio_config"] = config.to_dict()
    else:
        encoder = tmp_path / "whisper"
        encoder.mkdir()
        save_file({f"model.encoder.{name}": tensor for name, tensor in whisper.state_dict().items()},
                  encoder / "model.safetensors")
        (encoder / "config.json").write_text(json.dumps(config.to_dict()))
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(facts))
    senses = open_senses(tmp_path, encoder)
    out = io.BytesIO()
    soundfile.write(out, np.random.default_rng(4).normal(size=21_000) * 0.1, 16_000, format="WAV")
    medium = senses.sound(out.getvalue())
    with torch.no_grad():
        (found,) = senses.features([medium])
        # layer by layer: transformers' encoder takes 30 s and no less, Ultravox's a sound as long as it is
        hidden = nn.functional.gelu(whisper.conv2(nn.functional.gelu(whisper.conv1(medium.values[None]))))
        hidden = hidden.mT + whisper.embed_positions.weight[:hidden.shape[2]]
        for layer in whisper.layers:
            hidden = layer(hidden, None)
            hidden = hidden[0] if isinstance(hidden, tuple) else hidden
        expected = projector(whisper.layer_norm(hidden))[0]
    assert len(found) == medium.n_features == -(-21_000 // 160 // 16)
    torch.testing.assert_close(found, expected, **CLOSE)
    if holds != "everything":
        with pytest.raises(CheckpointError, match=r"openai/whisper-small.*--encoder"):
            open_senses(tmp_path)
        with pytest.raises(CheckpointError, match=r"Llama-3\.1-8B-Instruct.*--to senses"):
            load_checkpoint(tmp_path)
