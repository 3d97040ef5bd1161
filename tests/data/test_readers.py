"""Every format in every packing gives the same texts; what is bad is named with file and line and the rest is read."""

import csv
import gzip
import io
import json
import lzma
import subprocess
import sys

import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from ayllu.data.html import html_text
from ayllu.data.packed import open_binary
from ayllu.data.readers import parse, records
from ayllu.data.rows import BadRow, Record, Reject
from ayllu.data.texts import documents

TEXTS = ["Hello, 世界", "second\nline, \"quoted\"", "ünïcode"]
PACKINGS = {"": lambda b: b, ".gz": gzip.compress, ".xz": lzma.compress,
            ".zst": lambda b: zstandard.ZstdCompressor().compress(b)}


def as_jsonl():
    return "".join(json.dumps({"text": t, "n": i}) + "\n" for i, t in enumerate(TEXTS)).encode()


def as_csv(delimiter=","):
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter)
    writer.writerows([["n", "text"], *enumerate(TEXTS)])
    return out.getvalue().encode("utf-8-sig")


def as_parquet():
    out = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"text": TEXTS, "n": [1, 2, 3]}), out)
    return out.getvalue()


def read(path, fields=("text",)):
    """(texts, rejects) of one file."""
    texts, rejects = [], []
    for record in records(path, fields, path.name):
        if isinstance(record, Reject):
            rejects.append(record)
            continue
        try:
            texts.append(parse(record, fields))
        except BadRow as error:
            rejects.append(Reject(record.file, record.line, str(error)))
    return texts, rejects


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize(("suffix", "content"), [
    (".jsonl", as_jsonl()), (".csv", as_csv()), (".tsv", as_csv("\t")), (".parquet", as_parquet())])
def test_tables_in_every_packing(tmp_path, suffix, content, packing):
    path = tmp_path / f"rows{suffix}{packing}"
    path.write_bytes(PACKINGS[packing](content))
    assert read(path) == (TEXTS, [])
    assert list(documents(path)) == TEXTS


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize(("suffix", "content", "text"), [
    (".txt", "A\nb 世界", "A\nb 世界"), (".md", "# T\n\ntext", "# T\n\ntext"),
    (".html", "<title>no</title><p>Hello <b>wor</b>ld</p><script>x()</script>", "Hello world")])
def test_whole_files_in_every_packing(tmp_path, suffix, content, text, packing):
    path = tmp_path / f"one{suffix}{packing}"
    path.write_bytes(PACKINGS[packing](content.encode()))
    assert read(path) == ([text], [])


def test_bad_rows_are_named_and_the_others_read(tmp_path):
    good, other = json.dumps({"text": "good"}).encode(), json.dumps({"text": "other"}).encode()
    lines = [good, b'{"text": ', b'["list"]', b'{"body": "x"}', b'{"text": 5}', b'{"text": "\xe9"}', b"", other]
    (tmp_path / "rows.jsonl").write_bytes(b"\n".join(lines))
    texts, rejects = read(tmp_path / "rows.jsonl")
    assert texts == ["good", "other"]
    assert [(r.file, r.line) for r in rejects] == [("rows.jsonl", n) for n in (2, 3, 4, 5, 6)]
    reasons = " | ".join(r.reason for r in rejects)
    for reason in ("not a JSON object", "found list", "no text in field 'text'; the row has body",
                   "no text in field 'text'; it holds int", "not UTF-8 at byte"):
        assert reason in reasons


def test_bad_rows_of_csv(tmp_path):
    (tmp_path / "a.csv").write_bytes(b'n,text\n1,one\n2\n3,"three\nlines"\n4,\xe9\n5,five\n6,"open\n')
    texts, rejects = read(tmp_path / "a.csv")
    assert texts == ["one", "three\nlines", "five"]
    assert [r.line for r in rejects] == [3, 6, 8]
    assert "1 cells, the header has 2" in rejects[0].reason
    assert rejects[1].reason.startswith("not UTF-8")
    assert "not valid CSV" in rejects[2].reason


