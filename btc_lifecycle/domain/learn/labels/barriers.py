"""The triple-barrier outcome: whichever comes first of a rise, a fall and the horizon.

Source: López de Prado (2018), "Advances in Financial Machine Learning", chapter 3. There closes
touch the barriers; here the highs and lows do, as an order waiting at a barrier would be filled.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite, sqrt

import numpy as np
import polars as pl

from btc_lifecycle.domain.errors import ConfigurationError
from btc_lifecycle.domain.learn.labels.minutes import (
    CANDLE,
    KEY,
    Floats,
    Ints,
    MinuteRuns,
    blocks,
    in_order_of_minutes,
    refuse_bad_horizon,
    refuse_bad_prices,
)
from btc_lifecycle.domain.learn.labels.volatility import (
    forward_log_volatility,
    trailing_volatility,
)


def label_by_barriers(
    candles: pl.DataFrame, *, horizon_min: int, barrier_width: float, volatility_window_min: int
) -> pl.DataFrame:
    """Return LABELS for the candles whose barriers and whole horizon are known, in their order.

    The barriers of candle t lie at C[t] exp(+-w), w = barrier_width sigma[t] sqrt(horizon), with
    sigma[t] the root mean squared one-minute log return of the last `volatility_window_min`
    minutes: known at t's close. The first of the next `horizon_min` candles whose high reaches
    the upper one or whose low the lower one decides: the outcome is w or -w, and is known when
    that candle closes. A candle that reaches both does not tell which came first; the lower one
    counts, the worst case for a buyer. Without a touch the outcome is ln(C[t + horizon] / C[t]).

    There is a label only where all `horizon_min` candles that follow are there as consecutive
    minutes, even if an earlier one touched a barrier. Otherwise the newest candles, and those
    before a gap, would have a label only if they touched one early: a sample of the fast moves,
    whose slow ones join later and change what a model has learnt from.

    Args:
        candles: Closed candles of one or more symbols, one for each symbol and open time.
        horizon_min: Minutes from this candle's close to the outcome's, at the latest.
        barrier_width: Distance of the barriers in units of the horizon's volatility.
        volatility_window_min: Minutes whose volatility sets the barriers.

    Returns:
        One row of LABELS for each such candle; `direction` is the touched barrier's sign, or that
        of the outcome without a touch. None where the window of the volatility warms up or spans
        a gap, or no price moved in it.

    Raises:
        ConfigurationError: For a horizon, width or window that is not positive.
        DataError: For a high, low or close that is not a positive number.
    """
    _refuse_bad_barriers(horizon_min, barrier_width, volatility_window_min)
    refuse_bad_prices(candles, columns=["high", "low", "close"])
    barriers = _Barriers(
        horizon_min=horizon_min,
        width_per_volatility=barrier_width * sqrt(horizon_min),
        volatility_window_min=volatility_window_min,
    )
    return in_order_of_minutes(candles, barriers.label)


def _refuse_bad_barriers(
    horizon_min: int, barrier_width: float, volatility_window_min: int
) -> None:
    refuse_bad_horizon(horizon_min)
    if not (isfinite(barrier_width) and barrier_width > 0.0 and volatility_window_min >= 1):
        raise ConfigurationError(
            f"barriers of width {barrier_width} from a volatility of {volatility_window_min} minutes",
            hint="set barrier_width above 0 and volatility_window_min to 1 or more",
        )


@dataclass(frozen=True, kw_only=True)
class _Barriers:
    horizon_min: int
    width_per_volatility: float
    volatility_window_min: int

    def label(self, candles: pl.DataFrame) -> pl.DataFrame:
        """Return LABELS of candles that are sorted by symbol and time."""
        runs = MinuteRuns.of(candles)
        volatility = trailing_volatility(
            candles["close"].to_numpy(), runs=runs, window_min=self.volatility_window_min
        )
        outcomes = self._outcomes(candles, widths=self.width_per_volatility * volatility)
        is_labelled = (volatility > 0.0) & (runs.n_after >= self.horizon_min)
        open_time, lasted_min = pl.col("open_time"), pl.Series(outcomes.lasted_min)
        return candles.select(
            *KEY,
            method=pl.lit("triple_barrier"),
            horizon_min=pl.lit(self.horizon_min, pl.Int64),
            forward_log_return=pl.Series(outcomes.log_return),
            direction=pl.Series(outcomes.direction),
            matures_at=open_time + pl.duration(minutes=pl.lit(lasted_min)) + CANDLE,
            forward_log_volatility=forward_log_volatility(candles)["forward_log_volatility"],
        ).filter(pl.Series(is_labelled))

    def _outcomes(self, candles: pl.DataFrame, *, widths: Floats) -> _Outcomes:
        """Return what came of each row; meaningless where it has no width or no full horizon."""
        high, low, close = (candles[name].to_numpy() for name in ("high", "low", "close"))
        outcomes = _Outcomes.none(candles.height)
        for block in blocks(max(0, candles.height - self.horizon_min)):
            width, start = widths[block], close[block]
            # A barrier beyond all numbers is one that no price touches.
            with np.errstate(over="ignore"):
                upper, lower = start * np.exp(width), start * np.exp(-width)
            n_quiet = self._minutes_without_touch(high, low, upper=upper, lower=lower, block=block)
            limit = np.arange(block.start, block.stop) + self.horizon_min
            lasted_min = np.minimum(n_quiet + 1, self.horizon_min)
            is_touched = n_quiet < self.horizon_min
            is_lower = low[limit - self.horizon_min + lasted_min] <= lower
            at_limit = np.log(close[limit] / start)
            direction = np.where(is_touched, np.where(is_lower, -1, 1), np.sign(at_limit))
            outcomes.log_return[block] = np.where(is_touched, direction * width, at_limit)
            outcomes.direction[block] = direction
            outcomes.lasted_min[block] = lasted_min
        return outcomes

    def _minutes_without_touch(
        self, high: Floats, low: Floats, *, upper: Floats, lower: Floats, block: slice
    ) -> Ints:
        """Return how many candles follow each row of the block before the one that touches."""
        is_quiet = np.ones(upper.size, dtype=np.bool_)
        n_quiet = np.zeros(upper.size, dtype=np.min_scalar_type(self.horizon_min))
        for later in range(1, self.horizon_min + 1):
            rows = slice(block.start + later, block.stop + later)
            is_quiet &= high[rows] < upper
            is_quiet &= low[rows] > lower
            n_quiet += is_quiet.view(np.uint8)
        return n_quiet.astype(np.int64)


@dataclass(frozen=True, kw_only=True)
class _Outcomes:
    """What came of each row: log return, direction, and minutes until it was known."""

    log_return: Floats
    direction: Ints
    lasted_min: Ints

    @classmethod
    def none(cls, n_rows: int) -> _Outcomes:
        """Return outcomes to be filled in."""
        return cls(
            log_return=np.zeros(n_rows),
            direction=np.zeros(n_rows, dtype=np.int64),
            lasted_min=np.zeros(n_rows, dtype=np.int64),
        )
