"""The picker: an adapter that was loaded while the page was open can be chosen, and is what the server is asked for."""

import httpx
from adapters.small import filled
from page.acting import answer_with, finished, say
from server.live import serving

from ayllu.adapters.store import write_adapter
from ayllu.checkpoint.load import load_checkpoint


def test_an_adapter_is_chosen_in_the_picker(opened, chat_checkpoint, tmp_path):
    write_adapter(tmp_path / "stories", filled(load_checkpoint(chat_checkpoint).model, r=2))
    with serving(chat_checkpoint, adapter_folder=tmp_path) as live:
        page = opened(live.url)
        picker = page.get_by_role("combobox", name="Model", exact=True)
        assert picker.locator("option").all_inner_texts() == ["tiny"]
        httpx.post(f"{live.url}/v1/load_lora_adapter", json={"lora_name": "stories", "lora_path": "stories"})
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")   # the tab is looked at again
        picker.locator("option").nth(1).wait_for(state="attached")
        assert picker.locator("option").all_inner_texts() == ["tiny", "stories (tiny)"]
        picker.select_option("stories")
        bodies = answer_with(page, "yes")
        say(page, "hello")
        finished(page)
        assert bodies[0]["model"] == "stories"
