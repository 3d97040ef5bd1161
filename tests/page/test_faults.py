"""What goes wrong is said in the reader's language, with the server's own words below."""

import pytest
from apps.test_documents import pdf
from page.acting import refuse, say
from page.test_access import FAULTS
from playwright.sync_api import expect
from server.live import serving

from ayllu.server.workspace import Workspace


@pytest.fixture(scope="module")
def desk(chat_checkpoint, tmp_path_factory):
    with serving(chat_checkpoint, workspace=Workspace(tmp_path_factory.mktemp("faults"))) as live:
        yield live


@pytest.fixture
def chinese(opened, desk):
    return lambda room, width=1200: opened(f"{desk.url}/#/{room}", waits=False, locale="zh-CN", width=width)


@pytest.mark.parametrize("width", [390, 1200])
def test_documents_that_are_left_out(chinese, tmp_path, width):
    page = chinese("ask", width)
    page.get_by_label("文档集的名称").fill(f"商店{width}")
    page.get_by_role("button", name="新建").click()
    expect(page.locator(".ask-side select option:checked")).to_have_text(f"商店{width}")    # no earlier collection's
    (tmp_path / "locked.pdf").write_bytes(pdf([["Shoes"]], password="secret"))
    (tmp_path / "wide.csv").write_text("item,days\nshoes," + "x" * 40_000, encoding="utf-8")
    (tmp_path / "broken.docx").write_bytes(b"no document")
    (tmp_path / "long.html").write_bytes(b"<p>" + b"word " * 6_800_000)
    page.locator("input[type=file]").set_input_files(sorted(tmp_path.iterdir()))
    expect(page.locator(".uploads li:not([role])")).to_have_count(4)
    page.get_by_role("button", name="读入文档集").click()
    expect(page.locator(".documents .entry")).to_contain_text("1 个单元格在 32,767 个字符之后截断")
    page.locator(".left-out summary").click()
    notes = dict(zip(*(page.locator(f".left-out .{part}").all_inner_texts() for part in ("name", "note")), strict=True))
    assert notes["locked.pdf"] == "有密码保护：请去掉密码再保存。\nis encrypted with a password: save it without one"
    assert notes["broken.docx"].startswith("已损坏，或不是 DOCX：请用原来的程序重新保存。\nis damaged, or no DOCX (")
    assert notes["long.html"].startswith("网页有 34,000,003 字节，最多 33,554,432：")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate(FAULTS) == []
    page.route("**/v1/ask", lambda route: route.abort())
    page.get_by_label("你的问题").fill("鞋子可以退吗？")
    page.get_by_label("你的问题").press("Enter")
    expect(page.locator(".found .wrong")).to_contain_text("无法连接服务器。")


def test_a_job_that_fails(chinese, tmp_path):
    page = chinese("analyse")
    (tmp_path / "posts.csv").write_text("when,who\n2026,anna\n2026,ben\n", encoding="utf-8")
    page.locator("input[type=file]").set_input_files(tmp_path / "posts.csv")
    page.get_by_role("button", name="分析", exact=True).click()
    says = page.locator(".job .wrong")
    expect(says).to_contain_text("这些列里看不出哪一列是正文")
    expect(says).to_contain_text("is known to hold the texts")


@pytest.mark.parametrize(("status", "code", "words", "chinese_words"), [
    (404, "model_not_found", "the model 'x' is not served here; there is 'y': ask for it, or start the server with "
     "--alias NAME", "这里没有模型 'x'；有的是 'y'"),
    (400, "context_length_exceeded", "something of the engine's", "文字太长，超过了模型的上下文。"),
    (500, None, "no sentence that anybody translated", "服务器出错了。")])
def test_an_answer_that_fails(chinese, status, code, words, chinese_words):
    page = chinese("")
    page.locator(".welcome .beginning:enabled").first.wait_for()
    page.route("**/v1/chat/completions", lambda route: refuse(route, status, words, code=code))
    page.route("**/tokenize", lambda route: refuse(route, 500, "no"))
    say(page, "你好")
    told = page.get_by_role("alert").locator("p").first
    expect(told).to_contain_text(chinese_words)
    expect(told).to_contain_text(words)


def test_an_empty_or_contradicting_brief(chinese):
    page = chinese("write")
    words = "brief: the forbidden word 'fox' is in 'a fox', which is to occur: take one of them away"
    page.route("**/v1/write", lambda route: refuse(route, 400, words, param="brief"))
    page.get_by_label("主题", exact=True).fill("狐狸")
    page.get_by_role("button", name="开始写").click()
    expect(page.get_by_text("不许出现的词 'fox' 在必须写到的 'a fox' 里")).to_be_visible()
