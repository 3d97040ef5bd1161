"""What the page says in Chinese of an error is matched by the English sentence: so each sentence is looked up here in
the Python files, where it may have been changed, and those that people meet in the page must all be known to it."""

import ast
import json
import re
from pathlib import Path

import pytest

import ayllu

TOP = Path(ayllu.__file__).parent
TABLE = (TOP / "server/ui/js/faults.zh.js").read_text(encoding="utf-8")
FAULTS = {json.loads(english): json.loads(chinese) for english, chinese in re.findall(
    r'^  ("(?:[^"\\]|\\.)+"): ("(?:[^"\\]|\\.)+"),$', TABLE.partition("export const CODES")[0], re.MULTILINE)}
FORMS = {english: re.compile("(.*)".join(map(re.escape, english.split("{}"))), re.DOTALL) for english in FAULTS}
MET = ["apps/documents", "apps/docqa/ask.py", "apps/hearing.py", "apps/speaker.py", "apps/translate/document.py",
       "apps/translate/docx.py", "apps/translate/files.py", "apps/translate/formats.py", "apps/translate/languages.py",
       "apps/translate/po.py", "apps/write/batch.py", "apps/write/brief.py", "apps/write/compose.py",
       "apps/write/drafts.py",
       "apps/write/revise.py", "apps/analyse/posts.py", "apps/analyse/config.py",
       "apps/index/pool.py", "apps/index/prepare.py", "errors.py", "server/analyse.py", "server/bridge.py",
       "server/catalogue.py", "server/documents.py", "server/filestore.py", "server/pace.py", "server/speaker.py",
       "server/uploads.py", "server/work.py"]
UNMET = {"way 'write' needs a model: give a speaker, or way 'extract'",          # the page asks for nothing of the kind
         "{} hears nothing: give it senses with an ear (--senses FOLDER)",
         "{} holds something else than texts of briefs: name another file with --out",
         "{} holds texts of other briefs (line {}: {}): name another file with --out, or move it away",
         "the form has no file in its field `file`: curl -F file=@report.pdf",
         "the file has no name: POST /v1/files?name=report.pdf", "{} Or name the language: --from en"}


def said(node):
    """A text with {} for what is filled in; None where it isn't written there."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr():
            return "".join(said(part) or "{}" for part in node.values)
        case ast.BinOp(op=ast.Add()):
            return (said(node.left) or "{}") + (said(node.right) or "{}")
    return None


def texts(path):
    return [said(node) for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]


def raised(path):
    """The sentences of errors: the first argument that is a sentence."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        name = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
        if name in {"Fault", "ValueError", "BadMedia", "ContextTooLong", "Unreadable", "NotFound"} or name.endswith(
                ("Error", "Extra", "Failed")):
            yield from [text for text in map(said, node.args) if text and " " in text][:1]


@pytest.mark.parametrize("place", MET)
def test_what_people_meet_has_its_chinese(place):
    files = sorted((TOP / place).rglob("*.py")) if (TOP / place).is_dir() else [TOP / place]
    sentences = {text for file in files for text in raised(file)}
    assert sentences
    assert {text for text in sentences - UNMET if not any(form.fullmatch(text) for form in FORMS.values())} == set()


def test_each_english_sentence_is_one_that_is_said():
    known = {text for file in TOP.rglob("*.py") for text in texts(file) if text}
    assert [english for english, form in FORMS.items() if not any(map(form.fullmatch, known))] == []
    assert len(FAULTS) > 90


def test_the_chinese_fills_in_what_the_english_has():
    for english, chinese in FAULTS.items():
        assert re.search("[\u4e00-\u9fff]", chinese), chinese
        assert {int(n) for n in re.findall(r"\{(\d)\}", chinese)} <= set(range(1, english.count("{}") + 1)), chinese
