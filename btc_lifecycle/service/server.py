"""The server under the service: uvicorn, with an end to requests that take too long to arrive."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

ARRIVAL_S = 10.0
"""Within which a request must have come whole, from its first byte or the connection's opening."""

GRACE_S = 6
"""That requests have to end once the process was told to; its threads then have a few more."""


class PatientProtocol(HttpToolsProtocol):
    """uvicorn's protocol of one connection, which hangs up on a request that does not arrive.

    By itself it waits without end for headers that come a byte at a time, or not at all.
    """

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Give a first request its time."""
        super().connection_made(transport)
        self._start_waiting()

    def on_message_begin(self) -> None:
        """Give a further request of the connection its time."""
        super().on_message_begin()
        self._start_waiting()

    def on_message_complete(self) -> None:
        """Be content: the request is there."""
        self._stop_waiting()
        super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _start_waiting(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(ARRIVAL_S, self.transport.close)

    def _stop_waiting(self) -> None:
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
        "server_header": False,
        "access_log": False,
        "timeout_graceful_shutdown": GRACE_S,
    }
