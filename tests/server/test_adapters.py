"""Adapters over HTTP: each is a model's name in every API; loaded and unloaded by who may, from where it is allowed."""

import httpx
import pytest
from adapters.small import filled
from server.live import serving

from ayllu.adapters.store import write_adapter
from ayllu.checkpoint.load import load_checkpoint
from ayllu.engine.llm import LLM
from ayllu.errors import AylluError
from ayllu.server.gate import Door
from ayllu.server.keys import Keys, key_of

GREEDY = {"temperature": 0, "max_tokens": 12}
TEXT = "Once upon a time"
ADMIN, USER = "a-key-of-an-admin", "a-key-of-a-user-1"


@pytest.fixture(scope="module")
def folder(tmp_path_factory, chat_checkpoint):
    """Adapters one, two and, below another folder, three; a bad one; and one that lies outside."""
    model, home = load_checkpoint(chat_checkpoint).model, tmp_path_factory.mktemp("home")
    for i, place in enumerate(("in/one", "in/two", "in/more/three", "outside")):
        write_adapter(home / place, filled(model, seed=i, r=2 + i))
    (home / "in" / "link").symlink_to(home / "outside")
    (home / "in" / "bad").mkdir()
    (home / "in" / "bad" / "adapter_config.json").write_text("{}")
    return home / "in"


@pytest.fixture(scope="module")
def live(chat_checkpoint, folder):
    with serving(chat_checkpoint, adapters=[f"one={folder / 'one'}"], adapter_folder=folder,
                 aliases=("other",)) as found:
        yield found


@pytest.fixture
def http(live):
    with httpx.Client(base_url=live.url, timeout=60) as client:
        yield client
        for name in set(live.served.adapters) - {"one"}:
            client.post("/v1/unload_lora_adapter", json={"lora_name": name})


def texts(chat_checkpoint, adapter):
    """What the model says with the adapter, by LLM: a text continued, and an answer."""
    llm = LLM.load(chat_checkpoint, adapter=adapter)
    return (llm.generate(TEXT, temperature=0, max_tokens=12)[0].text,
            llm.chat([{"role": "user", "content": TEXT}], temperature=0, max_tokens=12).text)


def load(http, name, path, **more):
    return http.post("/v1/load_lora_adapter", json={"lora_name": name, "lora_path": path, **more})


def continued(http, model, **more):
    return http.post("/v1/completions", json={"model": model, "prompt": TEXT, **GREEDY, **more})


def test_every_api_takes_the_adapter_s_name(http, chat_checkpoint, folder):
    text, said = texts(chat_checkpoint, folder / "one")
    assert {text, said} & set(texts(chat_checkpoint, None)) == set()          # so the adapter does something
    turns = [{"role": "user", "content": TEXT}]
    found = continued(http, "one").json()
    assert (found["model"], found["choices"][0]["text"]) == ("one", text)
    found = http.post("/v1/chat/completions", json={"model": "one", "messages": turns, **GREEDY}).json()
    assert (found["model"], found["choices"][0]["message"]["content"]) == ("one", said)
    found = http.post("/v1/responses", json={"model": "one", "input": TEXT, "temperature": 0, "max_output_tokens": 12})
    assert found.json()["output"][0]["content"][0]["text"] == said
    found = http.post("/v1/messages", json={"model": "one", "messages": turns, **GREEDY}).json()
    assert (found["model"], found["content"][0]["text"]) == ("one", said)
    options = {"temperature": 0, "num_predict": 12, "top_p": 1, "top_k": 0}
    for name in ("one", "one:latest"):
        body = {"model": name, "stream": False, "options": options}
        assert http.post("/api/chat", json={**body, "messages": turns}).json()["message"]["content"] == said
        assert http.post("/api/generate", json={**body, "prompt": TEXT, "raw": True}).json()["response"] == text
    vectors = [http.post("/v1/embeddings", json={"model": name, "input": TEXT}).json()["data"][0]["embedding"]
               for name in ("tiny", "one", "one", "tiny")]
    assert vectors[0] == vectors[3] != vectors[1] == vectors[2]
    assert http.post("/tokenize", json={"model": "one", "prompt": TEXT}).status_code == 200


def test_lists_and_metrics_show_adapters(http):
    rows = {row["id"]: row for row in http.get("/v1/models").json()["data"]}
    assert list(rows) == ["tiny", "other", "one"]
    assert (rows["one"]["parent"], rows["one"]["root"]) == ("tiny", "one")
    assert http.get("/v1/models/one").json() == rows["one"]
    tags = {row["name"]: row for row in http.get("/api/tags").json()["models"]}
    assert tags["one"]["details"]["parent_model"] == "tiny"
    assert tags["one"]["size"] < tags["tiny"]["size"]
    assert http.post("/api/show", json={"model": "one"}).json()["modelfile"] == "FROM tiny\nADAPTER one\n"
    before = http.get("/metrics").text
    continued(http, "one")
    lines = {text: {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in text.splitlines()
                    if line.startswith("ayllu_adapter")} for text in (before, http.get("/metrics").text)}
    counts = [found['ayllu_adapter_requests_total{adapter="one"}'] for found in lines.values()]
    assert counts[1] == counts[0] + 1


