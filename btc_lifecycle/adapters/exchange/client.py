"""The exchange's calls: ccxt knows their paths and parameters, our HTTP client asks.

Of ccxt only the door is used. Its own answers hide pages that are no pages, its errors fold
statuses that ask for different things, its time-outs bound single reads and its rate limiter knows
nothing of other processes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from btc_lifecycle.adapters.http import HttpAnswer, HttpClient


class Client:
    """Raw answers to one exchange's calls, from whichever of its addresses is asked."""

    def __init__(self, name: str, *, http: HttpClient) -> None:
        """Prepare a client; nothing is requested yet.

        Args:
            name: Exchange's id in ccxt.
            http: What asks.
        """
        self._name, self._http = name, http
        self._doors: dict[str, Any] = {}
        self.newest_headers: Mapping[str, str] = {}
        """Headers of the newest answer, by lower-case name."""

    def klines(self, base: str, *, parameters: Mapping[str, str | int]) -> HttpAnswer:
        """Return the answer to ``GET /api/v3/klines``, whatever its status.

        Raises:
            HttpError: If there was no whole answer.
        """
        answer: HttpAnswer = self._door(base).publicGetKlines(parameters)
        return answer

    def server_time(self, base: str) -> HttpAnswer:
        """Return the answer to ``GET /api/v3/time``, whatever its status.

        Raises:
            HttpError: If there was no whole answer.
        """
        answer: HttpAnswer = self._door(base).publicGetTime()
        return answer

    def _door(self, base: str) -> Any:  # noqa: ANN401  # ccxt has no types
        if base not in self._doors:
            import ccxt  # noqa: PLC0415  # half a second that only an ingest should pay

            urls = {"api": {"public": f"{base}/api/v3"}}
            door = getattr(ccxt, self._name)({"urls": urls, "enableRateLimit": False})
            # What ccxt calls with the finished URL; whatever it returns is what the call returns.
            door.fetch = self._fetch
            self._doors[base] = door
        return self._doors[base]

    def _fetch(self, url: str, *_: object) -> HttpAnswer:
        answer = self._http.get(url)
        self.newest_headers = answer.headers
        return answer
