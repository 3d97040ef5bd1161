"""Instructions whose keeping a program can check, in the manner of IFEval (Zhou et al. 2023, arXiv:2311.07911).

A rule is a table with its `kind`: {"kind": "words", "most": 50}. All are held to the letter (IFEval's "strict").
"""

import json
import re
from collections.abc import Sequence
from typing import Any

from ayllu.data.units import is_chinese, units
from ayllu.errors import DataError

_SENTENCE = re.compile(r"[^.!?。！？]*[^\s.!?。！？][^.!?。！？]*[.!?。！？]+")
_BULLET = re.compile(r"^\s*(?:[-*•]|\d+[.、)])\s+\S", re.MULTILINE)
_FENCE = re.compile(r"\A```(?:json)?\s*(.*?)\s*```\Z", re.DOTALL)


def keeps(rule: dict[str, Any], answer: str, prompt: str = "") -> bool:
    """Whether an answer keeps a rule. An empty answer keeps none."""
    answer = answer.strip()
    rest = {key: value for key, value in rule.items() if key != "kind"}
    try:
        return bool(answer) and _check(rule["kind"], answer, prompt, **rest)
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"the rule {rule!r} can't be checked ({type(error).__name__}: {error}): docs/evaluation.md "
                        "names the rules and their keys") from error


def _check(kind: str, answer: str, prompt: str, **keys: Any) -> bool:
    match kind:
        case "words":                                    # Chinese: characters
            return _within(len(units(answer)), **keys)
        case "sentences":
            return _within(len(_SENTENCE.findall(answer)), **keys)
        case "paragraphs":
            return _within(len([p for p in re.split(r"\n\s*\n", answer) if p.strip()]), **keys)
        case "lines":
            return _within(len([line for line in answer.splitlines() if line.strip()]), **keys)
        case "bullets":
            return _within(len(_BULLET.findall(answer)), **keys)
        case "include":
            return all(word.lower() in answer.lower() for word in _words(**keys))
        case "exclude":
            return not any(word.lower() in answer.lower() for word in _words(**keys))
        case "times":
            return _times(answer, **keys)
        case "starts":
            return answer.startswith(keys["text"])
        case "ends":
            return answer.endswith(keys["text"])
        case "language":
            return _language(answer, keys["is"])
        case "json":
            return _is_json(answer, **keys)
        case "upper":
            return answer == answer.upper() != answer.lower()
        case "lower":
            return answer == answer.lower() != answer.upper()
        case "no_commas":
            return not set(",，") & set(answer)
        case "one_of":
            return answer.rstrip(".。!！") in keys["texts"]
        case "quoted":
            return len(answer) > 2 and (answer[0], answer[-1]) in {('"', '"'), ("“", "”"), ("「", "」")}
        case "repeats_prompt":
            return answer.startswith(prompt.strip())
    raise DataError(f"no rule {kind!r}: docs/evaluation.md names them")


def _within(n: int, least: int = 0, most: int | None = None) -> bool:
    return least <= n and (most is None or n <= most)


def _words(words: Sequence[str]) -> Sequence[str]:
    return [words] if isinstance(words, str) else words


def _times(answer: str, text: str, least: int = 0, most: int | None = None) -> bool:
    return _within(answer.lower().count(text.lower()), least, most)


def _language(answer: str, wanted: str) -> bool:
    if wanted not in ("en", "zh"):
        raise DataError(f"the rule 'language' knows en and zh, found {wanted!r}")
    return any(map(str.isalpha, answer)) and is_chinese(answer) == (wanted == "zh")


def _is_json(answer: str, keys: Sequence[str] = ()) -> bool:
    """JSON, also in a fence; with `keys`, an object that has them."""
    fenced = _FENCE.match(answer)
    try:
        value = json.loads(fenced[1] if fenced else answer)
    except (ValueError, RecursionError):
        return False
    return not keys or (isinstance(value, dict) and set(keys) <= set(value))
