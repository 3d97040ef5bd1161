"""Files as they really are: other encodings and delimiters, damage, links, limits. Nothing is lost without a word."""

import csv
import gzip
import io
import json
import lzma
import os

import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from ayllu.data import csv_rows, readers
from ayllu.data.folders import files_below, passed_over, some_files_below
from ayllu.data.readers import parse, records
from ayllu.data.rows import BadRow, Record, Reject
from ayllu.errors import DataError

CHINESE = "从前有一只小狐狸，它喜欢在河边读书。小鸟每天和狐狸一起散步，谈论天上的星星。"
TRADITIONAL = "從前有一隻小狐狸，牠喜歡在河邊讀書。"


def read(path, fields=("text",), encoding="auto"):
    """(texts, rejects) of one file."""
    texts, rejects = [], []
    for record in records(path, fields, path.name, encoding):
        try:
            texts.append(parse(record, fields)) if isinstance(record, Record) else rejects.append(record)
        except BadRow as error:
            rejects.append(Reject(record.file, record.line, str(error)))
    return texts, rejects


def table(rows, delimiter=","):
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter).writerows([["n", "text"], *enumerate(rows)])
    return out.getvalue()


@pytest.mark.parametrize("encoding", ["gbk", "gb18030", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("suffix", [".txt", ".csv", ".jsonl", ".html", ".csv.gz"])
def test_encodings_are_found(tmp_path, encoding, suffix):
    texts = [CHINESE, "plain words, quoted \"so\"\nand broken", CHINESE * 3]
    if suffix == ".jsonl":
        content = "".join(json.dumps({"text": t}, ensure_ascii=False) + "\n" for t in texts)
    elif suffix.startswith(".csv"):
        content = table(texts)
    else:
        texts = ["\n".join(texts)]
        content = texts[0]
    if suffix == ".html":
        content = f"<meta charset='{encoding}'><pre>{content}</pre>"
    data = content.encode(encoding)
    path = tmp_path / f"a{suffix}"
    path.write_bytes(gzip.compress(data) if suffix.endswith(".gz") else data)
    assert read(path) == (texts, [])


def test_encodings_that_cannot_be_found_are_rejected_and_can_be_named(tmp_path):
    path = tmp_path / "a.txt"
    for encoding, text in (("big5", TRADITIONAL), ("cp1252", "Größe, déjà vu, niño, smørrebrød"),
                           ("shift_jis", "むかしむかし、おじいさんとおばあさんがいました。")):
        path.write_bytes(text.encode(encoding))
        texts, rejects = read(path)
        assert texts == []
        assert "not UTF-8 at byte" in rejects[0].reason
        assert read(path, encoding=encoding) == ([text], [])


def test_damaged_utf_8_is_not_taken_for_gb_18030(tmp_path):
    data = (CHINESE * 20).encode()
    for damaged in (data[:500] + data[501:], data[:-1], data[:300] + b"\xff" + data[300:]):
        (tmp_path / "a.txt").write_bytes(damaged)
        assert read(tmp_path / "a.txt")[0] == []


def test_damaged_gb_18030_costs_its_row_only(tmp_path):
    rows = [CHINESE.encode("gbk"), CHINESE.encode("gbk")[:-1] + b"\xff", CHINESE.encode("gbk")]
    (tmp_path / "a.csv").write_bytes(b"text\n" + b"\n".join(rows) + b"\n")
    texts, rejects = read(tmp_path / "a.csv")
    assert texts == [CHINESE] * 2
    assert [(r.line, r.reason[:11]) for r in rejects] == [(3, "not GB18030")]
    (tmp_path / "a.jsonl").write_bytes(b"".join(b'{"text": "' + row + b'"}\n' for row in rows))
    texts, rejects = read(tmp_path / "a.jsonl")
    assert texts == [CHINESE] * 2
    assert [(r.line, r.reason[:11]) for r in rejects] == [(2, "not GB18030")]


def test_rows_of_utf_8_among_gb_18030_are_told(tmp_path):
    rows = [CHINESE.encode("gbk")] * 9 + ["你好很好谢谢".encode()]        # valid in GB 18030, too: other characters
    (tmp_path / "a.csv").write_bytes(b"text\n" + b"\n".join(rows) + b"\n")
    (tmp_path / "a.jsonl").write_bytes(b"".join(b'{"text": "' + row + b'"}\n' for row in rows))
    for name, line in (("a.csv", 11), ("a.jsonl", 10)):
        texts, rejects = read(tmp_path / name)
        assert texts == [CHINESE] * 9
        assert [(r.line, r.reason[:14]) for r in rejects] == [(line, "UTF-8, and the")]


@pytest.mark.parametrize("charset", ["gbk", "gb2312", "big5", "shift_jis", "euc-jp", "euc-kr", "koi8-r"])
def test_pages_in_the_charset_that_they_name(tmp_path, charset):
    text = {"g": CHINESE, "b": TRADITIONAL, "s": "日本語の文章です", "k": "Привет, мир"
            }.get(charset[0], "日本語の文章です" if charset == "euc-jp" else "안녕하세요 여러분")
    (tmp_path / "a.html").write_bytes(
        f'<html><meta http-equiv=content-type content="text/html; charset={charset}"><p>{text}</p>'.encode(charset))
    assert read(tmp_path / "a.html") == ([text], [])
    (tmp_path / "a.html").write_bytes("<meta charset=hex><p>café</p>".encode("latin-1"))
    assert "not UTF-8" in read(tmp_path / "a.html")[1][0].reason


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiters_are_found(tmp_path, delimiter):
    (tmp_path / "a.csv").write_text(table(["one, two; three|four\tfive", "line\nbreak", 'a "quote"'], delimiter),
                                    encoding="utf-8", newline="")
    assert read(tmp_path / "a.csv") == (["one, two; three|four\tfive", "line\nbreak", 'a "quote"'], [])


def test_the_delimiter_is_the_one_that_gives_the_fields(tmp_path):
    (tmp_path / "a.csv").write_text("text;a,b,c\nhello, you;1\n", encoding="utf-8")
    assert read(tmp_path / "a.csv") == (["hello, you"], [])
    (tmp_path / "b.csv").write_text("\n\ntext\nwithout any delimiter\n", encoding="utf-8")
    assert read(tmp_path / "b.csv") == (["without any delimiter"], [])
    (tmp_path / "c.csv").write_text("", encoding="utf-8")
    assert read(tmp_path / "c.csv") == ([], [])


def test_a_quote_that_is_never_closed_costs_one_line(tmp_path):
    rows = "".join(f"{i},good row {i}\n" for i in range(500))
    (tmp_path / "a.csv").write_text(f'n,text\n0,"never closed\n{rows}x,"end"tail\n9,last\n', encoding="utf-8")
    texts, rejects = read(tmp_path / "a.csv")
    assert texts == [f"good row {i}" for i in range(500)] + ["last"]
    assert [r.line for r in rejects] == [2, 503]


def test_huge_cells_and_lines_are_rejected_and_the_rest_read(tmp_path, monkeypatch):
    for module in (csv_rows, readers):
        monkeypatch.setattr(module, "ROW_BYTES", 1000)
    monkeypatch.setattr(readers, "FILE_BYTES", 2000)
    (tmp_path / "a.csv").write_text(f'n,text\n1,one\n2,{"x" * 3000}\n3,"{"y" * 900}\n{"y" * 900}"\n4,four\n',
                                    encoding="utf-8")
    texts, rejects = read(tmp_path / "a.csv")
    assert texts == ["one", "four"]
    assert [r.line for r in rejects] == [3, 4, 5]
    assert "3,003 characters, the most is 1,000" in rejects[0].reason
    for encoding in ("utf-8", "utf-16"):
        lines = [json.dumps({"text": t}) for t in ("one", "x" * 5000, "two", "y" * 5000)]
        (tmp_path / "a.jsonl").write_text("\n".join(lines), encoding=encoding)
        texts, rejects = read(tmp_path / "a.jsonl")
        assert texts == ["one", "two"]
        assert [r.line for r in rejects] == [2, 4]
        assert "the most is 1,000: cut it" in rejects[0].reason
    (tmp_path / "a.txt").write_text("z" * 5000, encoding="utf-8")
    assert read(tmp_path / "a.txt")[1][0].reason.startswith("5,000 bytes, the most is 2,000")


def test_a_line_of_200_megabytes_is_rejected(tmp_path):
    """At the real limits; the packed line is read in pieces that are dropped."""
    path = tmp_path / "a.jsonl.zst"
    with open(path, "wb") as file, zstandard.ZstdCompressor(level=1).stream_writer(file) as out:
        out.write(b'{"text": "one"}\n{"text": "')
        for _ in range(200):
            out.write(b"a" * 1_000_000)
        out.write(b'"}\n{"text": "two"}\n')
    texts, rejects = read(path)
    assert texts == ["one", "two"]
    assert [(r.line, r.reason[:17]) for r in rejects] == [(2, "200,000,013 bytes")]


@pytest.mark.parametrize("packing", [".gz", ".xz", ".zst"])
def test_damage_inside_of_a_packed_file(tmp_path, packing):
    rows = [json.dumps({"text": f"{i} {i * i % 9973} {i ** 3 % 1013}"}) for i in range(20_000)]
    lines = "\n".join(rows).encode()
    pack = {".gz": gzip.compress, ".xz": lzma.compress, ".zst": zstandard.ZstdCompressor(write_checksum=True).compress}
    data = bytearray(pack[packing](lines))
    for i in range(len(data) // 2, len(data) // 2 + 400):
        data[i] ^= 0x5A
    (tmp_path / f"a.jsonl{packing}").write_bytes(data)
    texts, rejects = read(tmp_path / f"a.jsonl{packing}")
    assert len(texts) < 20_000
    assert "damaged or cut short" in rejects[-1].reason


def test_empty_files_of_every_kind(tmp_path):
    for suffix in (".txt", ".md", ".html", ".jsonl", ".csv", ".tsv", ".jsonl.gz", ".jsonl.zst", ".txt.xz"):
        path = tmp_path / f"a{suffix}"
        path.write_bytes(b"")
        texts, rejects = read(path)
        assert texts == ([""] if suffix in {".txt", ".md", ".html"} else []), suffix
        assert len(rejects) == (suffix == ".txt.xz"), suffix
    (tmp_path / "a.parquet").write_bytes(b"")
    assert "can't be read as Parquet" in read(tmp_path / "a.parquet")[1][0].reason


def test_numbers_and_nesting_that_json_cannot_take(tmp_path):
    deep = '{"text": ' + "[" * 100_000 + "]" * 100_000 + "}"
    lines = ['{"text": "a", "n": ' + "9" * 5000 + "}", deep, '{"text": "b"}']
    (tmp_path / "a.jsonl").write_text("\n".join(lines), encoding="utf-8")
    texts, rejects = read(tmp_path / "a.jsonl")
    assert texts == ["b"]
    assert [r.line for r in rejects] == [1, 2]


def test_fields_inside_of_objects(tmp_path):
    rows = [{"meta": {"text": "one", "a.b": "x"}}, {"meta": "none"}, {"meta.text": "flat"}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    texts, rejects = read(tmp_path / "a.jsonl", ("meta.text",))
    assert texts == ["one", "flat"]
    assert "no text in field 'meta.text'" in rejects[0].reason
    columns = {"meta": [{"text": "one", "n": 1}, None, {"text": None, "n": 2}], "n": [1, 2, 3]}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    texts, rejects = read(tmp_path / "a.parquet", ("meta.text",))
    assert texts == ["one"]
    assert [r.line for r in rejects] == [2, 3]
    assert "no column 'body.text'; the file has meta, n" in read(tmp_path / "a.parquet", ("body.text",))[1][0].reason


def test_parquet_with_bytes_and_with_text_that_is_not_utf_8(tmp_path):
    binary = pyarrow.array([b"one", "中".encode("gbk"), b"two"])
    pyarrow.parquet.write_table(pyarrow.table({"text": binary}), tmp_path / "a.parquet")
    texts, rejects = read(tmp_path / "a.parquet")
    assert texts == ["one", "two"]
    assert [(r.line, "not UTF-8" in r.reason) for r in rejects] == [(2, True)]
    broken = pyarrow.Array.from_buffers(pyarrow.string(), 3, binary.buffers())
    pyarrow.parquet.write_table(pyarrow.table({"text": broken}), tmp_path / "b.parquet")
    texts, rejects = read(tmp_path / "b.parquet")
    assert texts == ["one", "two"]
    assert [r.line for r in rejects] == [2]


def test_a_damaged_group_of_parquet_rows_costs_only_itself(tmp_path):
    path = tmp_path / "a.parquet"
    texts = [f"row {i} {i * 7919 % 10007}" for i in range(300)]
    pyarrow.parquet.write_table(pyarrow.table({"text": texts}), path, row_group_size=100, compression="gzip")
    group = pyarrow.parquet.ParquetFile(path).metadata.row_group(1).column(0)
    data = bytearray(path.read_bytes())
    start = group.dictionary_page_offset or group.data_page_offset
    data[start:start + group.total_compressed_size] = b"\xa5" * group.total_compressed_size
    path.write_bytes(data)
    found, rejects = read(path)
    assert found == texts[:100] + texts[200:]
    assert "rows 101 to 200 can't be read" in rejects[0].reason


def test_links_and_folders(tmp_path):
    """Folders are followed once, whatever leads to them; a link to nothing is a reject and not a silence."""
    (tmp_path / "in" / "deep" / "er").mkdir(parents=True)
    (tmp_path / "in" / "empty").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "b.txt").write_text("outside", encoding="utf-8")
    (tmp_path / "in" / "deep" / "er" / "a.txt").write_text("inside", encoding="utf-8")
    for name, target in (("loop", "."), ("deep/up", ".."), ("linked", "../out"), ("again", "../out"),
                         ("no.txt", "gone"), ("self.txt", "self.txt")):
        (tmp_path / "in" / name).symlink_to(target)
    os.mkfifo(tmp_path / "in" / "pipe.txt")              # opening it would wait for ever
    (tmp_path / "in" / "to-pipe.txt").symlink_to("pipe.txt")
    (tmp_path / "in" / "c.pdf").write_bytes(b"")
    found = files_below(tmp_path / "in")
    names = [str(f.relative_to(tmp_path / "in")) for f in found]
    assert names == ["again/b.txt", "deep/er/a.txt", "no.txt", "self.txt"]
    assert passed_over(tmp_path / "in") == {".pdf": 1}
    assert "can't be read (No such file" in read(tmp_path / "in" / "no.txt")[1][0].reason
    assert "can't be read (Too many levels" in read(tmp_path / "in" / "self.txt")[1][0].reason
    with pytest.raises(DataError, match="holds no file to read"):
        some_files_below(tmp_path / "in" / "empty")


def test_files_that_cannot_be_opened_and_folders_that_cannot_be_listed(tmp_path, monkeypatch):
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n', encoding="utf-8")

    def refuse(*_):
        raise PermissionError(13, "Permission denied", "x")

    with monkeypatch.context() as patch:
        patch.setattr("ayllu.data.packed._Metered.__init__", refuse)
        assert read(tmp_path / "a.jsonl") == ([], [Reject("a.jsonl", 0, "can't be read (Permission denied)")])
    monkeypatch.setattr("ayllu.data.folders.os.scandir", refuse)
    with pytest.raises(DataError, match="can't be listed \\(Permission denied\\)"):
        files_below(tmp_path)


def test_a_disk_that_fails_while_reading(tmp_path, monkeypatch):
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n' * 100_000, encoding="utf-8")
    from ayllu.data.packed import _Metered
    real, calls = _Metered.readinto, []

    def fail(self, buffer):
        calls.append(1)
        if len(calls) > 3:
            raise OSError(5, "Input/output error")
        return real(self, buffer)

    monkeypatch.setattr(_Metered, "readinto", fail)
    texts, rejects = read(tmp_path / "a.jsonl")
    assert len(texts) > 10_000
    assert rejects == [Reject("a.jsonl", len(texts) + 1, "can't be read from here on (Input/output error)")]
