"""Personal data in texts, by regular expressions and check digits: precise about form, blind to meaning.

A kind with a check digit (cards, IBAN, resident ids) is reported only where the digit is right, so that a random number
of that length is seldom taken for one (about 1 in 10 for Luhn, 1 in 97 for IBAN, 1 in 11 for a resident id). Names,
addresses and dates have no form that an expression could know: they are not found here.
"""

import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from ayllu.privacy.phones import AFTER, BEFORE, FORMS, LOOSE, LOOSE_AFTER, has_cue, is_phone
from ayllu.privacy.starts import Starts

Kind = Literal["url_credentials", "secret", "email", "iban", "credit_card", "resident_id", "us_ssn", "ipv6", "ipv4",
               "phone"]
How = Literal["mask", "remove"]


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """Personal data at text[start:end]."""

    start: int
    end: int
    kind: Kind


def find(text: str, kinds: Iterable[Kind] | None = None) -> list[Span]:
    """Spans of personal data, in order, never overlapping; where two kinds overlap, the earlier row of RULES wins.

    `kinds` limits the search; None means all of them. Full-width digits and signs count as the narrow ones.
    """
    wanted = None if kinds is None else set(kinds)
    if "（0" in text or any(digit in text for digit in _WIDE_DIGITS):
        text = text.translate(_NARROW)
    starts = Starts(text)
    taken: list[Span] = []
    marks = bytearray(len(text))                         # 1 where a character belongs to a span
    for rule in RULES:
        if wanted is not None and rule.kind not in wanted:
            continue
        place = 0
        for begin in rule.starts(starts):
            if begin < place or not (match := rule.pattern.match(text, begin)):
                continue
            start, end = match.span("it")
            place = end
            if any(marks[start:end]):
                continue
            if rule.check(match["it"]) and (rule.cue is None or rule.cue(text, start, end)):
                marks[start:end] = b"\1" * (end - start)
                taken.append(Span(start, end, rule.kind))
            else:
                place = start + 1                        # a wrong beginning must not hide what stands behind it
    return sorted(taken)


def redact(text: str, how: How = "mask", kinds: Iterable[Kind] | None = None) -> tuple[str, Counter[str]]:
    """The text without its personal data, and how many of each kind there were. Doing it twice changes nothing more.

    "mask" puts the kind's name in its place, as in [EMAIL]; "remove" leaves nothing. What is taken out may have been
    all that kept its neighbours from having a form, so the search is repeated until nothing is found.
    """
    wanted = None if kinds is None else tuple(kinds)
    counts: Counter[str] = Counter()
    while spans := find(text, wanted):
        parts, last = [], 0
        for span in spans:
            parts += [text[last:span.start], f"[{span.kind.upper()}]" if how == "mask" else ""]
            last = span.end
            counts[span.kind] += 1
        text = "".join([*parts, text[last:]])
    return text, counts


def luhn(number: str) -> bool:
    """The check digit of payment cards (ISO/IEC 7812-1, annex B); other characters than digits are passed over."""
    digits = [int(c) for c in number if c in "0123456789"]
    doubled = [sum(divmod(2 * d, 10)) for d in digits[-2::-2]]
    return (sum(digits[::-2]) + sum(doubled)) % 10 == 0


def iban_is_valid(text: str) -> bool:
    """ISO 13616: the country's length, and 1 as the remainder by 97 after letters became numbers (ISO 7064)."""
    packed = re.sub(r"[ -]", "", text).upper()
    if IBAN_LENGTHS.get(packed[:2]) != len(packed):
        return False
    return int("".join(str(int(c, 36)) for c in packed[4:] + packed[:4])) % 97 == 1


def resident_id_is_valid(text: str) -> bool:
    """A Chinese resident id of 18 characters: a date that can be, and the check character of GB 11643-1999."""
    text = text.replace(" ", "")
    month, day = int(text[10:12]), int(text[12:14])
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return False
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
    total = sum(w * int(c) for w, c in zip(weights, text[:17], strict=True))
    return "10X98765432"[total % 11] == text[17].upper()


def _card_is_valid(text: str) -> bool:
    """12 to 19 digits that begin as the schemes' numbers do, with a right check digit."""
    digits = re.sub(r"\D", "", text)
    return (digits[0] in "23456" or digits.startswith("1800")) and len(set(digits)) > 1 and luhn(digits)


def _ssn_is_valid(text: str) -> bool:
    """Areas that were never given out: 000, 666 and 900-999; no group 00, no serial 0000."""
    area, group, serial = text[:3], text[4:6], text[7:]
    return area not in {"000", "666"} and area[0] != "9" and group != "00" and serial != "0000"


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_ipv6(text: str) -> bool:
    """At least three groups or letters' worth of form: `::` and `1::2` are code more often than addresses."""
    return _is_ip(text) and len(re.findall(r"[0-9a-fA-F]+", text)) >= 3


def _secret_is_likely(text: str) -> bool:
    """Letters and digits mixed: a word or a place-holder such as `your_api_key_here` is none."""
    return bool(re.search(r"\d", text) and re.search(r"[A-Za-z]", text)) and len(set(text)) >= 8


