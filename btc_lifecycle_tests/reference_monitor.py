"""Slow and obvious versions of what domain/monitor computes: plain loops, one value at a time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from fractions import Fraction

Value = float | None


def present(values: Sequence[Value]) -> list[float]:
    return [value for value in values if value is not None and math.isfinite(value)]


def decile_edges(values: Sequence[float]) -> list[float]:
    """The smallest values with at least k tenths of the rows at or below them, each once."""
    edges: list[float] = []
    for k in range(1, 10):
        for candidate in sorted(values):
            at_or_below = sum(value <= candidate for value in values)
            if Fraction(at_or_below, len(values)) >= Fraction(k, 10):
                if candidate not in edges:
                    edges.append(candidate)
                break
    return edges


def shares(values: Sequence[float], *, edges: Sequence[float]) -> list[float]:
    counts = [0] * (len(edges) + 1)
    for value in values:
        counts[sum(value > edge for edge in edges)] += 1
    return [count / len(values) for count in counts]


def psi(reference: Sequence[float], current: Sequence[float], *, min_share: float) -> float:
    total = 0.0
    for p, q in zip(reference, current, strict=True):
        p_held, q_held = max(p, min_share), max(q, min_share)
        total += (p_held - q_held) * math.log(p_held / q_held)
    return total


def window_psis(
    rows: Sequence[tuple[str, datetime, Value]],
    *,
    window_hours: int,
    min_window_rows: int,
    min_share: float,
) -> list[float]:
    """PSI of each symbol's consecutive whole windows against all rows, from the first minute on."""
    everything = present([value for _, _, value in rows])
    edges = decile_edges(everything)
    whole = shares(everything, edges=edges)
    span_end = max(open_time for _, open_time, _ in rows) + timedelta(minutes=1)
    psis = []
    for symbol in sorted({symbol for symbol, _, _ in rows}):
        start = min(open_time for _, open_time, _ in rows)
        while start + timedelta(hours=window_hours) <= span_end:
            end = start + timedelta(hours=window_hours)
            inside = present([v for s, t, v in rows if s == symbol and start <= t < end])
            if len(inside) >= min_window_rows:
                psis.append(psi(whole, shares(inside, edges=edges), min_share=min_share))
            start = end
    return psis


def quantile(values: Sequence[float], level: float) -> float:
    """The linearly interpolated quantile (Hyndman and Fan 1996, type 7)."""
    ordered = sorted(values)
    position = level * (len(ordered) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])


def threshold(psis: Sequence[float], *, min_psi: float) -> float:
    if len(psis) < 3:
        return max([min_psi, *(2 * value for value in psis)])
    return max(min_psi, quantile(psis, 0.99))


def outcomes(
    predictions: Sequence[Mapping[str, object]], labels: Sequence[Mapping[str, object]]
) -> dict[str, tuple[int, float]]:
    """Prediction id -> what happened and its log-loss, for predictions whose label has a sign."""
    found = {}
    for prediction in predictions:
        for label in labels:
            same_symbol = prediction["symbol"] == label["symbol"]
            same_time = prediction["open_time"] == label["open_time"]
            if same_symbol and same_time and label["direction"] != 0:
                up = prediction["probability_up"]
                given = up if label["direction"] == 1 else 1 - up
                loss = -math.log(min(max(given, 1e-15), 1 - 1e-15))
                found[prediction["prediction_id"]] = (label["direction"], loss)
    return found
