"""The loop of `ayllu chat` in one process: every command, over a real tiny model."""

import sys

import pytest

from ayllu import log
from ayllu.cli.conversation import Conversation
from ayllu.cli.output import write_text
from ayllu.cli.repl import Repl, read_message
from ayllu.engine.llm import LLM
from ayllu.errors import ConfigError, ContextTooLong


@pytest.fixture(scope="module")
def llm(chat_checkpoint):
    return LLM.load(chat_checkpoint, device="cpu")


@pytest.fixture
def talk(llm, capsys, tmp_path, monkeypatch):
    """Run lines through a loop; gives the loop, what was answered and what was told."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))

    def run(*lines, is_person=True, **options):
        log.setup()                                      # capsys has its own stderr
        options = {"temperature": 0, "max_tokens": 8, **options}
        repl = Repl(llm, Conversation("tiny", options=options), is_person)
        repl.run(reader(lines))
        out, err = capsys.readouterr()
        return repl, out, err

    return run


def reader(lines):
    feed = iter(lines)

    def read(mark):
        line = next(feed, EOFError())
        if isinstance(line, BaseException):
            raise line
        return line

    return read


def test_an_answer_is_what_the_model_says_to_the_whole_conversation(talk, llm):
    repl, out, _ = talk("Hello", "And you?")
    first = llm.chat([{"role": "user", "content": "Hello"}], temperature=0, max_tokens=8).text
    said = [(turn["role"], turn["content"]) for turn in repl.conversation.turns]
    assert said[:2] == [("user", "Hello"), ("assistant", first)]
    second = llm.chat([*repl.conversation.turns[:2], {"role": "user", "content": "And you?"}], temperature=0,
                      max_tokens=8).text
    assert out == f"{first}\n{second}\n"


def test_several_lines_between_fences_are_one_message_even_with_a_slash(talk):
    repl, _, _ = talk('"""/help', "me", '"""')
    assert repl.conversation.turns[0]["content"] == "/help\nme"


@pytest.mark.parametrize(("lines", "expected"), [
    (["hi"], ("hi", False)), (['"""one line"""'], ("one line", True)), (['"""a', "b", 'c"""'], ("a\nb\nc", True)),
    (['"""a', "b"], ("a\nb", True)), (['say """x"""'], ('say """x"""', False)),
])
def test_read_message(lines, expected):
    assert read_message(reader(lines)) == expected


def test_help_names_every_command(talk):
    repl, out, err = talk("/help")
    assert out == ""
    assert all(f"/{name}" in err for name in repl.commands)


def test_system_is_set_shown_and_taken_away(talk):
    repl, _, err = talk("/system Be kind.", "/system", "/system none")
    assert err.count("system: Be kind.") == 2
    assert repl.conversation.system is None
    assert talk("/system Be kind.", "Hi")[0].last.prompt_tokens > talk("Hi")[0].last.prompt_tokens


def test_settings_are_checked_and_forgotten(talk):
    repl, _, err = talk("/set temperature 0.5", "/set top_k 3", "/set", "/set top_k", "/set stop User:")
    assert repl.conversation.options == {"temperature": 0.5, "max_tokens": 8, "stop": ("User:",)}
    assert "top_k = 3" in err
    assert "top_k is back" in err
    repl, _, err = talk("/set top_p 7", "/set temprature 1", "/set temperature warm")
    assert repl.conversation.options == {"temperature": 0, "max_tokens": 8}
    for words in ("top_p", "did you mean 'temperature'", "'warm'"):
        assert words in err


def test_undo_retry_clear(talk):
    repl, _, err = talk("a", "b", "/undo", "/undo", "/undo")
    assert repl.conversation.turns == []
    assert err.count("taken back") == 2
    assert "nothing to take back" in err
    repl, out, _ = talk("a", "/retry", temperature=1.5, seed=3)
    assert len(repl.conversation.turns) == 2
    first, again = out.removesuffix("\n").rsplit("\n", 1)
    assert first != again
    assert repl.conversation.turns[1]["content"] == again
    repl, _, err = talk("/retry", "a", "/clear")
    assert (repl.conversation.turns, repl.last) == ([], None)
    assert "nothing was asked yet" in err


def test_save_and_load_go_on_where_it_was(talk):
    repl, _, err = talk("a", "/save trip", "/clear", "/load trip")
    assert repl.conversation.turns[0]["content"] == "a"
    assert "loaded: 1 exchanges" in err
    _, _, err = talk("/load nowhere", "/save", "/load")
    assert "no conversation at" in err
    assert "/save needs a name" in err


def test_stats(talk):
    _, _, err = talk("/stats", "a", "/stats")
    assert "no answer yet" in err
    assert "tokens/s" in err
    assert "of 128 tokens" in err


def test_bye_ends_and_mistyped_commands_are_told(talk):
    repl, _, err = talk("/hlep", "/xyzzy", "/bye", "a")
    assert repl.conversation.turns == []
    assert "did you mean /help" in err
    assert "/help lists them" in err


def test_what_no_longer_fits_is_told_and_not_cut(talk):
    long = "word " * 60
    repl, _, err = talk(long, "Hi")
    assert "has" in err
    assert "/clear forgets" in err
    assert repl.conversation.turns[0]["content"] == "Hi"
    with pytest.raises(ContextTooLong):
        talk(long, is_person=False)
    with pytest.raises(ConfigError):
        talk("/nonsense", is_person=False)


def test_a_failed_retry_keeps_the_old_answer(talk):
    repl, _, err = talk("a", "/set max_tokens 500", "/retry")
    assert "max_tokens=500" in err
    assert len(repl.conversation.turns) == 2


def test_an_answer_that_was_cut_says_so(talk):
    assert "(cut after 8 tokens" in talk("a")[2]


def test_ctrl_c_at_the_prompt_drops_the_line(talk):
    repl, _, _ = talk(KeyboardInterrupt(), "a")
    assert len(repl.conversation.turns) == 2
    with pytest.raises(KeyboardInterrupt):
        talk(KeyboardInterrupt(), is_person=False)


def test_ctrl_c_in_an_answer_keeps_what_came(llm, capsys, monkeypatch):
    """The signal comes while the third piece is written, as it would from a terminal."""
    log.setup()
    repl = Repl(llm, Conversation("tiny", options={"temperature": 0, "max_tokens": 60}), is_person=True)
    write, calls = sys.stdout.write, []

    def interrupted(text):
        calls.append(text)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return write(text)

    monkeypatch.setattr(sys.stdout, "write", interrupted)
    repl.run(reader(["a", "/stats"]))
    assert repl.conversation.turns[1]["content"] == "".join(calls[:3])
    assert repl.last.finish_reason == "cancelled"
    assert "(stopped)" in capsys.readouterr().err


def test_a_terminal_gets_no_control_characters(monkeypatch, capsys):
    """Text of a model could otherwise move the cursor, change the title or worse."""
    bad = "a\x1b]0;owned\x07b\x9bc\rd\x00é 狐\u3000👩\u200d🚀\n\t"
    write_text(bad)
    assert capsys.readouterr().out == bad                # a pipe gets what the model wrote
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    write_text(bad)
    assert capsys.readouterr().out == "a]0;ownedbcdé 狐\u3000👩\u200d🚀\n\t"
