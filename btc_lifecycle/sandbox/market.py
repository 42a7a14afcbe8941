"""What every sandbox market offers: one-minute klines in blocks of ready-made JSON text.

A block holds a day or a month of one symbol as the text of Binance's rows, so that an answer is cut
out of it instead of being formatted again for each request.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from copy import copy
from dataclasses import astuple, dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from btc_lifecycle.domain.errors import ConfigurationError

MINUTE_MS = 60_000
DAY_MS = 86_400_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_QUOTE_ASSETS = ("USDT", "USDC", "FDUSD", "EUR", "BTC")
_PRICE_DECIMALS = 2
_AMOUNT_DECIMALS = 5

MarketLabel = Literal["synthetic", "replay"]
_Row = tuple[int, float, float, float, float, float, float, int, float, float]


@dataclass(frozen=True, kw_only=True)
class Kline:
    """One minute of trading; amounts in the base asset, ``quote_*`` and prices in the quote."""

    open_ms: int
    open: float
    high: float
    low: float
    close: float
    volume: float
    quote_volume: float
    trades: int
    taker_buy_base: float
    taker_buy_quote: float

    def so_far(self, *, now_ms: int) -> Kline:
        """Return the kline as it looks at ``now_ms``, while its minute is still running.

        The price walks in straight lines from the open over both extremes to the close; amounts grow
        evenly. At the minute's end this is the kline itself.
        """
        elapsed = min(max((now_ms - self.open_ms) / MINUTE_MS, 0.0), 1.0)
        if elapsed == 1.0:
            return self
        extremes = (self.low, self.high) if self.close >= self.open else (self.high, self.low)
        times, prices = (0.0, 1 / 3, 2 / 3, 1.0), (self.open, *extremes, self.close)
        close = round(float(np.interp(elapsed, times, prices)), _PRICE_DECIMALS)
        seen = [price for at, price in zip(times, prices, strict=True) if at <= elapsed] + [close]
        volume = round(self.volume * elapsed, _AMOUNT_DECIMALS)
        taker_buy_base = round(self.taker_buy_base * elapsed, _AMOUNT_DECIMALS)
        mean_price = self.quote_volume / self.volume if self.volume > 0 else 0.0
        # A market without quote volumes keeps saying 0; others stay inside the range seen so far.
        mean_price = min(max(mean_price, min(seen)), max(seen)) if mean_price > 0 else 0.0
        return Kline(
            open_ms=self.open_ms,
            open=self.open,
            high=max(seen),
            low=min(seen),
            close=close,
            volume=volume,
            quote_volume=volume * mean_price,
            trades=int(self.trades * elapsed),
            taker_buy_base=taker_buy_base,
            taker_buy_quote=taker_buy_base * mean_price,
        )

    def to_json(self) -> str:
        """Return the kline as Binance's row of 12 fields."""
        return _row_text(astuple(self))


class KlineBlock:
    """Consecutive klines of one symbol, sorted by open time, with their text.

    Args:
        open_ms: Shape (n,), milliseconds since the epoch, rising.
        columns: The nine columns after the open time, in Kline's order, each of shape (n,); eight
            decimals are kept, as the exchange has no more.
    """

    def __init__(
        self, open_ms: npt.NDArray[np.int64], *, columns: Sequence[npt.NDArray[np.generic]]
    ) -> None:
        self.open_ms = open_ms
        lists = [column.tolist() for column in (open_ms, *columns)]
        rows = [_row_text(row) for row in zip(*lists, strict=True)]
        self._text = ",".join(rows).encode("ascii")
        self._row_starts = [0]
        for row in rows:
            self._row_starts.append(self._row_starts[-1] + len(row) + 1)

    def __len__(self) -> int:
        return len(self.open_ms)

    def rows_text(self, first: int, end: int) -> bytes:
        """Return rows ``first`` to ``end`` (exclusive, at least one) as text, comma between them."""
        return self._text[self._row_starts[first] : self._row_starts[end] - 1]

    def kline(self, row: int) -> Kline:
        """Return one row as numbers."""
        fields = json.loads(self.rows_text(row, row + 1))
        return Kline(
            open_ms=fields[0],
            open=float(fields[1]),
            high=float(fields[2]),
            low=float(fields[3]),
            close=float(fields[4]),
            volume=float(fields[5]),
            quote_volume=float(fields[7]),
            trades=fields[8],
            taker_buy_base=float(fields[9]),
            taker_buy_quote=float(fields[10]),
        )

    def with_kline(self, row: int, kline: Kline) -> KlineBlock:
        """Return the block with one row written anew; the open time must be that row's."""
        written = kline.to_json().encode("ascii")
        start, end = self._row_starts[row], self._row_starts[row + 1] - 1
        n_longer = len(written) - (end - start)
        block = copy(self)
        block._text = self._text[:start] + written + self._text[end:]
        later_starts = [later + n_longer for later in self._row_starts[row + 1 :]]
        block._row_starts = [*self._row_starts[: row + 1], *later_starts]
        return block


