"""The formula of each feature; docs/features.md tells them with their sources."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from math import pi, sqrt
from typing import TypeAlias

import numpy as np

from btc_lifecycle.domain.learn.features.block import CandleBlock, log_ratio
from btc_lifecycle.domain.learn.features.windows import Values, Windows, with_lagged

Formula: TypeAlias = Callable[[CandleBlock], Values]
"""One value per candle, not finite where there is none; gaps in time are not its business."""

_MINUTES_PER_DAY = 1440
_MINUTES_PER_WEEK = 7 * _MINUTES_PER_DAY
# The epoch's minute 0 is a Thursday's; weeks are counted from Monday.
_MINUTES_MONDAY_TO_EPOCH = 3 * _MINUTES_PER_DAY


def _realized_volatility(block: CandleBlock, *, minutes: int) -> Values:
    return np.sqrt(block.squared_returns.mean(minutes))


def _scaled_return(block: CandleBlock, *, minutes: int) -> Values:
    """Return the log return over the volatility that a random walk has in as many minutes."""
    volatility = _realized_volatility(block, minutes=240)
    return block.log_return(minutes) / (volatility * sqrt(minutes))


def _volatility_ratio(block: CandleBlock, *, short: int, long: int) -> Values:
    squares = block.squared_returns
    return log_ratio(squares.mean(short), squares.mean(long)) / 2.0


def _range_ratio(block: CandleBlock, *, variance: Formula) -> Values:
    """Return a range's volatility in units of the realized one, whose level wanders for years."""
    return np.sqrt(Windows(variance(block)).mean(60) / block.squared_returns.mean(60))


def _volume_ratio(block: CandleBlock) -> Values:
    return log_ratio(block.volumes.mean(15), block.volumes.mean(240))


def _root_zscore(amounts: Values) -> Values:
    """Return the distance from the hour's mean in population standard deviations, of the root.

    The root tames bursts like a log, exists for 0 and, unlike log(1 + x), has no unit of its own:
    amounts in another unit have the same scores.
    """
    roots = np.sqrt(amounts)
    mean, squares = Windows(roots).moments(60)
    return (roots - mean) / np.sqrt(squares / 60.0)


def _illiquidity_ratio(block: CandleBlock) -> Values:
    moves, values = block.absolute_returns, block.values_traded
    return log_ratio(moves.sum(60) / values.sum(60), moves.sum(240) / values.sum(240))


def _range_position(block: CandleBlock, *, minutes: int) -> Values:
    lowest, highest = block.lows.lowest(minutes), block.highs.highest(minutes)
    return (block.close - lowest) / (highest - lowest)


def _vwap_deviation(block: CandleBlock, *, minutes: int) -> Values:
    vwap = block.values_traded.sum(minutes) / block.volumes.sum(minutes)
    return log_ratio(block.close, vwap)


def _over_range(block: CandleBlock, numerator: Values) -> Values:
    height = block.high - block.low
    return np.where(height == 0.0, 0.0, numerator / height)


def _body_ratio(block: CandleBlock) -> Values:
    return _over_range(block, block.close - block.open)


def _close_location(block: CandleBlock) -> Values:
    return _over_range(block, 2.0 * block.close - block.high - block.low)


def _relative_strength(block: CandleBlock) -> Values:
    change = with_lagged(np.subtract, block.close, block.close, minutes=1)
    rise = Windows(np.maximum(change, 0.0)).sum(14)
    moved = rise + Windows(np.maximum(-change, 0.0)).sum(14)
    return np.where(moved == 0.0, 0.5, rise / moved)


def _taker_imbalance(block: CandleBlock, *, minutes: int) -> Values:
    return block.taker_nets.sum(minutes) / block.volumes.sum(minutes)


def _day_phase(block: CandleBlock) -> Values:
    return block.close_min % _MINUTES_PER_DAY * (2.0 * pi / _MINUTES_PER_DAY)


def _week_phase(block: CandleBlock) -> Values:
    minute = (block.close_min + _MINUTES_MONDAY_TO_EPOCH) % _MINUTES_PER_WEEK
    return minute * (2.0 * pi / _MINUTES_PER_WEEK)


FORMULAS: Mapping[str, Formula] = {
    "log_return_1m": partial(CandleBlock.log_return, minutes=1),
    "log_return_5m": partial(CandleBlock.log_return, minutes=5),
    "log_return_15m": partial(CandleBlock.log_return, minutes=15),
    "log_return_60m": partial(CandleBlock.log_return, minutes=60),
    "log_return_240m": partial(CandleBlock.log_return, minutes=240),
    "scaled_return_5m": partial(_scaled_return, minutes=5),
    "scaled_return_15m": partial(_scaled_return, minutes=15),
    "realized_volatility_15m": partial(_realized_volatility, minutes=15),
    "realized_volatility_60m": partial(_realized_volatility, minutes=60),
    "realized_volatility_240m": partial(_realized_volatility, minutes=240),
    "volatility_ratio_15m_60m": partial(_volatility_ratio, short=15, long=60),
    "volatility_ratio_60m_240m": partial(_volatility_ratio, short=60, long=240),
    "parkinson_ratio_60m": partial(_range_ratio, variance=CandleBlock.parkinson_variance),
    "garman_klass_ratio_60m": partial(_range_ratio, variance=CandleBlock.garman_klass_variance),
    "rogers_satchell_ratio_60m": partial(
        _range_ratio, variance=CandleBlock.rogers_satchell_variance
    ),
    "high_low_range_1m": lambda block: block.log_range,
    "volume_ratio_15m_240m": _volume_ratio,
    "volume_zscore_60m": lambda block: _root_zscore(block.volume),
    "illiquidity_ratio_60m_240m": _illiquidity_ratio,
    "range_position_60m": partial(_range_position, minutes=60),
    "range_position_240m": partial(_range_position, minutes=240),
    "vwap_deviation_60m": partial(_vwap_deviation, minutes=60),
    "vwap_deviation_240m": partial(_vwap_deviation, minutes=240),
    "body_ratio_1m": _body_ratio,
    "close_location_1m": _close_location,
    "rsi_14m": _relative_strength,
    "minute_of_day_sin": lambda block: np.sin(_day_phase(block)),
    "minute_of_day_cos": lambda block: np.cos(_day_phase(block)),
    "day_of_week_sin": lambda block: np.sin(_week_phase(block)),
    "day_of_week_cos": lambda block: np.cos(_week_phase(block)),
    "trades_zscore_60m": lambda block: _root_zscore(block.trades),
    "taker_imbalance_1m": partial(_taker_imbalance, minutes=1),
    "taker_imbalance_5m": partial(_taker_imbalance, minutes=5),
    "taker_imbalance_15m": partial(_taker_imbalance, minutes=15),
    "taker_imbalance_60m": partial(_taker_imbalance, minutes=60),
}
