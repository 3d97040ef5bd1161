"""The tokenizer's face: conformance vectors, special tokens, files, and what bad input gets."""

import json
import shutil

import kinds
import pytest
import tiktoken
from kinds import KINDS, LLAMA2C, SAMPLE, TRICKY

from ayllu.errors import CheckpointError, RequestError
from ayllu.text import tiktoken_ranks
from ayllu.text.hf import BYTE_OF_CHAR, HfCodec
from ayllu.text.spm import SentencePieceCodec
from ayllu.text.tokenizer import Tokenizer
from ayllu.text.words import PATTERNS


@pytest.fixture(params=list(KINDS))
def tokenizer(request) -> Tokenizer:
    return KINDS[request.param]()


@pytest.fixture
def llama2() -> Tokenizer:
    kinds.needs_llama2()
    return kinds.llama2()


def conformance() -> list[tuple[str, list[int]]]:
    """llama.cpp's cases: texts between marker lines, ids without BOS."""
    texts = (LLAMA2C / "ggml-vocab-llama-spm.gguf.inp").read_bytes().decode().split("\n__ggml_vocab_test__\n")
    rows = (LLAMA2C / "ggml-vocab-llama-spm.gguf.out").read_text().splitlines()
    assert len(texts) == len(rows) + 1
    assert texts.pop() == ""                             # the file ends with a marker
    return [(text, [int(i) for i in row.split()]) for text, row in zip(texts, rows, strict=True)]


def test_llama2_vectors(llama2):
    rows = [json.loads(line) for line in (LLAMA2C / "tokenizer_vectors.jsonl").read_text().splitlines()]
    assert len(rows) == 13
    for row in rows:
        assert llama2.encode(row["text"], bos=True) == row["ids"]
        assert llama2.decode(row["ids"], skip_special=True) == row["text"]


@pytest.mark.parametrize("file", ["tokenizer.model", "tokenizer.bin"])
def test_llama2_conformance(file):
    kinds.needs_llama2()
    tokenizer = Tokenizer.load(LLAMA2C / file)
    cases = conformance()
    for text, ids in cases:
        assert tokenizer.encode(text) == ids
        assert tokenizer.decode(ids) == text
    assert tokenizer.encode_batch([text for text, _ in cases]) == [ids for _, ids in cases]


def test_llama2_names(llama2):
    assert (llama2.vocab_size, llama2.bos_id, llama2.eos_ids, llama2.unk_id, llama2.pad_id) == (32000, 1, (2,), 0, None)
    assert llama2.add_bos
    assert llama2.special_ids == {0, 1, 2}
    assert (llama2.id_to_piece(15043), llama2.piece_to_id("▁Hello"), llama2.piece_to_id("no such")) == (
        "▁Hello", 15043, None)
    assert llama2.piece_to_id("<unk>") == 0


def test_decode_equals_sentencepiece(llama2):
    from sentencepiece import SentencePieceProcessor

    peer = SentencePieceProcessor(model_file=str(LLAMA2C / "tokenizer.model"))
    for ids in ([230, 180], [29871, 15043], [29871, 29871, 15043], [35, 15043], [0, 15043], [230, 180, 186, 230],
                [15043, 230, 3186], [259, 15043], list(range(3, 259))):
        assert llama2.decode(ids) == peer.decode(ids)
        assert llama2.decode([1, *ids], skip_special=0 not in ids).removeprefix("<s>") == peer.decode([1, *ids])


def test_bos_and_eos(tokenizer):
    ids = tokenizer.encode("Hello")
    before = [tokenizer.bos_id] if tokenizer.bos_id is not None else []
    assert tokenizer.encode("Hello", bos=True, eos=True) == [*before, *ids, tokenizer.eos_ids[0]]
    assert tokenizer.encode("", bos=True) == before
    assert tokenizer.decode(tokenizer.encode("Hello", bos=True, eos=True), skip_special=True) == "Hello"


