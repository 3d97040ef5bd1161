"""Contrastive training through the one loop, its losses beside slow twins, a folder searched by words and pictures."""

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from media_pairs import NAMES, SHAPE, png, wav

from ayllu.apps import gallery as module
from ayllu.apps.gallery import BUNDLED, Gallery, Seeker
from ayllu.checkpoint.load import load_checkpoint, open_checkpoint
from ayllu.cli.search import search
from ayllu.config import build_recipe
from ayllu.data.media_loader import MediaReader
from ayllu.errors import BadMedia, CheckpointError, ConfigError, DataError
from ayllu.media.fast import FastLayer
from ayllu.media.senses import Senses, SensesConfig, write_senses
from ayllu.media.space import Space, SpaceConfig, contrast, read_space, text_states
from ayllu.train.align import new_senses, rows_of
from ayllu.train.align_config import AlignRecipe
from ayllu.train.contrast import ContrastLoader, ContrastRecipe, apart_by_name, collected, contrast_train

EMOJI = Path(__file__).parents[3] / "shared" / "data" / "noto_emoji" / "files.tar"
EYE = {"pixels": {"size": 16}, "vision": {"shape": SHAPE, "image_size": 16, "patch_size": 8, "pools": False},
       "project": {"width": 32, "out": 24}}
EAR = {"audio": {"shape": SHAPE, "n_mels": 16, "seconds": 1}, "project": {"width": 32, "out": 24}}


def recipe(folder: Path, base: Path, **changes) -> ContrastRecipe:
    source = {"path": "rows.jsonl", "files": "media"}
    table = {"name": "t", "method": "contrast", "out": str(folder / "run"), "base": str(base), "eye": EYE, "ear": EAR,
             "data": {"sources": [source], "held_out": [source]}, "compile": "off",
             "loop": {"steps": 60, "batch_size": 8, "micro_batch": 8, "eval_every": 60, "checkpoint_every": 30},
             "optim": {"lr": 3e-3, "schedule": {"warmup_steps": 5}}}
    return build_recipe(ContrastRecipe, {**table, **changes}, [], where="test")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, chat_checkpoint):
    """A folder of eight media, and the space of a run that has seen them."""
    folder = tmp_path_factory.mktemp("search")
    (folder / "media").mkdir()
    rows = []
    for n, name in enumerate(NAMES):
        kind, file, data = ("image", f"{n}.png", png(n)) if n < 4 else ("audio", f"{n}.wav", wav(n))
        (folder / "media" / file).write_bytes(data)
        rows += [{kind: file, "text": name}, {kind: file, "text": f"find the {name}"}]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder, contrast_train(recipe(folder, chat_checkpoint), folder)


def test_eight_pairs_are_found_again(trained):
    folder, result = trained
    assert {result[f"{way}_top1"] for way in ("text_to_media", "media_to_text")} == {1.0}
    seeker = Seeker.open(folder / "run" / "space")
    gallery = Gallery(folder / "media", seeker)
    brought = gallery.update()
    assert (brought.encoded, brought.kept, brought.left_out) == (8, 0, {})
    for n, name in enumerate(NAMES):
        file = f"{n}.{'png' if n < 4 else 'wav'}"
        assert gallery.search(seeker.text(name.upper()), 1)[0].path == file
        vector = seeker.media([("image" if n < 4 else "audio", (folder / "media" / file).read_bytes(), file)])[0]
        hit = gallery.search(vector, 1)[0]
        assert (hit.path, round(hit.score, 4)) == (file, 1.0)
    assert {hit.kind for hit in gallery.search(seeker.text("red sun"), 8, "audio")} == {"audio"}


def test_a_resumed_run_ends_at_the_same_numbers(trained, chat_checkpoint):
    folder, _ = trained
    half = recipe(folder, chat_checkpoint, out=str(folder / "half"), optim={"lr": 3e-3, "schedule": {
        "kind": "constant", "warmup_steps": 2}})

    def run(out: str, steps: int, resume=False):
        loop = half.loop.model_copy(update={"steps": steps, "eval_every": 6, "checkpoint_every": 3})
        contrast_train(half.model_copy(update={"out": str(folder / out), "loop": loop}), folder, resume)
        return read_space(folder / out / "space").state_dict()

    whole = run("whole", 6)
    run("parts", 3)
    parts = run("parts", 6, resume=True)
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_adapt_is_heeded(trained, chat_checkpoint):
    """`follow` begins with trials of rates, and says so beside the losses."""
    folder, _ = trained
    config = recipe(folder, chat_checkpoint, out=str(folder / "follows"), adapt={"kind": "follow"})
    contrast_train(config.with_loop(steps=20, eval_every=20), folder)
    rows = [json.loads(line) for line in (folder / "follows" / "metrics.jsonl").read_text().splitlines()]
    assert "try" in {row.get("decision") for row in rows}


