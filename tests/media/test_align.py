"""From rows with pictures and sounds to senses that say what they perceive: the whole path on few examples."""

import io
import json
import tarfile

import numpy as np
import pytest
import torch
from media_pairs import NAMES, model_of, png, recipe, wav
from safetensors.torch import load_file, save_file

from ayllu.config import build_recipe
from ayllu.data.media_jitter import jittered
from ayllu.data.media_loader import MediaLoader
from ayllu.data.media_rows import Folder, media_rows
from ayllu.data.rows import Reject
from ayllu.errors import BadMedia, CheckpointError, ConfigError, DataError
from ayllu.media.marks import marks_of
from ayllu.media.names import vision_from
from ayllu.media.senses import read_senses
from ayllu.text.marks import MEDIA, Found, with_media
from ayllu.train.align import align, prepared_media
from ayllu.train.align_config import AlignRecipe
from ayllu.train.align_loss import Aligned, align_loss
from ayllu.train.losses import token_loss


def test_eight_pairs_are_learned_by_heart(folder, chat_checkpoint):
    config, lesson = prepared_media(recipe(folder, chat_checkpoint), folder)
    found = align(config, lesson, folder)
    assert found["answers_right"] == 1
    senses = read_senses(found["senses"])
    assert senses.config.measured["answers_right"] == 1
    model = Aligned(model_of(found["model"]), senses)
    batch = MediaLoader(lesson.train, senses, 8).rows(range(8))
    logits = model.body.logits(model.hidden(batch))
    learned = batch.weights > 0
    assert torch.equal(logits.argmax(-1)[learned], batch.labels[learned])     # what was written says the same


def test_a_resumed_run_ends_at_the_same_numbers(folder, chat_checkpoint):
    def run(out, steps, resume=False):
        config = recipe(folder, chat_checkpoint, out=str(folder / out), learns="encoder",
                        loop={"steps": steps, "batch_size": 8, "micro_batch": 8, "eval_every": 10,
                              "checkpoint_every": 5}, optim={"lr": 5e-3, "schedule": {"kind": "constant",
                                                                                      "warmup_steps": 2}})
        config, lesson = prepared_media(config, folder)
        align(config, lesson, folder, resume)
        return read_senses(folder / out / "senses").state_dict()

    whole = run("a", 10)
    run("b", 5)
    parts = run("b", 10, resume=True)
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_adapt_is_heeded(folder, chat_checkpoint):
    """`follow` begins with trials of rates, and says so beside the losses."""
    config = recipe(folder, chat_checkpoint, learns="projector", adapt={"kind": "follow"},
                    loop={"steps": 20, "batch_size": 8, "micro_batch": 8, "eval_every": 20})
    align(*prepared_media(config, folder), folder)
    rows = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    assert "try" in {row.get("decision") for row in rows}


def test_the_first_stage_beside_encoders_that_are_trained(folder, chat_checkpoint):
    from transformers import CLIPVisionConfig, CLIPVisionModel, WhisperConfig, WhisperModel
    small = {"num_hidden_layers": 1, "num_attention_heads": 2}
    CLIPVisionModel(CLIPVisionConfig(hidden_size=48, intermediate_size=64, image_size=24, patch_size=8, **small)
                    ).half().save_pretrained(folder / "clip")
    WhisperModel(WhisperConfig(d_model=48, encoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=64,
                               decoder_layers=1, decoder_attention_heads=2, decoder_ffn_dim=64, num_mel_bins=16,
                               pad_token_id=0,
                               max_source_positions=50, vocab_size=9, bos_token_id=1, eos_token_id=2,
                               decoder_start_token_id=1)).save_pretrained(folder / "whisper")
    own = recipe(folder, chat_checkpoint).model_dump(include={"eye", "ear"})

    def learned(width=48, **more):
        parts = {kind: {**own[kind], "project": {**own[kind]["project"], "width": width}} for kind in own}
        config = recipe(folder, chat_checkpoint, **{
            "learns": "projector", "eye_weights": "clip", "ear_weights": "whisper", **parts,
            "loop": {"steps": 1, "batch_size": 8, "micro_batch": 8}, **more})
        return align(*prepared_media(config, folder), folder)

    senses = read_senses(learned()["senses"])
    tensors = load_file(folder / "clip" / "model.safetensors")
    clip = vision_from(json.loads((folder / "clip" / "config.json").read_text()), tensors)
    for name, weight in senses.eye.encoder.state_dict().items():
        assert torch.equal(weight, clip.state_dict()[name].float()), name
    assert senses.eye.config.pixels.size == 24
    with pytest.raises(ConfigError, match=r"project\.width=32.*is 48"):
        learned(width=32)
    with pytest.raises(ConfigError, match="an eye or ear that isn't there"):
        learned(ear=None)
    name = next(name for name in tensors if name.endswith("layers.0.mlp.fc1.weight"))
    save_file({key: tensor for key, tensor in tensors.items() if key != name}, folder / "clip" / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"feed_forward\.w1\.weight is missing"):
        learned()


