from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from btc_lifecycle.domain.errors import DataError
from btc_lifecycle.domain.learn.evaluation import calibration_curve, log_losses, squared_errors
from btc_lifecycle_tests import reference_scores

# Coarse probabilities make ties likely; both directions are always there.
scored_rows = st.lists(
    st.tuples(st.integers(0, 20).map(lambda i: i / 20), st.sampled_from([1, -1])),
    min_size=1,
    max_size=60,
).map(lambda rows: [*rows, (0.3, 1), (0.7, -1)])


def arrays(rows) -> tuple[np.ndarray, np.ndarray]:
    return np.array([p for p, _ in rows]), np.array([d for _, d in rows])


def test_a_loss_is_the_negative_log_of_what_the_outcome_was_given():
    losses = log_losses(np.array([0.9, 0.4]), np.array([1, -1]))
    assert losses == pytest.approx([-math.log(0.9), -math.log(0.6)])


@given(rows=scored_rows)
def test_the_mean_log_loss_equals_scikit_learn_s(rows):
    probability_up, direction = arrays(rows)
    # Certainty has its own test: clipped beside 1, doubles are 10 % of the clip apart.
    inside = np.clip(probability_up, 0.01, 0.99)
    expected = sklearn_metrics.log_loss(direction == 1, inside)
    assert log_losses(inside, direction).mean() == pytest.approx(expected)


@given(rows=scored_rows)
def test_turning_up_into_down_keeps_the_losses(rows):
    probability_up, direction = arrays(rows)
    mirrored = log_losses(1.0 - probability_up, -direction)
    assert log_losses(probability_up, direction) == pytest.approx(mirrored)


def test_a_certain_and_wrong_prediction_costs_much_but_not_everything():
    losses = log_losses(np.array([0.0, 1.0, 1.0]), np.array([1, -1, 1]))
    assert losses == pytest.approx([-math.log(1e-15), -math.log(1e-15), 0.0], abs=1e-14)


def test_squared_errors_are_those_of_each_row():
    assert squared_errors(np.array([1.0, -2.0]), np.array([3.0, -2.0])).tolist() == [4.0, 0.0]


@given(rows=scored_rows)
def test_the_curve_s_gaps_make_up_the_calibration_error(rows):
    probability_up, direction = arrays(rows)
    curve = calibration_curve(probability_up, direction)
    gaps = (curve["mean_probability"] - curve["up_share"]).abs() * curve["n_rows"]
    expected = reference_scores.calibration_error(probability_up.tolist(), direction.tolist())
    assert gaps.sum() / len(rows) == pytest.approx(expected, abs=1e-12)


def test_the_calibration_curve_puts_certainty_into_the_last_bin_and_leaves_empty_bins_out():
    curve = calibration_curve(np.array([1.0, 0.95, 0.1, 0.19, 0.0]), np.array([1, -1, 1, 1, -1]))
    assert curve["mean_probability"].to_list() == pytest.approx([0.0, 0.145, 0.975])
    assert curve["up_share"].to_list() == [0.0, 1.0, 0.5]
    assert curve["n_rows"].to_list() == [1, 2, 2]


def test_the_calibration_curve_takes_as_many_bins_as_asked():
    curve = calibration_curve(np.linspace(0, 1, 100), np.tile([1, -1], 50), n_bins=4)
    assert curve["n_rows"].to_list() == [25, 25, 25, 25]


@pytest.mark.parametrize("judge", [log_losses, calibration_curve])
@pytest.mark.parametrize(
    ("probability_up", "direction", "message"),
    [
        ([0.5, 0.5], [1], r"\(2,\) probabilities for \(1,\) directions"),
        ([[0.5]], [[1]], r"\(1, 1\) probabilities"),
        ([0.5, 1.01], [1, -1], "1 of 2 probabilities are not between 0 and 1"),
        ([-0.01, 0.5], [1, -1], "1 of 2 probabilities are not between 0 and 1"),
        ([0.5, math.nan], [1, -1], "1 of 2 probabilities are not between 0 and 1"),
        ([0.5, 0.5, 0.5], [1, 0, -1], "a direction is neither 1 nor -1"),
    ],
)
def test_what_no_loss_is_defined_for_is_refused(judge, probability_up, direction, message):
    with pytest.raises(DataError, match=message):
        judge(np.array(probability_up), np.array(direction))


@pytest.mark.parametrize(
    ("predicted", "outcome", "message"),
    [
        ([0.5, 0.5], [1.0], r"\(2,\) predictions for \(1,\) outcomes"),
        ([[0.5]], [[1.0]], r"\(1, 1\) predictions"),
        ([0.5, math.nan], [1.0, 1.0], "1 of 2 predictions or outcomes are missing or infinite"),
        ([0.5, 1.0], [math.inf, 1.0], "1 of 2 predictions or outcomes are missing or infinite"),
    ],
)
def test_what_no_squared_error_is_defined_for_is_refused(predicted, outcome, message):
    with pytest.raises(DataError, match=message):
        squared_errors(np.array(predicted), np.array(outcome))
