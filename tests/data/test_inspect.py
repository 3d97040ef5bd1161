"""`ayllu data inspect`: what is shown is what the tensors hold; text, page and JSON."""

import io
import json
import re

import numpy as np
import pytest
from rich.console import Console

from ayllu.cli.main import run
from ayllu.data.corpus import Corpus, Source
from ayllu.data.loader import WindowLoader
from ayllu.data.mask_marks import Marks
from ayllu.data.masks import NOTES, Causal, FillIn, Mixture, Spans, Tokens, ul2
from ayllu.data.pack_loader import PackedLoader
from ayllu.data.shards import prepare_into
from ayllu.explain.inspect import as_table, look_at_packed, look_at_windows
from ayllu.explain.inspect_page import page
from ayllu.explain.inspect_terminal import show
from ayllu.explain.inspect_words import NOTE_WORDS, WORDS
from ayllu.text import special
from ayllu.text.tokenizer import Tokenizer
from ayllu.text.train import train_sentencepiece

WORDS_OF_TEXT = ["the", "goat", "ran", "to", "<river>", "and", "从前有一个国王住在山上", "sang", "a", "song"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inspect")
    draw = np.random.default_rng(0)
    texts = [" ".join(draw.choice(WORDS_OF_TEXT, draw.integers(2, 30))) + f" {i}" for i in range(120)]
    (folder / "rows.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts), encoding="utf-8")
    (folder / "tokenizer.model").write_bytes(train_sentencepiece(texts, 480, 1.0))
    corpus = Corpus(sources=(Source(path="rows.jsonl", language="en"),), held_out=0.05)
    prepare_into(folder / "shards", corpus, folder, folder / "tokenizer.model", workers=1)
    (folder / "recipe.toml").write_text("""name = "tiny"\nout = "run"\ntokenizer = "tokenizer.model"\ncontext = 48
[model]\nvocab_size = 480\ndim = 16\nn_layers = 1\nn_heads = 2\nn_kv_heads = 2\nhead_dim = 8\nhidden_dim = 32
max_context = 64\n[loop]\nsteps = 5\nbatch_size = 6\n[data]\nheld_out = 0.05\n[[data.sources]]\npath = "rows.jsonl"
language = "en"\n""", encoding="utf-8")
    (folder / "masks.toml").write_text("""[[parts]]\nkind = "fim"\n[[parts]]\nkind = "tokens"
ratio = { kind = "loss", start = 0.5, end = 0.1, high = 5.0, low = 2.0 }\n""", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def tokenizer(folder):
    return Tokenizer.load(folder / "tokenizer.model")


@pytest.fixture(scope="module")
def tokens(folder):
    return np.memmap(folder / "shards" / "train.bin", dtype="<u2", mode="r")


def packed_loader(tokens, tokenizer, **changes):
    mixture = Mixture(parts=(Causal(), Spans(), FillIn(), Tokens(ratio=0.4, random=0.2), *ul2()))
    return PackedLoader(**{"tokens": tokens, "marks": Marks.of(tokenizer), "context": 96, "batch_size": 8,
                           "mixture": mixture, "seed": 1} | changes)


def test_marks_are_the_tokenizer_s_own_ids(tokenizer):
    marks = Marks.of(tokenizer)
    assert [tokenizer.id_to_piece(i) for i in (*marks.fim, *marks.sentinels, *marks.modes)] == [
        special.FIM_PREFIX, special.FIM_SUFFIX, special.FIM_MIDDLE, special.FIM_END, *special.SENTINELS,
        *special.DENOISERS]
    assert [tokenizer.id_to_piece(i) for i in (marks.bos, marks.eos, marks.pad, marks.mask)] == [
        "<s>", "</s>", special.PAD, special.MASK]
    assert not set(marks.ordinary.tolist()) & {*marks.fim, *marks.sentinels, *marks.modes, marks.mask, marks.bos}
    assert len(marks.ordinary) == tokenizer.vocab_size - len(marks.special)


def test_a_packed_view_holds_the_batch(tokens, tokenizer):
    loader = packed_loader(tokens, tokenizer)
    view, batch = look_at_packed(loader, tokenizer.id_to_piece, step=2, rows=8), loader.batch(2)
    for row, window in enumerate(view.windows):
        places = [place for piece in window.pieces for place in piece.places]
        assert [p.id for p in places] == batch.ids[row][:len(places)].tolist()
        assert [-100 if p.label is None else p.label for p in places] == batch.labels[row][:len(places)].tolist()
        assert len(places) + window.padding == 96
    looks = {place.look for w in view.windows for p in w.pieces for place in p.places}
    assert looks == {"text", "border", "mark", "replaced"}
    assert sum(p.learned for w in view.windows for p in w.pieces) == view.counts["learned"]
    names = [p.objective for w in view.windows for p in w.pieces]
    assert {n: names.count(n) for n in names} == {
        k.removeprefix("objective/"): n for k, n in view.counts.items() if k.startswith("objective/")}


def test_a_window_view_holds_the_batch_and_its_borders(tokens, tokenizer):
    batch = WindowLoader(tokens, 48, 6).batch(1)
    view = look_at_windows(batch, Marks.of(tokenizer), tokenizer.id_to_piece, 1, 6)
    for row, window in enumerate(view.windows):
        assert [x.id for p in window.pieces for x in p.places] == batch.ids[row].tolist()
        assert [x.label for p in window.pieces for x in p.places] == batch.labels[row].tolist()
        begins = [p.places[0].id == tokenizer.bos_id for p in window.pieces[1:]]
        assert all(begins)
        assert sum(x.id == tokenizer.bos_id for p in window.pieces for x in p.places[1:]) == 0


def test_the_page_stands_alone_and_escapes_what_it_shows(tokens, tokenizer):
    view = look_at_packed(packed_loader(tokens, tokenizer, reserve=0.0), tokenizer.id_to_piece, 2, 8)
    html = page(view)
    assert not re.search(r"(src|href)\s*=|@import|url\(|https?://", html)
    assert "<extra_id_0>" not in html
    assert "&lt;extra_id_0&gt;" in html
    body = re.sub(r"<(style|script)>.*?</\1>", "", html, flags=re.DOTALL)
    assert body.count('<span lang="en">') == body.count('<span lang="zh">') > 20
    assert html.count('class="place ') - 6 == sum(len(p.places) for w in view.windows for p in w.pieces)  # 6: legend
    assert html.count("<polygon") == sum(len(w.pieces) for w in view.windows)
    assert view.notes["no_room"] > 0
    assert NOTE_WORDS["no_room"][1] in html


def test_the_terminal_in_both_languages(tokens, tokenizer):
    view = look_at_packed(packed_loader(tokens, tokenizer), tokenizer.id_to_piece, 2, 2)
    for chinese in (False, True):
        out = io.StringIO()
        show(view, Console(file=out, width=100), chinese)
        text = out.getvalue()
        assert WORDS["row"][chinese].format(1) in text
        assert WORDS["packed"][chinese] in text
        assert text.count("── ") == sum(len(w.pieces) for w in view.windows)
        assert "\x1b" not in text                        # piped: no colours


def test_every_note_has_words_in_both_languages():
    assert set(NOTE_WORDS) == set(NOTES)
    for pair in (*WORDS.values(), *NOTE_WORDS.values()):
        assert len(pair) == 2
        assert re.search(r"[一-鿿]", pair[1])
        assert pair[0].count("{") == pair[1].count("{")


def test_json_is_the_view(tokens, tokenizer):
    loader = packed_loader(tokens, tokenizer)
    found = json.loads(json.dumps(as_table(look_at_packed(loader, tokenizer.id_to_piece, 0, 1))))
    piece = found["windows"][0]["pieces"][0]
    assert len(piece["ids"]) == len(piece["labels"]) == len(piece["pieces"])
    assert piece["ids"] == loader.batch(0).ids[0][:len(piece["ids"])].tolist()


# The command ------------------------------------------------------------------------------------------------------

def last_json(capsys):
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_shards(folder, capsys):
    words = ["data", "inspect", str(folder / "shards"), "--tokenizer", str(folder / "tokenizer.model")]
    assert run([*words, "--context", "64", "--rows", "3", "--json"]) == 0
    found = last_json(capsys)
    assert (found["form"], found["context"], len(found["windows"])) == ("windows", 64, 3)
    for objective in ("causal", "prefix", "spans", "ul2", "fim", "tokens"):
        assert run([*words, "--objective", objective, "--context", "128", "--json"]) == 0
        found = last_json(capsys)
        kinds = {p["objective"].split("-")[0] for w in found["windows"] for p in w["pieces"] if not p["note"]}
        assert kinds <= ({"spans", "prefix"} if objective == "ul2" else {objective})
        assert kinds
    assert run([*words, "--masks", str(folder / "masks.toml"), "--loss", "2.0"]) == 0
    assert "no place sees another document" in capsys.readouterr().out


def test_a_recipe_shows_the_batch_that_pretrain_takes(folder, tokens, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert run(["data", "inspect", str(folder / "recipe.toml"), "context=32", "--step", "2", "--json"]) == 0
    found = last_json(capsys)
    assert (found["form"], found["context"], found["batch_size"], len(found["windows"])) == ("windows", 32, 6, 4)
    ids = [i for piece in found["windows"][1]["pieces"] for i in piece["ids"]]
    assert ids == WindowLoader(tokens, 32, 6, 0).batch(2).ids[1].tolist()


def test_a_recipe_shows_its_own_packing_and_masks_at_any_step(folder, capsys, monkeypatch, tmp_path):
    """Exactly what the run trained on, the loss-driven schedule at the loss that the run had seen by then."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    recipe = tmp_path / "packed.toml"
    recipe.write_text((folder / "recipe.toml").read_text(encoding="utf-8").replace('"run"', f'"{tmp_path / "run"}"')
                      .replace('"tokenizer.model"', f'"{folder / "tokenizer.model"}"')
                      .replace("[data]", f'[data]\nroot = "{folder}"') + """[packing]\nkind = "best_fit"
[[masks.parts]]\nkind = "tokens"\nratio = { kind = "loss", start = 0.5, end = 0.1, high = 6.2, low = 5.0 }
[[masks.parts]]\nkind = "causal"\n""", encoding="utf-8")
    trained = []
    taken = PackedLoader.batch
    monkeypatch.setattr(PackedLoader, "batch", lambda self, step: trained.append(taken(self, step)) or trained[-1])
    changes = ["loop.log_every=1", "optim.lr=0.05", "optim.schedule.warmup_steps=1", "compile=off"]
    assert run(["pretrain", str(recipe), *changes]) == 0
    capsys.readouterr()
    monkeypatch.setattr(PackedLoader, "batch", taken)
    for step in (0, 3):
        assert run(["data", "inspect", str(recipe), "--step", str(step), "--rows", "6", "--json"]) == 0
        found = last_json(capsys)
        assert found["form"] == "packed"
        for row, window in enumerate(found["windows"]):
            ids = [i for piece in window["pieces"] for i in piece["ids"]]
            assert ids == trained[step].ids[row][:len(ids)].tolist()
            labels = [-100 if i is None else i for piece in window["pieces"] for i in piece["labels"]]
            assert labels == trained[step].labels[row][:len(ids)].tolist()
    assert run(["data", "inspect", str(recipe), "--step", "3", "--rows", "6", "--loss", "9", "--json"]) == 0
    assert last_json(capsys)["windows"] != found["windows"]      # at another loss it is another mask


def test_page_goes_to_a_file(folder, tmp_path, capsys):
    assert run(["data", "inspect", str(folder / "shards"), "--tokenizer", str(folder / "tokenizer.model"),
                "--objective", "fim", "--out", str(tmp_path / "x.html")]) == 0
    assert capsys.readouterr().out == ""
    assert (tmp_path / "x.html").read_text(encoding="utf-8").startswith("<!doctype html>")


@pytest.mark.parametrize(("words", "says"), [
    ([], "--tokenizer FILE_OR_MODEL"), (["--tokenizer", "ayllu-mini"], "is not the tokenizer that made"),
    (["a.b=1", "--tokenizer", "x"], "no settings to override"),
    (["--objective", "fim", "--masks", "x.toml"], "give one of them")])
def test_bad_input(folder, words, says, capsys):
    assert run(["data", "inspect", str(folder / "shards"), *words]) == 2
    assert says in re.sub(r"\s+", " ", capsys.readouterr().err)
