"""Slow, obvious features of one row, by plain loops over the candles that it may see."""

from __future__ import annotations

import itertools
import math
from datetime import timedelta

import numpy as np
import polars as pl

MINUTE = timedelta(minutes=1)


def features_of_row(candles: pl.DataFrame, row: int) -> dict[str, float | None]:
    """Return every feature of one row; None where it has none."""
    rows = candles[: row + 1].to_dicts()
    return {name: _value(formula, rows) for name, formula in _FORMULAS.items()}


class _NotThereError(Exception):
    """The window of a feature spans a gap or starts before the first candle."""


class _Past:
    """The candles up to a row, asked for by windows of consecutive minutes."""

    def __init__(self, rows: list[dict]) -> None:
        self._rows = rows
        self.now = rows[-1]

    def window(self, n: int) -> list[dict]:
        if n > len(self._rows):
            raise _NotThereError
        window = self._rows[-n:]
        for i, candle in enumerate(window):
            if candle["open_time"] != window[0]["open_time"] + i * MINUTE:
                raise _NotThereError
        return window

    def column(self, name: str, n: int) -> list[float]:
        values = [candle[name] for candle in self.window(n)]
        if None in values:
            raise _NotThereError
        return values

    def returns(self, n: int) -> list[float]:
        close = self.column("close", n + 1)
        return [math.log(b / a) for a, b in itertools.pairwise(close)]


def _value(formula, rows: list[dict]) -> float | None:
    try:
        value = formula(_Past(rows))
    except (_NotThereError, ZeroDivisionError, ValueError):
        return None
    return value if math.isfinite(value) else None


def _log_return(past: _Past, n: int) -> float:
    close = past.column("close", n + 1)
    return math.log(close[-1] / close[0])


def _volatility(past: _Past, n: int) -> float:
    return math.sqrt(math.fsum(r**2 for r in past.returns(n)) / n)


def _scaled_return(past: _Past, n: int) -> float:
    return _log_return(past, n) / (_volatility(past, 240) * math.sqrt(n))


def _parkinson(past: _Past, n: int) -> float:
    squares = [math.log(c["high"] / c["low"]) ** 2 for c in past.window(n)]
    return math.sqrt(math.fsum(squares) / n / (4.0 * math.log(2.0)))


def _garman_klass(past: _Past, n: int) -> float:
    terms = [
        0.5 * math.log(c["high"] / c["low"]) ** 2
        - (2.0 * math.log(2.0) - 1.0) * math.log(c["close"] / c["open"]) ** 2
        for c in past.window(n)
    ]
    return math.sqrt(math.fsum(terms) / n)


def _rogers_satchell(past: _Past, n: int) -> float:
    terms = [
        math.log(c["high"] / c["close"]) * math.log(c["high"] / c["open"])
        + math.log(c["low"] / c["close"]) * math.log(c["low"] / c["open"])
        for c in past.window(n)
    ]
    return math.sqrt(math.fsum(terms) / n)


def _volume_ratio(past: _Past, short: int, long: int) -> float:
    volume = past.column("volume", long)
    return math.log(math.fsum(volume[-short:]) / short / (math.fsum(volume) / long))


def _root_zscore(past: _Past, name: str, n: int) -> float:
    roots = [math.sqrt(amount) for amount in past.column(name, n)]
    if len(set(roots)) == 1:
        raise _NotThereError
    return (roots[-1] - np.mean(roots)) / np.std(roots)


def _illiquidity(past: _Past, n: int) -> float:
    return math.fsum(map(abs, past.returns(n))) / math.fsum(_values_traded(past, n))


def _values_traded(past: _Past, n: int) -> list[float]:
    return [c["volume"] * (c["high"] + c["low"] + c["close"]) / 3.0 for c in past.window(n)]


def _range_position(past: _Past, n: int) -> float:
    low, high = min(past.column("low", n)), max(past.column("high", n))
    return (past.now["close"] - low) / (high - low)


def _vwap_deviation(past: _Past, n: int) -> float:
    vwap = math.fsum(_values_traded(past, n)) / math.fsum(past.column("volume", n))
    return math.log(past.now["close"] / vwap)


