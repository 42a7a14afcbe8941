"""Heads: what is predicted, each with its examples, baselines, losses and scores.

Direction is what everybody asks for and hardly anybody can tell; volatility is what minute candles
do tell. Both go the same way from examples to a served model, and a head holds what differs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from btc_lifecycle.domain.learn.baselines import (
    DirectionBaselines,
    VolatilityBaselines,
    fit_direction_baselines,
    fit_volatility_baselines,
)
from btc_lifecycle.domain.learn.evaluation import (
    TradingRule,
    log_losses,
    score_direction,
    score_volatility,
    squared_errors,
)
from btc_lifecycle.domain.learn.examples import join_examples, join_volatility_examples
from btc_lifecycle.domain.learn.training import DIRECTION, VOLATILITY, Target

Floats = npt.NDArray[np.float64]


class Baselines(Protocol):
    """Simple rivals of a model, fitted on the rows that it was trained on."""

    def predict(self, rows: pl.DataFrame) -> dict[str, Floats]:
        """Return each baseline's prediction for each row, by its name."""

    def to_json(self) -> dict[str, object]:
        """Return the fitted numbers."""


class _Join(Protocol):
    def __call__(
        self, features: pl.DataFrame, labels: pl.DataFrame, *, feature_names: Sequence[str]
    ) -> pl.DataFrame: ...


class _Fit(Protocol):
    def __call__(
        self,
        train: pl.DataFrame,
        *,
        feature_names: Sequence[str],
        horizon_min: int,
        weights: Floats | None,
    ) -> Baselines: ...


class _Score(Protocol):
    def __call__(
        self, predicted: pl.DataFrame, *, rule: TradingRule, rng: np.random.Generator
    ) -> pl.DataFrame: ...


@dataclass(frozen=True, kw_only=True)
class Head:
    """One thing that is predicted.

    Attributes:
        name: What it is, in one word.
        target: The outcome's column and the way to fit it.
        join: Makes examples of features and labels.
        fit_baselines: Fits the rivals on the rows to train on.
        read_baselines: Makes them again from their numbers.
        losses: Each row's loss of predictions; lower is better.
        score: Makes the SCORES of a frame with a prediction of each rival.
        score_to_have: Metric without which a candidate was never scored.
    """

    name: str
    target: Target
    join: _Join
    fit_baselines: _Fit
    read_baselines: Callable[[Mapping[str, object]], Baselines]
    losses: Callable[[Floats, pl.DataFrame], Floats]
    score: _Score
    score_to_have: str


def _fit_volatility(
    train: pl.DataFrame, *, feature_names: Sequence[str], horizon_min: int, weights: Floats | None
) -> Baselines:
    del feature_names, horizon_min, weights
    return fit_volatility_baselines(train)


def _score_volatility(
    predicted: pl.DataFrame, *, rule: TradingRule, rng: np.random.Generator
) -> pl.DataFrame:
    del rule
    return score_volatility(predicted, rng=rng)


DIRECTION_HEAD = Head(
    name="direction",
    target=DIRECTION,
    join=join_examples,
    fit_baselines=fit_direction_baselines,
    read_baselines=DirectionBaselines.from_json,
    losses=lambda prediction, rows: log_losses(prediction, rows["direction"].to_numpy()),
    score=score_direction,
    score_to_have="test_log_loss",
)
VOLATILITY_HEAD = Head(
    name="volatility",
    target=VOLATILITY,
    join=join_volatility_examples,
    fit_baselines=_fit_volatility,
    read_baselines=VolatilityBaselines.from_json,
    losses=lambda prediction, rows: squared_errors(
        prediction, rows["forward_log_volatility"].to_numpy()
    ),
    score=_score_volatility,
    score_to_have="test_mse",
)
