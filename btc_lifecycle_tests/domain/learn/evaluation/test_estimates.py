from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from btc_lifecycle.domain.learn.evaluation import estimates
from btc_lifecycle.domain.learn.evaluation.days import ResampledDays
from btc_lifecycle.domain.learn.evaluation.estimates import Estimate
from btc_lifecycle.domain.learn.evaluation.ranks import Ranks, auc, spearman
from btc_lifecycle_tests import reference_scores
from btc_lifecycle_tests.reference_scores import Row

coarse = st.integers(0, 8).map(lambda i: i / 8)
rows_of_days = st.lists(
    st.builds(
        Row,
        day=st.integers(0, 3),
        predicted=coarse,
        outcome=coarse,
        direction=st.sampled_from([1, -1]),
    ),
    min_size=1,
    max_size=16,
).map(
    lambda rows: [
        *rows,
        *(Row(day=day, predicted=0.5, outcome=0.5, direction=1) for day in range(4)),
    ]
)
ORACLES = reference_scores.direction_scores(min_edge=0.1, taker_cost_bp=5.0)


def arrays(rows: list[Row]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return predicted values, outcomes and whether each row rose."""
    is_up = np.array([row.direction == 1 for row in rows])
    return np.array([r.predicted for r in rows]), np.array([r.outcome for r in rows]), is_up


def drawn(rows: list[Row], n_resamples: int = 25) -> ResampledDays:
    day = np.array([row.day for row in rows])
    return ResampledDays.draw(day, rng=np.random.default_rng(3), n_resamples=n_resamples)


def assert_as_slow(found: Estimate, score: reference_scores.Score, rows: list[Row]) -> None:
    low, high = reference_scores.bounds(score, rows, drawn(rows).n_draws)
    expected = {"value": score(rows), "low": low, "high": high}
    assert vars(found) == pytest.approx(expected, abs=1e-9)


@given(rows=rows_of_days)
def test_a_mean_and_its_bounds_equal_those_of_rows(rows):
    values, _, _ = arrays(rows)
    found = estimates.mean(values, days=drawn(rows))
    assert_as_slow(found, lambda drawn: np.mean([row.predicted for row in drawn]), rows)


@given(rows=rows_of_days)
def test_a_calibration_error_and_its_bounds_equal_those_of_rows(rows):
    probability_up, _, is_up = arrays(rows)
    found = estimates.calibration_error(probability_up, is_up, days=drawn(rows))
    assert_as_slow(found, ORACLES["expected_calibration_error"], rows)


@given(rows=rows_of_days)
def test_an_auc_and_its_bounds_equal_those_of_rows(rows):
    probability_up, _, is_up = arrays(rows)
    found = estimates.auc(Ranks.of(probability_up), is_up, days=drawn(rows))
    assert_as_slow(found, ORACLES["auc"], rows)


@given(rows=rows_of_days)
def test_a_correlation_and_its_bounds_equal_those_of_rows(rows):
    predicted, outcome, _ = arrays(rows)
    found = estimates.spearman(Ranks.of(predicted), Ranks.of(outcome), days=drawn(rows))
    assert_as_slow(found, ORACLES["rank_ic"], rows)


@given(rows=rows_of_days, shift=st.sampled_from([0.0, -7.3]))
def test_an_r_squared_and_its_bounds_equal_those_of_rows(rows, shift):
    predicted, outcome, _ = arrays(rows)
    found = estimates.r_squared(predicted + shift, outcome + shift, days=drawn(rows))
    assert_as_slow(found, reference_scores.volatility_scores()["r_squared"], rows)


def test_bounds_of_many_values_are_those_of_rows_although_values_are_binned():
    rng = np.random.default_rng(2)
    day = np.repeat(np.arange(40), 500)
    predicted, noise = rng.normal(size=(2, day.size))
    is_up = predicted + 0.2 * noise > 0.0
    # So narrow are the bounds of a correlation near 1 that binning alone would move them by more.
    outcome = predicted + 0.2 * noise
    days = ResampledDays.draw(day, rng=rng, n_resamples=40)
    ranks, outcome_ranks = Ranks.of(predicted), Ranks.of(outcome)
    exact = {"auc": [], "spearman": []}
    for n_draws in days.n_draws.astype(int):
        rows = np.repeat(np.arange(day.size), n_draws[day])
        drawn_ranks = Ranks.of(predicted[rows])
        exact["auc"].append(auc(drawn_ranks, is_up[rows]))
        exact["spearman"].append(spearman(drawn_ranks, Ranks.of(outcome[rows])))
    for name, found in {
        "auc": estimates.auc(ranks, is_up, days=days),
        "spearman": estimates.spearman(ranks, outcome_ranks, days=days),
    }.items():
        low, high = np.quantile(exact[name], [0.025, 0.975])
        assert (found.low, found.high) == pytest.approx((low, high), abs=(high - low) / 20)


def test_about_nineteen_of_twenty_intervals_cover_the_true_auc_and_correlation():
    """Two normal scores one apart have an AUC of 0.760; a normal pair of 0.5 ranks by 0.483."""
    rng = np.random.default_rng(4)
    day = np.repeat(np.arange(40), 10)
    covered = np.zeros(2)
    for _ in range(100):
        is_up = rng.random(400) < 0.5
        first, noise = rng.normal(size=(2, 400))
        days = ResampledDays.draw(day, rng=rng, n_resamples=100)
        area = estimates.auc(Ranks.of(first + is_up), is_up, days=days)
        second = 0.5 * first + np.sqrt(0.75) * noise
        correlation = estimates.spearman(Ranks.of(first), Ranks.of(second), days=days)
        covered += [area.low < 0.7602 < area.high, correlation.low < 0.4826 < correlation.high]
    assert ((covered / 100 >= 0.88) & (covered / 100 <= 0.99)).all()


def test_no_rows_have_no_scores():
    days = ResampledDays.draw(np.arange(3), rng=np.random.default_rng(0), n_resamples=5)
    none = days.where(np.zeros(3, dtype=bool))
    empty, is_up, ranks = np.zeros(0), np.zeros(0, dtype=bool), Ranks.of(np.zeros(0))
    for found in (
        estimates.mean(empty, days=none),
        estimates.calibration_error(empty, is_up, days=none),
        estimates.auc(ranks, is_up, days=none),
        estimates.spearman(ranks, ranks, days=none),
        estimates.r_squared(empty, empty, days=none),
    ):
        assert found == Estimate(value=None, low=None, high=None)


def test_equal_outcomes_have_no_r_squared_however_they_round():
    days = ResampledDays.draw(np.arange(3), rng=np.random.default_rng(0), n_resamples=5)
    found = estimates.r_squared(np.array([0.1, 0.2, 0.3]), np.full(3, 0.1), days=days)
    assert found == Estimate(value=None, low=None, high=None)


def test_resamples_of_equal_outcomes_have_no_r_squared_however_they_round():
    """A day drawn twice has no spread, but its squares less its sum's square leave 7e-16."""
    day, outcome = np.repeat([0, 1], [3, 10]), np.repeat([0.1, 0.4], [3, 10])
    days = ResampledDays.draw(day, rng=np.random.default_rng(0), n_resamples=50)
    found = estimates.r_squared(outcome + 0.1, outcome, days=days)
    assert found.low == pytest.approx(found.value)
    assert found.high == pytest.approx(found.value)
