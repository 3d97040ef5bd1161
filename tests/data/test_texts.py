"""Reading documents: suffixes, compression, and errors that name file and line."""

import gzip
import json
import lzma

import pytest
import zstandard

from ayllu.data.texts import documents
from ayllu.errors import DataError

ROWS = [{"text": "Hello, 世界", "title": "a"}, {"text": "second\nline", "title": "b"}]
LINES = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in ROWS).encode()


@pytest.mark.parametrize(("suffix", "pack"), [
    ("", lambda b: b), (".gz", gzip.compress), (".xz", lzma.compress),
    (".zst", lambda b: zstandard.ZstdCompressor().compress(b)),
])
def test_json_lines_in_every_packing(tmp_path, suffix, pack):
    path = tmp_path / f"rows.jsonl{suffix}"
    path.write_bytes(pack(LINES))
    assert list(documents(path)) == ["Hello, 世界", "second\nline"]
    assert list(documents(path, ("title", "text"))) == ["a\nHello, 世界", "b\nsecond\nline"]


def test_plain_file_is_one_document_and_folders_are_walked_in_order(tmp_path):
    (tmp_path / "b.txt").write_text("B\nb", encoding="utf-8")
    (tmp_path / "a.md").write_text("A", encoding="utf-8")
    (tmp_path / "c.png").write_bytes(b"\x89PNG")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "d.jsonl").write_bytes(LINES)
    assert list(documents(tmp_path)) == ["A", "B\nb", "Hello, 世界", "second\nline"]


@pytest.mark.parametrize(("name", "content", "message"), [
    ("bad.jsonl", b'{"text": "fine"}\n{"text": \n', r"bad\.jsonl:2: not a JSON object"),
    ("list.jsonl", b"[1, 2]\n", r"list\.jsonl:1: expected a JSON object, found list"),
    ("field.jsonl", b'{"body": "x"}\n', r"field\.jsonl:1: no text in field 'text'; the row has body"),
    ("latin.txt", "café".encode("latin-1"), r"latin\.txt: not UTF-8 at byte 3"),
    ("picture.png", b"\x89PNG", r"don't know how to read \.png"),
])
def test_bad_input_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        list(documents(tmp_path / name))


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match="no file or folder"):
        list(documents(tmp_path / "nothing.txt"))
