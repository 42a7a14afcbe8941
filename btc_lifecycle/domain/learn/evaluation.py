"""Evaluation: how good probabilities of a rise are, beside those of the prior."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from math import inf, isfinite

import numpy as np
import numpy.typing as npt
import polars as pl

from btc_lifecycle.domain.errors import DataError

Floats = npt.NDArray[np.float64]
Directions = npt.NDArray[np.int64]

# Keeps the loss of a certain but wrong prediction finite, at 34.5 nats; scikit-learn long had it.
_CLIP = 1e-15


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Scores of one set of probabilities; log-loss in nats, all others between 0 and 1."""

    n_rows: int
    auc: float
    log_loss: float
    accuracy: float
    brier: float
    expected_calibration_error: float


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A model's scores on the test part beside the prior's.

    The gain is the prior's mean log-loss minus the model's, in nats for each row; its bounds are
    those of `mean_interval`, infinite where the test part lies in one day.
    """

    model: Scores
    prior: Scores
    log_loss_gain_low: float
    log_loss_gain_high: float
    test_from: datetime
    test_until: datetime

    def metrics(self) -> dict[str, float]:
        """Return the finite figures under flat names: test_auc, prior_log_loss, ..."""
        named = {
            **{f"test_{name}": float(value) for name, value in asdict(self.model).items()},
            **{f"prior_{name}": float(value) for name, value in asdict(self.prior).items()},
            "log_loss_gain": self.prior.log_loss - self.model.log_loss,
            "log_loss_gain_low": self.log_loss_gain_low,
            "log_loss_gain_high": self.log_loss_gain_high,
        }
        return {name: value for name, value in named.items() if isfinite(value)}


def evaluate(
    test: pl.DataFrame, *, probability_up: Floats, prior_up: float, rng: np.random.Generator
) -> Evaluation:
    """Return the scores of the model and of the constant `prior_up` on the test examples.

    Args:
        test: Examples with open_time, matures_at and direction (1 or -1).
        probability_up: The model's probability of a rise for each row.
        prior_up: Share of rises in the training part.
        rng: Draws the resampled days of the interval.
    """
    direction = test["direction"].to_numpy()
    prior = np.full(test.height, prior_up)
    model_scores = score(probability_up, direction)
    gains = log_losses(prior, direction) - log_losses(probability_up, direction)
    day = test["open_time"].dt.truncate("1d").to_physical().to_numpy()
    low, high = mean_interval(gains, day, rng=rng)
    return Evaluation(
        model=model_scores,
        prior=score(prior, direction),
        log_loss_gain_low=low,
        log_loss_gain_high=high,
        test_from=test.select(pl.col("open_time").min()).item(),
        test_until=test.select(pl.col("matures_at").max()).item(),
    )


def score(probability_up: Floats, direction: Directions) -> Scores:
    """Return all scores of probabilities of a rise against what happened.

    Args:
        probability_up: Probabilities between 0 and 1, shape (rows,).
        direction: 1 for a rise, -1 for a fall, shape (rows,).

    Raises:
        DataError: For shapes that differ, values out of range, or one direction only.
    """
    is_up = _check(probability_up, direction)
    if is_up.all() or not is_up.any():
        raise DataError(
            f"all {is_up.size:,} rows went the same way, so nothing can be ranked",
            hint="score a longer window",
        )
    curve = calibration_curve(probability_up, direction)
    calibration_gap = (curve["mean_probability"] - curve["up_share"]).abs()
    return Scores(
        n_rows=int(is_up.size),
        auc=_rank_auc(probability_up, is_up),
        log_loss=float(log_losses(probability_up, direction).mean()),
        accuracy=float(((probability_up >= 0.5) == is_up).mean()),
        brier=float(((probability_up - is_up) ** 2).mean()),
        expected_calibration_error=float((calibration_gap * curve["n_rows"]).sum() / is_up.size),
    )


def log_losses(probability_up: Floats, direction: Directions) -> Floats:
    """Return each row's negative log likelihood in nats, with probabilities off 0 and 1."""
    is_up = _check(probability_up, direction)
    of_what_happened = np.where(is_up, probability_up, 1.0 - probability_up)
    return np.asarray(-np.log(np.clip(of_what_happened, _CLIP, 1.0 - _CLIP)))


def calibration_curve(
    probability_up: Floats, direction: Directions, n_bins: int = 10
) -> pl.DataFrame:
    """Return mean_probability, up_share and n_rows of each filled bin of equal width, rising."""
    is_up = _check(probability_up, direction)
    last_bin = n_bins - 1
    return (
        pl.DataFrame({"probability": probability_up, "is_up": is_up})
        .group_by((pl.col("probability") * n_bins).floor().clip(0, last_bin).alias("bin"))
        .agg(
            mean_probability=pl.col("probability").mean(),
            up_share=pl.col("is_up").mean(),
            n_rows=pl.len().cast(pl.Int64),
        )
        .sort("bin")
        .drop("bin")
    )


def mean_interval(
    values: Floats,
    day: npt.NDArray[np.int64],
    *,
    rng: np.random.Generator,
    level: float = 0.95,
    n_resamples: int = 500,
) -> tuple[float, float]:
    """Return the bounds of the mean of values, by drawing whole days with replacement.

    Rows within a day share their market and, with overlapping labels, their outcomes; days are
    the smallest blocks that may pass for independent. One day alone bounds nothing: the interval
    is then infinite.

    Args:
        values: One value for each row.
        day: Any number that is equal for the rows of one UTC day.
        rng: Draws the days.
        level: Share of resampled means between the bounds.
        n_resamples: How often days are drawn.
    """
    days, row_day = np.unique(day, return_inverse=True)
    if days.size < 2:
        return -inf, inf
    sums = np.bincount(row_day, weights=values)
    counts = np.bincount(row_day)
    drawn = rng.integers(days.size, size=(n_resamples, days.size))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return float(low), float(high)


def _rank_auc(probability_up: Floats, is_up: npt.NDArray[np.bool_]) -> float:
    """Return the share of (rise, fall) pairs that are ranked rightly, ties counting half.

    Source: Mann and Whitney's U over the number of pairs, from mid-ranks (Hanley and McNeil
    (1982), "The Meaning and Use of the Area under a ROC Curve", Radiology 143).
    """
    _, value_of_row, counts = np.unique(probability_up, return_inverse=True, return_counts=True)
    mid_ranks = np.cumsum(counts) - (counts - 1) / 2.0
    n_up = int(is_up.sum())
    n_down = is_up.size - n_up
    return float((mid_ranks[value_of_row][is_up].sum() - n_up * (n_up + 1) / 2) / (n_up * n_down))


def _check(probability_up: Floats, direction: Directions) -> npt.NDArray[np.bool_]:
    """Return whether each row rose, or refuse what no score is defined for."""
    if probability_up.shape != direction.shape or probability_up.ndim != 1:
        raise DataError(
            f"{probability_up.shape} probabilities for {direction.shape} directions",
            hint="give one of each for a row",
        )
    n_bad = int((~((probability_up >= 0.0) & (probability_up <= 1.0))).sum())
    if n_bad:
        raise DataError(
            f"{n_bad:,} of {probability_up.size:,} probabilities are not between 0 and 1",
            hint="look at the model that made them",
        )
    if not np.isin(direction, (-1, 1)).all():
        raise DataError(
            "a direction is neither 1 nor -1", hint="leave out rows whose price did not change"
        )
    return np.asarray(direction == 1)