def test_bad_parquet(tmp_path):
    table = pyarrow.table({"text": ["a", None, "b"]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    texts, rejects = read(tmp_path / "a.parquet")
    assert texts == ["a", "b"]
    assert [(r.line, r.reason) for r in rejects] == [(2, "no text in field 'text'; it holds nothing")]
    assert "no column 'body'; the file has text" in read(tmp_path / "a.parquet", ("body",))[1][0].reason
    (tmp_path / "b.parquet").write_bytes(b"PAR1 nonsense")
    assert "can't be read as Parquet" in read(tmp_path / "b.parquet")[1][0].reason


def test_a_long_text_that_many_rows_of_parquet_name_is_in_memory_once(tmp_path):
    table = pyarrow.table({"text": ["y" * 3_000_000] * 1000, "n": range(1000)})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet", dictionary_pagesize_limit=2**30, store_schema=False)
    del table
    file = f"Path({str(tmp_path / 'a.parquet')!r})"
    code = ("import resource; from pathlib import Path; from ayllu.data.readers import records; "
            "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; "
            "import ayllu.data.readers as readers; readers.MOST_BYTES = 2**40; "
            f"rows = [(len(r.payload['text']), r.payload['n']) for r in records({file}, (), '')]; "
            "assert rows == [(3_000_000, n) for n in range(1000)]; "
            "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert int(done.stdout) < 500, done.stderr            # MiB; unpacked they are 2,861


def test_a_parquet_bomb_is_not_unpacked_and_the_rest_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("ayllu.data.readers.MOST_BYTES", 2**20)
    with pyarrow.parquet.ParquetWriter(tmp_path / "a.parquet", pyarrow.schema({"text": "string", "id": "int64"}),
                                       compression="zstd") as out:
        for text in ("good", "a" * 8 * 2**20, "fine"):
            out.write_table(pyarrow.table({"text": [text, "b"], "id": [1, 2]}))
    texts, (bad,) = read(tmp_path / "a.parquet")
    assert texts == ["good", "b", "fine", "b"]
    assert bad.line == 3
    assert bad.reason.startswith("rows 3 to 4 aren't unpacked: ")
    assert "of the column text would be 8,38" in bad.reason
    assert len(list(records(tmp_path / "a.parquet", ("id",), "a"))) == 6         # what isn't asked for isn't unpacked
    monkeypatch.setattr("ayllu.data.readers.MOST_TIMES", 10**9)
    monkeypatch.setattr("ayllu.data.readers.ROW_BYTES", 2**21)
    assert read(tmp_path / "a.parquet")[0] == texts              # two cells of twice the most on average


def test_rows_that_name_one_text_too_often_for_the_size_of_their_file_are_not_all_read(tmp_path, monkeypatch):
    monkeypatch.setattr("ayllu.data.readers.MOST_BYTES", 2**22)
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": ["yes " * 5000] * 3000, "n": range(3000)}), path,
                                compression="zstd")
    texts, (bad,) = read(path)
    size = path.stat().st_size
    assert len(texts) == bad.line - 1 == max(2**22, 1000 * size) // 20_003 + 1
    assert f"rows {bad.line} to 3,000 aren't read: {size:,} bytes have become" in bad.reason
    assert len(list(records(path, ("n",), "a"))) == 3000
    monkeypatch.setattr("ayllu.data.readers.MOST_TIMES", 10**9)
    assert len(read(path)[0]) == 3000


@pytest.mark.parametrize("packing", [".gz", ".xz", ".zst"])
@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".txt"])
def test_more_than_a_packed_file_may_become_is_not_unpacked(tmp_path, monkeypatch, packing, suffix):
    monkeypatch.setattr("ayllu.data.packed.MOST_UNPACKED", 2**20)
    path = tmp_path / f"a{suffix}{packing}"
    path.write_bytes(PACKINGS[packing](b"a" * 2**24))
    found, = records(path, ("a",), "a")
    size = path.stat().st_size
    assert f"{size:,} bytes were unpacked to more than 1,048,576, over 500 times as many" in found.reason
    monkeypatch.setattr("ayllu.data.packed.MOST_TIMES", 10**9)
    assert not any(isinstance(one, Reject) for one in records(path, ("a",), "a"))


