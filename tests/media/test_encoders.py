"""Our encoders beside those of transformers, on random weights of small shapes: CLIP, SigLIP, Whisper."""

import pytest
import torch

from ayllu.errors import BadMedia, CheckpointError, ConfigError
from ayllu.media.encoder import Shape
from ayllu.media.names import audio_from, vision_config, vision_from
from ayllu.media.vision import VisionConfig, VisionTransformer

CLOSE = {"atol": 1e-4, "rtol": 0}                        # float32, the same sums in another order
SMALL = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64,
         "image_size": 28, "patch_size": 7}


@pytest.fixture(scope="module", autouse=True)
def seeded():
    torch.manual_seed(1)


def shaken(model):
    """First values of transformers leave norms at 1 and biases at 0: a mistake there would not show."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def test_clip_is_transformers_clip():
    from transformers import CLIPVisionConfig, CLIPVisionModel
    theirs = shaken(CLIPVisionModel(CLIPVisionConfig(**SMALL)))
    ours = vision_from(theirs.config.to_dict(), theirs.state_dict())
    pixels = torch.randn(2, 3, 28, 28)
    with torch.no_grad():
        expected = theirs(pixels, output_hidden_states=True)
        torch.testing.assert_close(ours.pooled(pixels), expected.pooler_output, **CLOSE)
        torch.testing.assert_close(ours(pixels), expected.last_hidden_state[:, 1:], **CLOSE)
        torch.testing.assert_close(ours(pixels, depth=-2), expected.hidden_states[-2][:, 1:], **CLOSE)


@pytest.mark.parametrize("pools", [True, False])
def test_siglip_is_transformers_siglip(pools):
    from transformers import SiglipVisionConfig, SiglipVisionModel
    theirs = shaken(SiglipVisionModel(SiglipVisionConfig(**SMALL, vision_use_head=pools)))
    ours = vision_from({**theirs.config.to_dict(), "vision_use_head": pools}, theirs.state_dict())
    pixels = torch.randn(2, 3, 28, 28)
    with torch.no_grad():
        expected = theirs(pixels, output_hidden_states=True)
        torch.testing.assert_close(ours(pixels), expected.last_hidden_state, **CLOSE)
        torch.testing.assert_close(ours(pixels, depth=-2), expected.hidden_states[-2], **CLOSE)
        pooled = expected.pooler_output if pools else expected.last_hidden_state.mean(dim=1)
        torch.testing.assert_close(ours.pooled(pixels), pooled, **CLOSE)


def test_a_whole_clip_gives_its_vision_side():
    from transformers import CLIPConfig, CLIPModel
    text = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64,
            "vocab_size": 99}
    theirs = shaken(CLIPModel(CLIPConfig(text_config=text, vision_config=SMALL)))
    ours = vision_from(theirs.config.to_dict(), theirs.state_dict())
    pixels = torch.randn(1, 3, 28, 28)
    with torch.no_grad():
        expected = theirs.vision_model(pixels).pooler_output
        torch.testing.assert_close(ours.pooled(pixels), expected, **CLOSE)


@pytest.mark.parametrize("whole", [False, True])
def test_whisper_is_transformers_whisper(whole):
    from transformers import WhisperConfig, WhisperModel
    config = WhisperConfig(d_model=32, encoder_layers=2, encoder_attention_heads=4, encoder_ffn_dim=64,
                           decoder_layers=1, decoder_attention_heads=4, decoder_ffn_dim=64, num_mel_bins=16,
                           max_source_positions=100, vocab_size=99, pad_token_id=0, bos_token_id=1, eos_token_id=2,
                           decoder_start_token_id=1)
    theirs = shaken(WhisperModel(config))
    tensors = theirs.state_dict() if whole else theirs.encoder.state_dict()
    ours = audio_from(config.to_dict(), tensors)
    mel = torch.randn(2, 16, 200)
    with torch.no_grad():
        torch.testing.assert_close(ours(mel), theirs.encoder(mel).last_hidden_state, **CLOSE)
        assert ours(mel[:, :, :51]).shape == (2, 26, 32)                      # a shorter sound: fewer places
        with pytest.raises(BadMedia, match="cut the sound"):
            ours(torch.randn(1, 16, 202))


def test_weights_that_do_not_fit_are_named():
    from transformers import CLIPVisionConfig, CLIPVisionModel
    theirs = CLIPVisionModel(CLIPVisionConfig(**SMALL))
    tensors = dict(theirs.state_dict())
    config = theirs.config.to_dict()
    with pytest.raises(CheckpointError, match="places is"):
        vision_from({**config, "image_size": 35}, tensors)
    with pytest.raises(CheckpointError, match=r"layers\.3\.[a-z_.]+ is missing"):
        vision_from({**config, "num_hidden_layers": 4}, tensors)
    with pytest.raises(CheckpointError, match="type 'vit'"):
        vision_config({"model_type": "vit"})
    with pytest.raises(CheckpointError, match="activation 'relu'"):
        vision_config({**config, "hidden_act": "relu"})
    with pytest.raises(ConfigError, match="no multiple"):
        VisionConfig(shape=Shape(dim=8, n_layers=1, n_heads=2, hidden_dim=8), image_size=30, patch_size=7)


def test_a_new_one_learns():
    """From scratch: two pictures, told apart after some steps."""
    config = VisionConfig(shape=Shape(dim=16, n_layers=1, n_heads=2, hidden_dim=32), image_size=14, patch_size=7)
    torch.manual_seed(0)
    model, head = VisionTransformer(config), torch.nn.Linear(16, 2)
    with torch.no_grad():
        model.pool.query.normal_()
    pixels, labels = torch.randn(2, 3, 14, 14), torch.tensor([0, 1])
    optimizer = torch.optim.Adam([*model.parameters(), *head.parameters()], 1e-2)
    for _ in range(60):
        loss = torch.nn.functional.cross_entropy(head(model.pooled(pixels)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.05
