"""Clients that are too slow: uvicorn's HTTP protocol with the limits of time and size that it lacks.

Request line and headers must be there in time (also on a connection that is used again), and a reader who stops reading
is dropped, so that neither holds a connection or pages of the cache for ever. The body's limits are the gate's.
"""

from asyncio import TimerHandle
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ayllu.server.limits import Limits


def protocol_with(limits: Limits) -> type[HttpToolsProtocol]:
    """The protocol class of a server with these limits; uvicorn makes one object for each connection."""

    class Protocol(HttpToolsProtocol):
        _head_timer: TimerHandle | None = None
        _stall_timer: TimerHandle | None = None
        _head_bytes = 0

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
            super().on_headers_complete()

        def pause_writing(self) -> None:
            super().pause_writing()
            self._stall_timer = self.loop.call_later(limits.stall_s, self.transport.abort)

        def resume_writing(self) -> None:
            self._stop_stall_timer()
            super().resume_writing()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_head_timer()
            self._stop_stall_timer()
            super().connection_lost(exc)

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
