"""From messages with images and sounds to prompts: the same as by hand, and what can't be read is told."""

import base64

import numpy as np
import pytest
import torch
from media.small import png, senses_of, wav, write_small

from ayllu.apps.speaker import LocalSpeaker
from ayllu.engine import perception as module
from ayllu.engine.engine import Engine, EngineSettings
from ayllu.engine.llm import LLM
from ayllu.engine.parts import audio_part, image_part
from ayllu.engine.perception import Perception
from ayllu.engine.request import Request
from ayllu.errors import BadMedia, CheckpointError, ConfigError, RequestError
from ayllu.media.encoder import Layer
from ayllu.media.fast import FastLayer
from ayllu.media.senses import read_senses
from ayllu.media.splice import Place, spliced


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    for n in range(3):
        (folder / f"{n}.png").write_bytes(png(n))
        (folder / f"{n}.wav").write_bytes(wav(n))
    return folder


@pytest.fixture(scope="module")
def llm(chat_checkpoint, tmp_path_factory):
    return LLM.load(chat_checkpoint, device="cpu", senses=write_small(tmp_path_factory.mktemp("senses") / "s"))


def said(*parts):
    return [{"role": "user", "content": list(parts)}]


def text(words):
    return {"type": "text", "text": words}


def greedy_by_hand(llm, prompt, features, n):
    """The plain model with embeddings put together by media/splice.py, without a cache."""
    model = LLM.load(llm.checkpoint.path, device="cpu", runner="eager", senses=None).model
    ids = list(prompt.ids)
    places = [Place(i, m.start, m.length) for i, m in enumerate(prompt.media)]
    with torch.inference_mode():
        for _ in range(n):
            x = spliced(model.embed(torch.tensor([ids]))[0], places, features)
            ids.append(int(model.logits(model.trunk(x[None]))[0, -1].argmax()))
    return ids[len(prompt.ids):]


def test_chat_engine_and_plain_model_agree(llm, files):
    messages = said(image_part(files / "0.png"), text("and"), audio_part(files / "1.wav"), text("?"))
    prompt, senses = llm.chat_prompt(messages), senses_of()
    assert [m.length for m in prompt.media] == [4, 5]
    with torch.inference_mode():
        features = [senses.features([medium])[0] for medium in (senses.image(png(0)), senses.sound(wav(1)))]
    want = greedy_by_hand(llm, prompt, features, 8)
    assert llm.chat(messages, temperature=0, max_tokens=8, ignore_eos=True).ids == want
    params = llm.params_for(prompt.ids, temperature=0, max_tokens=8, ignore_eos=True)
    engine, got = Engine(llm.runner, EngineSettings(n_pages=64, page_size=4)), []
    engine.submit(Request(tuple(prompt.ids), params, media=prompt.media))
    while not engine.is_idle:
        got += [token.id for token in engine.step()]
    assert got == want


def test_the_only_image_of_a_message_comes_first_and_several_stay_in_order(llm, files):
    image, sound = image_part(files / "0.png"), audio_part(files / "0.wav")
    one, other = (llm.chat_prompt(said(*parts)).ids for parts in ((image, text("what?")), (text("what?"), image)))
    assert one == other
    several = llm.chat_prompt(said(text("a"), image, text("b"), sound))
    assert [m.length for m in several.media] == [4, 5]
    assert several.media[0].start > llm.chat_prompt(said(image, text("a"))).media[0].start


def test_answers_of_a_speaker_with_and_without_images(llm, files):
    speaker = LocalSpeaker(llm, "tiny")
    assert (speaker.sees, speaker.hears) == (True, True)
    prompts = [said(image_part(files / "0.png"), text("x")), said(text("hello")), said(image_part(files / "1.png"))]
    answers = speaker.answers(prompts, temperature=0, max_tokens=5)
    assert [answer.text for answer in answers] == [
        llm.chat(messages, temperature=0, max_tokens=5).text for messages in prompts]
    assert answers[1].text == llm.chat([{"role": "user", "content": "hello"}], temperature=0, max_tokens=5).text
    given = speaker.logprobs(prompts[0], "ab")
    assert given != speaker.logprobs([{"role": "user", "content": "x"}], "ab")
    assert len(given) == len(llm.encode("ab")) - llm.tokenizer.add_bos
    assert speaker.room(prompts[0]) == speaker.context - len(llm.chat_prompt(prompts[0]).ids)


