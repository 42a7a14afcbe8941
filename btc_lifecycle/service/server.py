"""The server under the service: uvicorn, with an end to clients that send or read too slowly.

`./task serve` starts it. Under uvicorn's own command the app is the same, but heads are unbounded in
bytes and time, and answers wait for their readers. What is refused here, being no request yet, stands
in neither access log nor metrics.
"""

import asyncio
import os
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from btc_lifecycle.service.errors import ApiError, error_response

ARRIVAL_S = 10.0
"""Within which a request must have come whole, from its first byte or the connection's opening."""

READING_S = 10.0
"""Within which a client must have taken what fills its buffers."""

MOST_HEAD_BYTES = 64 * 1024
"""Beyond which a request line and its headers are read no further; uvicorn would read on."""

GRACE_S = 6
"""That requests have to end once the process was told to; its threads then have a few more."""


class PatientProtocol(HttpToolsProtocol):
    """uvicorn's protocol of one connection, which hangs up on whoever keeps it waiting.

    By itself it waits without end for headers that come a byte at a time, or not at all, and for
    clients that do not take their answers.
    """

    _is_arriving = True
    _deadline: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None
    _n_head_bytes = 0
    _has_completed = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Give a first request its time."""
        super().connection_made(transport)
        self._start_waiting()

    def data_received(self, data: bytes) -> None:
        """Give a request that has only begun its time; most come whole, and need no timer."""
        self._has_completed = False
        super().data_received(data)
        if self._is_arriving:
            self._start_waiting()
            # After the end of a request in the same piece, most of the piece is none of this head.
            self._bound_head(0 if self._has_completed else len(data))
        elif self._deadline is not None:
            self._stop_waiting()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP in the form that all errors have."""
        self._hang_up(
            ApiError(400, "invalid_http", msg, hint="send an HTTP/1.1 request and its whole body")
        )

    def on_message_begin(self) -> None:
        """Note that a request has begun."""
        self._stop_waiting()
        self._is_arriving = True
        super().on_message_begin()

    def on_message_complete(self) -> None:
        """Note that it is there."""
        self._is_arriving, self._has_completed = False, True
        super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._is_arriving = False
        self._stop_waiting()
        self._be_read()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Give a client that is slow to read its time."""
        super().pause_writing()
        self._unread = self.loop.call_later(READING_S, self.transport.abort)

    def resume_writing(self) -> None:
        """Be content: it reads on."""
        self._be_read()
        super().resume_writing()

    def _be_read(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _bound_head(self, n_more_bytes: int) -> None:
        # uvicorn's own mark of a head that is there.
        if self.scope and self.scope.get("method"):
            return
        self._n_head_bytes += n_more_bytes
        if self._n_head_bytes > MOST_HEAD_BYTES and not self.transport.is_closing():
            self._hang_up(
                ApiError(431, "head_too_large", "the headers are too large", hint="send fewer")
            )

    def _hang_up(self, error: ApiError) -> None:
        response = error_response(error)
        headers = [*response.raw_headers, (b"connection", b"close")]
        lines = [b"HTTP/1.1 %d Refused" % error.status, *(b": ".join(pair) for pair in headers)]
        self.transport.write(b"\r\n".join([*lines, b"", bytes(response.body)]))
        self.transport.close()

    def _start_waiting(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(ARRIVAL_S, self.transport.abort)

    def _stop_waiting(self) -> None:
        self._n_head_bytes = 0
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def options(*, host: str, port: int, workers: int) -> dict[str, Any]:
    """Return how uvicorn serves the app."""
    return {
        "host": host,
        "port": port,
        "workers": workers,
        "http": PatientProtocol,
        "ws": "none",
        "server_header": False,
        # uvicorn's own variable: whose word is taken for where a request comes from.
        "proxy_headers": "FORWARDED_ALLOW_IPS" in os.environ,
        "access_log": False,
        "timeout_graceful_shutdown": GRACE_S,
    }
