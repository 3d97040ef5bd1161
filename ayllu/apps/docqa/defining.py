"""Definitions: what "What is X?" asks for, and which sentences say what X is.

Such a question has one telling word, which any sentence that uses it covers whole: so what counts here is the form.
The forms were written down, not learned; `python benchmarks/retrieval.py --only answers refusals` measures them.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from ayllu.apps.index.words import cutter

_EN = re.compile(r"\s*what(?P<verb>['’]s| is| are| was| were) (?P<article>(?:an?|the) )?"
                 r"(?P<term>[^\s?]+(?: [^\s?]+){0,2})\s*\?*\s*", re.IGNORECASE)
_ZH = re.compile(r"(?:请问|請問)?(?:(?:[什甚][么麼]是|何[谓謂為为])(?P<asked>[^的]{1,12}?)"
                 r"|(?P<term>[^的]{1,12}?|[!-~][ -~]{0,60}?)(?:是[什甚][么麼](?:意思)?|是?指[什甚][么麼]))\s*[？?]?\s*")
# A property is asked for: "what is a stator attached to", "what is Ann's job"
_PROPERTY = re.compile(r"['’]s |\b(?:of|in|for|to|from|with|on|at|by|about|called|named|known|like|used|this|that|it)"
                       r"\b", re.IGNORECASE)
_PROPERTY_ZH = re.compile("(?:政策|規定|规定|价格|價格|费用?|費用?|时间|時間|地址|电话|電話|流程|方[式法]"
                          "|[条條]件|[标標]准|要求|原因|目的|[结結]果|[内內]容|名字?|[名简簡]称|名稱"
                          "|特[点點]|区别|區別|作用|意[义義]|[症病]?[状狀]|材料|字号|字號|[权權]|首都"
                          "|人口|位置|功能|用途|关系|關係|[职職][业業责責]|身份|[颜顏]色|步[骤驟]"
                          "|[优優缺]点|理由|答案|[规規][则則]|期限|[类類]型)$")
_QUOTED = "[《“「『\"'*`]{}[》”」』\"'*`]"
_QUOTES = " 《》“”「」『』\"'*_`"
_MARKS = r"[*_`\"“”『』「」《》]{0,4}"
_SHORT = r"(?:\s*[(（][^()（）]{0,80}[)）])?"            # "X (short) is"
# "is" and 是 only where no property follows: "X is slow", X是免费的
_VERB = (r"(?:(?:is|was)\s+(?:an?|the|one|any|what|when|where|how|short|another|part|simply|basically|[\w-]+\s+(?:that|"
         r"which|of|for|in|to))\b|(?:are|were)\s+(?!not\b|\w+(?:ed|ing|er|ly)\b)|(?:means?|meant|stands?\s+for|refers?\s+"
         r"to|denotes?|describes?|consists?\s+of)\b|[又也亦或俗简簡]?[称稱叫]|(?:就?是|意思是?)(?!不|否|[^。，；]{0,12}的(?:"
         r"[。，；]|$))|[指即為为])")
_NAMED = (r"(?:(?:called|termed|named|known\s+as|referred\s+to\s+as|so-called)\s+(?:an?\s+|the\s+)?"
          r"|所谓的?|所謂的?|[称稱叫](?:之?[为為作做])?|(?:就是|即)(?=\S+[。，；]))\s*")
_GLOSS = r"\s*(?:\((?!see\b|cf\b|e\.g|https?:)\w[^()]*[ ,][^()]*\)|（[^（）]*[\u4e00-\u9fff]{2}[^（）]*）)"
_BESIDE = (r"\s*[,，、—–]\s*(?:or\s|also\s|i\.e\.|that\s+is\b|which\s+(?:is|are)\b|an?\s[\w-]+(?:\s[\w-]+){0,3}\s(?:"
           r"that|which|of|for|in|to|with)\s|[又也亦或俗简簡]?[称稱叫指])")


@dataclass(frozen=True)
class Term:
    """X of "what is X?"; and whether only a definition answers, which isn't so of "the capital" or 退货政策是什么."""

    text: str = ""
    needs_definition: bool = False
    begins: re.Pattern[str] = field(default=re.compile(r"(?!)"), compare=False, repr=False)
    within: re.Pattern[str] = field(default=re.compile(r"(?!)"), compare=False, repr=False)

    def used_in(self, texts: Iterable[str]) -> "Term":
        """Several Chinese words are a term where the texts show them as one: in quotes, in bold or as a heading."""
        if not self.text or self.text.isascii() or _PROPERTY_ZH.search(self.text):
            return self
        one = re.compile(rf"{_QUOTED.format(re.escape(self.text))}|^#+ *{re.escape(self.text)}\s*$", re.MULTILINE)
        return replace(self, needs_definition=self.needs_definition or any(map(one.search, texts)))

    def defined(self, sentence: str, heading: str = "") -> float:
        """How well a sentence says what the term is: 1 where it begins so, a half where it says so elsewhere or is the
        first under the term as a heading, else 0."""
        if self.begins.match(sentence):
            return 1.0
        is_under = bool(self.text) and heading.strip(_QUOTES + "#:：").casefold() == self.text.casefold()
        return 0.5 if (is_under and not sentence.startswith("|")) or self.within.search(sentence) else 0.0


def term_of(question: str) -> Term:
    """The term of a question that is as short as "what is X?"; else an empty one."""
    if found := _EN.fullmatch(question):
        is_property = (found["article"] or "").lower() == "the " or found["verb"].lower() in (" was", " were")
        return _term(found["term"], not is_property and not _PROPERTY.search(found["term"]))
    if found := _ZH.fullmatch(question):
        bare = (found["asked"] or found["term"]).strip(_QUOTES)
        is_quoted = re.fullmatch(_QUOTED.format("[^》”」』]+"), found["term"] or "")
        is_word = not _PROPERTY_ZH.search(bare) and len(list(cutter().cut(re.sub("[ -~]+", "", bare)))) < 2
        return _term(bare, bool(found["asked"] or is_quoted or is_word))
    return Term()


def _term(text: str, needs_definition: bool) -> Term:
    text = text.strip(_QUOTES)
    name = re.escape(text)
    if text.isascii():
        name = rf"(?<![A-Za-z0-9_])(?:{name}|{re.escape(text.removesuffix('s'))}(?:e?s)?)(?![A-Za-z0-9_])"
    name = f"{_MARKS}{name}{_MARKS}"
    article = r"(?:(?:an?|the|each|every) |[一每][个個种種份项項张張])?"
    forms = [rf"[,，、:：;；.。]\s*{article}{name}{_SHORT}\s*[,，]?\s*{_VERB}", _NAMED + name, name + _GLOSS,
             name + _BESIDE, rf"\[{name},\s(?:an?|the)\s[^\]\n]+\]",        # a link's words
             name + r"\s*等\s*[\u4e00-\u9fff]"]      # "X等方法" says that X is a method
    if len(initials := re.sub("[^A-Z]", "", text)) > 1:  # "Byte Pair Encoding (BPE)"
        forms.append(r"\b" + r"\w*[ -]+".join(initials) + rf"\w*\s*[(（]{name}[)）]")
    return Term(text, needs_definition, re.compile(
        rf"[\W_]*{article}{name}{_SHORT}{_MARKS}\s*(?:[|:：—–]|[.,，]?\s*{_VERB})", re.IGNORECASE),
        re.compile("|".join(forms), re.IGNORECASE))