def test_only_what_is_new_is_read(trained, tmp_path, monkeypatch):
    folder, _ = trained
    seeker = Seeker.open(folder / "run" / "space")
    (tmp_path / "a").mkdir()
    for n in range(3):
        (tmp_path / "a" / f"{n}.png").write_bytes(png(n))
    (tmp_path / "bad.png").write_bytes(b"<svg/>")
    (tmp_path / "notes.txt").write_text("no picture")
    calls: list[str] = []
    own = seeker.media
    seeker.media = lambda files: calls.extend(name for *_, name in files) or own(files)      # type: ignore[method-assign]

    def brought():
        calls.clear()
        gallery = Gallery(tmp_path, seeker)
        found = gallery.update()
        gallery.close()
        return found

    first = brought()
    assert (first.encoded, sorted(calls)) == (3, ["a/0.png", "a/1.png", "a/2.png", "bad.png"])
    assert "SVG" in first.left_out["bad.png"]
    again = brought()
    assert (again.encoded, again.kept, calls, again.left_out) == (0, 4, [], first.left_out)
    os.utime(tmp_path / "a" / "0.png", (1, 1))           # touched, with the same content
    (tmp_path / "a" / "1.png").rename(tmp_path / "moved.png")
    (tmp_path / "a" / "2.png").write_bytes(png(7))
    third = brought()
    assert (third.encoded, third.removed) == (1, 1)
    assert calls == ["a/2.png"]
    own_bytes = module.file_bytes

    def refused(path):
        if path.name == "late.png":
            raise BadMedia("late.png can't be read (Permission denied)")
        return own_bytes(path)

    (tmp_path / "late.png").write_bytes(png(8))
    monkeypatch.setattr(module, "file_bytes", refused)
    assert "Permission denied" in brought().left_out["late.png"]
    monkeypatch.undo()
    late = brought()                                     # the same size and time, and now it may be read
    assert (late.encoded, list(late.left_out)) == (1, ["bad.png"])
    other = Seeker(seeker.space, "another space")
    gallery = Gallery(tmp_path, other)
    assert gallery.update().encoded == 4                 # vectors of another space are no neighbours


def test_vectors_of_fast_layers_are_those_of_the_plain_ones(trained):
    seeker = Seeker.open(trained[0] / "run" / "space")
    assert isinstance(seeker.space.senses.eye.encoder.layers[0], FastLayer)
    plain = Seeker(read_space(trained[0] / "run" / "space"), "plain")
    files = [("image", png(0), "0.png"), ("audio", wav(5), "5.wav")]
    for one, other in zip(seeker.media(files), plain.media(files), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)    # float32, other orders of sums


def test_what_cannot_be_searched_is_said(trained, tmp_path):
    folder, _ = trained
    seeker = Seeker.open(folder / "run" / "space")
    gallery = Gallery(tmp_path, seeker)
    gallery.update()
    with pytest.raises(DataError, match="holds no picture or sound"):
        gallery.search(np.zeros(24, np.float32))
    with pytest.raises(ConfigError, match="is no folder"):
        Gallery(tmp_path / "nothing", seeker)
    with pytest.raises(ConfigError, match="empty"):
        seeker.text("  ")
    with pytest.raises(CheckpointError, match="holds no space"):
        read_space(tmp_path)
    seeker.space.config = seeker.space.config.model_copy(update={
        "senses": seeker.space.config.senses.model_copy(update={"fingerprint": "another"})})
    with pytest.raises(CheckpointError, match="other weights"):
        seeker.text("a")
    with pytest.raises(DataError, match="tokens, and the Llama of this space reads"):
        Seeker.open(folder / "run" / "space").text("a very long question " * 200)


