"""`ayllu chat` as a program: through a pipe, and in a terminal of its own."""

import os
import subprocess
import sys

import pytest

from ayllu.engine.llm import LLM
from ayllu.engine.parts import audio_part, image_part

pexpect = pytest.importorskip("pexpect")


@pytest.fixture
def env(tmp_path):
    return {**os.environ, "OMP_NUM_THREADS": "1", "XDG_STATE_HOME": str(tmp_path), "TERM": "xterm",
            "PROMPT_TOOLKIT_NO_CPR": "1"}


def test_through_a_pipe_stdout_is_the_answers_alone(tiny_checkpoint, env):
    words = ["chat", "-m", str(tiny_checkpoint), "--temperature", "0", "--max-tokens", "9"]
    done = subprocess.run([sys.executable, "-m", "ayllu", *words], input="Hello\n/stats\n", capture_output=True,
                          encoding="utf-8", timeout=120, env=env)
    answer = LLM.load(tiny_checkpoint, device="cpu").chat([{"role": "user", "content": "Hello"}], temperature=0,
                                                         max_tokens=9)
    assert (done.returncode, done.stdout) == (0, answer.text + "\n")
    assert "base model without a chat template" in done.stderr
    assert "tokens/s" in done.stderr
    assert ">>>" not in done.stdout + done.stderr
    assert not (env["XDG_STATE_HOME"] and os.path.exists(os.path.join(env["XDG_STATE_HOME"], "ayllu", "chat_history")))


def test_in_a_terminal(chat_checkpoint, env):
    """History on disk, Ctrl-C stops the answer and not the program, Ctrl-D leaves with code 0."""
    words = ["-m", "ayllu", "chat", "-m", str(chat_checkpoint), "--seed", "1"]
    child = pexpect.spawn(sys.executable, words, env=env, encoding="utf-8", timeout=120, dimensions=(40, 200))
    child.expect("/help lists the commands")
    child.send("/set max_tokens 6\r")
    child.expect("max_tokens = 6")
    child.send("Hello there\r")
    child.expect("cut after 6 tokens")
    child.expect(">>>")
    child.sendintr()                                     # at the prompt: a fresh line, no end
    child.expect(">>>")
    child.send("/stats\r")
    child.expect("tokens/s")
    child.expect(">>>")
    child.sendeof()
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
    history = os.path.join(env["XDG_STATE_HOME"], "ayllu", "chat_history")
    with open(history, encoding="utf-8") as file:
        assert "Hello there" in file.read()
    assert os.stat(history).st_mode & 0o077 == 0


def test_ctrl_c_in_an_answer(slow_checkpoint, env):
    """A model with a long context that ignores its end id would write for a long time."""
    words = ["-m", "ayllu", "chat", "-m", str(slow_checkpoint), "--seed", "1", "--max-tokens", "30000"]
    child = pexpect.spawn(sys.executable, words, env=env, encoding="utf-8", timeout=120, dimensions=(40, 200),
                          codec_errors="replace")
    child.expect(">>>")
    child.send("/set ignore_eos true\r")
    child.expect("ignore_eos = True")
    child.send("Hello\r")
    child.expect(r"Hello[\s\S]*\x1b\[\?2004l")           # the prompt has given the terminal back
    child.expect(r"[\s\S]{100}")                         # it writes
    child.sendintr()
    child.expect(r"\(stopped\)")
    child.expect(">>>")
    child.send("/undo\r")
    child.expect("taken back")                           # what had come was kept until then
    child.send("/bye\r")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


@pytest.fixture(scope="module")
def slow_checkpoint(chat_checkpoint, tmp_path_factory):
    import json
    import shutil

    folder = tmp_path_factory.mktemp("slow") / "model"
    shutil.copytree(chat_checkpoint, folder)
    table = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**table, "max_position_embeddings": 40_000}), encoding="utf-8")
    return folder


def test_pictures_and_recordings(chat_checkpoint, env, tmp_path):
    """Once with --message, and through a pipe, where a picture that can't be read ends it with its name."""
    import json

    from media.small import png, wav, write_small

    senses = write_small(tmp_path / "senses")
    (tmp_path / "cat.png").write_bytes(png(0))
    (tmp_path / "q.wav").write_bytes(wav(0))
    (tmp_path / "bad.png").write_bytes(b"<svg/>")
    words = [sys.executable, "-m", "ayllu", "chat", "-m", str(chat_checkpoint), "--senses", str(senses),
             "--temperature", "0", "--max-tokens", "6"]

    def run(*more, said=""):
        return subprocess.run([*words, *more], input=said, capture_output=True, encoding="utf-8", timeout=120, env=env)

    llm = LLM.load(chat_checkpoint, device="cpu", senses=senses)
    shown = [image_part(tmp_path / "cat.png"), audio_part(tmp_path / "q.wav"), {"type": "text", "text": "What?"}]
    want = llm.chat([{"role": "user", "content": shown}], temperature=0, max_tokens=6)
    files = ("--image", str(tmp_path / "cat.png"), "--audio", str(tmp_path / "q.wav"))
    once = run(*files, "--message", "What?", "--json")
    assert (once.returncode, json.loads(once.stdout.splitlines()[-1])["text"]) == (0, want.text)
    piped = run(said=f"/image {tmp_path / 'cat.png'}\n/audio {tmp_path / 'q.wav'}\nWhat?\n")
    assert (piped.returncode, piped.stdout) == (0, want.text + "\n")
    bad = run(said=f"/image {tmp_path / 'bad.png'}\n")
    assert bad.returncode == 2
    assert "bad.png is an SVG drawing" in bad.stderr
