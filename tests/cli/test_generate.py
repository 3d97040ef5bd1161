"""`ayllu generate` and `ayllu next`, run as a user runs them."""

import json
import os
import subprocess
import sys

import pytest
from adapters.small import filled

from ayllu.adapters.store import write_adapter
from ayllu.checkpoint.load import load_checkpoint
from ayllu.cli.main import run
from ayllu.engine.llm import LLM

PROMPT = "Once upon a time"


def ayllu(*words, **options):
    return subprocess.run([sys.executable, "-m", "ayllu", *words], capture_output=True, encoding="utf-8", timeout=120,
                          env={**os.environ, "OMP_NUM_THREADS": "1"}, **options)


@pytest.fixture(scope="module")
def model(tiny_checkpoint):
    return str(tiny_checkpoint)


@pytest.fixture(scope="module")
def llm(tiny_checkpoint):
    return LLM.load(tiny_checkpoint, device="cpu")


def test_stdout_is_the_text_and_nothing_else(model, llm):
    done = ayllu("generate", PROMPT, "--model", model, "--temperature", "0", "--max-tokens", "20", "--verbose")
    expected = llm.generate(PROMPT, temperature=0, max_tokens=20)[0]
    assert (done.returncode, done.stdout) == (0, PROMPT + expected.text + "\n")
    for words in ("prompt 9 tokens", "answer 20 tokens", "tokens/s", "peak memory"):
        assert words in done.stderr
    assert "seed" in done.stderr


def test_the_prompt_comes_from_stdin_and_seeds_repeat(model):
    words = ["generate", "--model", model, "--seed", "7", "--max-tokens", "15"]
    first, second = ayllu(*words, input="小狐狸\n"), ayllu(*words, "-", input="小狐狸")
    assert first.stdout == second.stdout
    assert first.stdout.startswith("小狐狸")
    assert first.stderr == ""


def lines(capsys, *words):
    assert run(list(words)) == 0
    return capsys.readouterr().out.removesuffix("\n").split("\n")


def test_json_is_the_last_line(model, llm, capsys):
    out = lines(capsys, "generate", PROMPT, "--model", model, "--n", "3", "--seed", "5", "--max-tokens", "9", "--json")
    record = json.loads(out[-1])
    expected = llm.generate(PROMPT, n=3, seed=5, max_tokens=9)
    assert [r["text"] for r in record["results"]] == [r.text for r in expected]
    assert [r["ids"] for r in record["results"]] == [r.ids for r in expected]
    assert record["results"][0]["prompt_tokens"] == len(llm.encode(PROMPT))


def test_several_texts_and_beams_are_numbered(model, llm, capsys):
    out = "\n".join(lines(capsys, "generate", PROMPT, "--model", model, "--n", "2", "--seed", "1", "--max-tokens", "5"))
    assert out == "\n".join(f"[{i}] {PROMPT}{r.text}" for i, r in
                            enumerate(llm.generate(PROMPT, n=2, seed=1, max_tokens=5), 1))
    out = lines(capsys, "generate", PROMPT, "--model", model, "--n", "2", "--beams", "3", "--max-tokens", "5")
    assert out[0].startswith("[1] (score -")


def test_stop_texts_and_filters_reach_the_model(model, llm, capsys):
    free = llm.generate(PROMPT, temperature=0, max_tokens=40)[0].text
    stop = free[5:7]
    out = lines(capsys, "generate", PROMPT, "--model", model, "--temperature", "0", "--max-tokens", "40",
                "--stop", stop)
    assert "\n".join(out) == PROMPT + free[:free.index(stop)]
    words = ["generate", PROMPT, "--model", model, "--max-tokens", "12", "--seed", "3", "--top-k", "5",
             "--top-p", "0.9", "--min-p", "0.05", "--repetition-penalty", "1.3", "--temperature", "1.5"]
    expected = llm.generate(PROMPT, max_tokens=12, seed=3, top_k=5, top_p=0.9, min_p=0.05, repetition_penalty=1.3,
                            temperature=1.5)[0]
    assert "\n".join(lines(capsys, *words)) == PROMPT + expected.text


def test_out_writes_text_or_json(model, tmp_path, capsys):
    words = ["generate", PROMPT, "--model", model, "--seed", "2", "--max-tokens", "6", "--out"]
    printed = "\n".join(lines(capsys, *words, str(tmp_path / "a.txt")))
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == printed + "\n"
    lines(capsys, *words, str(tmp_path / "a.json"))
    assert PROMPT + json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))["results"][0]["text"] == printed


@pytest.mark.parametrize(("words", "message"), [
    (["--top-p", "7"], "top_p"), (["--max-tokens", "500"], "context of 128"), (["--max-tokens", "0"], "max-tokens"),
    (["--n", "3", "--temperature", "0"], "one text 3 times"), (["--dtype", "float12"], "float12"),
])
def test_bad_flags_are_the_callers_fault(model, capsys, words, message):
    assert run(["generate", PROMPT, "--model", model, *words]) == 2
    assert message in capsys.readouterr().err


