from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from btc_lifecycle.domain.errors import DataError
from btc_lifecycle.domain.learn.evaluation import (
    calibration_curve,
    evaluate,
    log_losses,
    mean_interval,
    score,
)
from btc_lifecycle_tests import reference_learn

START = datetime(2024, 1, 1, tzinfo=UTC)

# Coarse probabilities make ties likely; both directions are always there.
scored_rows = st.lists(
    st.tuples(st.integers(0, 20).map(lambda i: i / 20), st.sampled_from([1, -1])),
    min_size=1,
    max_size=60,
).map(lambda rows: [*rows, (0.3, 1), (0.7, -1)])


def arrays(rows) -> tuple[np.ndarray, np.ndarray]:
    return np.array([p for p, _ in rows]), np.array([d for _, d in rows])


def made_test_part(n: int, *, minutes_apart: int = 60) -> pl.DataFrame:
    open_time = [START + timedelta(minutes=minutes_apart * i) for i in range(n)]
    direction = np.where(np.random.default_rng(3).random(n) < 0.5, 1, -1)
    return pl.DataFrame({"open_time": open_time, "direction": direction}).with_columns(
        pl.col("open_time").dt.cast_time_unit("us"),
        matures_at=pl.col("open_time").dt.cast_time_unit("us") + timedelta(minutes=16),
    )


def test_four_rows_score_as_a_pencil_says():
    scores = score(np.array([0.9, 0.4, 0.6, 0.1]), np.array([1, 1, -1, -1]))
    assert scores.n_rows == 4
    assert scores.auc == 0.75
    assert scores.accuracy == 0.5
    assert scores.log_loss == pytest.approx(-(2 * math.log(0.9) + 2 * math.log(0.4)) / 4)
    assert scores.brier == pytest.approx((0.01 + 0.36 + 0.36 + 0.01) / 4)
    assert scores.expected_calibration_error == pytest.approx((0.1 + 0.6 + 0.6 + 0.1) / 4)


def test_an_even_chance_counts_as_a_predicted_rise():
    assert score(np.array([0.5, 0.5]), np.array([1, -1])).accuracy == 0.5
    assert score(np.array([0.5, 0.4999]), np.array([1, -1])).accuracy == 1.0


@settings(max_examples=40, deadline=None)
@given(rows=scored_rows)
def test_scores_equal_scikit_learn_and_the_slow_references(rows):
    probability_up, direction = arrays(rows)
    is_up = direction == 1
    scores = score(probability_up, direction)
    assert scores.auc == pytest.approx(sklearn_metrics.roc_auc_score(is_up, probability_up))
    assert scores.auc == pytest.approx(reference_learn.auc_by_pairs(probability_up, direction))
    assert scores.brier == pytest.approx(sklearn_metrics.brier_score_loss(is_up, probability_up))
    assert scores.accuracy == sklearn_metrics.accuracy_score(is_up, probability_up >= 0.5)
    # Certainty has its own test: clipped beside 1, doubles are 10 % of the clip apart.
    inside = np.clip(probability_up, 0.01, 0.99)
    assert score(inside, direction).log_loss == pytest.approx(
        sklearn_metrics.log_loss(is_up, inside)
    )
    assert scores.expected_calibration_error == pytest.approx(
        reference_learn.calibration_error(probability_up, direction), abs=1e-12
    )


@settings(max_examples=40, deadline=None)
@given(rows=scored_rows)
def test_turning_up_into_down_turns_the_ranking_round_and_keeps_the_losses(rows):
    probability_up, direction = arrays(rows)
    scores, mirrored = score(probability_up, direction), score(1 - probability_up, -direction)
    assert score(1 - probability_up, direction).auc == pytest.approx(1 - scores.auc)
    assert mirrored.auc == pytest.approx(scores.auc)
    assert mirrored.log_loss == pytest.approx(scores.log_loss)
    assert mirrored.brier == pytest.approx(scores.brier)


def test_a_certain_and_wrong_prediction_costs_much_but_not_everything():
    losses = log_losses(np.array([0.0, 1.0, 1.0]), np.array([1, -1, 1]))
    assert losses == pytest.approx([-math.log(1e-15), -math.log(1e-15), 0.0], abs=1e-14)


def test_the_calibration_curve_puts_certainty_into_the_last_bin_and_leaves_empty_bins_out():
    curve = calibration_curve(np.array([1.0, 0.95, 0.1, 0.19, 0.0]), np.array([1, -1, 1, 1, -1]))
    assert curve["mean_probability"].to_list() == pytest.approx([0.0, 0.145, 0.975])
    assert curve["up_share"].to_list() == [0.0, 1.0, 0.5]
    assert curve["n_rows"].to_list() == [1, 2, 2]


def test_the_calibration_curve_takes_as_many_bins_as_asked():
    curve = calibration_curve(np.linspace(0, 1, 100), np.tile([1, -1], 50), n_bins=4)
    assert curve["n_rows"].to_list() == [25, 25, 25, 25]


def test_the_interval_of_equal_days_is_their_mean():
    values, day = np.tile([1.0, 3.0], 10), np.repeat(np.arange(10), 2)
    assert mean_interval(values, day, rng=np.random.default_rng(0)) == (2.0, 2.0)


