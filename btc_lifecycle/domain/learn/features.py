"""Features: what is known at a candle's close, from that candle and earlier ones only.

One function serves the whole history and the last few hours, with equal bits: every window is
computed from its own candles alone, so a row does not depend on how much history came before it.
A window is there only where its candles are consecutive minutes; elsewhere the feature is null.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from math import log, pi, sqrt

import polars as pl

from btc_lifecycle.domain.errors import DataError
from btc_lifecycle.domain.tables import FEATURE_COLUMNS, FEATURES

FEATURE_NAMES: tuple[str, ...] = tuple(column.name for column in FEATURE_COLUMNS)
WARMUP_MIN = 240
# An example needs every feature it is made of. A feature rarer than this would cost more than half
# of the examples; over days of history, warm-up and gaps leave every other one far above it.
MIN_KNOWN_SHARE = 0.5

_MINUTES_PER_DAY = 1440
_MINUTES_PER_WEEK = 7 * _MINUTES_PER_DAY
# The epoch's minute 0 is a Thursday's; weeks are counted from Monday.
_MINUTES_MONDAY_TO_EPOCH = 3 * _MINUTES_PER_DAY
# Bounds the memory for intermediate columns to some 100 MB, whatever the length of the history.
_BLOCK_ROWS = 262_144

_OPEN, _HIGH, _LOW, _CLOSE, _VOLUME = map(pl.col, ("open", "high", "low", "close", "volume"))
_BUYS = pl.col("taker_buy_base")
_LOG_RETURN = (_CLOSE / _CLOSE.shift(1)).log()
_CHANGE = _CLOSE.diff()

# What windows sum up: one value per candle, null where the candle before is needed and absent.
_MINUTE_TERMS: Mapping[str, pl.Expr] = {
    "squared_return": _LOG_RETURN**2,
    # Parkinson (1980), "The Extreme Value Method for Estimating the Variance of the Rate of
    # Return", Journal of Business 53: ln(H/L)^2 / (4 ln 2).
    "parkinson_variance": (_HIGH / _LOW).log() ** 2 / (4.0 * log(2.0)),
    # Garman and Klass (1980), "On the Estimation of Security Price Volatilities from Historical
    # Data", Journal of Business 53: ln(H/L)^2 / 2 - (2 ln 2 - 1) ln(C/O)^2.
    "garman_klass_variance": (
        0.5 * (_HIGH / _LOW).log() ** 2 - (2.0 * log(2.0) - 1.0) * (_CLOSE / _OPEN).log() ** 2
    ),
    "volume": _VOLUME,
    "typical_value": _VOLUME * (_HIGH + _LOW + _CLOSE) / 3.0,
    "taker_net": 2.0 * _BUYS - _VOLUME,
    "rise": _CHANGE.clip(lower_bound=0.0),
    "fall": (-_CHANGE).clip(lower_bound=0.0),
}
_SUM_WINDOWS_MIN: Mapping[str, tuple[int, ...]] = {
    "squared_return": (15, 60, 240),
    "parkinson_variance": (60,),
    "garman_klass_variance": (60,),
    "volume": (5, 15, 60, 240),
    "typical_value": (60, 240),
    "taker_net": (5, 15, 60),
    "rise": (14,),
    "fall": (14,),
}
_MOMENT_WINDOWS_MIN = (60, 240)


@dataclass(frozen=True, kw_only=True)
class _Feature:
    """One feature's formula and the minutes from the first candle it needs to its own."""

    formula: pl.Expr
    span_min: int


def compute_features(candles: pl.DataFrame) -> pl.DataFrame:
    """Return one row of FEATURES per candle; row t uses candle t and earlier ones only.

    Args:
        candles: One symbol's candles in the order of their open times, each once. Gaps and open
            times off the full minute are allowed.

    Returns:
        The features in the order of FEATURE_NAMES. Null in the first WARMUP_MIN rows and after
        each gap as far as a feature's window reaches back, where taker data are absent, and
        where a formula has no finite value, such as a window without volume.

    Raises:
        DataError: For several symbols, or open times that do not increase.
    """
    _refuse_disorder(candles)
    blocks = [
        _compute_block(candles[max(0, first - WARMUP_MIN) : first + _BLOCK_ROWS]).tail(
            min(_BLOCK_ROWS, candles.height - first)
        )
        for first in range(0, candles.height, _BLOCK_ROWS)
    ]
    return pl.concat(blocks) if blocks else pl.DataFrame(schema=FEATURES.schema)