def test_the_losses_are_those_of_the_papers():
    torch.manual_seed(0)
    space = Space(SpaceConfig.model_validate({"senses": {"eye": EYE}, "text_width": 8}))
    media, texts = (F.normalize(torch.randn(5, 24), dim=-1) for _ in range(2))
    same = torch.eye(5, dtype=torch.bool)
    scores = space.log_scale.exp() * media @ texts.mT
    expected = sum(-F.logsigmoid((1 if i == j else -1) * (scores[i, j] + space.bias)) for i in range(5)
                   for j in range(5))                    # arXiv:2303.15343, algorithm 1, before the mean
    torch.testing.assert_close(contrast(space, media, texts, same, "siglip").sum(), expected)
    numbers = torch.arange(5)                            # arXiv:2103.00020, figure 3
    clip = (F.cross_entropy(scores, numbers) + F.cross_entropy(scores.mT, numbers)) / 2
    torch.testing.assert_close(contrast(space, media, texts, same, "clip").mean(), clip)
    same[0, 1] = same[1, 0] = True                       # two media with one text: no negatives of each other
    pulled = sum(-F.logsigmoid((1 if same[i, j] else -1) * (scores[i, j] + space.bias)) for i in range(5)
                 for j in range(5))
    torch.testing.assert_close(contrast(space, media, texts, same, "siglip").sum(), pulled)
    log_p, log_q, expected = scores.log_softmax(1), scores.log_softmax(0), torch.tensor(0.0)
    for i in range(5):
        right = [j for j in range(5) if same[i, j]]
        expected = expected - sum(log_p[i, j] + log_q[i, j] for j in right) / len(right) / 2
    torch.testing.assert_close(contrast(space, media, texts, same, "clip").sum(), expected)


def test_texts_are_read_alike_alone_and_together(chat_checkpoint):
    found = load_checkpoint(chat_checkpoint, dtype="float32")
    texts = ["the fox", "小狐狸", "The FOX", "", "a bird and a fox by the river"]
    together = text_states(found.model, found.tokenizer, texts)
    alone = torch.cat([text_states(found.model, found.tokenizer, [text]) for text in texts])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=0)            # batches sum in another order
    assert torch.equal(together[0], together[2])
    assert together.shape == (5, 64)


def test_rows_become_media_with_texts(trained, chat_checkpoint):
    folder, _ = trained
    config = recipe(folder, chat_checkpoint)
    texts, pairs = collected(rows_of(config.data, folder, config.data.sources), drop=False)
    assert (len(texts), len(pairs.files)) == (16, 8)
    assert [texts[n] for n in pairs.texts[0]] == ["red sun", "find the red sun"]
    learned, held = apart_by_name(pairs, 0.4)
    assert {f.name for f in learned.files}.isdisjoint(f.name for f in held.files)
    assert len(learned.files) + len(held.files) == 8
    with pytest.raises(ConfigError, match="within itself"):
        recipe(folder, chat_checkpoint, loop={"batch_size": 8, "micro_batch": 4})
    often = recipe(folder, chat_checkpoint, data={"sources": [{"path": "rows.jsonl", "files": "media", "times": 3}]})
    again, thrice = collected(rows_of(often.data, folder, often.data.sources), drop=False)
    assert (again, len(thrice.files)) == (texts, 24)
    assert thrice.texts == tuple(own for own in pairs.texts for _ in range(3))


def test_a_batch_knows_all_texts_of_its_media_and_others(trained, chat_checkpoint):
    folder, _ = trained
    config = recipe(folder, chat_checkpoint, others=50)
    texts, pairs = collected(rows_of(config.data, folder, config.data.sources), drop=False)
    space = read_space(folder / "run" / "space")
    states = torch.arange(len(texts)).float()[:, None]   # a text's state is its number
    batch = ContrastLoader(pairs, states, MediaReader(space.senses), config).batch(0)
    assert (len(batch.media), batch.states.shape, batch.same.shape) == (8, (58, 1), (8, 58))
    by_digest = {MediaReader(space.senses).medium(file, "").digest: own
                 for file, own in zip(pairs.files, pairs.texts, strict=True)}
    for medium, row in zip(batch.media, batch.same, strict=True):
        assert row.tolist() == [int(number) in by_digest[medium.digest] for number in batch.states[:, 0]]
    assert batch.same[:, :8].diagonal().all()
    assert batch.same[:, 8:].any()