def test_the_interval_weighs_days_by_their_rows():
    # Two days: one row of 9, three rows of 1. Draws give 9, 1, or (9 + 3) / 4 = 3.
    values, day = np.array([1.0, 9.0, 1.0, 1.0]), np.array([7, 3, 7, 7])
    rng = np.random.default_rng(0)
    assert mean_interval(values, day, rng=rng, level=0.9) == (1.0, 9.0)
    low, high = mean_interval(values, day, rng=rng, level=0.01, n_resamples=2000)
    assert (low, high) == (3.0, 3.0)


def test_the_interval_is_as_wide_as_independent_days_make_it():
    rng = np.random.default_rng(5)
    day = np.repeat(np.arange(400), 50)
    # Rows of a day are all alike, so 20,000 rows are worth 400.
    values = rng.normal(0.0, 1.0, 400)[day]
    low, high = mean_interval(values, day, rng=rng, n_resamples=4000)
    assert high - low == pytest.approx(2 * 1.96 * values.std() / math.sqrt(400), rel=0.1)
    assert low < values.mean() < high
    narrow_low, narrow_high = mean_interval(values, day, rng=rng, level=0.5)
    assert low < narrow_low < narrow_high < high


def test_one_day_bounds_nothing():
    rng = np.random.default_rng(0)
    assert mean_interval(np.ones(5), np.zeros(5), rng=rng) == (-math.inf, math.inf)


def test_the_prior_gains_nothing_on_itself():
    part = made_test_part(200)
    evaluation = evaluate(
        part, probability_up=np.full(200, 0.52), prior_up=0.52, rng=np.random.default_rng(0)
    )
    assert evaluation.model == evaluation.prior
    assert evaluation.prior.auc == 0.5
    assert evaluation.log_loss_gain_low == evaluation.log_loss_gain_high == 0.0


def test_a_better_model_gains_and_every_figure_has_a_flat_name():
    part = made_test_part(200)
    probability_up = np.where(part["direction"].to_numpy() == 1, 0.6, 0.4)
    evaluation = evaluate(
        part, probability_up=probability_up, prior_up=0.5, rng=np.random.default_rng(0)
    )
    metrics = evaluation.metrics()
    assert list(metrics) == [
        *(f"{of}_{name}" for of in ("test", "prior") for name in SCORE_NAMES),
        "log_loss_gain",
        "log_loss_gain_low",
        "log_loss_gain_high",
    ]
    gain = math.log(2) + math.log(0.6)
    assert metrics["log_loss_gain"] == pytest.approx(gain)
    assert metrics["log_loss_gain_low"] == pytest.approx(gain)
    assert metrics["test_log_loss"] == pytest.approx(-math.log(0.6))
    assert metrics["prior_log_loss"] == pytest.approx(math.log(2))
    assert metrics["test_n_rows"] == 200.0
    assert evaluation.test_from == START
    assert evaluation.test_until == START + timedelta(hours=199, minutes=16)


SCORE_NAMES = ("n_rows", "auc", "log_loss", "accuracy", "brier", "expected_calibration_error")


def test_the_gain_is_bounded_by_utc_days():
    part = made_test_part(480)
    direction = part["direction"].to_numpy()
    probability_up = np.random.default_rng(1).uniform(0.3, 0.7, 480)
    evaluation = evaluate(
        part, probability_up=probability_up, prior_up=0.5, rng=np.random.default_rng(9)
    )
    gains = math.log(2) - log_losses(probability_up, direction)
    bounds = mean_interval(gains, np.arange(480) // 24, rng=np.random.default_rng(9))
    assert (evaluation.log_loss_gain_low, evaluation.log_loss_gain_high) == pytest.approx(bounds)


def test_bounds_that_a_single_day_cannot_give_are_left_out_of_the_metrics():
    evaluation = evaluate(
        made_test_part(20, minutes_apart=1),
        probability_up=np.full(20, 0.5),
        prior_up=0.5,
        rng=np.random.default_rng(0),
    )
    assert evaluation.log_loss_gain_high == math.inf
    assert "log_loss_gain_high" not in evaluation.metrics()
    assert "log_loss_gain" in evaluation.metrics()


@pytest.mark.parametrize(
    ("probability_up", "direction", "message"),
    [
        ([0.5, 0.5], [1], r"\(2,\) probabilities for \(1,\) directions"),
        ([[0.5]], [[1]], r"\(1, 1\) probabilities"),
        ([0.5, 1.01], [1, -1], "1 of 2 probabilities are not between 0 and 1"),
        ([-0.01, 0.5], [1, -1], "1 of 2 probabilities are not between 0 and 1"),
        ([0.5, math.nan], [1, -1], "1 of 2 probabilities are not between 0 and 1"),
        ([0.5, 0.5, 0.5], [1, 0, -1], "a direction is neither 1 nor -1"),
        ([0.5, 0.6], [1, 1], "all 2 rows went the same way"),
        ([0.5, 0.6], [-1, -1], "all 2 rows went the same way"),
        ([], [], "all 0 rows went the same way"),
    ],
)
def test_what_no_score_is_defined_for_is_refused(probability_up, direction, message):
    with pytest.raises(DataError, match=message):
        score(np.array(probability_up), np.array(direction))