def test_an_adapter_lies_with_its_senses_and_goes_on(folder, chat_checkpoint):
    def run(out, steps=1, **more):
        config, lesson = prepared_media(recipe(folder, chat_checkpoint, out=str(folder / out), learns="adapter",
                                               loop={"steps": steps, "batch_size": 8, "micro_batch": 8}, **more),
                                        folder)
        return align(config, lesson, folder)

    first = run("first", steps=40)
    assert first["adapter"] == str(folder / "first" / "senses" / "adapter")
    stage = {"senses": first["senses"], "eye": None, "ear": None, "optim": {"lr": 1e-9}}
    second = run("second", **stage)
    assert second["held_out"] == pytest.approx(first["held_out"], rel=0.02)   # halves of 16 bits are between them
    fresh = run("fresh", optim={"lr": 1e-9})
    assert fresh["held_out"] > 1.5 * second["held_out"]
    for wrong, told in (({"learns": "encoder"}, "set learns=adapter"), ({"lora": {"r": 3}}, "other settings")):
        config, lesson = prepared_media(recipe(folder, chat_checkpoint, **{**stage, "learns": "adapter", **wrong,
                                                                           "out": str(folder / told)}), folder)
        with pytest.raises(ConfigError, match=told):
            align(config, lesson, folder)


def test_a_text_without_media_is_the_llamas_own(folder, chat_checkpoint):
    _config, lesson = prepared_media(recipe(folder, chat_checkpoint, learns="projector"), folder)
    body = model_of(chat_checkpoint)
    model = Aligned(body, lesson.senses)
    sample = MediaLoader(lesson.train, lesson.senses, 1).rows([0])
    plain = type(sample)(sample.ids, sample.labels, sample.weights, ((),), ((),))
    with torch.no_grad():
        assert torch.equal(model.hidden(plain), body.trunk(body.embed(sample.ids)))
        assert not torch.equal(model.hidden(sample), model.hidden(plain))


def test_no_loss_on_placeholders(folder, chat_checkpoint):
    _, lesson = prepared_media(recipe(folder, chat_checkpoint), folder)
    for sample in lesson.train:
        assert len(sample.places) == len(sample.media) == 1
        place = sample.places[0]
        assert place.length == (4 if sample.media[0].kind == "image" else 5)
        assert not sample.weights[place.start:place.start + place.length].any()
        answer = lesson.tokenizer.decode(sample.ids[sample.weights > 0].tolist(), skip_special=True)
        assert answer.strip() in NAMES