@pytest.mark.parametrize("text", [*TRICKY, SAMPLE])
def test_round_trip(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert all(0 <= id < tokenizer.vocab_size for id in ids)
    assert tokenizer.encode_batch([text, "x", text]) == [ids, tokenizer.encode("x"), ids]


def controls_of(tokenizer: Tokenizer) -> list[str]:
    return [c.text for c in tokenizer.codec.controls]


def test_typed_text_yields_no_special_id(tokenizer):
    forbidden = {c.id for c in tokenizer.codec.controls}
    texts = controls_of(tokenizer)
    assert len(texts) >= 7
    for text in [*texts, *(f"a {t} b" for t in texts), *(f"{t}{t}" for t in texts), "".join(texts)]:
        ids = tokenizer.encode(text)
        assert forbidden.isdisjoint(ids), text
        assert tokenizer.decode(ids, skip_special=True) == text
        assert tokenizer.encode_batch([text]) == [ids]


def test_special_ids_on_request(tokenizer):
    for control in tokenizer.codec.controls:
        assert tokenizer.encode(control.text, allow_special=True) == [control.id]
        ids = tokenizer.encode(f"a{control.text}b", allow_special=True)
        assert control.id in ids
        assert tokenizer.encode_batch([f"a{control.text}b"], allow_special=True) == [ids]
        unknown = tokenizer.kind == "sentencepiece" and control.id == tokenizer.unk_id
        assert tokenizer.decode([control.id]) == (" ⁇ " if unknown else control.text)


def test_trusted_spans(tokenizer):
    control = next(c for c in tokenizer.codec.controls if c.special and c.id != tokenizer.unk_id)
    text = f"{control.text}x{control.text}"
    first_only = tokenizer.encode_trusting(text, [(0, len(control.text) + 1)])
    assert first_only[0] == control.id
    assert first_only.count(control.id) == 1
    assert control.id not in tokenizer.encode_trusting(text, [(1, len(text) - 1)])      # cut into: not whole


def test_markers_count_as_text_for_readers_and_as_special_for_writers():
    qwen = kinds.qwen()
    call = qwen.piece_to_id("<tool_call>")
    assert call not in qwen.encode("<tool_call>")
    assert qwen.encode("<tool_call>", allow_special=True) == [call]
    assert qwen.decode([call], skip_special=True) == "<tool_call>"       # skip_special drops special tokens only


def test_a_vocabulary_that_can_spell_a_special_token():
    table = kinds.qwen_json()
    table["model"]["vocab"] |= {"<q": 600, "<qz": 601}
    table["model"]["merges"] += [["<", "q"], ["<q", "z"]]
    table["added_tokens"] = [dict(table["added_tokens"][0], id=601, content="<qz")]
    tokenizer = Tokenizer(HfCodec(json.dumps(table)))
    assert 601 in tokenizer.codec.encode("a<qz b", continues=False)      # so the library alone would let it through
    ids = tokenizer.encode("a<qz b")
    assert 601 not in ids
    assert tokenizer.decode(ids) == "a<qz b"
    assert tokenizer.encode_batch(["a<qz b"]) == [ids]


def test_ids_of_added_tokens_are_those_of_the_library():
    """tokenizers numbers added tokens itself where the file's ids leave a gap."""
    table = kinds.qwen_json()
    for token in table["added_tokens"]:
        token["id"] += 10
    tokenizer = Tokenizer(HfCodec(json.dumps(table)))
    assert tokenizer.encode("<|im_end|>", allow_special=True) == [602]
    assert tokenizer.special_ids == {600, 601, 602}


def test_rank_file_equals_tiktoken():
    data = kinds.rank_file()
    ranks = tiktoken_ranks.read_ranks(data)
    special = {text: len(ranks) + n for n, text in enumerate(tiktoken_ranks.LLAMA3_SPECIAL)}
    peer = tiktoken.Encoding("peer", pat_str=PATTERNS["llama-bpe"], mergeable_ranks=ranks, special_tokens=special)
    ours = kinds.llama3()
    runs = [c * n for c in ("a", " ", "o", "=", "好", "\n") for n in range(1, 40)]
    for text in [*TRICKY, SAMPLE, *runs, *SAMPLE.split(), *(SAMPLE[i:i + 23] for i in range(0, len(SAMPLE), 5))]:
        assert ours.encode(text) == peer.encode_ordinary(text)
        assert ours.encode(text, allow_special=True) == peer.encode(text, allowed_special="all")
    assert (ours.bos_id, ours.vocab_size) == (len(ranks), len(ranks) + 256)
    assert ours.piece_to_id("<|eot_id|>") in ours.eos_ids
    assert ours.encode("<|begin_of_text|><|eot_id|>", allow_special=True) == [len(ranks), len(ranks) + 9]


def test_tokenizer_json_equals_its_library():
    from tokenizers import Tokenizer as Backend

    for table in (kinds.qwen_json(), kinds.sentencepiece().codec.tokenizer_json()):
        peer = Backend.from_str(json.dumps(table))
        ours = Tokenizer(HfCodec(json.dumps(table)))
        for text in [*TRICKY, SAMPLE]:
            ids = peer.encode(text, add_special_tokens=False).ids
            assert ours.encode(text, allow_special=True) == ids
            if not ours.special_ids & set(ids):
                assert ours.decode(ids) == peer.decode(ids)


@pytest.mark.parametrize("legacy", [True, False])
def test_metaspace_of_transformers(legacy, tmp_path):
    """transformers 5 gives Llama a Metaspace; with legacy=False only the start of a text gets a space."""
    from transformers import LlamaTokenizer

    table = kinds.sentencepiece().codec.tokenizer_json()
    peer = LlamaTokenizer(vocab=table["model"]["vocab"], merges=[tuple(m) for m in table["model"]["merges"]],
                          legacy=legacy)
    peer.save_pretrained(tmp_path)
    ours = Tokenizer.load(tmp_path)
    assert (ours.bos_id, ours.eos_ids, ours.unk_id) == (1, (2,), 0)
    for text in [*TRICKY, SAMPLE, "<s>a b</s> c", "x <s> y", "</s>"]:
        assert ours.encode(text, allow_special=True) == peer.encode(text, add_special_tokens=False)
        assert ours.special_ids.isdisjoint(ours.encode(text))


@pytest.mark.parametrize("legacy", [True, False, None])
def test_legacy_flag_of_a_model_file(tmp_path, legacy):
    (tmp_path / "tokenizer.model").write_bytes(kinds.model_file())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({} if legacy is None else {"legacy": legacy}))
    tokenizer = Tokenizer.load(tmp_path)
    after = tokenizer.encode("<s>x", allow_special=True)[1:]
    assert [tokenizer.id_to_piece(i) for i in after] == (["x"] if legacy is False else ["▁", "x"])


