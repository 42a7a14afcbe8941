"""The walk forward: a model and its baselines for each fold, and what all predicted unseen."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from btc_lifecycle.domain.learn.evaluation import MODEL
from btc_lifecycle.domain.learn.heads import Baselines, Head
from btc_lifecycle.domain.learn.splits import Fold, Split, SplitPolicy, cut, walk_forward
from btc_lifecycle.domain.learn.training import TrainedModel, TrainingParameters, predict, train


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a model of a head is made of examples; `weigh` gives each row to train on its weight."""

    head: Head
    feature_names: tuple[str, ...]
    horizon_min: int
    split: SplitPolicy
    parameters: TrainingParameters
    weigh: Callable[[pl.DataFrame], npt.NDArray[np.float64]] | None = None


@dataclass(frozen=True, kw_only=True)
class Walk:
    """What a walk forward came to.

    Attributes:
        model: The newest fold's model, the candidate.
        baselines: The newest fold's baselines.
        split: The newest fold's parts.
        predicted: The test rows of all folds without their features, with a column fold and one
            for the prediction of each rival: model and the baselines.
    """

    model: TrainedModel
    baselines: Baselines
    split: Split
    predicted: pl.DataFrame


def walk(examples: pl.DataFrame, *, recipe: Recipe, n_workers: int = 1) -> Walk:
    """Return the candidate, and what each fold's rivals predicted for rows that none had seen.

    Args:
        examples: What the head's `join` returns.
        recipe: How models are made.
        n_workers: Folds that are fitted at the same time; the result does not depend on it, the
            memory does.

    Raises:
        DataError: If the examples cannot be split or learnt from.
    """
    folds = walk_forward(examples, policy=recipe.split)
    with ThreadPoolExecutor(n_workers) as executor:
        steps = [executor.submit(_step, examples, fold, recipe=recipe) for fold in folds]
        done = [step.result() for step in steps]
    newest = folds[-1]
    model, baselines, _ = done[-1]
    return Walk(
        model=model,
        baselines=baselines,
        split=cut(examples, newest, policy=recipe.split),
        predicted=pl.concat(predicted for _, _, predicted in done),
    )


def _step(
    examples: pl.DataFrame, fold: Fold, *, recipe: Recipe
) -> tuple[TrainedModel, Baselines, pl.DataFrame]:
    split = cut(examples, fold, policy=recipe.split)
    names = recipe.feature_names
    weights = None if recipe.weigh is None else recipe.weigh(split.train)
    model = train(
        split,
        target=recipe.head.target,
        feature_names=names,
        parameters=recipe.parameters,
        weights=weights,
    )
    baselines = recipe.head.fit_baselines(
        split.train, feature_names=names, horizon_min=recipe.horizon_min, weights=weights
    )
    predictions = {
        MODEL: predict(model.booster, split.test, target=recipe.head.target, feature_names=names),
        **baselines.predict(split.test),
    }
    predicted = split.test.drop(names).with_columns(
        *(pl.Series(name, values) for name, values in predictions.items()),
        fold=pl.lit(fold.number, pl.Int64),
    )
    return model, baselines, predicted
