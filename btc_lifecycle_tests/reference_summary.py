"""A slow, obvious summary of candles: plain loops over dictionaries, to compare with."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from itertools import pairwise
from statistics import fmean, median, stdev

MINUTE = timedelta(minutes=1)


def slow_returns_bps(rows: list[dict]) -> list[tuple[datetime, float]]:
    """Return (open time, log return) of each candle whose predecessor is one minute older."""
    return [
        (row["open_time"], 1e4 * math.log(row["close"] / before["close"]))
        for before, row in pairwise(rows)
        if row["open_time"] - before["open_time"] == MINUTE
    ]


def slow_missing_minutes(rows: list[dict]) -> list[datetime]:
    """Return every full minute of the span in which no candle opened."""
    present = {row["open_time"].replace(second=0, microsecond=0) for row in rows}
    minute, missing = min(present), []
    while minute < max(present):
        if minute not in present:
            missing.append(minute)
        minute += MINUTE
    return missing


def slow_gaps(rows: list[dict]) -> list[tuple[datetime, int]]:
    """Return (first missing minute, length) of each run of missing minutes, longest first."""
    gaps: list[tuple[datetime, int]] = []
    for minute in slow_missing_minutes(rows):
        if gaps and gaps[-1][0] + gaps[-1][1] * MINUTE == minute:
            gaps[-1] = (gaps[-1][0], gaps[-1][1] + 1)
        else:
            gaps.append((minute, 1))
    return sorted(gaps, key=lambda gap: (-gap[1], gap[0]))


def slow_moments(values: list[float]) -> tuple[float, float, float, float]:
    """Return mean, sample deviation, skewness and excess kurtosis."""
    mean = fmean(values)
    m2, m3, m4 = (fmean((value - mean) ** power for value in values) for power in (2, 3, 4))
    return mean, stdev(values), m3 / m2**1.5, m4 / m2**2 - 3


def slow_quantile(values: list[float], *, probability: float) -> float:
    """Return the quantile, linear between order statistics."""
    ordered = sorted(values)
    position = probability * (len(ordered) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])


def slow_season(rows: list[dict], *, key, wanted: int) -> tuple[int, float | None, float | None]:
    """Return candles, median absolute return and mean volume where key(open_time) is wanted."""
    volumes = [row["volume"] for row in rows if key(row["open_time"]) == wanted]
    moves = [abs(bps) for time, bps in slow_returns_bps(rows) if key(time) == wanted]
    return len(volumes), median(moves) if moves else None, fmean(volumes) if volumes else None