def test_adapters_come_and_go(http, live, chat_checkpoint, folder):
    assert continued(http, "x").status_code == 404
    assert load(http, "x", "two").status_code == 200
    assert "x" in [row["id"] for row in http.get("/v1/models").json()["data"]]
    assert continued(http, "x").json()["choices"][0]["text"] == texts(chat_checkpoint, folder / "two")[0]
    again = load(http, "x", "more/three")
    assert (again.status_code, again.json()["error"]["param"]) == (400, "lora_name")
    assert load(http, "x", "more/three", load_inplace=True).status_code == 200
    assert continued(http, "x").json()["choices"][0]["text"] == texts(chat_checkpoint, folder / "more/three")[0]
    assert http.post("/v1/unload_lora_adapter", json={"lora_name": "x"}).status_code == 200
    for answer in (continued(http, "x"), http.post("/v1/unload_lora_adapter", json={"lora_name": "x"})):
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize(("path", "status"), [("../outside", 403), ("link", 403), ("/etc", 403), (".", 403), ("", 400),
                                              ("one/..", 403), ("two\0", 403), ("none", 400), ("bad", 400),
                                              ("one/adapter_config.json", 400), ("x" * 1000, 400)])
def test_paths_stay_below_the_folder(http, folder, path, status):
    found = load(http, "x", path)
    assert found.status_code == status
    assert str(folder) not in found.text


@pytest.mark.parametrize("name", ["tiny", "other", "a/b", "", "a b"])
def test_names_are_checked(http, name):
    assert load(http, name, "two").status_code == 400


def test_a_running_answer_is_finished_with_an_adapter_that_is_unloaded(chat_checkpoint, folder):
    with serving(chat_checkpoint, adapters=[f"one={folder / 'one'}"], slow_s=0.05) as slow, \
            httpx.Client(base_url=slow.url, timeout=60) as http:
        with http.stream("POST", "/v1/completions", json={"model": "one", "prompt": TEXT, **GREEDY, "stream": True,
                                                          "ignore_eos": True}) as answer:
            lines = answer.iter_lines()
            pieces = [next(line for line in lines if line.startswith("data: {"))]
            found = http.post("/v1/unload_lora_adapter", json={"lora_name": "one"})
            assert "1 requests still use it" in found.text
            pieces += [line for line in lines if line.startswith("data: {")]
        llm = LLM.load(chat_checkpoint, adapter=folder / "one")
        wanted = llm.generate(TEXT, temperature=0, max_tokens=12, ignore_eos=True)[0].text
        got = "".join(choice["text"] for piece in pieces for choice in httpx.Response(
            200, text=piece.removeprefix("data: ")).json()["choices"])
        assert got == wanted
        slow.wait_until(lambda: not slow.served.service.engine.adapters.slots, 10)


def test_only_an_admin_loads_and_all_may_use(chat_checkpoint, folder):
    keys = Keys([key_of(ADMIN, "root", scopes=("generate", "admin")), key_of(USER, "user", scopes=("generate",))])
    with serving(chat_checkpoint, door=Door(keys=keys), adapter_folder=folder) as guarded:
        def client(key):
            return httpx.Client(base_url=guarded.url, headers={"authorization": f"Bearer {key}"}, timeout=60)

        with client(USER) as user, client(ADMIN) as admin:
            assert load(user, "x", "two").status_code == 401
            assert load(admin, "x", "two").status_code == 200
            assert user.post("/v1/unload_lora_adapter", json={"lora_name": "x"}).status_code == 401
            assert continued(user, "x").status_code == 200


def test_a_server_starts_with_adapters_or_says_why_not(chat_checkpoint, folder, tmp_path):
    for text in ("one", "=one", "a/b=one", f"tiny={folder / 'one'}", f"x={folder / 'bad'}", f"x={tmp_path}"):
        with pytest.raises(AylluError), serving(chat_checkpoint, adapters=[text]):
            pass


def test_llm_runs_dora_beside_the_weights_and_gives_the_plain_model(chat_checkpoint, tmp_path):
    model = load_checkpoint(chat_checkpoint).model
    for dora in (False, True):
        place = write_adapter(tmp_path / f"dora-{dora}", filled(model, r=3, use_dora=dora))
        llm = LLM.load(chat_checkpoint, adapter=place)
        text = llm.generate(TEXT, temperature=0, max_tokens=12)[0].text
        assert text != LLM.load(chat_checkpoint).generate(TEXT, temperature=0, max_tokens=12)[0].text
        assert llm.model is llm.checkpoint.model
        assert llm.generate(TEXT, temperature=0, max_tokens=12)[0].text == text
