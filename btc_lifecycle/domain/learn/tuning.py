"""Tuning: LightGBM's parameters, searched before anything is tested, and never by the test parts.

The search walks forward too, over the examples before the first test part: parameters that had seen
a later fold's validation rows would have seen an earlier fold's test rows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import polars as pl

from btc_lifecycle.domain.learn.evaluation import MODEL
from btc_lifecycle.domain.learn.splits import walk_forward
from btc_lifecycle.domain.learn.training import TrainingParameters
from btc_lifecycle.domain.learn.walk import Recipe, walk

if TYPE_CHECKING:
    import optuna

_INNER_FOLDS = 3
_INNER_TEST_FRACTION = 0.4
_ROWS_A_LEAF = 40
"""Leaves of more than this part of all rows could not be split in two in the smallest fold."""


@dataclass(frozen=True, kw_only=True)
class TuningPolicy:
    """How long to search; no trials, no search.

    Attributes:
        n_trials: Most sets of parameters to try, the configured one first; 0 keeps that one.
        max_minutes: No trial begins after these.
    """

    n_trials: int = 0
    max_minutes: float = 30.0

    def __post_init__(self) -> None:
        # ValueError, since the settings turn it into a message that names the file and the key.
        if self.n_trials < 0:
            raise ValueError("n_trials must be at least 0")
        if not self.max_minutes > 0.0:
            raise ValueError("max_minutes must be above 0")


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One set of parameters and its mean loss on the inner test parts."""

    parameters: TrainingParameters
    loss: float


def tune(
    examples: pl.DataFrame, *, recipe: Recipe, policy: TuningPolicy, n_workers: int = 1
) -> list[Trial]:
    """Return the trials, the best first; the same for the same inputs unless time ran out.

    Args:
        examples: All examples; those from the first test part on are not looked at, nor those
            whose outcome was not known before it.
        recipe: How models are made; its parameters are the first trial, and those that are not
            searched stay as they are.
        policy: Bounds of the search.
        n_workers: Folds that are fitted at the same time.

    Raises:
        DataError: If the examples before the first test part cannot be split or learnt from.
    """
    import optuna  # noqa: PLC0415  # half a second that only a search should pay

    first_test = walk_forward(examples, policy=recipe.split)[0].test_start
    inner_split = replace(
        recipe.split,
        n_folds=_INNER_FOLDS,
        test_fraction=_INNER_TEST_FRACTION,
        min_rows=1,
        min_days=1,
    )
    known = examples.filter(pl.col("matures_at") <= first_test)
    trials: list[Trial] = []

    def loss_of(proposed: optuna.Trial) -> float:
        parameters = _propose(proposed, around=recipe.parameters, n_rows=known.height)
        inner = replace(recipe, split=inner_split, parameters=parameters)
        predicted = walk(known, recipe=inner, n_workers=n_workers).predicted
        loss = float(recipe.head.losses(predicted[MODEL].to_numpy(), predicted).mean())
        trials.append(Trial(parameters=parameters, loss=loss))
        return loss

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=recipe.parameters.seed))
    study.enqueue_trial(_searched(recipe.parameters))
    study.optimize(loss_of, n_trials=policy.n_trials, timeout=policy.max_minutes * 60.0)
    return sorted(trials, key=lambda trial: trial.loss)


def _searched(parameters: TrainingParameters) -> dict[str, float]:
    return {
        "learning_rate": parameters.learning_rate,
        "num_leaves": parameters.num_leaves,
        "min_data_in_leaf": parameters.min_data_in_leaf,
    }


def _propose(trial: optuna.Trial, *, around: TrainingParameters, n_rows: int) -> TrainingParameters:
    rate, leaves, rows = around.learning_rate, around.num_leaves, around.min_data_in_leaf
    return replace(
        around,
        learning_rate=trial.suggest_float(
            "learning_rate", min(rate, 0.005), max(rate, 0.3), log=True
        ),
        num_leaves=trial.suggest_int("num_leaves", 2, max(leaves, 128), log=True),
        min_data_in_leaf=trial.suggest_int(
            "min_data_in_leaf", min(rows, 20), max(rows, n_rows // _ROWS_A_LEAF), log=True
        ),
    )
