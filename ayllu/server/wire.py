"""Clients that are too slow: uvicorn's HTTP protocol with the limits of time and size that it lacks.

Request line and headers must be there in time (also on a connection that is used again), and a reader who stops reading
is dropped, so that neither holds a connection or pages of the cache for ever. The body's limits are the gate's.

When far more is asked than can be done, most answers are refusals, and each must cost little: `refuse` sees the head of
each request, and what it gives is sent when the request is over, without a task or the application.
"""

from asyncio import TimerHandle
from collections.abc import Callable, Sequence
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ayllu.server.limits import Limits

Head = Sequence[tuple[bytes, bytes]]                     # names in lower case
Refuse = Callable[[bytes, bytes, Head, str], bytes | None]           # method, target, headers, scheme -> a response


def protocol_with(limits: Limits, refuse: Refuse = lambda *head: None) -> type[HttpToolsProtocol]:
    """The protocol class of a server with these limits; uvicorn makes one object for each connection."""

    class Protocol(HttpToolsProtocol):
        _head_timer: TimerHandle | None = None
        _stall_timer: TimerHandle | None = None
        _body_timer: TimerHandle | None = None
        _head_bytes = _left_out = 0                      # bytes of this head; bytes of a body that nobody reads
        _refusal: bytes | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._await_head()

        def data_received(self, data: bytes) -> None:
            self._head_bytes += len(data)
            super().data_received(data)
            if self._head_timer is not None and self._head_bytes > limits.head_bytes:
                self.transport.abort()

        def on_message_begin(self) -> None:
            super().on_message_begin()
            if self._head_timer is None:                 # a further request of this connection
                self._await_head()

        def on_headers_complete(self) -> None:
            self._stop_head_timer()
            if self.cycle is None or self.cycle.response_complete:           # else it waits for the one before
                self._refusal = refuse(self.parser.get_method(), self.url, self.headers, self.scheme or "http")
            if self._refusal is None:
                super().on_headers_complete()
            else:
                self._left_out = 0
                self._body_timer = self.loop.call_later(limits.body_s, self.transport.abort)

        def on_body(self, body: bytes) -> None:
            if self._refusal is None:
                super().on_body(body)
                return
            self._left_out += len(body)
            if self._left_out > limits.body_bytes:
                self.transport.abort()

        def on_message_complete(self) -> None:
            if self._refusal is None:
                super().on_message_complete()
                return
            self.transport.write(self._refusal)
            self._refusal = None
            self._stop_body_timer()
            if self.parser.get_http_version() == "1.0" or not self.parser.should_keep_alive():
                self.transport.close()
            else:
                self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive,
                                                                    self.timeout_keep_alive_handler)

        def pause_writing(self) -> None:
            super().pause_writing()
            self._stall_timer = self.loop.call_later(limits.stall_s, self.transport.abort)

        def resume_writing(self) -> None:
            self._stop_stall_timer()
            super().resume_writing()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_head_timer()
            self._stop_stall_timer()
            self._stop_body_timer()
            super().connection_lost(exc)

        def _stop_body_timer(self) -> None:
            if self._body_timer is not None:
                self._body_timer.cancel()
                self._body_timer = None

        def _stop_head_timer(self) -> None:
            if self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None

        def _stop_stall_timer(self) -> None:
            if self._stall_timer is not None:
                self._stall_timer.cancel()
                self._stall_timer = None

        def _await_head(self) -> None:
            self._head_bytes = 0
            self._head_timer = self.loop.call_later(limits.head_s, self.transport.abort)

    return Protocol
