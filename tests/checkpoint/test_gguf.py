"""GGUF files: there and back, as gguf's own reader sees them, and as llama.cpp's converter writes them."""

from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from checkpoint.models import CONFIGS, GGUF, LLAMA3, assert_same_tensors, logits, random_model, source

from ayllu.checkpoint.gguf import gguf_name, our_name
from ayllu.checkpoint.gguf_config import decimal, rope_factors
from ayllu.checkpoint.load import build_model, load_checkpoint, open_checkpoint
from ayllu.checkpoint.save import save_checkpoint, write_checkpoint
from ayllu.errors import CheckpointError
from ayllu.text.tokenizer import Tokenizer

DTYPES = [torch.float32, torch.float16, torch.bfloat16]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", GGUF)
def test_there_and_back_bit_for_bit(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    before = source(name, dtype)
    path = write_checkpoint(before, tmp_path / "m.gguf", to="gguf")
    after = open_checkpoint(path)
    assert after.config == before.config
    assert after.dtype == dtype
    assert_same_tensors(before, after)
    back = open_checkpoint(write_checkpoint(after, tmp_path / "back"))
    assert {e.dtype for e in back.entries.values()} == {dtype}      # norms, which GGUF widens, are narrow again
    assert_same_tensors(before, back)


@pytest.mark.parametrize("name", ["grouped tied", "qwen2"])
def test_as_ggufs_own_reader_sees_it(name: str, tmp_path: Path) -> None:
    before = source(name)
    reader = gguf.GGUFReader(write_checkpoint(before, tmp_path / "m.gguf", to="gguf"))
    arch = "qwen2" if name == "qwen2" else "llama"
    fields = {key: field.contents() for key, field in reader.fields.items()}
    assert fields["general.architecture"] == arch
    assert fields[f"{arch}.block_count"] == 2
    assert fields[f"{arch}.attention.head_count_kv"] == 2
    assert fields[f"{arch}.rope.freq_base"] == before.config.rope_theta
    tensors = {t.name: np.array(t.data) for t in reader.tensors}
    assert set(tensors) == {gguf_name(n) for n in before.entries}
    assert ("output.weight" in tensors) is (name == "qwen2")
    wq, v = before.tensor("layers.0.attention.wq.weight"), before.tensor("layers.1.attention.wv.weight")
    assert np.array_equal(tensors["blk.1.attn_v.weight"], v.numpy())
    H, E, D = 4, 16, 64                                  # llama.cpp: LlamaModel.permute in convert_hf_to_gguf.py
    turned = wq.numpy().reshape(H, 2, E // 2, D).swapaxes(1, 2).reshape(H * E, D)
    assert np.array_equal(tensors["blk.0.attn_q.weight"], wq.numpy() if arch == "qwen2" else turned)


@pytest.mark.parametrize("name", GGUF)
def test_q8_0_is_what_gguf_itself_gives(name: str, tmp_path: Path) -> None:
    before = source(name)
    path = write_checkpoint(before, tmp_path / "m.gguf", to="gguf", dtype="q8_0")
    after = open_checkpoint(path)
    assert after.dtype == (torch.float16 if name == "odd" else torch.float32)
    assert after.config == before.config
    kinds = set()
    for key, tensor in before.tensors():
        stored = after.entries[key].stored_as
        kinds.add(stored)
        wanted = tensor.numpy()
        if stored == "Q8_0":                             # rows may be permuted first: a row's blocks are its own
            packed = gguf.quantize(wanted, gguf.GGMLQuantizationType.Q8_0)
            wanted = gguf.dequantize(packed, gguf.GGMLQuantizationType.Q8_0)
        elif stored == "F16":
            wanted = wanted.astype(np.float16).astype(np.float32)
        assert np.array_equal(after.tensor(key).float().numpy(), wanted), key
    assert "F32" in kinds
    assert "Q8_0" in kinds or name == "odd"
    mine, other = logits(build_model(before)), logits(build_model(after))
    assert (mine - other).abs().max() > 0
    assert (mine - other).std() < 0.1 * mine.std()
    again = open_checkpoint(write_checkpoint(after, tmp_path / "again.gguf", to="gguf", dtype="q8_0"))
    for key, tensor in after.tensors():                  # quantising what was quantised changes nothing
        assert torch.equal(again.tensor(key), tensor), key


def test_a_file_as_llama_cpp_writes_it(tmp_path: Path) -> None:
    """Only standard keys, Llama 3.1's factors as a tensor, metadata rounded to float32."""
    config = CONFIGS["llama 3.1"]
    model = random_model(config)
    path = tmp_path / "theirs.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    for add, value in ((writer.add_context_length, 131072), (writer.add_embedding_length, 64),
                       (writer.add_block_count, 2),
                       (writer.add_feed_forward_length, 96), (writer.add_head_count, 4), (writer.add_head_count_kv, 2),
                       (writer.add_layer_norm_rms_eps, 1e-5), (writer.add_rope_freq_base, 500_000.0),
                       (writer.add_rope_dimension_count, 16), (writer.add_vocab_size, 128),
                       (writer.add_eos_token_id, 2), (writer.add_eot_token_id, 9), (writer.add_sampling_temp, 0.6)):
        add(value)
    low, high, factors = 8192 / 1.0, 8192 / 4.0, []
    for freq in (1.0 / 500_000.0 ** (torch.arange(0, 16, 2) / 16)).tolist():      # as in convert_hf_to_gguf.py
        wavelength = 2 * np.pi / freq
        smooth = (8192 / wavelength - 1.0) / (4.0 - 1.0)
        factors.append(1.0 if wavelength < high else 8.0 if wavelength > low else 1 / ((1 - smooth) / 8.0 + smooth))
    writer.add_tensor("rope_freqs.weight", np.array(factors, dtype=np.float32))
    for name, p in model.named_parameters():
        array = p.detach().numpy()
        for part, heads in (("wq", 4), ("wk", 2)):
            if f".{part}." in name:
                array = array.reshape(heads, 2, 8, 64).swapaxes(1, 2).reshape(array.shape)
        writer.add_tensor(gguf_name(name), np.ascontiguousarray(array))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = load_checkpoint(path)
    assert found.config == config
    assert config.rope_scaling == LLAMA3
    assert found.generation.eos_ids == (2, 9)
    assert found.generation.sampling() == {"temperature": pytest.approx(0.6)}
    assert torch.equal(logits(found.model), logits(model))


def test_rope_factors_that_no_llama_has_are_refused(tmp_path: Path) -> None:
    other = replace(source("llama 3.1"), config=CONFIGS["llama 3.1"].model_copy(
        update={"rope_scaling": LLAMA3.model_copy(update={"high_freq_factor": 9.0})}))
    path = write_checkpoint(other, tmp_path / "m.gguf", to="gguf")
    assert open_checkpoint(path).config == other.config              # ours is exact, and kept inside
    data = path.read_bytes()
    path.write_bytes(data.replace(b"ayllu.config", b"other.config"))
    with pytest.raises(CheckpointError, match=r"rope_freqs\.weight"):
        open_checkpoint(path)
    assert rope_factors(CONFIGS["plain"]) is None


@pytest.mark.parametrize(("update", "named"), [
    ({"rope_scaling": CONFIGS["dynamic"].rope_scaling}, "dynamic"), ({"sliding_window": 4, "first_sliding_layer": 1},
                                                                     "first_"),
    ({"rope_scaling": CONFIGS["yarn"].rope_scaling.model_copy(update={"truncate": False})}, "truncate")])
def test_what_the_format_cannot_hold_is_refused_by_field(update: dict, named: str, tmp_path: Path) -> None:
    before = source("plain")
    with pytest.raises(CheckpointError, match=named):
        write_checkpoint(replace(before, config=before.config.model_copy(update=update)), tmp_path / "m.gguf",
                         to="gguf")
    assert not list(tmp_path.iterdir())


def test_values_beyond_float16_are_refused(tmp_path: Path) -> None:
    model = random_model(CONFIGS["plain"])
    model.tok_embeddings.weight.data[3, 3] = 70_000.0
    with pytest.raises(CheckpointError, match=r"tok_embeddings.*bf16"):
        save_checkpoint(tmp_path / "m.gguf", model, to="gguf", dtype="f16")
    assert not list(tmp_path.iterdir())


def test_other_types_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "q4.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    packed = gguf.quantize(np.ones((4, 32), np.float32), gguf.GGMLQuantizationType.Q4_0)
    writer.add_tensor("token_embd.weight", packed, raw_dtype=gguf.GGMLQuantizationType.Q4_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(CheckpointError, match=r"token_embd.weight.*Q4_0.*Q8_0 or F16"):
        open_checkpoint(path)


@pytest.mark.parametrize("extra", [0, 5])
def test_tokenizer_template_and_generation_travel_inside(extra: int, chat_checkpoint: Path, tmp_path: Path) -> None:
    before = load_checkpoint(chat_checkpoint)
    config = before.config.model_copy(update={"vocab_size": before.config.vocab_size + extra})     # padded embedding
    path = save_checkpoint(tmp_path / "m.gguf", random_model(config), tokenizer=before.tokenizer,
                           generation=before.generation,
                           chat_template=before.chat_template, to="gguf", dtype="q8_0")
    after = load_checkpoint(path)
    assert len(gguf.GGUFReader(path).fields["tokenizer.ggml.tokens"].contents()) == config.vocab_size
    assert after.tokenizer is not None
    assert before.tokenizer is not None
    assert after.tokenizer.vocab_size == before.tokenizer.vocab_size
    for text in ("Once upon a time", "我喜欢阅读和编程。", "a  b\n\t9 🦊", " x"):
        assert after.tokenizer.encode(text, bos=True) == before.tokenizer.encode(text, bos=True)
    assert after.chat_template == before.chat_template
    assert after.chat_template
    assert after.generation == before.generation
    folder = write_checkpoint(open_checkpoint(path), tmp_path / "hf")
    assert Tokenizer.load(folder).encode("小狐狸 fox") == before.tokenizer.encode("小狐狸 fox")


def test_a_tokenizer_larger_than_the_model_is_refused(chat_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="don't belong together"):
        save_checkpoint(tmp_path / "m.gguf", random_model(CONFIGS["plain"]), to="gguf",
                        tokenizer=load_checkpoint(chat_checkpoint).tokenizer)


def test_one_part_of_a_split_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "m-00001-of-00002.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint16("split.count", 2)
    writer.add_tensor("token_embd.weight", np.ones((4, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(CheckpointError, match="one of 2 parts"):
        open_checkpoint(path)


def test_names_are_each_others_inverse() -> None:
    for name in source("all biases").entries:
        assert our_name(gguf_name(name)) == name


def test_decimal_undoes_float32() -> None:
    for value in (1e-5, 1e-6, 500_000.0, 10_000.0, 1e6, 0.1):
        assert decimal(float(np.float32(value))) == value
