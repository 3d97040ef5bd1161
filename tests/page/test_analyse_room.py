"""The Analyse room in a real browser: words light up as one types, a job's result survives a reload."""

import re

import pytest
from server.live import serving

from ayllu.server.workspace import Workspace


@pytest.fixture(scope="module")
def live(chat_checkpoint, tmp_path_factory):
    with serving(chat_checkpoint, workspace=Workspace(tmp_path_factory.mktemp("data"))) as found:
        yield found


def test_words_light_up_and_a_job_is_found_again(opened, live):
    page = opened(f"{live.url}/#/analyse", waits=False)
    page.get_by_label("Post", exact=True).fill("<b>terrible</b> 可以")
    said = page.locator(".analyse-try .said")
    said.filter(has_text="<b>terrible</b>").wait_for()       # markup stays text
    assert said.locator("mark").all_text_contents() == ["terrible", "可以"]
    assert page.locator(".verdict").inner_text() == "negative"
    page.get_by_role("button", name="Try the sample").click()
    found = page.locator(".found")
    found.wait_for()
    assert found.locator(".tile b").first.inner_text() == "394"
    assert found.locator(".bars-over-time g").count() == 10
    page.reload()
    page.locator(".found").wait_for()
    with page.expect_download() as saved:
        page.get_by_role("button", name=re.compile("sample.report.html")).click()
    assert "law" in saved.value.path().read_text(encoding="utf-8")


def test_a_wrong_file_says_why_and_nothing_runs(opened, live, tmp_path):
    page = opened(f"{live.url}/#/analyse", waits=False)
    (tmp_path / "x.pdf").write_bytes(b"%PDF")
    page.locator("input[type=file]").set_input_files(tmp_path / "x.pdf")
    page.locator(".uploads .wrong").wait_for()
    assert page.get_by_role("button", name="Analyse", exact=True).is_disabled()
