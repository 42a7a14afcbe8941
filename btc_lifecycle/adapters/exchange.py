"""The exchange, through ccxt's raw klines endpoint.

The raw endpoint keeps trade counts and taker volumes, which ccxt's unified candles drop, and lets a
bad page be told from an empty one, which they do not.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from btc_lifecycle.domain.errors import (
    ConfigurationError,
    LifecycleError,
    NeighbourUnavailableError,
)
from btc_lifecycle.domain.ingest.candles import parse_klines

if TYPE_CHECKING:
    import polars as pl

PAGE_ROWS = 1000
"""The most klines that Binance returns at once (spot REST, GET /api/v3/klines)."""

_SANDBOX_HEADER = "x-sandbox-market"
_TIMEOUT_MS = 10_000
_PAUSES_S = (0.5, 1.5)
"""Pauses before the second and third try of a call that may work later."""

_Answer = TypeVar("_Answer")


class Exchange:
    """One exchange's public market data; all times are aware UTC."""

    def __init__(
        self,
        name: str,
        *,
        base_url: str | None = None,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """Prepare a client; nothing is requested yet.

        Args:
            name: Exchange's id in ccxt.
            base_url: Scheme, host and port that ``/api/v3/...`` is appended to; None for its own.
            pause: Called with the seconds to wait between tries.
        """
        self._name, self._base_url, self._pause = name, base_url, pause
        self._address = base_url or name

    @property
    def source(self) -> str:
        """Where the newest answer came from: the exchange's name, or the sandbox's kind of market."""
        return self._header(_SANDBOX_HEADER) or self._name

    def server_time(self) -> datetime:
        """Return the exchange's clock, the only one that says which candles are closed.

        Raises:
            NeighbourUnavailableError: If the exchange does not answer, or not with a time.
        """
        return self._with_retries(self._server_time)

    def klines(self, symbol: str, *, start: datetime, end: datetime) -> pl.DataFrame:
        """Return up to ``PAGE_ROWS`` candles from ``start``, oldest first, the unclosed included.

        Args:
            symbol: Market in ccxt's form, such as BTC/USDT.
            start: Earliest open time, inclusive.
            end: Latest open time, inclusive.

        Returns:
            Table ``candles`` plus ``close_time``; empty when the exchange has none in the range.

        Raises:
            ConfigurationError: If the exchange does not know the symbol or the interval.
            NeighbourUnavailableError: If it does not answer, or not with a page of klines.
            DataError: If a candle breaks the rules of prices and amounts.
        """
        request = {
            "symbol": symbol.replace("/", ""),
            "interval": "1m",
            "startTime": _milliseconds(start),
            "endTime": _milliseconds(end),
            "limit": PAGE_ROWS,
        }
        return self._with_retries(lambda: self._klines(request, symbol=symbol))

    @cached_property
    def _errors(self) -> Any:  # noqa: ANN401  # ccxt has no types
        import ccxt  # noqa: PLC0415  # half a second that only an ingest should pay

        return ccxt

    @cached_property
    def _client(self) -> Any:  # noqa: ANN401  # ccxt has no types
        urls = {"urls": {"api": {"public": f"{self._base_url}/api/v3"}}} if self._base_url else {}
        return getattr(self._errors, self._name)({"timeout": _TIMEOUT_MS, **urls})

    def _server_time(self) -> datetime:
        answer = self._call(self._client.publicGetTime, about="server time")
        try:
            return datetime.fromtimestamp(int(answer["serverTime"]) / 1000, tz=UTC)
        except (KeyError, TypeError, ValueError) as error:
            raise NeighbourUnavailableError(
                f"{self._address} did not answer with its time but with {str(answer)[:60]!r}",
                hint="check that the base URL is that of an exchange; nothing was stored",
            ) from error

    def _klines(self, request: dict[str, Any], *, symbol: str) -> pl.DataFrame:
        page = self._call(lambda: self._client.publicGetKlines(request), about=symbol)
        candles = parse_klines(page, symbol=symbol)
        opened = candles["open_time"].dt.epoch("ms")
        if not opened.is_between(request["startTime"], request["endTime"]).all():
            # An old page out of some cache; who asks for the page after it would never get past it.
            raise NeighbourUnavailableError(
                f"{self._address} answered the request about {symbol} with candles of another time, "
                f"{candles['open_time'][0]:%Y-%m-%d %H:%M} to "
                f"{candles['open_time'][-1]:%Y-%m-%d %H:%M} UTC",
                hint="nothing of the page was stored; run the ingest again",
            )
        return candles

    def _with_retries(self, call: Callable[[], _Answer]) -> _Answer:
        for seconds in _PAUSES_S:
            try:
                return call()
            except NeighbourUnavailableError as error:
                if isinstance(error.__cause__, self._errors.DDoSProtection):
                    raise
                self._pause(seconds)
        return call()

    def _call(self, request: Callable[[], _Answer], *, about: str) -> _Answer:
        try:
            return request()
        except self._errors.BaseError as error:
            raise self._translated(error, about=about) from error

    def _translated(self, error: Exception, *, about: str) -> LifecycleError:
        # ccxt names the request alone; why it failed stands at the end of its cause.
        cause = str(error.__cause__ or "").rpartition("Caused by ")[2].strip("()")
        text = " ".join(f"{error} {cause}".split())[:300]
        if isinstance(error, self._errors.BadSymbol):
            return ConfigurationError(
                f"{self._address} does not know the market {about}",
                hint="mend `symbols` in the ingest configuration; BTC/USDT is one that exists",
            )
        if isinstance(error, self._errors.BadRequest):
            return ConfigurationError(
                f"{self._address} refused the request about {about}: {text}",
                hint="mend the ingest configuration; trying again cannot help",
            )
        if isinstance(error, self._errors.DDoSProtection):
            return NeighbourUnavailableError(
                f"{self._address} asks for a pause, request weight is used up: {text}",
                hint=f"wait {self._retry_after()} before the next ingest; nothing is lost",
            )
        return NeighbourUnavailableError(
            f"{self._address} did not answer the request about {about}: {text}",
            hint="check the network and EXCHANGE_BASE_URL; the next ingest continues where this one stopped",
        )

    def _retry_after(self) -> str:
        seconds = self._header("retry-after") or ""
        return f"{timedelta(seconds=int(seconds))}" if seconds.isdecimal() else "a minute"

    def _header(self, name: str) -> str | None:
        headers = self._client.last_response_headers or {}
        return {key.lower(): str(value) for key, value in headers.items()}.get(name)


def _milliseconds(time_: datetime) -> int:
    return (time_ - datetime.fromtimestamp(0, tz=UTC)) // timedelta(milliseconds=1)
