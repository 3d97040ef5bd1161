"""Phone numbers: some have a form that hardly anything else has, the others need a word beside them that says so.

`699 956 915` may be a number in Spain, an amount or a part number: no table of national formats tells which. So plain
forms of some countries stand in FORMS, and anything else of 7 to 15 digits counts only after "call me on" or "电话：",
or before "office" at a line's end.
"""

import re

_EXTENSION = r"(?:[ ]?(?i:x|ext\.?|extension|转|分机)[ ]?\d{1,6})?"
_ABROAD = r"\+\d{1,3}(?:[ ]?\(0\))?(?:[ .-]?(?:\(\d{1,4}\)|\d{1,4})){2,6}"
FORMS = rf"""(?:
      {_ABROAD} | 00[1-9]\d{{0,2}}(?:[ .-]\d{{1,4}}){{2,6}}                     # +CC or 00CC with groups
    | (?:86[ -]?)?1[3-9]\d[ -]?\d{{4}}[ -]?\d{{4}}                              # China: mobile, landline, service
    | (?:\(0\d{{2,3}}\)[ ]?|0\d{{2,3}}[ -])\d{{3,4}}[ -]?\d{{4}} | [48]00[ -]\d{{3}}[ -]?\d{{4}}
    | (?:1[ .-])?(?:\([2-9]\d{{2}}\)[ ]?|[2-9]\d{{2}}[ .-])[2-9]\d{{2}}[ .-]\d{{4}}                 # North America
    | 0\d(?:(?:[ ]\d\d){{4}}|(?:\.\d\d){{4}}|(?:-\d\d){{4}})                    # France
    | \(0\d{{1,4}}\)[ ]?\d{{2,4}}(?:[ -]\d{{2,4}}){{1,2}} | \(\d{{2}}\)[ ]?9?\d{{4}}-\d{{4}}        # Australia; Brazil
    | 0\d{{2,4}}(?:[ -]\d{{2,4}}){{2,3}}                                        # a 0 dialled inside a country
    ){_EXTENSION}"""
LOOSE = rf"\+?\(?\d{{1,5}}\)?(?:[ ./-]?\(?\d{{1,5}}\)?){{1,5}}{_EXTENSION}"
BEFORE = r"(?<![\w.+$€£¥#/-])"
AFTER = r"(?!\w|[.,:/]\d|[ ]?%|-(?!(?i:office|fax|mobile|cell|home|work|desk|tel|phone)\b))"
LOOSE_AFTER = AFTER + r"(?![ ]?=|[ ]\d)"

_CUES = r"""(?:(?<![\w\[])(?:tel|(?:tele|cell|mobile[ ])?phone[sd]?|mobile|mob|cell|fax|desk|landline|hotline
    |helpline|pager|whatsapp|viber|sms|messages?|call(?:s|ed|ing)?|dial(?:l?ed|l?ing)?|ring|rang|reach|answering|contact
    |text(?:ed|ing)?[ ](?:me|us|him|her|them))
    |电话|手机|座机|固话|传真|热线|致电|拨打|来电|短信|联系方式|联系)"""
_GAP = r"""(?:[:：][ \t]*\n+|[ \t\u3000.:：;,，*=\\|-]
    |\b(?:me|us|him|her|them|my|our|your|his|their|the|this|at|on|to|is|was|number|no|nr|num|registered|office|home|work
    |direct|line|now|back|free|or|via|by|from|under|with)\b|号码|号|是|为|请|[（(](?![)）]))*"""
_CUE_BEFORE = re.compile(rf"{_CUES}{_GAP}\Z", re.VERBOSE | re.IGNORECASE)
_CUE_AFTER = re.compile(r"[ \\,(|-]{0,3}(?:office|fax|mobile|cell|home|work|desk|tel|phone)\b"
                        r"(?=[ \t]*(?:$|[\n,;:)\\|]))", re.IGNORECASE)
_REACH = 60                                              # characters before a number in which its word may stand
_DATE = re.compile(r"""(?:1[5-9]|20)\d\d[ ./-]?(?:0?[1-9]|1[0-2])[ ./-]?(?:0?[1-9]|[12]\d|3[01])(?!\d).*
    | (?:0?[1-9]|[12]\d|3[01])[ ./-](?:0?[1-9]|[12]\d|3[01])[ ./-](?:1[5-9]|20)\d\d
    | (?:\(\d+\)[ ])?(?:1[5-9]|20)\d\d[ -](?:1[5-9]|20)\d\d""", re.VERBOSE)


def is_phone(text: str) -> bool:
    """7 to 15 digits before an extension, of more than two kinds, which are no date and no social security number."""
    main = re.split(r"(?i)x|ext|转|分机", text, maxsplit=1)[0]
    digits = re.sub(r"\D", "", main)
    return (7 <= len(digits) <= 15 and len(set(digits)) > 2 and not _DATE.fullmatch(main.strip())
            and not re.fullmatch(r"\d{3}-\d{2}-\d{4}", main))


def has_cue(text: str, start: int, end: int) -> bool:
    """Whether a word beside text[start:end] says that this is a phone number."""
    return bool(_CUE_BEFORE.search(text, max(0, start - _REACH), start) or _CUE_AFTER.match(text, end))
