"""What a person does on the page, by the names that a screen reader hears; and answers that the network is to give."""

import json
from typing import Any

KEY = "a-key-of-the-tests-1234"
SSE = {"content-type": "text/event-stream"}


def say(page: Any, text: str) -> None:
    """Type into the composer and send."""
    page.locator("#composer").fill(text)
    page.locator("#composer").press("Enter")


def record(page: Any) -> None:
    """Press the microphone, and again after a while."""
    page.get_by_role("button", name="Speak").click()
    end = page.get_by_role("button", name="End the recording")
    end.wait_for()
    page.wait_for_timeout(1500)
    end.click()


def finished(page: Any, n: int = 1) -> None:
    """Wait until n answers on show are complete."""
    page.locator(".stats").filter(has_text="seed").nth(n - 1).wait_for()
    page.get_by_role("button", name="Send").wait_for()


def answers(page: Any) -> list[str]:
    """Their texts."""
    return page.locator(".body.answer").all_inner_texts()


def set_value(page: Any, label: str, value: str) -> None:
    """Fill one field of the drawer."""
    if page.locator("#drawer.open").count() == 0:
        page.get_by_role("button", name="Settings", exact=True).click()
    page.locator("#drawer").get_by_label(label, exact=True).fill(value)


def short(page: Any, n: str = "12") -> None:
    """Answers of n tokens that don't end before."""
    set_value(page, "Most tokens", n)
    page.locator("#drawer").get_by_label("Write on past the end token").check()
    page.get_by_role("button", name="Close the settings").click()


def events(*pieces: str, finish: str | None = "stop", chat: bool = True) -> str:
    """A stream with these pieces of text."""
    def choice(text: str | None, why: str | None) -> dict[str, Any]:
        delta = {"delta": {} if text is None else {"content": text}} if chat else {"text": text or ""}
        return {"choices": [{"index": 0, **delta, "finish_reason": why, "token_ids": [] if text is None else [5]}]}

    found = [choice(piece, None) for piece in pieces] + ([choice(None, finish)] if finish else [])
    lines = [f"data: {json.dumps(one)}\n\n" for one in found]
    return "".join(lines) + ("data: [DONE]\n\n" if finish else "")


def answer_with(page: Any, *pieces: str, path: str = "chat/completions") -> list[dict[str, Any]]:
    """From now on the network answers with these pieces; gives the list that the bodies of the calls go to."""
    bodies: list[dict[str, Any]] = []

    def fulfil(route: Any) -> None:
        bodies.append(route.request.post_data_json)
        route.fulfill(status=200, headers=SSE, body=events(*pieces, chat=path.startswith("chat")))

    page.route(f"**/v1/{path}", fulfil)
    return bodies


def refuse(route: Any, status: int, message: str, **more: Any) -> None:
    """An error in OpenAI's form."""
    headers = more.pop("headers", {})
    error = {"message": message, "type": "t", "param": None, "code": None, **more}
    route.fulfill(status=status, headers={"content-type": "application/json", **headers},
                  body=json.dumps({"error": error}))
