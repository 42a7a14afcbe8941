"""What all labels rest on: prices that have a logarithm, and runs of consecutive minutes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import numpy.typing as npt
import polars as pl

from btc_lifecycle.domain.errors import ConfigurationError, DataError

CANDLE = timedelta(minutes=1)
KEY = ("symbol", "open_time")

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# A dozen arrays of so many rows stay within a core's cache from one step to the next.
_BLOCK_ROWS = 16_384


@dataclass(frozen=True, kw_only=True)
class MinuteRuns:
    """How many consecutive minutes of the same symbol lie right before and after each candle."""

    n_before: Ints
    n_after: Ints

    @classmethod
    def of(cls, candles: pl.DataFrame) -> MinuteRuns:
        """Return the runs of candles that are sorted by symbol and time.

        Each step from row to row must be one minute: a candle off the others' minutes breaks the
        run, as it does for features.
        """
        same_symbol = pl.col("symbol") == pl.col("symbol").shift(1)
        is_step = same_symbol & (pl.col("open_time").diff() == CANDLE)
        starts = candles.select(is_step.fill_null(value=False).not_()).to_series().arg_true()
        lengths = np.diff(starts.to_numpy().astype(np.int64), append=candles.height)
        position = np.arange(candles.height) - np.repeat(starts.to_numpy(), lengths)
        return cls(n_before=position, n_after=np.repeat(lengths, lengths) - 1 - position)


def in_order_of_minutes(
    candles: pl.DataFrame, compute: Callable[[pl.DataFrame], pl.DataFrame]
) -> pl.DataFrame:
    """Return what is computed from the candles by symbol and time, in the candles' own order."""
    symbol, time = pl.col("symbol"), pl.col("open_time")
    is_next = ((symbol == symbol.shift(1)) & (time > time.shift(1))) | (symbol > symbol.shift(1))
    if candles.select(is_next.all()).item():
        return compute(candles)
    computed = compute(candles.sort(KEY))
    return candles.select(KEY).join(computed, on=KEY, how="inner", maintain_order="left")


def blocks(n_rows: int) -> Iterator[slice]:
    """Yield slices that cut so many rows into blocks, the last one shorter."""
    for first in range(0, n_rows, _BLOCK_ROWS):
        yield slice(first, min(first + _BLOCK_ROWS, n_rows))


def refuse_bad_prices(candles: pl.DataFrame, *, columns: Sequence[str]) -> None:
    """Raise where a price has no logarithm.

    Raises:
        DataError: Names the column, how many of its values, and the first one's time.
    """
    for name in columns:
        price = pl.col(name)
        is_good = (price.is_finite() & (price > 0.0)).fill_null(value=False)
        bad = candles.filter(is_good.not_())
        if bad.height:
            raise DataError(
                f"{bad['symbol'][0]}: {bad.height} {name}s are not positive numbers, "
                f"first at {bad['open_time'][0]:%Y-%m-%d %H:%M} UTC",
                hint="ingest those candles again",
            )


def refuse_bad_horizon(horizon_min: int) -> None:
    """Raise for a horizon under one minute.

    Raises:
        ConfigurationError: Tells the horizon.
    """
    if horizon_min < 1:
        raise ConfigurationError(
            f"a label's horizon is {horizon_min} minutes", hint="set horizon_min to 1 or more"
        )