ROWS = {
    "no media": ({"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]},
                 "neither image nor sound"),
    "more tags": ({"messages": [{"role": "user", "content": "<image><image>"}, {"role": "assistant", "content": "a"}],
                   "images": ["0.png"]}, "more <image> tags"),
    "an unused name": ({"messages": [{"role": "user", "content": "<image>"}, {"role": "assistant", "content": "a"}],
                        "images": ["0.png", "1.png"]}, "1.png is named"),
    "no answer": ({"messages": [{"role": "user", "content": [{"type": "image", "path": "0.png"}]}]},
                  "teaches nothing"),
    "a strange part": ({"messages": [{"role": "user", "content": [{"type": "video"}]}]}, "use type text"),
    "no text": ({"image": "0.png"}, "give messages"),
    "noncharacters": ({"image": "0.png", "text": MEDIA["image"]}, "noncharacter"),
}


@pytest.mark.parametrize("name", ROWS)
def test_bad_rows_are_named(folder, chat_checkpoint, name):
    row, says = ROWS[name]
    with (folder / "rows.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    with pytest.raises(DataError, match=says) as caught:
        prepared_media(recipe(folder, chat_checkpoint), folder)
    assert "rows.jsonl, row 9" in str(caught.value)
    data = {"sources": [{"path": "rows.jsonl", "files": "media"}], "bad_rows": "drop", "held_out_share": 0.0}
    _, lesson = prepared_media(recipe(folder, chat_checkpoint, data=data), folder)
    assert (len(lesson.train), len(lesson.rejects)) == (8, 1)


def test_a_damaged_file_is_told_with_its_row(folder, chat_checkpoint):
    (folder / "media" / "0.png").write_bytes(b"<svg/>")
    _, lesson = prepared_media(recipe(folder, chat_checkpoint), folder)
    with pytest.raises(DataError, match=r"rows.jsonl, row 1: 0.png is an SVG"):
        MediaLoader(lesson.train, lesson.senses, 1).rows([0])


def test_tags_of_a_user_without_media_stay_text(folder):
    row = {"messages": [{"role": "user", "content": [{"type": "text", "text": "what is <image>?"},
                                                     {"type": "image", "path": "0.png"}]},
                        {"role": "assistant", "content": "a tag"}]}
    (folder / "one.jsonl").write_text(json.dumps(row) + "\n")
    found = next(media_rows(folder / "one.jsonl", folder / "media", "one.jsonl"))
    assert found.messages[0]["content"] == "what is <image>?" + MEDIA["image"]
    assert [file.name for file in found.media] == ["0.png"]


@pytest.mark.parametrize("ending", ["tar", "tar.xz", "tar.gz"])
def test_tar_shards(tmp_path, ending):
    with tarfile.open(tmp_path / f"a.{ending}", f"w:{ending[4:]}") as tar:
        files = {"00.png": png(0), "00.txt": b"a red sun\n", "01.wav": wav(1), "01.json": b'{"text": "a bell"}',
                 "02.txt": b"alone"}
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    first, second, third = media_rows(tmp_path / f"a.{ending}", None, "a")
    assert [first.messages[1]["content"], second.messages[1]["content"]] == ["a red sun", "a bell"]
    assert first.media[0].read() == png(0)
    assert isinstance(third, Reject)


def test_paths_stay_inside(folder):
    with pytest.raises(DataError, match="lies outside"):
        Folder(folder / "media").read("../rows.jsonl")
    with pytest.raises(DataError, match="has no file"):
        Folder(folder / "media").read("nothing.png")


def test_wrong_widths_and_missing_senses(folder, chat_checkpoint):
    table = recipe(folder, chat_checkpoint).model_dump()
    table["eye"]["project"]["out"] = 31
    with pytest.raises(ConfigError, match="width of 32"):
        prepared_media(build_recipe(AlignRecipe, table, [], where="test"), folder)
    with pytest.raises(CheckpointError, match="holds no senses"):
        read_senses(folder)
    _, lesson = prepared_media(recipe(folder, chat_checkpoint, data={"sources": [{"path": "rows.jsonl",
                               "files": "media"}], "bad_rows": "drop"}, ear=None,
                               loop={"steps": 1, "batch_size": 2, "micro_batch": 2}), folder)
    assert len(lesson.rejects) == 4                      # the sounds
    with pytest.raises(BadMedia, match="has no ear"):
        lesson.senses.sound(wav(1))


def test_the_loss_is_that_of_all_places(folder, chat_checkpoint):
    """Of which only answers have a weight, by the logits of all."""
    _, lesson = prepared_media(recipe(folder, chat_checkpoint), folder)
    model = Aligned(model_of(chat_checkpoint), lesson.senses)
    batch = MediaLoader(lesson.train, lesson.senses, 8).rows(range(8))
    batch.weights[0, -1] += batch.weights[0].max() / 2
    found, told = align_loss(model, batch), token_loss(model.body, model.hidden(batch), batch.labels, batch.weights)
    for name in ("total", "weight", "per_example"):
        torch.testing.assert_close(getattr(found, name), getattr(told, name))
    learned = [p for p in lesson.senses.parameters() if p.requires_grad]
    gradients = [torch.autograd.grad(loss.total, learned, allow_unused=True)
                 for loss in (found, told)]
    for one, two in zip(*gradients, strict=True):
        assert (one is None) == (two is None)
        if one is not None:
            torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["shift", "warp"])
def test_jitter_keeps_shapes_and_is_repeatable(folder, chat_checkpoint, kind):
    _, lesson = prepared_media(recipe(folder, chat_checkpoint), folder)
    for medium in (lesson.senses.image(png(0)), lesson.senses.sound(wav(1))):
        assert jittered(medium, "none", np.random.default_rng(5)) is medium
        one, two = (jittered(medium, kind, np.random.default_rng(5)) for _ in range(2))
        assert one.values.shape == medium.values.shape
        assert torch.equal(one.values, two.values)
        assert not torch.equal(one.values, medium.values)


def test_stand_ins_become_tokens_outside_of_contents():
    i, a = MEDIA["image"], MEDIA["audio"]
    text = f"[u]x{i}yz{a}{a}[/u]{i}!"
    found = with_media(Found(text, [(3, 9), (13, 14)], [(13, 14)], []), {i: "<image>", a: "<audio>"})
    assert found.text == "[u]x<image>yz<audio><audio>[/u]<image>!"
    assert [found.text[s:e] for s, e in found.contents] == ["x", "yz"]
    assert [found.text[s:e] for s, e in found.answers] == ["<image>"]


def test_a_vocabulary_without_marks_uses_its_unknown_token(chat_checkpoint):
    from ayllu.checkpoint.load import open_checkpoint
    tokenizer = open_checkpoint(chat_checkpoint).open_tokenizer()
    assert marks_of(tokenizer) == dict.fromkeys(MEDIA.values(), "<unk>")
