"""Volatility of one-minute log returns: what it was up to a close, and what it is after it."""

from __future__ import annotations

import numpy as np
import polars as pl

from btc_lifecycle.domain.learn.labels.minutes import (
    KEY,
    Floats,
    MinuteRuns,
    blocks,
    in_order_of_minutes,
    refuse_bad_prices,
)

VOLATILITY_HORIZON_MIN = 60


def forward_log_volatility(candles: pl.DataFrame) -> pl.DataFrame:
    """Return the log of the volatility that follows each candle's close, in the candles' order.

    It is ln sqrt(mean of ln(C[s] / C[s - 1])^2) over the next VOLATILITY_HORIZON_MIN minutes s:
    the closes from t to t + 60, all of them consecutive minutes.

    Args:
        candles: Closed candles of one or more symbols, one for each symbol and open time.

    Returns:
        symbol, open_time and `forward_log_volatility` (log of return per minute) of every candle;
        null until those minutes are over, where one is missing, and where no price moved.

    Raises:
        DataError: For a close that is not a positive number.
    """
    refuse_bad_prices(candles, columns=["close"])
    return in_order_of_minutes(candles, _forward_log_volatility)


def trailing_volatility(close: Floats, *, runs: MinuteRuns, window_min: int) -> Floats:
    """Return the root mean squared one-minute log return of the minutes up to each close.

    Args:
        close: Shape (candles,), sorted by symbol and time, each a positive number.
        runs: Of the same candles.
        window_min: How many returns, which take one close more.

    Returns:
        Shape (candles,); NaN where the window warms up or spans a gap.
    """
    volatility = np.full(close.size, np.nan)
    for block in blocks(close.size):
        # One row more than the window has returns: the close that the first return starts from.
        first = max(0, block.start - window_min)
        squared_return = np.diff(np.log(close[first : block.stop])) ** 2
        mean = _window_sum(squared_return, window=window_min) / window_min
        volatility[block.stop - mean.size : block.stop] = np.sqrt(mean)
    volatility[runs.n_before < window_min] = np.nan
    return volatility


def _forward_log_volatility(candles: pl.DataFrame) -> pl.DataFrame:
    horizon = VOLATILITY_HORIZON_MIN
    runs = MinuteRuns.of(candles)
    trailing = trailing_volatility(candles["close"].to_numpy(), runs=runs, window_min=horizon)
    # The minutes after a close are those up to the close an hour later, whose window is unbroken.
    forward = np.full(candles.height, np.nan)
    forward[: max(0, candles.height - horizon)] = trailing[horizon:]
    forward[forward == 0.0] = np.nan
    return candles.select(
        *KEY, forward_log_volatility=pl.Series(np.log(forward), dtype=pl.Float64).fill_nan(None)
    )


def _window_sum(values: Floats, *, window: int) -> Floats:
    """Return the sum of each `window` consecutive values, by halves: (n - window + 1,) of them.

    Each sum is made of its own values alone and always in the same order, so it is the same bits
    whatever lies before and after. A running sum would carry rounding remains along.
    """
    if values.size < window:
        return values[:0]
    if window == 1:
        return values
    n_sums, n_half = values.size - window + 1, window // 2
    halves = _window_sum(values, window=n_half)
    total = halves[:n_sums] + halves[n_half : n_half + n_sums]
    return total + values[window - 1 :] if window % 2 else total
