"""One file of the archive over HTTP: whole, missing, or an error that says what to do."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from datetime import timedelta

from btc_lifecycle.adapters.http import HttpAnswer, HttpClient, HttpError
from btc_lifecycle.domain.errors import (
    ConfigurationError,
    LifecycleError,
    NeighbourUnavailableError,
)

BINANCE_ARCHIVE_URL = "https://data.binance.vision"

MAX_ZIP_BYTES = 8 * 2**20
"""A month of the busiest market is about 2 MB zipped."""

ELSEWHERE = 'set `backfill_from` to "exchange"'
"""What always helps: the exchange itself has every candle too, at a page a request."""

_TOTAL = timedelta(seconds=60)
"""Longest that one file may take; 2 MB then need 35 kB/s."""
_PAUSES_S = (0.5, 1.5, 4.5)
"""Mean pauses before the second, third and fourth try of a request that may work in a moment."""
_PASSING_KINDS = frozenset({"timeout", "refused", "reset", "dns", "cut", "protocol"})


class _PassingError(NeighbourUnavailableError):
    """An answer that the same request may not get again a moment later."""


class Downloads:
    """GET requests to the archive, tried again where that may help."""

    def __init__(
        self,
        base_url: str | None = None,
        *,
        http: HttpClient | None = None,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """Prepare a client; nothing is requested yet.

        Args:
            base_url: Scheme, host and port that paths are appended to; None for Binance's own.
            http: Client to use; it must take bodies of up to ``MAX_ZIP_BYTES``.
            pause: Called with the seconds to wait between tries.
        """
        self._base_url = (base_url or BINANCE_ARCHIVE_URL).rstrip("/")
        self._http = http or HttpClient(total=_TOTAL, max_bytes=MAX_ZIP_BYTES)
        self._pause = pause

    def url(self, path: str) -> str:
        """Return the address of a path that begins with a slash."""
        return f"{self._base_url}{path}"

    def get(self, path: str) -> bytes | None:
        """Return the whole body of a file; None when the archive has no such file.

        Raises:
            ConfigurationError: If the archive refuses the request as such.
            NeighbourUnavailableError: If it does not answer, or not with a file.
        """
        for seconds in _PAUSES_S:
            try:
                return self._get_once(self.url(path))
            except _PassingError:
                # Jitter keeps clients that failed together from coming back together.
                self._pause(seconds * random.uniform(0.5, 1.5))  # noqa: S311  # no secret
        return self._get_once(self.url(path))

    def _get_once(self, url: str) -> bytes | None:
        try:
            answer = self._http.get(url)
        except HttpError as error:
            kind = _PassingError if error.kind in _PASSING_KINDS else NeighbourUnavailableError
            raise kind(
                f"the archive did not answer ({error.kind}): {error.message}",
                hint=f"check the network and `archive_url`, or {ELSEWHERE}",
            ) from error
        if answer.status == 200:
            return answer.body
        if answer.status == 404:
            return None
        raise _refusal(answer, url=url)


def _refusal(answer: HttpAnswer, *, url: str) -> LifecycleError:
    said = f"{url} answered {answer.status} {answer.reason}".rstrip()
    if answer.status in {403, 451}:
        return NeighbourUnavailableError(
            f"{said}: the archive refuses this country or this network",
            hint=f"set `archive_url` to a mirror that this network may read, or {ELSEWHERE}",
        )
    if answer.status == 429 or answer.status >= 500:
        return _PassingError(
            f"{said}, {1 + len(_PAUSES_S)} times over",
            hint=f"try again in some minutes, or {ELSEWHERE}",
        )
    if answer.status >= 400:
        return ConfigurationError(
            f"{said}: the archive refuses the request as such",
            hint=f"mend `archive_url` or `symbols`, or {ELSEWHERE}",
        )
    return NeighbourUnavailableError(
        f"{said} where a file was expected",
        hint=f"check `archive_url`, and that no log-in page of the network answers; or {ELSEWHERE}",
    )
