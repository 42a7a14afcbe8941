"""Training: one LightGBM model of one outcome, the same bits for the same inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from math import ceil
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl

from btc_lifecycle.domain.errors import DataError
from btc_lifecycle.domain.learn.baselines import LEAST_VOLATILITY
from btc_lifecycle.domain.learn.refusals import refuse_constant_features, refuse_rare_directions
from btc_lifecycle.domain.learn.splits import Split

if TYPE_CHECKING:
    import lightgbm as lgb

Floats = npt.NDArray[np.float64]

# Each tree sees half the rows and half the features: neighbouring minutes share their windows and
# outcomes, so half say nearly as much as all, and trees that differ average out their noise.
_SAMPLED_FRACTION = 0.5


@dataclass(frozen=True, kw_only=True)
class TrainingParameters:
    """LightGBM's parameters of the same names; rounds are trees, a leaf's data are rows."""

    num_boost_round: int
    early_stopping_rounds: int
    learning_rate: float
    num_leaves: int
    min_data_in_leaf: int
    seed: int

    def __post_init__(self) -> None:
        # ValueError, since the settings turn it into a message that names the file and the key.
        if self.num_boost_round < 1 or self.early_stopping_rounds < 1 or self.min_data_in_leaf < 1:
            raise ValueError(
                "num_boost_round, early_stopping_rounds and min_data_in_leaf must be at least 1"
            )
        if not 0.0 < self.learning_rate <= 1.0:
            raise ValueError("learning_rate must be above 0 and at most 1")
        if self.num_leaves < 2:
            raise ValueError("num_leaves must be at least 2")


@dataclass(frozen=True, kw_only=True)
class Target:
    """What a model predicts: a column of the examples, and LightGBM's names for the fit.

    Attributes:
        column: Of the examples.
        objective: LightGBM's.
        metric: The loss that early stopping watches.
        anchor: Feature whose logarithm trees only add to. They cannot follow a level beyond those
            that they were trained on, and the level of volatility wanders for years.
    """

    column: str
    objective: str
    metric: str
    anchor: str | None = None

    def of(self, examples: pl.DataFrame) -> Floats:
        """Return the outcomes that trees are fitted to: 1 for a rise and 0 for a fall, or values."""
        if self.anchor is None:
            return (examples[self.column] == 1).to_numpy().astype(np.float64)
        return examples[self.column].to_numpy() - _logs(examples[self.anchor].to_numpy())

    def anchored(self, trees: Floats, values: Floats, *, feature_names: Sequence[str]) -> Floats:
        """Return predictions from what trees say of rows of values, shape (rows, features)."""
        if self.anchor is None:
            return trees
        return trees + _logs(values[:, list(feature_names).index(self.anchor)])


DIRECTION = Target(column="direction", objective="binary", metric="binary_logloss")
VOLATILITY = Target(
    column="forward_log_volatility",
    objective="regression",
    metric="l2",
    anchor="realized_volatility_60m",
)


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """A booster with what it was trained on."""

    booster: lgb.Booster
    feature_names: tuple[str, ...]
    best_iteration: int
    trained_from: datetime
    trained_until: datetime
    n_train: int
    n_validation: int


def train(
    split: Split,
    *,
    target: Target,
    feature_names: Sequence[str],
    parameters: TrainingParameters,
    weights: Floats | None = None,
) -> TrainedModel:
    """Return a booster fitted on train, with as many trees as validation's loss is best at.

    The test part is not looked at. One thread fits it: how many there are changes the order of
    sums, and with it the last bits.

    Args:
        split: Its train and validation parts.
        target: What is predicted.
        feature_names: The columns to learn from, in the order of the model's inputs.
        parameters: LightGBM's.
        weights: Of the rows to train on; all weigh the same without.

    Raises:
        DataError: For too few rows, a direction that is missing or rare, or a constant feature.
    """
    import lightgbm as lgb  # noqa: PLC0415  # a second, which only training should pay

    _refuse_few_rows(split.train, parameters=parameters)
    if target.anchor is not None and target.anchor not in feature_names:
        raise DataError(
            f"{target.column} is not learnt without {target.anchor}",
            hint="take it out of learn.leave_out",
        )
    if target is DIRECTION:
        refuse_rare_directions(split)
    refuse_constant_features(split, feature_names=feature_names)
    train_set = _dataset(split.train, feature_names=feature_names, target=target, weights=weights)
    validation_set = _dataset(
        split.validation, feature_names=feature_names, target=target, like=train_set
    )
    booster = lgb.train(
        _lightgbm_parameters(parameters, target=target),
        train_set,
        num_boost_round=parameters.num_boost_round,
        valid_sets=[validation_set],
        callbacks=[lgb.early_stopping(parameters.early_stopping_rounds, verbose=False)],
    )
    learned_from = pl.concat([split.train, split.validation])
    return TrainedModel(
        booster=booster,
        feature_names=tuple(feature_names),
        best_iteration=booster.best_iteration,
        trained_from=learned_from.select(pl.col("open_time").min()).item(),
        trained_until=learned_from.select(pl.col("matures_at").max()).item(),
        n_train=split.train.height,
        n_validation=split.validation.height,
    )


def predict(
    booster: lgb.Booster,
    rows: pl.DataFrame | Floats,
    *,
    target: Target,
    feature_names: Sequence[str],
) -> Floats:
    """Return the model's prediction for each row: a probability of a rise, or a log volatility.

    Args:
        booster: A trained or loaded booster.
        rows: A frame with at least the named columns, or an array (rows, features) in their order.
        target: What the booster was trained to predict.
        feature_names: The names that the booster was trained with, in that order.

    Raises:
        DataError: For other features than the booster's, or values that are missing or infinite,
            which LightGBM would silently take for zero.
    """
    if list(feature_names) != booster.feature_name():
        raise DataError(
            f"the model takes {', '.join(booster.feature_name())}; it was given "
            f"{', '.join(feature_names)}",
            hint="name the model's own features in its order",
        )
    values = rows.select(feature_names).to_numpy() if isinstance(rows, pl.DataFrame) else rows
    if values.ndim != 2 or values.shape[1] != len(feature_names):
        raise DataError(
            f"rows of shape {values.shape} for {len(feature_names)} features",
            hint="give one column for each feature",
        )
    if not np.isfinite(values).all():
        row, column = np.argwhere(~np.isfinite(values))[0]
        raise DataError(
            f"{feature_names[column]} of row {row} is missing or infinite",
            hint="predict only rows whose features are all known",
        )
    trees = np.asarray(booster.predict(values, num_threads=1), dtype=np.float64)
    return target.anchored(trees, values, feature_names=feature_names)


def contributions(
    booster: lgb.Booster, rows: pl.DataFrame, *, feature_names: Sequence[str]
) -> Floats:
    """Return what each feature adds to each row's prediction before the link, shape (rows, features).

    In log-odds for a direction, in log volatility for a volatility; with the model's mean they sum
    to the prediction.

    Source: Lundberg et al. (2020), "From local explanations to global understanding with explainable
    AI for trees", Nature Machine Intelligence 2.
    """
    values = rows.select(feature_names).to_numpy()
    with_mean = np.asarray(booster.predict(values, pred_contrib=True, num_threads=1))
    return with_mean[:, :-1]


def _logs(volatility: Floats) -> Floats:
    return np.log(np.maximum(volatility, LEAST_VOLATILITY))


def _refuse_few_rows(train_part: pl.DataFrame, *, parameters: TrainingParameters) -> None:
    n_wanted = ceil(2 * parameters.min_data_in_leaf / _SAMPLED_FRACTION)
    if train_part.height < n_wanted:
        raise DataError(
            f"{train_part.height:,} rows to train on, {n_wanted:,} wanted for two leaves of "
            f"{parameters.min_data_in_leaf:,} sampled rows",
            hint="ingest more history or lower learn.training.min_data_in_leaf",
        )


def _lightgbm_parameters(parameters: TrainingParameters, *, target: Target) -> dict[str, object]:
    return {
        "objective": target.objective,
        "metric": target.metric,
        "learning_rate": parameters.learning_rate,
        "num_leaves": parameters.num_leaves,
        "min_data_in_leaf": parameters.min_data_in_leaf,
        "feature_fraction": _SAMPLED_FRACTION,
        "bagging_fraction": _SAMPLED_FRACTION,
        "bagging_freq": 1,
        "seed": parameters.seed,
        "deterministic": True,
        # LightGBM otherwise times both layouts and picks one, which differs between runs.
        "force_row_wise": True,
        "num_threads": 1,
        "verbosity": -1,
    }


def _dataset(
    examples: pl.DataFrame,
    *,
    feature_names: Sequence[str],
    target: Target,
    like: lgb.Dataset | None = None,
    weights: Floats | None = None,
) -> lgb.Dataset:
    import lightgbm as lgb  # noqa: PLC0415  # as above

    return lgb.Dataset(
        examples.select(feature_names).to_numpy(),
        label=target.of(examples),
        weight=weights,
        feature_name=list(feature_names),
        reference=like,
    )
