"""Days: the blocks that are drawn with replacement to say how sure a score is.

Rows within a day share their market and, with overlapping labels, their outcomes; days are the
smallest blocks that may pass for independent. A score that is made of sums needs each day's sums
only, so that a thousand resamples are one product of matrices instead of a thousand samples.

Source: Künsch (1989), "The Jackknife and the Bootstrap for General Stationary Observations",
Annals of Statistics 17, with blocks that do not overlap.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, nan

import numpy as np
import polars as pl

from btc_lifecycle.domain.learn.evaluation.losses import Bools, Floats, Ints

N_RESAMPLES = 1000
LEVEL = 0.95


@dataclass(frozen=True, kw_only=True)
class ResampledDays:
    """The days of rows, and how often each resample draws each day.

    Attributes:
        of_row: Number of each row's day, from 0, shape (rows,).
        n_draws: Shape (resamples, days); each resample draws as many days as there are.
    """

    of_row: Ints
    n_draws: Floats

    @classmethod
    def draw(
        cls, day: Ints, *, rng: np.random.Generator, n_resamples: int = N_RESAMPLES
    ) -> ResampledDays:
        """Return resamples of the days of at least one row.

        Args:
            day: Any number that is equal for the rows of one UTC day, shape (rows,).
            rng: Draws the days.
            n_resamples: How often as many days as there are get drawn.
        """
        days, of_row = np.unique(day, return_inverse=True)
        shares = np.full(days.size, 1.0 / days.size)
        n_draws = rng.multinomial(days.size, shares, size=n_resamples)
        return cls(of_row=of_row, n_draws=n_draws.astype(np.float64))

    def where(self, is_kept: Bools) -> ResampledDays:
        """Return the same draws for some of the rows."""
        return ResampledDays(of_row=self.of_row[is_kept], n_draws=self.n_draws)

    def histogram(self, bins: Ints, *, n_bins: int, weights: Floats | None = None) -> Floats:
        """Return how many rows, or what sum of weights, each day has in each bin: (days, bins)."""
        n_days = self.n_draws.shape[1]
        cells = np.bincount(self.of_row * n_bins + bins, weights, minlength=n_days * n_bins)
        return cells.astype(np.float64).reshape(n_days, n_bins)

    def day_sums(self, values: Floats) -> Floats:
        """Return the sum of each day's rows, shape (days,)."""
        sums = np.bincount(self.of_row, values, minlength=self.n_draws.shape[1])
        return sums.astype(np.float64)

    def sums(self, values: Floats) -> Floats:
        """Return the sum over each resample, shape (resamples,)."""
        return np.asarray(self.n_draws @ self.day_sums(values))

    def counts(self) -> Floats:
        """Return the number of rows of each resample, shape (resamples,)."""
        return self.sums(np.ones(self.of_row.size))

    def bounds(self, resampled: Floats, *, level: float = LEVEL) -> tuple[float, float]:
        """Return the quantiles that leave out equally much on both sides; NaN if none are known.

        Resamples for which a score is not defined are NaN and left out. Rows of one day bound
        nothing: every resample has the same rows.
        """
        known = resampled[np.isfinite(resampled)]
        if known.size == 0 or _is_one_day(self.of_row):
            return nan, nan
        low, high = np.quantile(known, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
        return float(low), float(high)


def mean_interval(
    values: Floats,
    day: Ints,
    *,
    rng: np.random.Generator,
    level: float = LEVEL,
    n_resamples: int = N_RESAMPLES,
) -> tuple[float, float]:
    """Return the bounds of the mean of values, by drawing whole days with replacement.

    One day alone bounds nothing: the interval is then infinite.

    Args:
        values: One value for each row.
        day: Any number that is equal for the rows of one UTC day.
        rng: Draws the days.
        level: Share of resampled means between the bounds.
        n_resamples: How often days are drawn.
    """
    if _is_one_day(day):
        return -inf, inf
    days = ResampledDays.draw(day, rng=rng, n_resamples=n_resamples)
    return days.bounds(days.sums(values) / days.counts(), level=level)


def share_better(
    differences: Floats,
    day: Ints,
    *,
    rng: np.random.Generator,
    n_resamples: int = N_RESAMPLES,
) -> float:
    """Return the share of resampled means above zero: how sure the better side is.

    Args:
        differences: One side's loss minus the other's for each row, paired.
        day: Any number that is equal for the rows of one UTC day.
        rng: Draws the days.
        n_resamples: How often days are drawn.

    Returns:
        Between 0 and 1; NaN, which no limit is below, where rows of one day or none say nothing.
    """
    if _is_one_day(day):
        return nan
    days = ResampledDays.draw(day, rng=rng, n_resamples=n_resamples)
    return float((days.sums(differences) > 0.0).mean())


def utc_days(open_time: pl.Series) -> Ints:
    """Return a number for each row that is equal within a UTC day and differs between days."""
    return open_time.dt.truncate("1d").to_physical().to_numpy()


def _is_one_day(day: Ints) -> bool:
    return bool((day == day[:1]).all())
