"""The benchmark of senses measures what it says: the search for names is exact, syllables fall into their parts."""

import io
import json
import sys
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image
from scripts import ROOT, load_script

from ayllu.adapters.lora import fingerprint
from ayllu.apps.gallery import Seeker
from ayllu.checkpoint.load import load_checkpoint
from ayllu.data.media_rows import Folder
from ayllu.media.senses import Senses, SensesConfig, write_senses
from ayllu.media.space import Space, SpaceConfig

SHAPE = {"dim": 32, "n_layers": 1, "n_heads": 2, "hidden_dim": 64}
NAMES = ["sun", "sun hat", "sea", "red sea", "red sun", "hill", "hill top", "rose"]


@pytest.fixture(scope="module")
def benchmark():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    yield load_script("benchmarks/senses.py")
    sys.path.remove(str(ROOT / "benchmarks"))


@pytest.fixture
def subject(benchmark, tmp_path, chat_checkpoint):
    with tarfile.open(tmp_path / "media.tar", "w") as tar:
        for n in range(len(NAMES)):
            out, info = io.BytesIO(), tarfile.TarInfo(f"{n}.png")
            Image.fromarray(np.full((8, 8, 3), 30 * n, np.uint8)).save(out, "PNG")
            info.size = out.tell()
            tar.addfile(info, io.BytesIO(out.getvalue()))
    rows = [{"image": f"{n}.png", "prompt": "What?", "text": name, "kind": "emoji"} for n, name in enumerate(NAMES)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    torch.manual_seed(0)
    write_senses(tmp_path / "senses", Senses(SensesConfig.model_validate(
        {"eye": {"pixels": {"size": 16}, "vision": {"shape": SHAPE, "image_size": 16, "patch_size": 8, "pools": False},
                 "project": {"width": 32, "out": 32}}})), torch.float32)
    return benchmark.Subject(tmp_path / "senses", str(chat_checkpoint))


def test_the_search_for_the_likeliest_names_is_exact(subject, tmp_path):
    """Against the log-probability of each name as a whole."""
    items = subject.items(tmp_path, "train")
    names = {item.answer: item.text for item in items}
    found = subject.likeliest(items[:3], names)
    for item, list_of_five in zip(items[:3], found, strict=True):
        [(_, prompt)] = subject.prompts([item])
        totals = {}
        for ids, name in names.items():
            with torch.no_grad():
                totals[name] = sum(float(subject.scores(prompt, [ids[:at]])[0, ids[at]]) for at in range(len(ids)))
        assert list_of_five == sorted(totals, key=lambda name: -totals[name])[:5]


def test_an_answer_is_what_the_likeliest_tokens_say(subject, tmp_path):
    """A batch of prompts with answers of different lengths says what each prompt says alone."""
    items = subject.items(tmp_path, "train")
    together = subject.answers(items)
    assert together == [subject.answers([item])[0] for item in items]


def test_a_syllable_s_parts(benchmark):
    assert benchmark.parts("zhang1") == ("zh", "ang", "1")
    assert benchmark.parts("zh ang 1") == benchmark.parts("zhang1")
    assert benchmark.parts("er2") == benchmark.parts("er 2") == ("", "er", "2")
    assert benchmark.parts("lü4") == ("l", "ü", "4")
    assert benchmark.parts("what is it") != benchmark.parts("wa1")
    assert benchmark.base_of("waving hand: dark skin tone") == "waving hand"


def test_neighbours_are_of_the_same_language_and_each_name_once(benchmark, subject, tmp_path):
    items = subject.items(tmp_path, "train")
    near = benchmark.senses_peers.nearest(subject.senses, items[2:3], items, 3)
    assert near[0][0] == NAMES[2]
    assert set(near[0][1:]) == {NAMES[1], NAMES[3]}


def test_a_spectrum_is_cut_to_what_is_heard(benchmark):
    mel = np.full((4, 200), -1.0)
    mel[:, 50:90] = np.linspace(0.5, 1, 40)
    late = np.roll(mel, 60, 1)
    found = benchmark.senses_peers.stretched(mel)
    assert found.shape == (4 * benchmark.senses_peers.FRAMES,)
    assert np.allclose(found, benchmark.senses_peers.stretched(late))         # when a word begins doesn't matter


def test_pixels_find_a_held_out_tone_by_its_plain_form(tmp_path, chat_checkpoint):
    """Ten greys with names; of each a slightly other grey is held out."""
    search = load_script("benchmarks/emoji_search.py")
    assert search.words("waving hand: 挥手") == {"waving", "hand", "挥", "手"}
    names = ["sun", "sea", "hill", "rose", "fox", "tree", "boat", "star", "moon", "rain"]
    with tarfile.open(tmp_path / "media.tar", "w") as tar:
        for n in range(len(names)):
            for file, grey in ((f"{n}.png", 25 * n), (f"{n}dark.png", 25 * n + 4)):
                out, info = io.BytesIO(), tarfile.TarInfo(file)
                Image.fromarray(np.full((8, 8, 3), grey, np.uint8)).save(out, "PNG")
                info.size = out.tell()
                tar.addfile(info, io.BytesIO(out.getvalue()))
    rows = {"train": [(f"{n}.png", name) for n, name in enumerate(names)],
            "held_out": [(f"{n}dark.png", f"{name}: dark") for n, name in enumerate(names)]}
    for part, pairs in rows.items():
        (tmp_path / f"{part}.jsonl").write_text("".join(json.dumps(
            {"image": file, "prompt": "What?", "text": name, "kind": "emoji"}) + "\n" for file, name in pairs))
    assert search.rows_of(tmp_path / "train.jsonl", False) == rows["train"]
    assert search.rows_of(tmp_path / "train.jsonl", True) == []
    eye = {"pixels": {"size": 16}, "vision": {"shape": SHAPE, "image_size": 16, "patch_size": 8, "pools": False},
           "project": {"width": 32, "out": 24}}
    base = str(chat_checkpoint)
    mark = fingerprint(load_checkpoint(chat_checkpoint, dtype="float32").model)
    torch.manual_seed(0)
    space = Space(SpaceConfig.model_validate({"senses": {"eye": eye, "base": base, "fingerprint": mark},
                                              "text_width": 64}))
    files = [file for pairs in rows.values() for file, _ in pairs]
    seeker = Seeker(space, "")
    pictures = search.Pictures(seeker, Folder(tmp_path / "media.tar"), files)
    found = search.measured(seeker, pictures, rows["train"], rows["held_out"])
    assert {kind: float(hits.mean()) for kind, hits in found["pixels"].items()} == {
        "name": 0, "base": 1, "picture": 1, "anywhere": 1}
    assert all(len(hits) == 10 for hits in found["ours"].values())