def test_further_texts_are_negatives_of_all_media():
    torch.manual_seed(0)
    space = Space(SpaceConfig.model_validate({"senses": {"eye": EYE}, "text_width": 8}))
    media, texts = F.normalize(torch.randn(3, 24), dim=-1), F.normalize(torch.randn(5, 24), dim=-1)
    same = torch.eye(3, 5, dtype=torch.bool)
    same[0, 4] = True
    scores = space.log_scale.exp() * media @ texts.mT
    pulled = sum(-F.logsigmoid((1 if same[i, j] else -1) * (scores[i, j] + space.bias)) for i in range(3)
                 for j in range(5))
    torch.testing.assert_close(contrast(space, media, texts, same, "siglip").sum(), pulled)
    log_p, log_q = scores.log_softmax(1), scores[:, :3].log_softmax(0)
    expected = -((log_p[0, 0] + log_p[0, 4]) / 2 + log_p[1, 1] + log_p[2, 2] + log_q.diagonal().sum()) / 2
    torch.testing.assert_close(contrast(space, media, texts, same, "clip").sum(), expected)


def test_senses_begin_with_the_encoders_of_a_space(trained, chat_checkpoint):
    folder, _ = trained
    own = read_space(folder / "run" / "space").senses
    table = {"name": "t", "out": "run", "base": str(chat_checkpoint), "eye_weights": "run/space",
             "ear_weights": "run/space", "eye": {**EYE, "vision": {"shape": {**SHAPE, "n_layers": 2}, "pools": False},
                     "project": {"width": 32, "out": 32}}, "ear": {**EAR, "project": {"width": 32, "out": 32}},
             "data": {"sources": [{"path": "rows.jsonl", "files": "media"}]}}
    senses = new_senses(build_recipe(AlignRecipe, table, [], where="test"), folder, open_checkpoint(chat_checkpoint))
    for part, mine in ((senses.eye, own.eye), (senses.ear, own.ear)):
        theirs = mine.encoder.state_dict()
        assert all(torch.equal(value, theirs[name]) for name, value in part.encoder.state_dict().items())
    assert senses.config.eye.pixels.size == 16           # the shape comes with the weights
    write_senses(folder / "deaf", Senses(SensesConfig.model_validate({"eye": EYE})))
    with pytest.raises(CheckpointError, match="has no ear"):
        new_senses(build_recipe(AlignRecipe, {**table, "ear_weights": "deaf"}, [], where="test"), folder,
                   open_checkpoint(chat_checkpoint))


@pytest.mark.skipif(not EMOJI.exists(), reason="needs the folder shared/data beside the project")
def test_the_bundled_space_finds_emoji(tmp_path, capsys):
    with tarfile.open(EMOJI) as files:
        for code in ("1f34e", "1f436", "1f697", "1f431", "1f31e", "1f334", "1f41f", "2708"):
            stream = files.extractfile(f"emoji_u{code}.png")
            (tmp_path / f"{code}.png").write_bytes(stream.read())
    for question, code in (("find the picture of a red apple", "1f34e"), ("找出红苹果的图片", "1f34e"),
                           ("dog", "1f436"), ("a fish", "1f41f"), ("飞机", "2708")):
        search(tmp_path, question, k=1, space=BUNDLED)
        assert capsys.readouterr().out.split()[1] == f"{code}.png", question


def test_the_command(trained, capsys):
    folder, _ = trained
    words = [sys.executable, "-m", "ayllu", "search", str(folder / "media"), "white snow", "--k", "2", "--json",
             "--space", str(folder / "run" / "space")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120,
                          env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])})
    assert json.loads(done.stdout.splitlines()[-1])["hits"][0]["path"] == "3.png", done.stderr
    search(folder / "media", like=folder / "media" / "5.wav", k=1, space=str(folder / "run" / "space"))
    assert capsys.readouterr().out.split() == ["1.000", "5.wav"]
    with pytest.raises(ConfigError, match="not both"):
        search(folder / "media", "a bell", like=folder / "media" / "5.wav")
    with pytest.raises(ConfigError, match=r"a\.txt has no ending of a picture or a sound: give one of \.bmp, \.flac"):
        search(folder / "media", like=Path("a.txt"), space=str(folder / "run" / "space"))
    with pytest.raises(CheckpointError, match="no space at nowhere"):
        search(folder / "media", "a bell", space="nowhere")
