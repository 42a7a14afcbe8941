"""Exchanges for ingests: one over a plain dictionary of prices, and a sandbox's market with holes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import astuple
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from btc_lifecycle.adapters.exchange import PAGE_ROWS, RawPage
from btc_lifecycle.domain.ingest.klines import page_edges, parse_pages
from btc_lifecycle.domain.tables import CANDLES
from btc_lifecycle.sandbox.market import KlineBlock
from btc_lifecycle.sandbox.synthetic import SyntheticMarket

MINUTE = timedelta(minutes=1)
BTC, ETH = "BTC/USDT", "ETH/USDT"

_EPOCH = datetime.fromtimestamp(0, tz=UTC)

Rows = list[str]


class FakeExchange:
    """Tells a candle by its open time and one price, and cuts and spoils its pages as a test likes.

    ``asked`` holds the requests for klines. ``cut`` makes a page of up to ``PAGE_ROWS`` rows, ``odd``
    makes the next ones otherwise, each once; one that is an error is raised.
    """

    source = "synthetic"

    def __init__(self, prices: Mapping[datetime, int], *, now: datetime, symbol: str = BTC) -> None:
        self.prices = {symbol: dict(prices)}
        self.now = now
        self.asked: list[tuple[datetime, datetime]] = []
        self.cut: Callable[[Rows], Rows] = lambda rows: rows
        self.odd: list[Callable[[Rows], Rows] | Exception] = []

    def server_time(self) -> datetime:
        return self.now

    def klines(self, symbol: str, *, start: datetime, end: datetime) -> RawPage | None:
        self.asked.append((start, end))
        last = min(end, self.now)
        told = sorted(time for time in self.prices[symbol] if start <= time <= last)
        rows = [kline(time, price=self.prices[symbol][time]) for time in told[:PAGE_ROWS]]
        odd = self.odd.pop(0) if self.odd else self.cut
        if isinstance(odd, Exception):
            raise odd
        return page_of(odd(rows), symbol=symbol)


def page_of(rows: Rows, *, symbol: str = BTC) -> RawPage | None:
    """Return rows as the exchange's adapter hands them on."""
    body = f"[{','.join(rows)}]".encode()
    edges = page_edges(body, symbol=symbol)
    return RawPage(body=body, edges=edges) if edges else None


def kline(opened: datetime, *, price: int) -> str:
    """Return the exchange's row of a minute."""
    open_, high, low, close, volume, quote, trades, taker, taker_quote = _numbers(price)
    open_ms = (opened - _EPOCH) // timedelta(milliseconds=1)
    return (
        f'[{open_ms},"{open_:.8f}","{high:.8f}","{low:.8f}","{close:.8f}","{volume:.8f}",'
        f'{open_ms + 59_999},"{quote:.8f}",{trades},"{taker:.8f}","{taker_quote:.8f}","0"]'
    )


def without_high(row: str) -> str:
    """Return a row whose high is below its low."""
    fields = row.split(",")
    return ",".join([*fields[:2], '"0.01000000"', *fields[3:]])


def candles_of(prices: Mapping[datetime, int], *, symbol: str = BTC) -> pl.DataFrame:
    """Return the candles of these minutes as they should be stored."""
    rows = [(symbol, opened, *_numbers(price)) for opened, price in sorted(prices.items())]
    return pl.DataFrame(rows, schema=CANDLES.schema, orient="row")


def minutes(start: datetime, n: int) -> dict[datetime, int]:
    """Return so many minutes in a row, each with a price of its own."""
    return {start + number * MINUTE: 100 + number % 900 for number in range(n)}


def _numbers(price: int) -> tuple[float, ...]:
    volume, quote_volume = price / 10, price * price / 10
    taker = (price / 20, price * price / 20)
    return (price, price + 2, price - 2, price + 1, volume, quote_volume, price % 97 + 1, *taker)


class HoledMarket(SyntheticMarket):
    """A sandbox's market whose exchange has no candles of these minutes, counted from its start."""

    missing: Collection[int] = ()

    def block(self, symbol: str, *, start_ms: int) -> KlineBlock:
        whole = super().block(symbol, start_ms=start_ms)
        missing_ms = [self.start_ms + 60_000 * number for number in self.missing]
        kept = ~np.isin(whole.open_ms, missing_ms)
        if kept.all():
            return whole
        klines = [astuple(whole.kline(int(row)))[1:] for row in np.flatnonzero(kept)]
        columns = [np.array(column) for column in zip(*klines, strict=True)]
        return KlineBlock(whole.open_ms[kept], columns=columns)

    def candles(self, first: datetime, end: datetime, *, symbol: str = BTC) -> pl.DataFrame:
        """Return the candles that open in ``[first, end)`` straight from the market."""
        name, rows = symbol.replace("/", ""), []
        for start_ms in self.block_starts(name, until_ms=int(end.timestamp() * 1000) - 1):
            block = self.block(name, start_ms=start_ms)
            rows.append(b"[" + block.rows_text(0, len(block)) + b"]")
        candles = parse_pages(rows, symbol=symbol).candles.drop("close_time")
        return candles.filter(pl.col("open_time").is_between(first, end, closed="left"))
