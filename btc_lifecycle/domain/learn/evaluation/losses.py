"""Losses of single rows, and how far probabilities lie from the shares that came true."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

from btc_lifecycle.domain.errors import DataError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

N_CALIBRATION_BINS = 10
# Keeps the loss of a certain but wrong prediction finite, at 34.5 nats; scikit-learn long had it.
_CLIP = 1e-15


def log_losses(probability_up: Floats, direction: Ints) -> Floats:
    """Return each row's negative log likelihood in nats, with probabilities off 0 and 1.

    Args:
        probability_up: Probabilities of a rise between 0 and 1, shape (rows,).
        direction: 1 for a rise, -1 for a fall, shape (rows,).

    Raises:
        DataError: For shapes that differ, or values out of range.
    """
    is_up = is_rise(probability_up, direction)
    of_what_happened = np.where(is_up, probability_up, 1.0 - probability_up)
    return np.asarray(-np.log(np.clip(of_what_happened, _CLIP, 1.0 - _CLIP)))


def squared_errors(predicted: Floats, outcome: Floats) -> Floats:
    """Return each row's squared difference, in squared units of the outcome.

    Args:
        predicted: Predicted values, shape (rows,).
        outcome: What happened, shape (rows,).

    Raises:
        DataError: For shapes that differ, or values that are missing or infinite.
    """
    if predicted.shape != outcome.shape or predicted.ndim != 1:
        raise DataError(
            f"{predicted.shape} predictions for {outcome.shape} outcomes",
            hint="give one of each for a row",
        )
    n_bad = int((~(np.isfinite(predicted) & np.isfinite(outcome))).sum())
    if n_bad:
        raise DataError(
            f"{n_bad:,} of {outcome.size:,} predictions or outcomes are missing or infinite",
            hint="look at the model that made them, and at the candles of their outcomes",
        )
    return np.asarray((predicted - outcome) ** 2)


def calibration_curve(
    probability_up: Floats, direction: Ints, n_bins: int = N_CALIBRATION_BINS
) -> pl.DataFrame:
    """Return mean_probability, up_share and n_rows of each filled bin of equal width, rising.

    Raises:
        DataError: For shapes that differ, or values out of range.
    """
    is_up = is_rise(probability_up, direction)
    bins = calibration_bins(probability_up, n_bins=n_bins)
    return (
        pl.DataFrame({"probability": probability_up, "is_up": is_up, "bin": bins})
        .group_by("bin")
        .agg(
            mean_probability=pl.col("probability").mean(),
            up_share=pl.col("is_up").mean(),
            n_rows=pl.len().cast(pl.Int64),
        )
        .sort("bin")
        .drop("bin")
    )


def calibration_bins(probability_up: Floats, *, n_bins: int = N_CALIBRATION_BINS) -> Ints:
    """Return each row's bin of equal width, 0 to n_bins - 1; certainty is in the last."""
    return np.minimum((probability_up * n_bins).astype(np.int64), n_bins - 1)


def is_rise(probability_up: Floats, direction: Ints) -> Bools:
    """Return whether each row rose.

    Raises:
        DataError: For what no score is defined for: shapes that differ, or values out of range.
    """
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