class Market(Protocol):
    """A source of klines; blocks follow each other in time and never overlap."""

    @property
    def label(self) -> MarketLabel:
        """What the answers are labelled with, so that a client can label its data."""
        ...

    @property
    def symbols(self) -> tuple[str, ...]:
        """The exchange's names of the symbols, such as BTCUSDT."""
        ...

    def block_starts(self, symbol: str, *, until_ms: int) -> Sequence[int]:
        """Return the starts of the symbol's blocks up to ``until_ms``, rising, in milliseconds."""
        ...

    def block(self, symbol: str, *, start_ms: int) -> KlineBlock:
        """Return the block that starts at ``start_ms``; it may reach past the present."""
        ...

    def describe(self) -> dict[str, object]:
        """Return what is particular to this market, as JSON values."""
        ...


class BlockCache:
    """The blocks used last, up to ``capacity`` of them; not safe for threads by itself."""

    def __init__(self, *, capacity: int) -> None:
        self._capacity = capacity
        self._blocks: OrderedDict[Hashable, KlineBlock] = OrderedDict()

    def get(self, key: Hashable, *, make: Callable[[], KlineBlock]) -> KlineBlock:
        """Return the block of ``key``, made now if it is not at hand."""
        if key not in self._blocks:
            self._blocks[key] = make()
            if len(self._blocks) > self._capacity:
                self._blocks.popitem(last=False)
        self._blocks.move_to_end(key)
        return self._blocks[key]

    def clear(self) -> None:
        """Forget every block."""
        self._blocks.clear()


def split_symbol(symbol: str) -> tuple[str, str]:
    """Return base and quote asset of a symbol such as BTCUSDT.

    Raises:
        ConfigurationError: When no known quote asset ends the symbol.
    """
    for quote in _QUOTE_ASSETS:
        if symbol.isupper() and symbol.endswith(quote) and len(symbol) > len(quote):
            return symbol.removesuffix(quote), quote
    raise ConfigurationError(
        f"{symbol!r} is no symbol that the sandbox exchange can list",
        hint=f"name it as Binance does, ending in one of {', '.join(_QUOTE_ASSETS)}",
    )


def as_ms(time: datetime) -> int:
    """Return an aware time as milliseconds since the epoch, rounded down.

    Raises:
        ConfigurationError: When the time has no zone.
    """
    if time.tzinfo is None:
        raise ConfigurationError(
            f"the time {time.isoformat()} has no zone", hint="add one, such as +00:00 for UTC"
        )
    return (time - _EPOCH) // timedelta(milliseconds=1)


def as_datetime(time_ms: int) -> datetime:
    """Return milliseconds since the epoch as aware UTC."""
    return _EPOCH + timedelta(milliseconds=time_ms)


def _row_text(row: _Row) -> str:
    open_ms, open_, high, low, close, volume, quote_volume, trades, taker_base, taker_quote = row
    return (
        f'[{open_ms},"{open_:.8f}","{high:.8f}","{low:.8f}","{close:.8f}","{volume:.8f}",'
        f'{open_ms + MINUTE_MS - 1},"{quote_volume:.8f}",{trades},'
        f'"{taker_base:.8f}","{taker_quote:.8f}","0"]'
    )
