"""The exchange as an ingest sees it: its clock, and pages of klines as they were sent.

The raw pages keep trade counts and taker volumes, which ccxt's unified candles drop, and let a bad
page be told from an empty one, which they do not.
"""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from btc_lifecycle.adapters.exchange.answers import time_told
from btc_lifecycle.adapters.exchange.asking import Asker, Question
from btc_lifecycle.adapters.exchange.client import Client
from btc_lifecycle.adapters.exchange.pace import Pace
from btc_lifecycle.adapters.http import HttpAnswer, HttpClient
from btc_lifecycle.domain.errors import NeighbourUnavailableError
from btc_lifecycle.domain.ingest.klines import PageEdges, page_edges

BINANCE_BASE_URLS = ("https://data-api.binance.vision", "https://api.binance.com")
"""Binance's addresses of market data; the first serves countries that the second refuses.

Source: Binance Spot API documentation, faqs/market_data_only.md.
"""

PAGE_ROWS = 1000
"""The most klines that Binance returns at once (spot REST, GET /api/v3/klines)."""

PATIENCE = timedelta(seconds=20)
"""The longest that one call waits for its turn."""

_KLINES_WEIGHT, _TIME_WEIGHT = 2, 1
_SANDBOX_HEADER = "x-sandbox-market"


@dataclass(frozen=True, kw_only=True)
class RawPage:
    """A page of klines as the exchange sent it, known to be whole and of the range asked for."""

    body: bytes
    edges: PageEdges


class Exchange:
    """One exchange's public market data; all times are aware UTC."""

    def __init__(
        self,
        name: str,
        *,
        base_urls: Sequence[str] = (),
        pace: Pace,
        patience: timedelta = PATIENCE,
        http: HttpClient | None = None,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """Prepare a client; nothing is requested yet.

        Args:
            name: Exchange's id in ccxt.
            base_urls: Schemes, hosts and ports that ``/api/v3/...`` is appended to; the next is asked
                when one refuses this country. Empty for Binance's own.
            pace: When a request may leave.
            patience: The longest that one call waits for its turn.
            http: What asks.
            pause: Called with the seconds to wait between tries.
        """
        http = http or HttpClient()
        self._name, self._patience = name, patience
        self._client = Client(name, http=http)
        self._asker = Asker(
            tuple(base_urls) or BINANCE_BASE_URLS,
            pace=pace,
            request_total_s=http.total.total_seconds(),
            pause=pause,
            jitter=random.Random(),  # noqa: S311  # no secret
        )

    @property
    def pace(self) -> Pace:
        """When a request may leave."""
        return self._asker.pace

    @property
    def source(self) -> str:
        """Where the newest answer came from: the exchange's name, or the sandbox's kind of market."""
        return self._client.newest_headers.get(_SANDBOX_HEADER) or self._name

    def used_share(self) -> float:
        """Return the share of the request limit that the running minute has used, 0 to 1."""
        return max(self.pace.used_share(base) for base in self._asker.bases)

    def patient(self, wait: timedelta) -> Exchange:
        """Return the same exchange whose calls wait longer, or shorter, for their turn."""
        other = copy.copy(self)
        other._patience = wait
        return other

    def server_time(self) -> datetime:
        """Return the exchange's clock, the only one that says which candles are closed.

        Raises:
            ConfigurationError: If the address is none of an exchange, or the pace cannot be kept.
            NeighbourUnavailableError: If the exchange does not answer, or not with a time.
        """
        question = Question(
            about="server time",
            weight=_TIME_WEIGHT,
            send=self._client.server_time,
            read=_read_time,
        )
        return self._asker.ask(question, patience_s=self._patience.total_seconds())

    def klines(self, symbol: str, *, start: datetime, end: datetime) -> RawPage | None:
        """Return up to ``PAGE_ROWS`` klines from ``start``, the unclosed included; None if none.

        Args:
            symbol: Market in ccxt's form, such as BTC/USDT.
            start: Earliest open time, inclusive.
            end: Latest open time, inclusive.

        Raises:
            ConfigurationError: If the exchange does not know the symbol or the interval, or the pace
                cannot be kept.
            NeighbourUnavailableError: If it does not answer, or not with a page of that range.
        """
        parameters: dict[str, str | int] = {
            "symbol": symbol.replace("/", ""),
            "interval": "1m",
            "startTime": _milliseconds(start),
            "endTime": _milliseconds(end),
            "limit": PAGE_ROWS,
        }
        question = Question(
            about=symbol,
            weight=_KLINES_WEIGHT,
            send=lambda base: self._client.klines(base, parameters=parameters),
            read=lambda answer: _read_page(answer, symbol=symbol, start=start, end=end),
        )
        return self._asker.ask(question, patience_s=self._patience.total_seconds())


def _read_time(answer: HttpAnswer) -> datetime:
    if (told := time_told(answer)) is None:
        raise NeighbourUnavailableError(
            f"it did not answer with its time but with {answer.body[:60]!r}",
            hint="check that the base URL is that of an exchange; nothing was stored",
        )
    return told


def _read_page(
    answer: HttpAnswer, *, symbol: str, start: datetime, end: datetime
) -> RawPage | None:
    if (edges := page_edges(answer.body, symbol=symbol)) is None:
        return None
    first_ms, last_ms = _milliseconds(edges.first_open_time), _milliseconds(edges.last_open_time)
    if first_ms < _milliseconds(start) or last_ms > _milliseconds(end):
        # An old page out of some cache; who asks for the page after it would never get past it.
        raise NeighbourUnavailableError(
            f"{symbol}: the exchange answered with candles of another time, "
            f"{edges.first_open_time:%Y-%m-%d %H:%M} to {edges.last_open_time:%Y-%m-%d %H:%M} UTC",
            hint="nothing of the page was stored; run the ingest again",
        )
    return RawPage(body=answer.body, edges=edges)


def _milliseconds(time_: datetime) -> int:
    return (time_ - datetime.fromtimestamp(0, tz=UTC)) // timedelta(milliseconds=1)