@pytest.mark.parametrize(("suffix", "row"), [(".jsonl", b'{"text": "a"}'), (".csv", b"a"), (".txt", b"a")])
@pytest.mark.parametrize("blank", [b"\n", b"\r\n"])
def test_blank_lines_without_end_end_the_reading(tmp_path, monkeypatch, suffix, row, blank):
    for module in ("rows", "readers", "csv_rows"):
        monkeypatch.setattr(f"ayllu.data.{module}.MOST_BLANK", 1000)
    path = tmp_path / f"a{suffix}"
    by_line = suffix == ".txt"
    path.write_bytes(b"text\n" * (suffix == ".csv") + row + b"\n" + blank * 300 + row + b"\n" + blank * 5000 + row)
    *good, bad = records(path, (), "a", by_line=by_line)
    assert len(good) == 2
    assert isinstance(bad, Reject)
    assert "1,000 and more blank characters, one line after another: the rest isn't read" in bad.reason
    path.write_bytes(blank * 5000 + row)
    bad, = records(path, (), "a", by_line=by_line)
    assert "blank characters" in bad.reason


@pytest.mark.parametrize("packing", [".gz", ".xz", ".zst"])
def test_a_cut_file_gives_its_start_and_one_reject(tmp_path, packing):
    lines = b"".join(json.dumps({"text": f"{i} {i * i} {i ** 3 % 1013}"}).encode() + b"\n" for i in range(20_000))
    path = tmp_path / f"rows.jsonl{packing}"
    path.write_bytes(PACKINGS[packing](lines)[:-30])
    texts, rejects = read(path)
    assert 10_000 < len(texts) < 20_000 + 1
    assert [r.reason.startswith("the file is damaged or cut short") for r in rejects] == [True]
    assert rejects[0].line == len(texts) + 1


def test_every_frame_of_a_zstd_file_is_read(tmp_path):
    """Tools that append to .zst files write a new frame each time; zstandard's own reader stops after the first."""
    path = tmp_path / "rows.jsonl.zst"
    path.write_bytes(b"".join(PACKINGS[".zst"](as_jsonl()) for _ in range(3)))
    assert read(path) == (TEXTS * 3, [])
    with open_binary(path) as stream:
        assert stream.read() == as_jsonl() * 3


def test_line_formats_are_streamed(tmp_path):
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(as_jsonl()) + b"damage after the first member")
    stream = records(path, ("text",), "x")
    assert next(stream) == Record("x", 1, as_jsonl().splitlines(keepends=True)[0])


PAGE = """<html><head><title>T</title><style>p {}</style></head><body><nav>menu</nav>
<main><h1>Head&amp;line</h1><p>One <em>two</em>
three.<br>four</p><ul><li>a<li>b</ul><pre>x = 1
  y = 2</pre><script>alert(1)</script></main><footer>foot</footer></body></html>"""


def test_html_main_text():
    assert html_text(PAGE) == "Head&line\nOne two three.\nfour\na\nb\nx = 1\n  y = 2"
    assert html_text("<body><header>no</header>" + "<div>" * 20_000 + "deep") == "deep"
    assert html_text("") == ""
    table = ("<table><tr><th>Port<th>Price<tr><td>Orla<td><p>14</p><p>euros</p><tr><td colspan=2>none</table>"
             "<table><tr><td>a<td><table><tr><td>b<td>c</table></table>")
    assert html_text(table, rows=True) == "Port | Price\nPort: Orla | Price: 14 euros\nnone\na | b c"
    assert html_text("<table><tr><td>" * 20_000 + "deep", rows=True) == "deep"
    assert html_text("<article>one</article><article>two</article>") == "one\ntwo"


def test_html_charsets(tmp_path):
    for name, charset in (("a.html", "gb2312"), ("b.html", "iso-8859-1")):
        word = "中文" if charset == "gb2312" else "café"
        (tmp_path / name).write_bytes(f'<meta charset="{charset}"><p>{word}</p>'.encode(charset))
        assert read(tmp_path / name) == ([word], [])
    (tmp_path / "c.html").write_bytes("<p>café</p>".encode("latin-1"))
    assert "not UTF-8 at byte 6" in read(tmp_path / "c.html")[1][0].reason
