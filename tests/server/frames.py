"""A reader of server-sent events after the WHATWG's description, written apart from the writer that it tests."""

from collections.abc import Iterable, Iterator


def frames(chunks: Iterable[bytes]) -> Iterator[tuple[str, str]]:
    """(event name, data) of each event."""
    buffer, name, data = b"", "message", []
    for chunk in chunks:
        buffer += chunk
        while b"\n" in buffer:
            raw, buffer = buffer.split(b"\n", 1)
            text = raw.decode()
            if not text:
                if data:
                    yield name, "\n".join(data)
                name, data = "message", []
            elif not text.startswith(":"):
                key, _, value = text.partition(":")
                value = value.removeprefix(" ")
                if key == "event":
                    name = value
                elif key == "data":
                    data.append(value)
