"""Baselines: simple rivals that a model must beat, fitted on the same examples as the model.

They are plain numbers once fitted, so that they are stored beside the model and predict later
what they would have predicted then.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import polars as pl

from btc_lifecycle.domain.errors import DataError

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

# One wild candle, at hundreds of standard deviations, would decide its row and tilt the fit.
_MOST_DEVIATIONS = 10.0
_VOLATILITIES = tuple(f"realized_volatility_{minutes}m" for minutes in (15, 60, 240))
# A logarithm needs more than 0, which a stretch without a move has. A hundredth of a basis point
# per minute lies far below every volatility of a market that moves.
LEAST_VOLATILITY = 1e-6
_LOG_RETURN = re.compile(r"log_return_(\d+)m")


@dataclass(frozen=True, kw_only=True)
class _Numbers:
    """Fitted numbers, which JSON keeps to the last bit; tuples are lists there."""

    def to_json(self) -> dict[str, object]:
        """Return the baselines as JSON values."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Return the baselines that ``to_json`` gave.

        Raises:
            DataError: If a part is missing or unknown.
        """
        try:
            return cls(**{n: tuple(v) if isinstance(v, list) else v for n, v in document.items()})
        except TypeError as error:
            raise DataError(
                f"baselines are damaged: {error}", hint="train the model version anew"
            ) from error


@dataclass(frozen=True, kw_only=True)
class DirectionBaselines(_Numbers):
    """Rivals that give probabilities of a rise: prior, contrarian and logistic.

    Attributes:
        prior_up: Share of rises.
        last_move: The feature whose sign is the last move.
        up_after_rise: Share of rises after a rise; below one half where moves tend to turn.
        up_after_fall: Share of rises after a fall.
        up_after_none: Share of rises after a last move of exactly 0.
        feature_names: What the logistic regression reads, in the order of the next three.
        means: Of the features in training.
        deviations: Standard deviations of the features in training; 0 for a constant one, which
            is not read.
        coefficients: Log odds of a rise for one deviation of each feature.
        intercept: Log odds of a rise at the features' means.
    """

    prior_up: float
    last_move: str
    up_after_rise: float
    up_after_fall: float
    up_after_none: float
    feature_names: tuple[str, ...]
    means: tuple[float, ...]
    deviations: tuple[float, ...]
    coefficients: tuple[float, ...]
    intercept: float

    def predict(self, rows: pl.DataFrame) -> dict[str, Floats]:
        """Return each rival's probability of a rise for each row.

        Raises:
            DataError: For features that are missing or infinite.
        """
        move = np.sign(_known(rows, (self.last_move,))[:, 0])
        after_move = np.array([self.up_after_fall, self.up_after_none, self.up_after_rise])
        values = _standardized(
            _known(rows, self.feature_names),
            means=np.array(self.means),
            deviations=np.array(self.deviations),
        )
        log_odds = (values * np.array(self.coefficients)).sum(axis=1) + self.intercept
        return {
            "prior": np.full(rows.height, self.prior_up),
            "contrarian": after_move[move.astype(np.int64) + 1],
            # 1 / (1 + exp(-x)) in a form that cannot overflow.
            "logistic": 0.5 + 0.5 * np.tanh(log_odds / 2.0),
        }


@dataclass(frozen=True, kw_only=True)
class VolatilityBaselines(_Numbers):
    """Rivals that give log volatilities: HAR, and the last hour's as the next hour's.

    Attributes:
        intercept: Of the regression, in log return per minute.
        coefficients: For the logs of the last 15, 60 and 240 minutes' realized volatilities.
    """

    intercept: float
    coefficients: tuple[float, ...]

    def predict(self, rows: pl.DataFrame) -> dict[str, Floats]:
        """Return each rival's log volatility for each row.

        Raises:
            DataError: For volatilities that are missing or infinite.
        """
        logs = _log_volatilities(rows)
        har = (logs * np.array(self.coefficients)).sum(axis=1) + self.intercept
        return {"har": har, "last_value": logs[:, 1]}


def fit_direction_baselines(
    train: pl.DataFrame,
    *,
    feature_names: Sequence[str],
    horizon_min: int,
    weights: Floats | None = None,
) -> DirectionBaselines:
    """Return the baselines of the direction, fitted on training examples.

    Args:
        train: Examples with direction (1 or -1) and the features.
        feature_names: What the logistic regression reads. The last move is the log return among
            them whose minutes lie nearest the horizon, the longer of two as near.
        horizon_min: Minutes from a close to its outcome.
        weights: What each row counts for; all count the same without it.

    Raises:
        DataError: For one direction only, features that are missing or infinite, or no log return
            among them.
    """
    is_up = (train["direction"] == 1).to_numpy()
    if is_up.all() or not is_up.any():
        raise DataError(
            f"all {is_up.size:,} rows went the same way, so no baseline can be fitted",
            hint="train on a longer window",
        )
    last_move = _last_move(feature_names, horizon_min=horizon_min)
    counts_for = np.ones(train.height) if weights is None else weights
    return DirectionBaselines(
        prior_up=float(np.average(is_up, weights=counts_for)),
        last_move=last_move,
        **_contrarian(_known(train, (last_move,))[:, 0], is_up, weights=counts_for),
        feature_names=tuple(feature_names),
        **_logistic(_known(train, feature_names), is_up, weights=counts_for),
    )


def fit_volatility_baselines(train: pl.DataFrame) -> VolatilityBaselines:
    """Return the baselines of the log volatility, fitted on training examples.

    Args:
        train: Examples with forward_log_volatility and the realized volatilities of the last 15,
            60 and 240 minutes.

    Raises:
        DataError: For no rows, or values that are missing or infinite.

    Source: Corsi (2009), "A Simple Approximate Long-Memory Model of Realized Volatility", Journal
    of Financial Econometrics 7, equation 8, in logs and with windows of minutes for those of days.
    """
    if train.is_empty():
        raise DataError("no rows to fit a baseline to", hint="train on a longer window")
    logs = _log_volatilities(train)
    outcome = _known(train, ("forward_log_volatility",))[:, 0]
    solution, *_ = np.linalg.lstsq(np.column_stack([np.ones(train.height), logs]), outcome)
    intercept, *coefficients = solution.tolist()
    return VolatilityBaselines(intercept=intercept, coefficients=tuple(coefficients))


def _last_move(feature_names: Sequence[str], *, horizon_min: int) -> str:
    lags = [int(found[1]) for name in feature_names if (found := _LOG_RETURN.fullmatch(name))]
    if not lags:
        raise DataError(
            f"no log return among {len(feature_names)} features, so there is no last move",
            hint="keep one of log_return_1m, log_return_5m, ... among the features",
        )
    return f"log_return_{min(lags, key=lambda lag: (abs(lag - horizon_min), -lag))}m"


def _contrarian(moves: Floats, is_up: Bools, *, weights: Floats) -> dict[str, Any]:
    """Return the share of rises after each sign of the last move, of all rows where it is none."""
    after = {"up_after_rise": moves > 0.0, "up_after_fall": moves < 0.0}
    after["up_after_none"] = moves == 0.0
    shares = {}
    for name, is_after in after.items():
        counted = is_after if weights[is_after].sum() > 0.0 else np.ones_like(is_after)
        shares[name] = float(np.average(is_up[counted], weights=weights[counted]))
    return shares


def _logistic(values: Floats, is_up: Bools, *, weights: Floats) -> dict[str, Any]:
    """Return means, deviations, coefficients and intercept of a logistic regression.

    Its penalty is scikit-learn's own, half the squared coefficients: nothing beside thousands of
    rows, but enough to share out what collinear features say.
    """
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415  # only training pays

    is_constant = values.min(axis=0) == values.max(axis=0)
    means, deviations = values.mean(axis=0), np.where(is_constant, 0.0, values.std(axis=0))
    standardized = _standardized(values, means=means, deviations=deviations)
    fitted = LogisticRegression(solver="newton-cholesky").fit(
        standardized, is_up, sample_weight=weights
    )
    return {
        "means": tuple(means.tolist()),
        "deviations": tuple(deviations.tolist()),
        "coefficients": tuple(fitted.coef_[0].tolist()),
        "intercept": float(fitted.intercept_[0]),
    }


def _standardized(values: Floats, *, means: Floats, deviations: Floats) -> Floats:
    """Return values in deviations from their mean, at most _MOST_DEVIATIONS, 0 for constant ones."""
    is_constant = deviations == 0.0
    scaled = (values - means) / np.where(is_constant, 1.0, deviations)
    scaled[:, is_constant] = 0.0
    return np.clip(scaled, -_MOST_DEVIATIONS, _MOST_DEVIATIONS, out=scaled)


def _log_volatilities(rows: pl.DataFrame) -> Floats:
    return np.log(np.maximum(_known(rows, _VOLATILITIES), LEAST_VOLATILITY))


def _known(rows: pl.DataFrame, columns: Sequence[str]) -> Floats:
    """Return columns as an array (rows, columns), each row in one piece so that its sums are too.

    Raises:
        DataError: For columns that are absent, or values that are missing or infinite.
    """
    absent = [name for name in columns if name not in rows.columns]
    if absent:
        raise DataError(
            f"{', '.join(absent)}: no such column among {rows.width}",
            hint="keep among the features what the baselines read",
        )
    values = np.ascontiguousarray(rows.select(pl.col(columns).cast(pl.Float64)).to_numpy())
    if not np.isfinite(values).all():
        row, column = np.argwhere(~np.isfinite(values))[0]
        raise DataError(
            f"{columns[column]} of row {row} is missing or infinite",
            hint="give only rows whose features and outcomes are all known",
        )
    return values