def test_a_folders_encoders_run_in_fast_layers(llm, files, tmp_path):
    folder = write_small(tmp_path / "s")
    quick, plain = (Perception(senses, llm.tokenizer, 32) for senses in (folder, read_senses(folder)))
    for part in (image_part(files / "0.png"), audio_part(files / "1.wav")):
        (_, one), (_, other) = (perception.read(said(part))[1][0] for perception in (quick, plain))
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5 * np.abs(other).max())    # other orders of sums
    for part in ("eye", "ear"):
        assert isinstance(getattr(quick._senses, part).encoder.layers[0], FastLayer)
        assert isinstance(getattr(plain._senses, part).encoder.layers[0], Layer)    # the caller's own stay whole


def test_nothing_is_decoded_twice_and_old_features_go(llm, files, monkeypatch):
    perception = Perception(senses_of(), llm.tokenizer, 32)
    first = perception.read(said(image_part(files / "0.png")))[1][0][1]
    monkeypatch.setattr(perception, "_features", None)   # whatever is computed now fails
    assert perception.read(said(image_part(files / "0.png")))[1][0][1] is first
    monkeypatch.undo()
    monkeypatch.setattr(module, "KEPT_BYTES", 2 * first.nbytes)
    for n in (1, 2):
        perception.read(said(image_part(files / f"{n}.png")))
    assert perception.read(said(image_part(files / "0.png")))[1][0][1] is not first


def test_what_a_person_wrote_is_no_image(llm, files):
    plain = llm.chat_prompt([{"role": "user", "content": "<image> <unk> what?"}])
    assert not plain.media
    with pytest.raises(RequestError, match="U\\+FDEE"):
        llm.chat_prompt(said(image_part(files / "0.png"), text("\ufdee")))
    unknown = llm.chat_prompt(said(image_part(files / "0.png"), text("<unk> what?")))
    assert [m.length for m in unknown.media] == [4]


def data(url):
    return {"type": "image_url", "image_url": {"url": url}}


@pytest.mark.parametrize(("part", "says"), [
    (data("data:image/png;base64,!!!"), "message 0, part 0 is no base64"),
    (data("data:image/png,abc"), "without base64"),
    (data("data:text/html;base64,AAAA"), "says that it is text/html"),
    (data("https://example.org/cat.png"), "lies elsewhere"),
    (data("file:///etc/passwd"), "no data: URL"),
    (data("data:image/png;base64," + base64.b64encode(b"<svg></svg>").decode()), "part 0 is an SVG"),
    ({"type": "image_url", "image_url": {}}, "holds no url"),
    ({"type": "video"}, "has the type 'video'"),
    ({"type": "input_audio", "input_audio": {"data": base64.b64encode(b"\0" * 99).decode()}}, "part 0 is no sound"),
    ({"type": "input_audio", "input_audio": {"data": base64.b64encode(wav(0, 3.0)).decode()}}, "this ear takes 1 s"),
    ({"type": "input_audio", "input_audio": {"data": base64.b64encode(wav(0, loud=0)).decode()}}, "silent")])
def test_what_cannot_be_read_is_told(llm, part, says):
    with pytest.raises(RequestError, match=says):
        llm.chat_prompt(said(part))


def test_files_that_are_none(tmp_path):
    with pytest.raises(BadMedia, match="can't be read"):
        image_part(tmp_path / "no.png")
    with pytest.raises(BadMedia, match="can't be read"):
        audio_part(tmp_path)


def test_senses_that_do_not_fit(llm, chat_checkpoint, tiny_checkpoint, files, tmp_path):
    messages = said(image_part(files / "0.png"))
    blind = LLM.load(chat_checkpoint, device="cpu")
    with pytest.raises(RequestError, match="reads text only"):
        blind.chat(messages)
    deaf = LLM(blind.checkpoint, "eager", senses=senses_of(hears=False))
    assert (deaf.perception.sees, deaf.perception.hears) == (True, False)
    with pytest.raises(BadMedia, match="has no ear"):
        deaf.chat(said(audio_part(files / "0.wav")))
    with pytest.raises(ConfigError, match="width 32"):
        Perception(senses_of(), llm.tokenizer, 64)
    base = LLM.load(tiny_checkpoint, device="cpu", senses=write_small(tmp_path / "s"))
    with pytest.raises(RequestError, match="without a chat template"):
        base.chat(messages)
    with pytest.raises(RequestError, match="assistant writes text only"):
        llm.chat_prompt([{"role": "assistant", "content": messages[0]["content"]}])
    with pytest.raises(RequestError, match="more than 32"):
        llm.chat_prompt(said(*[image_part(files / "0.png")] * 33))


def test_weights_are_read_when_they_are_needed(llm, files, tmp_path):
    folder = write_small(tmp_path / "s")
    (folder / "senses.safetensors").write_bytes(b"damaged")
    perception = Perception(folder, llm.tokenizer, 32)
    assert perception.sees
    with pytest.raises(CheckpointError, match="damaged"):
        perception.read(said(image_part(files / "0.png")))

