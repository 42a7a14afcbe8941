"""Estimates: a score's value with the bounds that resampled days give it."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite, nan

import numpy as np

from btc_lifecycle.domain.learn.evaluation import ranks as ranking
from btc_lifecycle.domain.learn.evaluation.days import ResampledDays
from btc_lifecycle.domain.learn.evaluation.losses import (
    N_CALIBRATION_BINS,
    Bools,
    Floats,
    calibration_bins,
)
from btc_lifecycle.domain.learn.evaluation.ranks import Ranks

# Values are exact; for bounds alone, values of a bin count as equal. Of all pairs of rows, 1 in 2000
# then ties, which an AUC does not feel; a correlation's bounds are corrected for what it does.
AUC_BINS = 2000
SPEARMAN_BINS = 50


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A score and its bounds; None where it is not defined, or bounded by nothing."""

    value: float | None
    low: float | None
    high: float | None


def mean(values: Floats, *, days: ResampledDays) -> Estimate:
    """Return the mean of the rows, with bounds from resampled sums and counts."""
    value = float(values.mean()) if values.size else nan
    return _estimate(value, _ratio(days.sums(values), days.counts()), days=days)


def calibration_error(probability_up: Floats, is_up: Bools, *, days: ResampledDays) -> Estimate:
    """Return the expected calibration error: the bins' gaps, weighed by their rows.

    Chance alone opens gaps, in a resample more than in the rows themselves, so that the bounds
    lie high.

    Source: Naeini, Cooper and Hauskrecht (2015), "Obtaining Well Calibrated Probabilities Using
    Bayesian Binning", AAAI.
    """
    gaps = days.histogram(
        calibration_bins(probability_up), n_bins=N_CALIBRATION_BINS, weights=probability_up - is_up
    )
    value = float(np.abs(gaps.sum(axis=0)).sum()) / is_up.size if is_up.size else nan
    resampled = _ratio(np.abs(days.n_draws @ gaps).sum(axis=1), days.counts())
    return _estimate(value, resampled, days=days)


def auc(ranks: Ranks, is_up: Bools, *, days: ResampledDays) -> Estimate:
    """Return the area under the ROC curve.

    The pairs ranked rightly are a quadratic form in how often days are drawn: rises of one day
    are compared with falls of another once for all resamples.
    """
    bins = ranks.bins(AUC_BINS)
    n_bins = int(bins.max(initial=0)) + 1
    ups = days.where(is_up).histogram(bins[is_up], n_bins=n_bins)
    downs = days.where(~is_up).histogram(bins[~is_up], n_bins=n_bins)
    wins = ups @ (np.cumsum(downs, axis=1) - downs / 2.0).T
    resampled = _ratio(
        ((days.n_draws @ wins) * days.n_draws).sum(axis=1),
        (days.n_draws @ ups.sum(axis=1)) * (days.n_draws @ downs.sum(axis=1)),
    )
    return _estimate(ranking.auc(ranks, is_up), resampled, days=days)


def spearman(first: Ranks, second: Ranks, *, days: ResampledDays) -> Estimate:
    """Return Spearman's correlation, with ranks taken anew within each resample."""
    first_bins, second_bins = first.bins(SPEARMAN_BINS), second.bins(SPEARMAN_BINS)
    n_first, n_second = (int(bins.max(initial=0)) + 1 for bins in (first_bins, second_bins))
    cells = days.histogram(first_bins * n_second + second_bins, n_bins=n_first * n_second)
    # Each day once, ahead of the resamples: what binning makes of the value.
    n_draws = np.vstack([np.ones(days.n_draws.shape[1]), days.n_draws])
    joint = (n_draws @ cells).reshape(-1, n_first, n_second)
    x_counts, y_counts = joint.sum(axis=2), joint.sum(axis=1)
    x, y = _centred_mid_ranks(x_counts), _centred_mid_ranks(y_counts)
    covariance = ((joint @ y[:, :, None])[:, :, 0] * x).sum(axis=1)
    spread = np.sqrt((x_counts * x**2).sum(axis=1) * (y_counts * y**2).sum(axis=1))
    binned = _ratio(covariance, spread)
    value = ranking.spearman(first, second)
    return _estimate(value, binned[1:] + (value - binned[0]), days=days)


def r_squared(predicted: Floats, outcome: Floats, *, days: ResampledDays) -> Estimate:
    """Return 1 minus the squared errors over those of the scored outcomes' own mean."""
    # A shift changes no variance; without one, sums of squares of far-off values lose digits.
    shifted = outcome - outcome[:1]
    errors = (predicted - outcome) ** 2
    spread = float(((shifted - shifted.mean()) ** 2).sum()) if outcome.size else 0.0
    value = 1.0 - float(errors.sum()) / spread if spread else nan
    squares = days.sums(shifted**2)
    spreads = squares - _ratio(days.sums(shifted) ** 2, days.counts())
    # What rounding leaves of a resample of equal outcomes is no spread.
    spreads[spreads <= 1e-12 * squares] = 0.0
    return _estimate(value, 1.0 - _ratio(days.sums(errors), spreads), days=days)


def _estimate(value: float, resampled: Floats, *, days: ResampledDays) -> Estimate:
    low, high = days.bounds(resampled)
    known = {"value": value, "low": low, "high": high}
    return Estimate(**{name: x if isfinite(x) else None for name, x in known.items()})


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Return the quotient, NaN where nothing is divided by."""
    blank = np.full(denominator.shape, nan)
    return np.asarray(np.divide(numerator, denominator, out=blank, where=denominator > 0.0))


def _centred_mid_ranks(counts: Floats) -> Floats:
    """Return each bin's mid-rank minus the mean rank, for rows of counts (resamples, bins)."""
    n_rows = counts.sum(axis=1, keepdims=True)
    return np.asarray(np.cumsum(counts, axis=1) - (counts + n_rows) / 2.0)
