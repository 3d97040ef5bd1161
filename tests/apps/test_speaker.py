"""Both speakers, over one model: what they say, count and measure is the same, and nothing is cut in silence."""

import numpy as np
import pytest
import torch
from apps.scripted import ScriptedSpeaker
from server.live import serving

from ayllu.apps.speaker import LocalSpeaker, Speaker
from ayllu.errors import ContextTooLong, RequestError
from ayllu.principal import LOCAL
from ayllu.server.speaker import ServedSpeaker

TALK = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Tell me of the sea."}]
GREEDY = {"temperature": 0.0, "max_tokens": 12}


@pytest.fixture(scope="module")
def local(chat_checkpoint):
    return LocalSpeaker.load(str(chat_checkpoint))


@pytest.fixture(scope="module")
def served(chat_checkpoint):
    with serving(chat_checkpoint) as live:
        yield live.served


@pytest.fixture(params=["local", "served", "job"])
def speaker(request, local, served) -> Speaker:
    return local if request.param == "local" else ServedSpeaker(served, LOCAL, is_job=request.param == "job")


def test_stream_and_answers_agree(speaker, local):
    speech = speaker.stream(TALK, **GREEDY)
    text = "".join(speech)
    assert text
    assert text == speech.answer.text
    expected = local.llm.chat(TALK, **GREEDY)
    assert (text, speech.answer.n_tokens) == (expected.text, len(expected.ids))
    other = [{"role": "user", "content": "And of the hills?"}]
    first, second, third = speaker.answers([TALK, other, TALK], **GREEDY)
    assert first.text == third.text == text
    assert second.text == "".join(speaker.stream(other, **GREEDY))
    assert first.prompt_tokens == expected.prompt_tokens == speaker.context - speaker.room(TALK)
    assert first.logprob == pytest.approx(speech.answer.logprob, abs=1e-4)   # a batch rounds otherwise than a row
    assert speaker.answers([]) == []


def test_limits_are_told(speaker):
    assert speaker.answers([TALK], temperature=0.0, max_tokens=2)[0].finish == "length"
    long = [{"role": "user", "content": "sea " * 3 * speaker.context}]
    assert speaker.room(long) == 0
    for call in (lambda: list(speaker.stream(long)), lambda: speaker.answers([long]),
                 lambda: speaker.logprobs(long, "yes")):
        with pytest.raises(ContextTooLong, match="shorten it"):
            call()
    near = [{"role": "user", "content": "x"}]
    assert speaker.answers([near], temperature=0.0, max_tokens=10**6)[0].n_tokens <= speaker.room(near)


def test_a_speech_can_be_ended(speaker):
    speech = speaker.stream(TALK, temperature=1.0, seed=3, max_tokens=30)
    next(speech)
    speech.close()
    assert speech.answer is not None
    assert list(speech) == []


def test_logprobs_are_the_models_own(speaker, local):
    found = speaker.logprobs(TALK, "the sea is wide")
    prompt = local._prompt(TALK)
    ids = [*prompt.ids, *local.tokenizer.encode("the sea is wide", bos=False)]
    logp = local.llm.checkpoint.model.logits(local.llm.runner.hidden(_batch(local, ids))).float().log_softmax(-1)
    expected = [logp[0, i - 1, ids[i]].item() for i in range(len(prompt.ids), len(ids))]
    assert found == pytest.approx(expected, abs=1e-3)   # float32, in another order of the same sums
    assert speaker.logprobs(TALK, "") == []


def _batch(local, ids):
    from ayllu.engine.runner import Batch
    return Batch(torch.tensor([ids]), local.llm.runner.new_cache([0], len(ids)))


def test_a_prefix_begins_the_answer(speaker, local):
    prefix = "the sea is"
    rest = "".join(speaker.stream(TALK, **GREEDY, prefix=prefix))
    prompt = local._prompt(TALK)
    ids = [*prompt.ids, *local.tokenizer.encode(prefix, bos=False)]
    assert rest == local.llm.generate([ids], **GREEDY)[0].text
    assert rest == speaker.answers([TALK], **GREEDY, prefix=prefix)[0].text


def test_vectors(speaker, local):
    texts = ["the sea", "a hill and a river", "the sea " * local.context, "x"]
    rows = speaker.embed(texts)
    assert rows.shape == (4, local.llm.config.dim)
    assert rows.dtype == np.float32
    assert np.linalg.norm(rows, axis=1) == pytest.approx(1, abs=1e-5)
    alone = np.concatenate([local.embed([text]) for text in texts])
    assert np.abs(rows - alone).max() < 1e-4             # float32 sums, in another order
    assert speaker.embed([]).shape == (0, local.llm.config.dim)
    with pytest.raises(RequestError, match="text 1 is empty"):
        speaker.embed(["a", ""])


def test_counts_and_size(speaker, local):
    assert speaker.count("the sea") == len(local.tokenizer.encode("the sea", bos=False))
    assert speaker.is_small


def test_a_job_waits_for_room_where_a_person_is_refused(chat_checkpoint):
    with serving(chat_checkpoint, engine={"max_rows": 1, "max_waiting": 1}, slow_s=0.002) as live:
        job = ServedSpeaker(live.served, LOCAL, is_job=True)
        found = job.answers([TALK] * 12, temperature=0.0, max_tokens=3)
        assert len({answer.text for answer in found}) == 1
        assert len(found) == 12


def test_the_scripted_one_keeps_the_face():
    speaker: Speaker = ScriptedSpeaker(lambda messages: "a b c d")
    assert "".join(speaker.stream(TALK)) == speaker.answers([TALK])[0].text == "a b c d"
    assert speaker.embed(["a"]).shape == (1, 256)
