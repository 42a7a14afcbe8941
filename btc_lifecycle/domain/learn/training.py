"""Training: one LightGBM classifier of the label's direction, the same bits for the same inputs."""

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
from btc_lifecycle.domain.learn.splits import Split

if TYPE_CHECKING:
    import lightgbm as lgb

# A class rarer than this is a broken label or a market that did not move, not something to learn.
_MIN_CLASS_SHARE = 0.05
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
class TrainedModel:
    """A booster with what it was trained on; `prior_up` is the share of rises in training."""

    booster: lgb.Booster
    feature_names: tuple[str, ...]
    best_iteration: int
    prior_up: float
    trained_from: datetime
    trained_until: datetime
    n_train: int
    n_validation: int


def train(
    split: Split,
    *,
    feature_names: Sequence[str],
    parameters: TrainingParameters,
    n_threads: int = 1,
) -> TrainedModel:
    """Return a booster fitted on train, with as many trees as validation's log-loss is best at.

    The test part is not looked at.

    Raises:
        DataError: For too few rows, a class that is missing or rare, or a constant feature.
    """
    import lightgbm as lgb  # noqa: PLC0415  # a second, which only training should pay

    _refuse_unlearnable(split, feature_names=feature_names, parameters=parameters)
    train_set = _dataset(split.train, feature_names=feature_names)
    booster = lgb.train(
        _lightgbm_parameters(parameters, n_threads=n_threads),
        train_set,
        num_boost_round=parameters.num_boost_round,
        valid_sets=[_dataset(split.validation, feature_names=feature_names, like=train_set)],
        callbacks=[lgb.early_stopping(parameters.early_stopping_rounds, verbose=False)],
    )
    learned_from = pl.concat([split.train, split.validation])
    return TrainedModel(
        booster=booster,
        feature_names=tuple(feature_names),
        best_iteration=booster.best_iteration,
        prior_up=_share_of_rises(split.train),
        trained_from=learned_from.select(pl.col("open_time").min()).item(),
        trained_until=learned_from.select(pl.col("matures_at").max()).item(),
        n_train=split.train.height,
        n_validation=split.validation.height,
    )


def predict_up(
    booster: lgb.Booster,
    rows: pl.DataFrame | npt.NDArray[np.float64],
    *,
    feature_names: Sequence[str],
) -> npt.NDArray[np.float64]:
    """Return the probability of a rise for each row.

    Args:
        booster: A trained or loaded booster.
        rows: A frame with at least the named columns, or an array (rows, features) in their order.
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
    return np.asarray(booster.predict(values, num_threads=1), dtype=np.float64)


def varying_features(examples: pl.DataFrame, *, feature_names: Sequence[str]) -> tuple[str, ...]:
    """Return those of the named features that have more than one value."""
    return tuple(name for name in feature_names if examples[name].n_unique() > 1)


def _refuse_unlearnable(
    split: Split, *, feature_names: Sequence[str], parameters: TrainingParameters
) -> None:
    n_wanted = ceil(2 * parameters.min_data_in_leaf / _SAMPLED_FRACTION)
    if split.train.height < n_wanted:
        raise DataError(
            f"{split.train.height:,} rows to train on, {n_wanted:,} wanted for two leaves of "
            f"{parameters.min_data_in_leaf:,} sampled rows",
            hint="ingest more history or lower learn.min_data_in_leaf",
        )
    for part, examples in (("training", split.train), ("validation", split.validation)):
        share = _share_of_rises(examples)
        if not _MIN_CLASS_SHARE <= share <= 1.0 - _MIN_CLASS_SHARE:
            raise DataError(
                f"{share:.1%} of {examples.height:,} {part} rows are rises; each direction needs "
                f"{_MIN_CLASS_SHARE:.0%}",
                hint="look at the labels, or train on a longer window",
            )
    constant = set(feature_names) - set(varying_features(split.train, feature_names=feature_names))
    if constant:
        raise DataError(
            f"constant in all {split.train.height:,} training rows: {', '.join(sorted(constant))}",
            hint="leave these features out, or look at the candles they come from",
        )


def _lightgbm_parameters(parameters: TrainingParameters, *, n_threads: int) -> dict[str, object]:
    return {
        "objective": "binary",
        "metric": "binary_logloss",
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
        "num_threads": n_threads,
        "verbosity": -1,
    }


def _dataset(
    examples: pl.DataFrame, *, feature_names: Sequence[str], like: lgb.Dataset | None = None
) -> lgb.Dataset:
    import lightgbm as lgb  # noqa: PLC0415  # as above

    return lgb.Dataset(
        examples.select(feature_names).to_numpy(),
        label=(examples["direction"] == 1).to_numpy(),
        feature_name=list(feature_names),
        reference=like,
    )


def _share_of_rises(examples: pl.DataFrame) -> float:
    return float((examples["direction"] == 1).sum()) / max(examples.height, 1)