def available_features(features: pl.DataFrame) -> tuple[str, ...]:
    """Return the names of the features that have a value in enough rows, in their usual order.

    Enough is MIN_KNOWN_SHARE of the rows in which the best-known feature has one.
    """
    n_known = {name: features[name].count() for name in FEATURE_NAMES}
    n_wanted = max(MIN_KNOWN_SHARE * max(n_known.values()), 1)
    return tuple(name for name in FEATURE_NAMES if n_known[name] >= n_wanted)


def _refuse_disorder(candles: pl.DataFrame) -> None:
    if candles["symbol"].n_unique() > 1:
        raise DataError(
            f"features were asked for {candles['symbol'].n_unique()} symbols in one frame",
            hint="compute them for one symbol at a time",
        )
    steps = candles["open_time"].diff()
    n_backward = int((steps <= timedelta(0)).sum())
    if n_backward:
        raise DataError(
            f"{candles['symbol'][0]}: {n_backward} of {candles.height} candles do not open after "
            "the candle before them",
            hint="sort the candles by open_time and keep one for each minute",
        )


def _compute_block(candles: pl.DataFrame) -> pl.DataFrame:
    terms = candles.select(**_MINUTE_TERMS)
    sums = {
        f"{name}_sum_{window_min}m": _window_sum(terms[name], window=window_min)
        for name, windows_min in _SUM_WINDOWS_MIN.items()
        for window_min in windows_min
    }
    moments: dict[str, pl.Series] = {}
    for window_min in _MOMENT_WINDOWS_MIN:
        mean, squares = _window_moments(candles["volume"].log1p(), window=window_min)
        moments[f"log_volume_mean_{window_min}m"] = mean
        moments[f"log_volume_deviation_{window_min}m"] = (squares / window_min).sqrt()
    formulas = {name: feature.formula for name, feature in _FEATURES.items()}
    return (
        candles.with_columns(_consecutive_minutes(), **sums, **moments)
        .select("symbol", "open_time", "consecutive_min", **formulas)
        .with_columns(_where_known(name, span_min=_FEATURES[name].span_min) for name in formulas)
        .drop("consecutive_min")
    )


def _consecutive_minutes() -> pl.Expr:
    """Return how many steps of exactly one minute lead up to each row without a break.

    A window's two ends do not tell: a candle too many makes up for one that is missing.
    """
    row = pl.int_range(pl.len())
    is_step = pl.col("open_time").diff() == timedelta(minutes=1)
    last_break = pl.when(~is_step.fill_null(value=False)).then(row).forward_fill()
    return (row - last_break).alias("consecutive_min")


def _where_known(name: str, *, span_min: int) -> pl.Expr:
    value = pl.col(name)
    return pl.when(value.is_finite() & (pl.col("consecutive_min") >= span_min)).then(value)


