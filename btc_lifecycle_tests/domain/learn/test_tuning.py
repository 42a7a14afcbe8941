from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest

from btc_lifecycle.domain.errors import DataError
from btc_lifecycle.domain.learn.splits import walk_forward
from btc_lifecycle.domain.learn.tuning import TuningPolicy, tune
from btc_lifecycle_tests.domain.learn.test_walk import RECIPE, make_examples

POLICY = TuningPolicy(n_trials=4, max_minutes=5.0)


@pytest.fixture(scope="module")
def examples() -> pl.DataFrame:
    return make_examples()


@pytest.fixture(scope="module")
def trials(examples):
    return tune(examples, recipe=RECIPE, policy=POLICY)


def test_the_best_trial_comes_first_and_is_no_worse_than_what_was_configured(trials):
    losses = [trial.loss for trial in trials]
    assert losses == sorted(losses)
    assert len(trials) == 4
    assert RECIPE.parameters in [trial.parameters for trial in trials]


def test_only_what_is_searched_differs(trials):
    for trial in trials:
        searched = {
            name: getattr(trial.parameters, name)
            for name in ("learning_rate", "num_leaves", "min_data_in_leaf")
        }
        assert trial.parameters == replace(RECIPE.parameters, **searched)


def test_the_same_inputs_give_the_same_trials(examples, trials):
    assert tune(examples, recipe=RECIPE, policy=POLICY, n_workers=2) == trials


def test_nothing_from_the_first_test_part_on_is_looked_at(examples, trials):
    """Outcomes that were not known when the first test began are turned around."""
    first_test = walk_forward(examples, policy=RECIPE.split)[0].test_start
    is_later = pl.col("matures_at") > first_test
    poisoned = examples.with_columns(
        direction=pl.when(is_later).then(-pl.col("direction")).otherwise("direction"),
        log_return_5m=pl.when(pl.col("open_time") >= first_test)
        .then(-9.0)
        .otherwise("log_return_5m"),
    )
    assert tune(poisoned, recipe=RECIPE, policy=POLICY) == trials


def test_the_search_moves_away_from_bad_parameters(examples):
    """Trees of two rows each remember noise: whatever else is tried is better."""
    bad = replace(RECIPE.parameters, learning_rate=1.0, num_leaves=128, min_data_in_leaf=2)
    trials = tune(examples, recipe=replace(RECIPE, parameters=bad), policy=POLICY)
    assert trials[-1].parameters == bad
    assert trials[0].loss < trials[-1].loss - 0.01


def test_the_search_ends_when_its_time_is_over(examples):
    """A trial that began is ended, so there is always one."""
    policy = TuningPolicy(n_trials=1_000, max_minutes=1e-6)
    assert len(tune(examples, recipe=RECIPE, policy=policy)) == 1


def test_examples_that_cannot_be_learnt_from_are_refused(examples):
    with pytest.raises(DataError):
        tune(examples.head(150), recipe=RECIPE, policy=POLICY)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"n_trials": -1}, "n_trials must be at least 0"),
        ({"max_minutes": 0.0}, "max_minutes must be above 0"),
        ({"max_minutes": float("nan")}, "max_minutes must be above 0"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        TuningPolicy(**changes)
