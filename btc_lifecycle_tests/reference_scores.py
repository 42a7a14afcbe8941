"""Slow, obvious answers that scores, their bounds and the baselines are compared with."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Score = Callable[[list["Row"]], float | None]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One scored row: probability of a rise, or another prediction, and what happened."""

    day: int
    predicted: float
    outcome: float
    direction: int = 0
    rival_predicted: float = 0.0
    is_confident: bool = False


def auc_by_pairs(probability_up: Sequence[float], direction: Sequence[int]) -> float | None:
    """Return the share of (rise, fall) pairs ranked rightly, by comparing all of them."""
    ups = [p for p, d in zip(probability_up, direction, strict=True) if d == 1]
    downs = [p for p, d in zip(probability_up, direction, strict=True) if d == -1]
    wins = sum((up > down) + 0.5 * (up == down) for up in ups for down in downs)
    return wins / (len(ups) * len(downs)) if ups and downs else None


def calibration_error(probability_up: Sequence[float], direction: Sequence[int]) -> float | None:
    """Return the expected calibration error with 10 bins by visiting each row."""
    bins: dict[int, list[tuple[float, bool]]] = {}
    for p, d in zip(probability_up, direction, strict=True):
        bins.setdefault(min(int(p * 10), 9), []).append((p, d == 1))
    gaps = (
        abs(sum(p for p, _ in rows) - sum(is_up for _, is_up in rows)) for rows in bins.values()
    )
    return sum(gaps) / len(probability_up) if probability_up else None


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Return Pearson's correlation of ranks that count all smaller and half of the equal values."""
    x, y = _mid_ranks(first), _mid_ranks(second)
    mean = sum(x) / len(x) if x else 0.0
    covariance = sum((a - mean) * (b - mean) for a, b in zip(x, y, strict=True))
    spread = sum((a - mean) ** 2 for a in x) * sum((b - mean) ** 2 for b in y)
    return covariance / math.sqrt(spread) if spread else None


def _mid_ranks(values: Sequence[float]) -> list[float]:
    return [sum(v < value for v in values) + 0.5 * values.count(value) for value in values]


def log_loss(probability_up: float, direction: int) -> float:
    given = probability_up if direction == 1 else 1.0 - probability_up
    return -math.log(min(max(given, 1e-15), 1.0 - 1e-15))


def with_confidence(rows: list[Row]) -> list[Row]:
    """Return the rows, marked where at most a tenth lies further from one half, ties included."""
    tenth = math.ceil(len(rows) / 10)
    distances = [abs(row.predicted - 0.5) for row in rows]
    return [
        Row(**{**vars(row), "is_confident": sum(d > distance for d in distances) < tenth})
        for row, distance in zip(rows, distances, strict=True)
    ]


def side(row: Row, *, min_edge: float) -> int:
    """Return 1 where a rule buys, -1 where it sells, 0 where it does neither."""
    if row.predicted == 0.5:
        return 0
    return (row.predicted >= 0.5 + min_edge) - (row.predicted <= 0.5 - min_edge)


def direction_scores(*, min_edge: float, taker_cost_bp: float) -> dict[str, Score]:
    """Return every score of directions as a function of rows."""

    def trades_bp(rows: list[Row]) -> list[float]:
        sides = [(side(row, min_edge=min_edge), row) for row in rows]
        return [sign * row.outcome * 10_000 for sign, row in sides if sign]

    def is_hit(row: Row) -> bool:
        return (row.predicted >= 0.5) == (row.direction == 1)

    return {
        "auc": lambda rows: auc_by_pairs(*_predicted_and_direction(rows)),
        "log_loss": lambda rows: _mean([log_loss(r.predicted, r.direction) for r in rows]),
        "brier": lambda rows: _mean([(r.predicted - (r.direction == 1)) ** 2 for r in rows]),
        "accuracy": lambda rows: _mean([is_hit(row) for row in rows]),
        "confident_accuracy": lambda rows: _mean([is_hit(r) for r in rows if r.is_confident]),
        "expected_calibration_error": lambda rows: calibration_error(
            *_predicted_and_direction(rows)
        ),
        "rank_ic": lambda rows: rank_correlation(
            [row.predicted for row in rows], [row.outcome for row in rows]
        ),
        "gross_bp": lambda rows: _mean(trades_bp(rows)),
        "net_bp": lambda rows: _mean([gain - 2 * taker_cost_bp for gain in trades_bp(rows)]),
        "trade_share": lambda rows: _mean([side(row, min_edge=min_edge) != 0 for row in rows]),
        "log_loss_gain": lambda rows: _mean(
            [
                log_loss(r.predicted, r.direction) - log_loss(r.rival_predicted, r.direction)
                for r in rows
            ]
        ),
    }


def volatility_scores() -> dict[str, Score]:
    """Return every score of volatilities as a function of rows."""
    return {
        "r_squared": _r_squared,
        "mse": lambda rows: _mean([(r.predicted - r.outcome) ** 2 for r in rows]),
        "spearman": lambda rows: rank_correlation(
            [row.predicted for row in rows], [row.outcome for row in rows]
        ),
        "mse_gain": lambda rows: _mean(
            [(r.predicted - r.outcome) ** 2 - (r.rival_predicted - r.outcome) ** 2 for r in rows]
        ),
    }


def bounds(
    score: Score,
    rows: list[Row],
    draws: np.ndarray,
    counted: Callable[[Row], object] = lambda _: True,
) -> tuple[float | None, float | None]:
    """Return the 2.5 % and 97.5 % quantiles of a score over resamples made row by row.

    Args:
        score: Gives None for rows that it is not defined for.
        rows: Their days are numbered from 0.
        draws: How often each resample draws each day, shape (resamples, days).
        counted: Whether the score looks at a row; rows of one day alone bound nothing.
    """
    if len({row.day for row in rows if counted(row)}) < 2:
        return None, None
    values = []
    for n_draws in draws.astype(int):
        drawn = [row for row in rows for _ in range(n_draws[row.day])]
        values.append(score(drawn))
    known = [value for value in values if value is not None]
    return tuple(np.quantile(known, [0.025, 0.975]).tolist()) if known else (None, None)


def contrarian(
    moves: Sequence[float], direction: Sequence[int], weights: Sequence[float]
) -> Mapping[int, float]:
    """Return the weighted share of rises after each sign of the last move, all rows' where none."""
    ups, totals = defaultdict(float), defaultdict(float)
    for move, d, weight in zip(moves, direction, weights, strict=True):
        for sign in ((move > 0) - (move < 0), "any"):
            ups[sign] += weight * (d == 1)
            totals[sign] += weight
    return {
        sign: ups[sign if totals[sign] else "any"] / totals[sign if totals[sign] else "any"]
        for sign in (1, 0, -1)
    }


def _r_squared(rows: list[Row]) -> float | None:
    mean = _mean([row.outcome for row in rows])
    if len({row.outcome for row in rows}) < 2:
        return None
    spread = sum((row.outcome - mean) ** 2 for row in rows)
    return 1.0 - sum((row.predicted - row.outcome) ** 2 for row in rows) / spread


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _predicted_and_direction(rows: list[Row]) -> tuple[list[float], list[int]]:
    return [row.predicted for row in rows], [row.direction for row in rows]
