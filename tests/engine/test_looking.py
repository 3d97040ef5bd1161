"""The adapter that learned with the senses answers where something is shown; the plain model does everywhere else."""

import base64

import httpx
import pytest
from adapters.small import filled
from media.small import png, senses_of, write_small
from server.live import serving

from ayllu.adapters.store import write_adapter
from ayllu.engine.llm import LLM
from ayllu.engine.parts import image_part
from ayllu.engine.perception import LOOKING
from ayllu.server.start import attach_senses, looking

TEXT = [{"role": "user", "content": "What is it?"}]


@pytest.fixture(scope="module")
def senses(chat_checkpoint, tmp_path_factory):
    folder = write_small(tmp_path_factory.mktemp("looking") / "s")
    llm = LLM.load(chat_checkpoint, device="cpu", senses=None)
    write_adapter(folder / "adapter", filled(llm.model, seed=1, r=4), base=llm.fingerprint)
    return folder


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("picture") / "0.png"
    path.write_bytes(png(0))
    return [{"role": "user", "content": [image_part(path), {"type": "text", "text": "What is it?"}]}]


def said(llm, messages):
    stream = llm.stream_chat(messages, temperature=0, max_tokens=8, ignore_eos=True)
    return "".join(stream)


def test_only_what_is_shown_has_the_adapter(chat_checkpoint, senses, picture):
    plain = LLM.load(chat_checkpoint, device="cpu", senses=senses_of())
    with_it = LLM.load(chat_checkpoint, device="cpu", senses=senses)
    always = LLM.load(chat_checkpoint, device="cpu", senses=senses_of(), adapter=senses / "adapter")
    assert said(with_it, TEXT) == said(plain, TEXT) != said(always, TEXT)
    assert said(with_it, picture) == said(always, picture) != said(plain, picture)


def test_the_server_does_the_same_and_keeps_it_to_itself(chat_checkpoint, senses, picture):
    want = LLM.load(chat_checkpoint, device="cpu", senses=senses)
    with serving(chat_checkpoint, adapters=looking(str(chat_checkpoint), senses)) as live:
        attach_senses(live.served, "tiny", senses, "cpu")

        def asked(messages):
            body = {"messages": messages, "max_tokens": 8, "temperature": 0, "ignore_eos": True}
            found = httpx.post(f"{live.url}/v1/chat/completions", json=body, timeout=60)
            return found.json()["choices"][0]["message"]["content"]

        url = "data:image/png;base64," + base64.b64encode(png(0)).decode()
        shown = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}},
                                              {"type": "text", "text": "What is it?"}]}]
        assert asked(shown) == said(want, picture)
        assert asked(TEXT) == said(want, TEXT)
        assert LOOKING not in httpx.get(f"{live.url}/v1/models").text
        answer = httpx.post(f"{live.url}/v1/chat/completions", json={"model": LOOKING, "messages": TEXT})
        assert answer.status_code == 404
        answer = httpx.post(f"{live.url}/v1/unload_lora_adapter", json={"lora_name": LOOKING})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "lora_name")
