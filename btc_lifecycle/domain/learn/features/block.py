"""A block of candles as arrays, and what several features take from them, computed once."""

from __future__ import annotations

from functools import cached_property
from math import log

import numpy as np
import numpy.typing as npt
import polars as pl

from btc_lifecycle.domain.learn.features.windows import Values, Windows, with_lagged

_COLUMNS = ("open", "high", "low", "close", "volume", "trades", "taker_buy_base")
_MINUTE_US = 60_000_000


def log_ratio(over: Values, under: Values) -> Values:
    """Return the log of one value over the other."""
    return np.log(over / under)


class CandleBlock:
    """Some candles in the order of their open times; what the exchange does not tell is NaN.

    Windows count rows: `consecutive_min` says where these are minutes.
    """

    def __init__(self, candles: pl.DataFrame) -> None:
        columns: list[Values] = [candles[name].cast(pl.Float64).to_numpy() for name in _COLUMNS]
        self.open, self.high, self.low, self.close, self.volume, self.trades, self.buys = columns
        self._open_us: npt.NDArray[np.int64] = candles["open_time"].to_physical().to_numpy()

    @cached_property
    def consecutive_min(self) -> npt.NDArray[np.int64]:
        """How many steps of exactly one minute lead up to each row without a break.

        A window's two ends do not tell: a candle too many makes up for one that is missing.
        """
        row = np.arange(self._open_us.size)
        is_break = np.diff(self._open_us, prepend=self._open_us[:1]) != _MINUTE_US
        return row - np.maximum.accumulate(np.where(is_break, row, 0))

    @cached_property
    def close_min(self) -> Values:
        """Whole minutes from the epoch to each close."""
        return (self._open_us // _MINUTE_US + 1).astype(np.float64)

    def log_return(self, minutes: int) -> Values:
        """Return the log of close over the close so many minutes before."""
        return np.log(with_lagged(np.divide, self.close, self.close, minutes=minutes))

    @cached_property
    def minute_return(self) -> Values:
        """The log return of one minute."""
        return self.log_return(1)

    @cached_property
    def log_range(self) -> Values:
        """Log of high over low."""
        return log_ratio(self.high, self.low)

    @cached_property
    def squared_returns(self) -> Windows:
        """Squared one-minute log returns."""
        return Windows(self.minute_return**2)

    @cached_property
    def absolute_returns(self) -> Windows:
        """Absolute one-minute log returns."""
        return Windows(np.abs(self.minute_return))

    @cached_property
    def volumes(self) -> Windows:
        """Amounts traded."""
        return Windows(self.volume)

    @cached_property
    def values_traded(self) -> Windows:
        """Amounts traded times the typical price, the mean of high, low and close."""
        return Windows(self.volume * (self.high + self.low + self.close) / 3.0)

    @cached_property
    def taker_nets(self) -> Windows:
        """Amounts bought less amounts sold by takers."""
        return Windows(2.0 * self.buys - self.volume)

    @cached_property
    def highs(self) -> Windows:
        """Highest prices."""
        return Windows(self.high)

    @cached_property
    def lows(self) -> Windows:
        """Lowest prices."""
        return Windows(self.low)

    def parkinson_variance(self) -> Values:
        """Return each candle's variance by Parkinson (1980)."""
        return self.log_range**2 / (4.0 * log(2.0))

    def garman_klass_variance(self) -> Values:
        """Return each candle's variance by Garman and Klass (1980), without the night's jump."""
        body = log_ratio(self.close, self.open)
        return 0.5 * self.log_range**2 - (2.0 * log(2.0) - 1.0) * body**2

    def rogers_satchell_variance(self) -> Values:
        """Return each candle's variance by Rogers and Satchell (1991), whatever its drift."""
        rise = log_ratio(self.high, self.open) * log_ratio(self.high, self.close)
        fall = log_ratio(self.low, self.open) * log_ratio(self.low, self.close)
        return rise + fall