def test_settings_of_a_folder(tmp_path):
    (tmp_path / "tokenizer.json").write_text(json.dumps(kinds.qwen_json()))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({
        "bos_token": None, "eos_token": {"content": "<|im_end|>"}, "pad_token": "<|endoftext|>",
        "add_bos_token": False, "chat_template": [{"name": "tool_use", "template": "T"},
                                                  {"name": "default", "template": "D"}]}))
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [602, 600]}')
    tokenizer = Tokenizer.load(tmp_path)
    assert (tokenizer.bos_id, tokenizer.eos_ids, tokenizer.pad_id) == (None, (602, 600), 600)
    assert tokenizer.chat_template == "D"
    assert tokenizer.encode("x", bos=True) == tokenizer.encode("x")
    (tmp_path / "chat_template.jinja").write_text("J")
    assert Tokenizer.load(tmp_path).chat_template == "J"


def test_tokens_added_to_a_model_file(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(kinds.model_file())
    added = {"900": {"content": "<|user|>", "special": True}, "1": {"content": "<s>", "special": True}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": added}))
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.vocab_size == 901
    assert tokenizer.encode("<|user|>", allow_special=True) == [900]
    assert 900 not in tokenizer.encode("<|user|>")
    assert (tokenizer.id_to_piece(900), tokenizer.piece_to_id("<|user|>")) == ("<|user|>", 900)
    assert tokenizer.decode([900]) == "<|user|>"


def test_save_and_load(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "t")
    again = Tokenizer.load(tmp_path / "t")
    assert again.fingerprint == tokenizer.fingerprint
    assert (again.bos_id, again.eos_ids[0], again.pad_id, again.unk_id, again.add_bos) == (
        tokenizer.bos_id, tokenizer.eos_ids[0], tokenizer.pad_id, tokenizer.unk_id, tokenizer.add_bos)
    assert again.encode(SAMPLE) == tokenizer.encode(SAMPLE)
    again.save(tmp_path / "u")
    for file in (tmp_path / "t").iterdir():
        assert (tmp_path / "u" / file.name).read_bytes() == file.read_bytes()


def test_an_edited_tokenizer_json_is_noticed(tmp_path):
    kinds.sentencepiece().save(tmp_path)
    assert Tokenizer.load(tmp_path).kind == "sentencepiece"
    table = json.loads((tmp_path / "tokenizer.json").read_text())
    table["added_tokens"].append(dict(table["added_tokens"][0], id=900, content="<|new|>"))
    (tmp_path / "tokenizer.json").write_text(json.dumps(table))
    assert Tokenizer.load(tmp_path).encode("<|new|>", allow_special=True) == [900]


def test_bos_from_the_post_processor():
    table = kinds.qwen_json()
    begin = {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}
    template = {"type": "TemplateProcessing", "single": [begin, {"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [begin, {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                "special_tokens": {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [600], "tokens": ["<|endoftext|>"]}}}
    byte_level = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}
    table["post_processor"] = {"type": "Sequence", "processors": [byte_level, template]}
    tokenizer = Tokenizer(HfCodec(json.dumps(table)))
    assert (tokenizer.bos_id, tokenizer.add_bos, tokenizer.eos_ids) == (600, True, (602,))
    table["post_processor"] = byte_level
    assert not Tokenizer(HfCodec(json.dumps(table))).add_bos


def test_fingerprints_tell_vocabularies_apart():
    prints = {make().fingerprint for make in KINDS.values()}
    assert len(prints) == len(KINDS)
    other = SentencePieceCodec(kinds.model_file(), prefix_each_segment=False)
    assert Tokenizer(other).fingerprint != kinds.sentencepiece().fingerprint


@pytest.mark.parametrize(("name", "content", "says"), [
    ("tokenizer.json", b"{", "not valid JSON"), ("tokenizer.json", b'{"a": 1}', "model"),
    ("tokenizer.json", b'{"model": {"type": "Odd"}, "decoder": {"type": "ByteLevel"}}', "can't be used"),
    ("tokenizer.model", b"\x0a\xff\xff", "SentencePiece"), ("tokenizer.model", b"", "SentencePiece"),
    ("tokenizer.model", b"YQ== 0\nYg==\n", "line 2"), ("tokenizer.model", b"YQ== 0\nYg== 7\n", "without gaps"),
    ("tokenizer.model", b"YQ== 0\n", "byte 0x00"), ("tokenizer.model", b"GGUF\x03\0\0\0", "GGUF"),
    ("tokenizer.bin", b"\x05\0\0\0" + b"\0\0\0\0\x05\0\0\0<unk>" + b"\0\0\0\0\xff\xff\0\0", "piece 1"),
])
def test_damaged_files(tmp_path, name, content, says):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=says):
        Tokenizer.load(tmp_path / name)


def test_a_truncated_model_file(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(kinds.model_file()[:-700])
    with pytest.raises(CheckpointError):
        Tokenizer.load(tmp_path)


def test_no_tokenizer(tmp_path):
    with pytest.raises(CheckpointError, match=r"expected tokenizer\.json"):
        Tokenizer.load(tmp_path)
    with pytest.raises(CheckpointError, match="no tokenizer at"):
        Tokenizer.load(tmp_path / "absent")


def test_a_decoder_of_another_family(tmp_path):
    table = kinds.qwen_json() | {"decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True}}
    with pytest.raises(CheckpointError, match="WordPiece"):
        HfCodec(json.dumps(table))


def test_half_a_character_is_refused(tokenizer):
    with pytest.raises(RequestError, match="half a character"):
        tokenizer.encode("a\ud83d")
    with pytest.raises(RequestError, match="position 1"):
        tokenizer.encode_batch(["fine", "a\ud83d"])


def test_ids_outside_the_vocabulary(tokenizer):
    assert tokenizer.decode([tokenizer.vocab_size + 5]) == ""            # padded embedding rows
    with pytest.raises(RequestError, match="negative"):
        tokenizer.decode([-1])


def test_the_byte_table_is_gpt2s():
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    assert {b: c for c, b in BYTE_OF_CHAR.items()} == bytes_to_unicode()


def test_files_are_told_apart_by_content(tmp_path):
    shutil.copyfile(__file__, tmp_path / "tokenizer.model")
    with pytest.raises(CheckpointError, match="SentencePiece"):
        Tokenizer.load(tmp_path)
    (tmp_path / "anything").write_bytes(kinds.rank_file())
    assert Tokenizer.load(tmp_path / "anything").encode("Hello") == kinds.llama3().encode("Hello")
