"""Slow, obvious labels that the labelling code is compared with."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime, timedelta

import polars as pl

MINUTE = timedelta(minutes=1)
Row = dict[str, object]


def horizon_labels(candles: pl.DataFrame, *, horizon_min: int) -> list[Row]:
    """Return labels by looking each outcome up by its symbol and time."""
    close = {(row["symbol"], row["open_time"]): row["close"] for row in candles.to_dicts()}
    labels: list[Row] = []
    for (symbol, open_time), volatility in forward_log_volatilities(candles).items():
        price, later = (
            close[symbol, open_time],
            close.get((symbol, open_time + horizon_min * MINUTE)),
        )
        if later is None:
            continue
        labels.append(
            {
                "symbol": symbol,
                "open_time": open_time,
                "method": "horizon",
                "horizon_min": horizon_min,
                "forward_log_return": math.log(later / price),
                "direction": (later > price) - (later < price),
                "matures_at": open_time + (horizon_min + 1) * MINUTE,
                "forward_log_volatility": volatility,
            }
        )
    return labels


def barrier_labels(
    candles: pl.DataFrame, *, horizon_min: int, barrier_width: float, volatility_window_min: int
) -> list[Row]:
    """Return labels by walking candle by candle from each close to the first touch."""
    volatilities = forward_log_volatilities(candles)
    labels: list[Row] = []
    for key, past, future in _walks(candles):
        before, after = past[-volatility_window_min - 1 :], future[:horizon_min]
        if len(before) <= volatility_window_min or len(after) < horizon_min:
            continue
        width = barrier_width * _volatility(before) * math.sqrt(horizon_min)
        if width == 0.0:
            continue
        outcome, direction, lasted_min = _first_touch(before[-1]["close"], after, width=width)
        labels.append(
            {
                "symbol": key[0],
                "open_time": key[1],
                "method": "triple_barrier",
                "horizon_min": horizon_min,
                "forward_log_return": outcome,
                "direction": direction,
                "matures_at": key[1] + (lasted_min + 1) * MINUTE,
                "forward_log_volatility": volatilities[key],
            }
        )
    return labels


def forward_log_volatilities(candles: pl.DataFrame) -> dict[tuple[str, datetime], float | None]:
    """Return the log volatility of the next 60 minutes for each symbol and open time."""
    volatilities: dict[tuple[str, datetime], float | None] = {}
    for key, past, future in _walks(candles):
        window = [past[-1], *future[:60]]
        is_known = len(window) == 61 and _volatility(window) > 0.0
        volatilities[key] = math.log(_volatility(window)) if is_known else None
    return volatilities


def uniqueness(examples: pl.DataFrame) -> list[float]:
    """Return each label's mean share of its minutes by counting the labels on every minute."""
    covering: dict[tuple[str, datetime], int] = defaultdict(int)
    for row in examples.to_dicts():
        for minute in _minutes_of(row):
            covering[minute] += 1
    return [
        math.fsum(1 / covering[minute] for minute in _minutes_of(row)) / len(list(_minutes_of(row)))
        for row in examples.to_dicts()
    ]


def _walks(
    candles: pl.DataFrame,
) -> Iterator[tuple[tuple[str, datetime], list[dict], list[dict]]]:
    """Yield each candle with the unbroken minutes up to it, itself the last, and those after it."""
    by_symbol = defaultdict(list)
    for row in candles.sort("open_time").to_dicts():
        by_symbol[row["symbol"]].append(row)
    for row in candles.to_dicts():
        rows = by_symbol[row["symbol"]]
        at = first = last = rows.index(row)
        while first > 0 and _is_step(rows[first - 1], rows[first]):
            first -= 1
        while last + 1 < len(rows) and _is_step(rows[last], rows[last + 1]):
            last += 1
        yield (row["symbol"], row["open_time"]), rows[first : at + 1], rows[at + 1 : last + 1]


def _is_step(earlier: dict, later: dict) -> bool:
    return later["open_time"] - earlier["open_time"] == MINUTE


def _volatility(rows: list[dict]) -> float:
    returns = [math.log(b["close"] / a["close"]) for a, b in itertools.pairwise(rows)]
    return math.sqrt(math.fsum(r**2 for r in returns) / len(returns))


def _first_touch(close: float, after: list[dict], *, width: float) -> tuple[float, int, int]:
    upper, lower = close * math.exp(width), close * math.exp(-width)
    for lasted_min, candle in enumerate(after, start=1):
        if candle["low"] <= lower:
            return -width, -1, lasted_min
        if candle["high"] >= upper:
            return width, 1, lasted_min
    last = after[-1]["close"]
    return math.log(last / close), (last > close) - (last < close), len(after)


def _minutes_of(label: dict) -> Iterator[tuple[str, datetime]]:
    """Yield the ends of the minutes after the label's own candle, up to when it is known."""
    end = label["open_time"] + 2 * MINUTE
    while end <= label["matures_at"]:
        yield label["symbol"], end
        end += MINUTE