def _window_sum(values: pl.Series, *, window: int) -> pl.Series:
    """Return the sum of the last `window` values: that of the later half plus the earlier's.

    A running sum that adds the newest value and takes off the oldest keeps rounding remains of
    values that have left: a window without volume would not sum to zero, and a row would depend
    on the length of the history before it.
    """
    if window == 1:
        return values
    half = _window_sum(values, window=window // 2)
    total = half + half.shift(window // 2)
    return total + values.shift(window - 1) if window % 2 else total


def _window_moments(values: pl.Series, *, window: int) -> tuple[pl.Series, pl.Series]:
    """Return the mean and the sum of squared deviations from it of the last `window` values.

    By halves, like `_window_sum`: nothing cancels, and a constant window deviates by exactly 0.
    Source: Chan, Golub and LeVeque (1983), "Algorithms for Computing the Sample Variance", The
    American Statistician 37, the pairwise update.
    """
    if window == 1:
        return values, values * 0.0
    n = window // 2
    mean, squares = _window_moments(values, window=n)
    step = mean.shift(n) - mean
    mean, squares = mean + step / 2.0, squares + squares.shift(n) + step**2 * (n / 2.0)
    if window % 2:
        step = values.shift(window - 1) - mean
        mean, squares = mean + step / window, squares + step**2 * ((window - 1) / window)
    return mean, squares


def _log_return(window_min: int) -> pl.Expr:
    return (_CLOSE / _CLOSE.shift(window_min)).log()


def _sum(name: str, window_min: int) -> pl.Expr:
    return pl.col(f"{name}_sum_{window_min}m")


def _root_mean(variance: str, window_min: int) -> pl.Expr:
    return (_sum(variance, window_min) / window_min).sqrt()


def _scaled_return(window_min: int) -> pl.Expr:
    """Return the log return over the volatility that a random walk has in as many minutes."""
    return _log_return(window_min) / (_root_mean("squared_return", 240) * sqrt(window_min))


def _volume_zscore(window_min: int) -> pl.Expr:
    """Return the distance from the window's mean in population standard deviations."""
    mean = pl.col(f"log_volume_mean_{window_min}m")
    return (_VOLUME.log1p() - mean) / pl.col(f"log_volume_deviation_{window_min}m")


def _range_position(window_min: int) -> pl.Expr:
    lowest, highest = _LOW.rolling_min(window_min), _HIGH.rolling_max(window_min)
    return (_CLOSE - lowest) / (highest - lowest)


def _vwap_deviation(window_min: int) -> pl.Expr:
    vwap = _sum("typical_value", window_min) / _sum("volume", window_min)
    return (_CLOSE / vwap).log()


def _taker_imbalance(window_min: int) -> pl.Expr:
    return _sum("taker_net", window_min) / _sum("volume", window_min)


def _over_candle_range(numerator: pl.Expr) -> pl.Expr:
    return pl.when(_HIGH == _LOW).then(0.0).otherwise(numerator / (_HIGH - _LOW))


def _relative_strength() -> pl.Expr:
    """Return RSI / 100 with plain means: Wilder's own smoothing never forgets its start.

    Source: Wilder (1978), "New Concepts in Technical Trading Systems", section VI.
    """
    rise, fall = _sum("rise", 14), _sum("fall", 14)
    return pl.when(rise + fall == 0.0).then(0.5).otherwise(rise / (rise + fall))


def _phase(period_min: int, *, offset_min: int = 0) -> pl.Expr:
    """Return the close's whole minute within a period as an angle in radians."""
    close_min = pl.col("open_time").dt.epoch("us") // 60_000_000 + 1
    return (close_min + offset_min) % period_min * (2.0 * pi / period_min)


_DAY_PHASE = _phase(_MINUTES_PER_DAY)
_WEEK_PHASE = _phase(_MINUTES_PER_WEEK, offset_min=_MINUTES_MONDAY_TO_EPOCH)


def _window(formula: pl.Expr, *, candles: int) -> _Feature:
    return _Feature(formula=formula, span_min=candles - 1)


_FEATURES: Mapping[str, _Feature] = {
    "log_return_1m": _window(_log_return(1), candles=2),
    "log_return_5m": _window(_log_return(5), candles=6),
    "log_return_15m": _window(_log_return(15), candles=16),
    "log_return_60m": _window(_log_return(60), candles=61),
    "log_return_240m": _window(_log_return(240), candles=241),
    "scaled_return_5m": _window(_scaled_return(5), candles=241),
    "scaled_return_15m": _window(_scaled_return(15), candles=241),
    "realized_volatility_15m": _window(_root_mean("squared_return", 15), candles=16),
    "realized_volatility_60m": _window(_root_mean("squared_return", 60), candles=61),
    "realized_volatility_240m": _window(_root_mean("squared_return", 240), candles=241),
    "volatility_ratio_15m_240m": _window(
        (_root_mean("squared_return", 15) / _root_mean("squared_return", 240)).log(), candles=241
    ),
    "parkinson_volatility_60m": _window(_root_mean("parkinson_variance", 60), candles=60),
    "garman_klass_volatility_60m": _window(_root_mean("garman_klass_variance", 60), candles=60),
    "high_low_range_1m": _window((_HIGH / _LOW).log(), candles=1),
    "volume_ratio_15m_240m": _window(
        (_sum("volume", 15) / 15.0 / (_sum("volume", 240) / 240.0)).log(), candles=240
    ),
    "volume_zscore_60m": _window(_volume_zscore(60), candles=60),
    "volume_zscore_240m": _window(_volume_zscore(240), candles=240),
    "range_position_60m": _window(_range_position(60), candles=60),
    "range_position_240m": _window(_range_position(240), candles=240),
    "vwap_deviation_60m": _window(_vwap_deviation(60), candles=60),
    "vwap_deviation_240m": _window(_vwap_deviation(240), candles=240),
    "body_ratio_1m": _window(_over_candle_range(_CLOSE - _OPEN), candles=1),
    "close_location_1m": _window(_over_candle_range(2.0 * _CLOSE - _HIGH - _LOW), candles=1),
    "rsi_14m": _window(_relative_strength(), candles=15),
    "minute_of_day_sin": _window(_DAY_PHASE.sin(), candles=1),
    "minute_of_day_cos": _window(_DAY_PHASE.cos(), candles=1),
    "day_of_week_sin": _window(_WEEK_PHASE.sin(), candles=1),
    "day_of_week_cos": _window(_WEEK_PHASE.cos(), candles=1),
    "taker_imbalance_1m": _window((2.0 * _BUYS - _VOLUME) / _VOLUME, candles=1),
    "taker_imbalance_5m": _window(_taker_imbalance(5), candles=5),
    "taker_imbalance_15m": _window(_taker_imbalance(15), candles=15),
    "taker_imbalance_60m": _window(_taker_imbalance(60), candles=60),
}