# Length of an IBAN: the countries that have it (SWIFT's registry).
_COUNTRIES = {
    15: "NO",
    16: "BE",
    18: "DK FI FO GL NL",
    19: "MK SI",
    20: "AT BA EE KZ LT LU XK",
    21: "CH HR LI LV",
    22: "BG BH CR DE GB GE IE ME RS VA",
    23: "AE GI IL IQ TL",
    24: "AD CZ ES MD PK RO SA SE SK TN VG",
    25: "LY PT ST",
    26: "IS TR",
    27: "FR GR IT MC MR SM",
    28: "AL AZ BY CY DO GT HU LB PL SV",
    29: "BR EG PS QA UA",
    30: "JO KW MU",
    31: "MT SC",
    32: "LC",
}
IBAN_LENGTHS = {country: length for length, countries in _COUNTRIES.items() for country in countries.split()}

_SECRETS = r"""
      sk-[A-Za-z0-9_-]{20,} | (?:sk|pk|rk)_(?:live|test)_[A-Za-z0-9]{16,}       # OpenAI, Anthropic; Stripe
    | gh[pousr]_[A-Za-z0-9]{36,} | github_pat_[A-Za-z0-9_]{40,} | glpat-[A-Za-z0-9_-]{20,}
    | (?:AKIA|ASIA)[A-Z0-9]{16} | AIza[A-Za-z0-9_-]{35} | hf_[A-Za-z0-9]{30,} | xox[abeoprs]-[A-Za-z0-9-]{20,}
    | eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}          # a JSON Web Token
"""
_NAME_OF_SECRET = r"""
    (?i:api[_-]?key|secret(?:[_-]?key)?|access[_-]?token|auth[_-]?token|passwd|password|pwd)["']?\s{0,3}[:=]\s{0,3}["']?
"""


def _compile(pattern: str, before: str = r"(?<![\w.])", after: str = r"(?![\w])") -> re.Pattern[str]:
    return re.compile(rf"{before}(?P<it>{pattern}){after}", re.VERBOSE | re.ASCII)


class Rule(NamedTuple):
    """One form of one kind: what it looks like, where it can begin, and what its characters and neighbours must be."""

    kind: Kind
    pattern: re.Pattern[str]
    starts: Callable[[Starts], Iterable[int]]
    check: Callable[[str], bool] = lambda text: True
    cue: Callable[[str, int, int], bool] | None = None   # (text, start, end)


# In order of precedence: where two overlap, the first one is reported. `\w` is ASCII here, since Chinese text stands
# beside a number without a space.
RULES = (
    Rule("url_credentials", _compile(r"(?<=://)[^\s/:@]{1,80}:[^\s/@]{1,200}(?=@)", before="", after=""),
         Starts.credentials),
    Rule("secret", _compile(_SECRETS, before=r"(?<!\w)"), Starts.token),
    Rule("secret", re.compile(rf"{_NAME_OF_SECRET}(?P<it>[A-Za-z0-9_./+=-]{{12,200}})", re.VERBOSE | re.ASCII),
         Starts.named, _secret_is_likely),
    Rule("email", _compile(r"[A-Z0-9._%+'-]{1,64}@(?:[A-Z0-9](?:[A-Z0-9-]{0,61}[A-Z0-9])?\.)+[A-Z]{2,24}".replace(
        "A-Z", "A-Za-z"), before=r"(?<![\w.%+-])"), Starts.email),
    Rule("iban", _compile(r"[A-Za-z]{2}\d{2}(?:[ -]?[A-Za-z0-9]{4}){2,7}(?:[ -]?[A-Za-z0-9]{1,3})?"),
         Starts.iban, iban_is_valid),
    Rule("resident_id", _compile(r"[1-9]\d{5}[ ]?(?:18|19|20)\d{2}[01]\d[0-3]\d[ ]?\d{3}[\dXx]"),
         lambda starts: starts.digits(6), resident_id_is_valid),
    Rule("resident_id", _compile(r"[1-9]\d{7}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\d{3}",     # of before 1999
                                 before=r"(?<=身份证)(?:号码?)?[是为:：\s]{0,3}"), Starts.resident),
    Rule("credit_card", _compile(r"\d{12,19} | \d{4}([ -])\d{4}\2\d{4}\2\d{1,7} | \d{4}[ -]\d{6}[ -]\d{4,5}",
                                 before=r"(?<![\w.+-])", after=r"(?![\w-]|\.\d)"),
         Starts.card, _card_is_valid),
    Rule("us_ssn", _compile(r"\d{3}-\d{2}-\d{4}", before=r"(?<![\w.-])", after=r"(?![\w-])"),
         lambda starts: starts.digits(3, 3), _ssn_is_valid),
    Rule("ipv6", _compile(r"(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}", before=r"(?<![\w:.])", after=r"(?![\w:])"),
         Starts.ipv6, _is_ipv6),
    Rule("ipv4", _compile(r"(?:\d{1,3}\.){3}\d{1,3}", after=r"(?!\w|\.\d)"),
         lambda starts: starts.digits(1, 3), _is_ip),
    Rule("phone", _compile(LOOSE, before=BEFORE, after=LOOSE_AFTER), Starts.phone, is_phone, has_cue),
    Rule("phone", _compile(FORMS, before=BEFORE, after=AFTER), Starts.phone, is_phone),
)
_NARROW = str.maketrans("０１２３４５６７８９（）＋－", "0123456789()+-")
_WIDE_DIGITS = "０１２３４５６７８９"                     # an area code in wide brackets begins with （0
