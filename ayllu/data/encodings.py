"""Which encoding a text is in: a byte order mark, UTF-8, UTF-16 without a mark, or GB 18030; anything else is refused.

GB 18030 holds GBK and GB 2312, the usual encodings of Chinese files that are not UTF-8. Hardly any bytes are invalid
in it, so it is believed only where most characters are of GB 2312's first level (3,755 common ones) or its signs:
Latin-1, Big5, Shift JIS and damaged UTF-8 read as GB 18030 give mostly rare characters. They stay rejects.
"""

import codecs
import re

from ayllu.data.rows import BadRow

SAMPLE = 2**20                                           # bytes of a text that decide
_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
          (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_COMMON = 0.55                                           # share of common characters from which GB 18030 is believed
_CHARSET = re.compile(rb"charset\s*=\s*[\"']?\s*([\w-]{2,40})", re.IGNORECASE)
_CHARSETS = re.compile(r"gb|big5|euc|shift|iso-8859|windows|koi8|cp\d|us-ascii")   # which pages may name
_WIDER = {"gb2312": "gb18030", "gbk": "gb18030", "big5": "big5hkscs", "shift_jis": "cp932", "euc-kr": "cp949",
          "iso-8859-1": "cp1252", "us-ascii": "cp1252"}  # names are often used for the larger sets, as browsers know
_KANA, _HANGUL = re.compile("[\u3041-\u30fc]"), re.compile("[\uac00-\ud7a3]")
_EAST = (("cp932", _KANA, 0.2), ("euc_jp", _KANA, 0.2), ("cp949", _HANGUL, 0.8))   # least share past ASCII
MOST_BAD = 0.01                                          # of a text's characters that may be bytes of another encoding
MIXED = "UTF-8, and the file begins in GB 18030: save all of it as UTF-8"
BROKEN = "broken-bytes"                                  # an error handler: half a surrogate pair for each bad byte


def guess(data: bytes, is_whole: bool = True) -> str:
    """The name of the codec; "utf-8" also where nothing fits. A sample that is not whole may end inside a character."""
    for mark, name in _MARKS:
        if data.startswith(mark):
            return name
    is_utf_8 = _is_valid(data, "utf-8", is_whole)
    if b"\0" in data[:SAMPLE] and (wide := _utf_16(data[:SAMPLE], 0.2 if is_utf_8 else 0.005)):
        return wide
    return "gb18030" if not is_utf_8 and _is_gb(data) and not japanese_or_korean(data) else "utf-8"


def japanese_or_korean(data: bytes) -> str | None:
    """The codec of a text that is no UTF-8 and holds kana or Hangul, which Chinese has not."""
    for name, letters, least in _EAST:
        other = [c for c in data[:SAMPLE].decode(name, "replace") if c > "\x7f"]
        if sum(map(bool, map(letters.match, other))) > least * len(other):
            return name
    return None


def guess_page(data: bytes) -> str:
    """As `guess`, for HTML: what isn't UTF-8 is in the charset that the page names in its first 2,048 bytes."""
    found, named = guess(data), _CHARSET.search(data[:2048])
    if found not in {"utf-8", "gb18030"} or not named or _is_valid(data, "utf-8", is_whole=True):
        return found
    charset = named[1].decode("ascii", "replace").lower()
    return _WIDER.get(charset, charset) if _CHARSETS.match(charset) and is_text_encoding(charset) else found


def is_text_encoding(name: str) -> bool:
    """Whether Python can decode text by this name."""
    try:
        b"".decode(name)
    except LookupError:
        return False
    return True


def decode(data: bytes, encoding: str, said: str = "") -> str:
    """The text, without a byte order mark, or BadRow; `said` is what stands in its reason instead of `encoding`."""
    try:
        return data.decode(encoding)
    except UnicodeError as error:
        name = (said or encoding).removesuffix("-sig").upper()
        place = f" at byte {error.start}" if isinstance(error, UnicodeDecodeError) else ""
        raise BadRow(f"not {name}{place}: save it as UTF-8 (or, of ayllu pretrain, data.prepare.encoding)") from error


def is_hidden_utf_8(row: str) -> bool:
    """Whether a row that was read as GB 18030 is UTF-8 in truth: three of its characters hardly come by chance."""
    try:
        return not row.isascii() and sum(c > "\u07ff" for c in row.encode("gb18030").decode("utf-8")) > 2
    except UnicodeError:
        return False


def _is_valid(data: bytes, encoding: str, is_whole: bool) -> bool:
    try:
        codecs.getincrementaldecoder(encoding)().decode(data, final=is_whole)
    except UnicodeDecodeError:
        return False
    return True


def _utf_16(data: bytes, least: float) -> str | None:
    """UTF-16 without a mark: the high bytes of line feeds, spaces and Latin letters are zero, low bytes seldom are.

    `least` is their share of all bytes: Chinese text has few, text that would be valid UTF-8 with them must have many.
    """
    low, high = data[::2].count(0), data[1::2].count(0)
    for zeros, others, name in ((high, low, "utf-16-le"), (low, high, "utf-16-be")):
        if zeros > max(4 * others, least * len(data), 7):
            return name
    return None


def _is_gb(data: bytes) -> bool:
    """Whether most characters past ASCII are common ones in GB 18030; broken ones count against it."""
    pairs = [c.encode("gb18030", "replace") for c in data[:SAMPLE].decode("gb18030", "replace") if c > "\x7f"]
    common = sum(len(p) == 2 and p[1] >= 0xA1 and (0xB0 <= p[0] <= 0xD7 or 0xA1 <= p[0] <= 0xA3) for p in pairs)
    return common > 0 and common >= _COMMON * len(pairs)


def _mark_broken(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return "\udc80", error.end


codecs.register_error(BROKEN, _mark_broken)