def _over_range(past: _Past, numerator: float) -> float:
    height = past.now["high"] - past.now["low"]
    return numerator / height if height else 0.0


def _rsi(past: _Past, n: int) -> float:
    close = past.column("close", n + 1)
    changes = [b - a for a, b in itertools.pairwise(close)]
    moved = math.fsum(abs(change) for change in changes)
    return math.fsum(c for c in changes if c > 0.0) / moved if moved else 0.5


def _angle(past: _Past, *, in_week: bool) -> float:
    closes_at = past.now["open_time"] + MINUTE
    minute = closes_at.hour * 60 + closes_at.minute
    if in_week:
        return 2.0 * math.pi * (closes_at.weekday() * 1440 + minute) / 10_080
    return 2.0 * math.pi * minute / 1440


def _taker_imbalance(past: _Past, n: int) -> float:
    buys, volume = past.column("taker_buy_base", n), past.column("volume", n)
    return math.fsum(2.0 * b - v for b, v in zip(buys, volume, strict=True)) / math.fsum(volume)


_FORMULAS = {
    "log_return_1m": lambda p: _log_return(p, 1),
    "log_return_5m": lambda p: _log_return(p, 5),
    "log_return_15m": lambda p: _log_return(p, 15),
    "log_return_60m": lambda p: _log_return(p, 60),
    "log_return_240m": lambda p: _log_return(p, 240),
    "scaled_return_5m": lambda p: _scaled_return(p, 5),
    "scaled_return_15m": lambda p: _scaled_return(p, 15),
    "realized_volatility_15m": lambda p: _volatility(p, 15),
    "realized_volatility_60m": lambda p: _volatility(p, 60),
    "realized_volatility_240m": lambda p: _volatility(p, 240),
    "volatility_ratio_15m_60m": lambda p: math.log(_volatility(p, 15) / _volatility(p, 60)),
    "volatility_ratio_60m_240m": lambda p: math.log(_volatility(p, 60) / _volatility(p, 240)),
    "parkinson_ratio_60m": lambda p: _parkinson(p, 60) / _volatility(p, 60),
    "garman_klass_ratio_60m": lambda p: _garman_klass(p, 60) / _volatility(p, 60),
    "rogers_satchell_ratio_60m": lambda p: _rogers_satchell(p, 60) / _volatility(p, 60),
    "high_low_range_1m": lambda p: math.log(p.now["high"] / p.now["low"]),
    "volume_ratio_15m_240m": lambda p: _volume_ratio(p, 15, 240),
    "volume_zscore_60m": lambda p: _root_zscore(p, "volume", 60),
    "trades_zscore_60m": lambda p: _root_zscore(p, "trades", 60),
    "illiquidity_ratio_60m_240m": lambda p: math.log(_illiquidity(p, 60) / _illiquidity(p, 240)),
    "range_position_60m": lambda p: _range_position(p, 60),
    "range_position_240m": lambda p: _range_position(p, 240),
    "vwap_deviation_60m": lambda p: _vwap_deviation(p, 60),
    "vwap_deviation_240m": lambda p: _vwap_deviation(p, 240),
    "body_ratio_1m": lambda p: _over_range(p, p.now["close"] - p.now["open"]),
    "close_location_1m": lambda p: _over_range(
        p, 2.0 * p.now["close"] - p.now["high"] - p.now["low"]
    ),
    "rsi_14m": lambda p: _rsi(p, 14),
    "minute_of_day_sin": lambda p: math.sin(_angle(p, in_week=False)),
    "minute_of_day_cos": lambda p: math.cos(_angle(p, in_week=False)),
    "day_of_week_sin": lambda p: math.sin(_angle(p, in_week=True)),
    "day_of_week_cos": lambda p: math.cos(_angle(p, in_week=True)),
    "taker_imbalance_1m": lambda p: _taker_imbalance(p, 1),
    "taker_imbalance_5m": lambda p: _taker_imbalance(p, 5),
    "taker_imbalance_15m": lambda p: _taker_imbalance(p, 15),
    "taker_imbalance_60m": lambda p: _taker_imbalance(p, 60),
}
