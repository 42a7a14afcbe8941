"""Slow, obvious answers that the learning code is compared with."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from datetime import timedelta

import numpy as np
import polars as pl

MINUTE = timedelta(minutes=1)


def features_of_row(candles: pl.DataFrame, row: int) -> dict[str, float | None]:
    """Return every feature of one row by plain loops over the candles that it may see."""
    rows = candles[: row + 1].to_dicts()
    return {name: _value(formula, rows) for name, formula in _FORMULAS.items()}


def labels(candles: pl.DataFrame, *, horizon_min: int) -> list[dict[str, object]]:
    """Return labels by looking each outcome up by its symbol and time."""
    close = {(row["symbol"], row["open_time"]): row["close"] for row in candles.to_dicts()}
    result: list[dict[str, object]] = []
    for (symbol, open_time), price in close.items():
        later = close.get((symbol, open_time + horizon_min * MINUTE))
        if later is None:
            continue
        result.append(
            {
                "symbol": symbol,
                "open_time": open_time,
                "horizon_min": horizon_min,
                "forward_log_return": math.log(later / price),
                "direction": (later > price) - (later < price),
                "matures_at": open_time + (horizon_min + 1) * MINUTE,
            }
        )
    return result


def auc_by_pairs(probability_up: Sequence[float], direction: Sequence[int]) -> float:
    """Return the share of (rise, fall) pairs ranked rightly, by comparing all of them."""
    ups = [p for p, d in zip(probability_up, direction, strict=True) if d == 1]
    downs = [p for p, d in zip(probability_up, direction, strict=True) if d == -1]
    wins = sum((up > down) + 0.5 * (up == down) for up in ups for down in downs)
    return wins / (len(ups) * len(downs))


def calibration_error(probability_up: Sequence[float], direction: Sequence[int]) -> float:
    """Return the expected calibration error with 10 bins by visiting each row."""
    bins: dict[int, list[tuple[float, bool]]] = {}
    for p, d in zip(probability_up, direction, strict=True):
        bins.setdefault(min(int(p * 10), 9), []).append((p, d == 1))
    gaps = (
        abs(sum(p for p, _ in rows) - sum(is_up for _, is_up in rows)) for rows in bins.values()
    )
    return sum(gaps) / len(probability_up)


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


def _volume_ratio(past: _Past, short: int, long: int) -> float:
    volume = past.column("volume", long)
    return math.log(math.fsum(volume[-short:]) / short / (math.fsum(volume) / long))


def _volume_zscore(past: _Past, n: int) -> float:
    logs = [math.log1p(v) for v in past.column("volume", n)]
    if len(set(logs)) == 1:
        raise _NotThereError
    return (logs[-1] - np.mean(logs)) / np.std(logs)


def _range_position(past: _Past, n: int) -> float:
    low, high = min(past.column("low", n)), max(past.column("high", n))
    return (past.now["close"] - low) / (high - low)


def _vwap_deviation(past: _Past, n: int) -> float:
    value = math.fsum(
        c["volume"] * (c["high"] + c["low"] + c["close"]) / 3.0 for c in past.window(n)
    )
    return math.log(past.now["close"] / (value / math.fsum(past.column("volume", n))))


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
    "volatility_ratio_15m_240m": lambda p: math.log(_volatility(p, 15) / _volatility(p, 240)),
    "parkinson_volatility_60m": lambda p: _parkinson(p, 60),
    "garman_klass_volatility_60m": lambda p: _garman_klass(p, 60),
    "high_low_range_1m": lambda p: math.log(p.now["high"] / p.now["low"]),
    "volume_ratio_15m_240m": lambda p: _volume_ratio(p, 15, 240),
    "volume_zscore_60m": lambda p: _volume_zscore(p, 60),
    "volume_zscore_240m": lambda p: _volume_zscore(p, 240),
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
