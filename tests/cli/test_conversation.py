"""Conversations on disk: what is written comes back, and nothing else is taken for one."""

import json

import pytest

from ayllu.cli.conversation import Conversation, place
from ayllu.errors import DataError


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


def test_messages_and_undo():
    talk = Conversation("m", system="Be kind.")
    talk.add("a", "b")
    assert [m["role"] for m in talk.messages("c")] == ["system", "user", "assistant", "user"]
    assert talk.undo() == "a"
    assert talk.undo() is None
    assert talk.messages() == [{"role": "system", "content": "Be kind."}]


def test_saved_under_a_name_or_a_path(tmp_path):
    talk = Conversation("m", options={"temperature": 0.5})
    talk.add("你好", "Hello")
    path = talk.save("holiday")
    assert path == tmp_path / "ayllu" / "chats" / "holiday.json" == place("holiday")
    assert path.stat().st_mode & 0o077 == 0              # for the user's eyes only
    assert Conversation.load("holiday") == talk
    assert talk.save(str(tmp_path / "x.json")) == tmp_path / "x.json"


@pytest.mark.parametrize("change", [
    {"turns": [{"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}]},
    {"turns": [{"role": "user", "content": "a"}]}, {"turns": [1, 2]}, {"system": 3}, {"extra": 1},
    {"turns": [{"role": "user", "content": 1}, {"role": "assistant", "content": "b"}]}, {"turns": "ab"},
])
def test_other_json_is_refused(tmp_path, change):
    table = {"model": "m", "system": None, "turns": [], "options": {}, **change}
    (tmp_path / "bad.json").write_text(json.dumps(table), encoding="utf-8")
    with pytest.raises(DataError, match="no conversation"):
        Conversation.load(str(tmp_path / "bad.json"))


def test_missing_and_broken_files_are_told(tmp_path):
    Conversation("m").save("one")
    with pytest.raises(DataError, match="there are: one"):
        Conversation.load("two")
    (tmp_path / "broken.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match="can't be read"):
        Conversation.load(str(tmp_path / "broken.json"))