def test_a_missing_model_is_told(tmp_path, capsys):
    assert run(["generate", PROMPT, "--model", str(tmp_path / "nothing")]) == 2
    assert "nothing" in capsys.readouterr().err


def test_next_shows_the_likeliest_tokens(model, llm, capsys):
    words = ["next", "我喜欢阅读和编程", "--model", model, "--k", "5", "--seed", "4"]
    record = json.loads(lines(capsys, *words, "--json")[-1])
    expected = llm.next_tokens("我喜欢阅读和编程", 5)
    assert [t["id"] for t in record["tokens"]] == [t.id for t in expected]
    assert record["greedy"] == record["tokens"][0]["text"]
    table = "\n".join(lines(capsys, *words))
    assert all(f"{100 * t.probability:.2f} %" in table for t in expected)
    assert "█" * 24 in table
    assert f"greedy: {record['greedy']}" in table
    assert "(seed 4)" in table
    assert "\x1b" not in table                           # no colours where no terminal is


def test_next_scores_candidates_of_several_tokens(model, llm, capsys):
    words = ["next", "我喜欢阅读和编程", "--candidates", "阅读,编程,旅行,音乐", "--model", model, "--k", "3"]
    record = json.loads(lines(capsys, *words, "--json")[-1])
    expected = llm.score("我喜欢阅读和编程", ["阅读", "编程", "旅行", "音乐"])
    assert [(c["text"], c["logprob"]) for c in record["candidates"]] == [(c.text, c.logprob) for c in expected]
    assert record["greedy"] == expected[0].text
    assert record["sampled"] in {"阅读", "编程", "旅行", "音乐"}
    assert len(record["tokens"]) == 3
    table = "\n".join(lines(capsys, *words))
    assert "among these" in table
    assert f"greedy among the candidates: {expected[0].text}" in table


def test_sampled_candidates_follow_their_shares(model, llm, capsys):
    """Over many seeds, the drawn candidate is as frequent as its share."""
    text, candidates = "The fox", [" a", " b", "i"]
    shares = {c.text: c.share for c in llm.score(text, candidates)}
    drawn = [json.loads(lines(capsys, "next", text, "--candidates", ",".join(candidates), "--model", model, "--k", "1",
                              "--seed", str(seed), "--json")[-1])["sampled"] for seed in range(40)]
    for name, share in shares.items():
        assert abs(drawn.count(name) / 40 - share) < 0.25


def test_next_refuses_empty_candidates(model, capsys):
    assert run(["next", "a", "--model", model, "--candidates", ","]) == 2
    assert "--candidates holds no text" in capsys.readouterr().err


def test_an_adapter_changes_the_text(model, tiny_checkpoint, tmp_path, capsys):
    place = write_adapter(tmp_path / "a", filled(load_checkpoint(tiny_checkpoint).model, r=2))
    words = ["generate", PROMPT, "--model", model, "--temperature", "0", "--max-tokens", "12", "--json"]
    assert run([*words, "--adapter", str(place)]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])["results"][0]
    wanted = LLM.load(tiny_checkpoint, adapter=place).generate(PROMPT, temperature=0, max_tokens=12)[0]
    assert (found["text"], found["ids"]) == (wanted.text, list(wanted.ids))
    assert run(["next", PROMPT, "--model", model, "--adapter", str(place), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["tokens"][0]["id"] == wanted.ids[0]
    assert run(words) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["results"][0]["ids"] != found["ids"]
    assert run([*words, "--adapter", str(tmp_path)]) == 2
    assert "holds no adapter" in capsys.readouterr().err


def test_merge_writes_a_model_that_says_what_the_adapter_says(tiny_checkpoint, tmp_path, capsys):
    place = write_adapter(tmp_path / "a", filled(load_checkpoint(tiny_checkpoint).model, r=2))
    assert run(["merge", str(tiny_checkpoint), str(place), "--out", str(tmp_path / "merged"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["loss"] < 1e-4
    texts = [llm.generate(PROMPT, temperature=0, max_tokens=12)[0].text for llm in (
        LLM.load(tmp_path / "merged"), LLM.load(tiny_checkpoint, adapter=place), LLM.load(tiny_checkpoint))]
    assert texts[0] == texts[1] != texts[2]
    faint = write_adapter(tmp_path / "faint", filled(load_checkpoint(tiny_checkpoint).model, r=2, size=1e-4))
    words = ["merge", str(tiny_checkpoint), str(faint), "--out", str(tmp_path / "no"), "--dtype", "bfloat16"]
    assert run(words) == 2
    assert "too coarse" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()
