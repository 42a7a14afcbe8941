from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sklearn_metrics

from btc_lifecycle.domain.errors import DataError
from btc_lifecycle.domain.learn.evaluation import rank_auc
from btc_lifecycle.domain.learn.evaluation.ranks import Ranks, auc, spearman
from btc_lifecycle_tests import reference_scores

coarse = st.integers(0, 10).map(lambda i: i / 10)
pairs = st.lists(st.tuples(coarse, coarse), min_size=1, max_size=40)
probabilities_and_directions = st.lists(
    st.tuples(coarse, st.sampled_from([1, -1])), min_size=1, max_size=40
).map(lambda rows: np.array([*rows, (0.3, 1), (0.7, -1)]).T)


def test_three_of_four_pairs_ranked_rightly_make_three_quarters():
    assert rank_auc(np.array([0.9, 0.4, 0.6, 0.1]), np.array([1, 1, -1, -1])) == 0.75


@given(rows=probabilities_and_directions)
def test_the_auc_equals_scikit_learn_s_and_that_of_all_pairs(rows):
    probability_up, direction = rows
    found = rank_auc(probability_up, direction)
    assert found == pytest.approx(sklearn_metrics.roc_auc_score(direction == 1, probability_up))
    assert found == pytest.approx(reference_scores.auc_by_pairs(probability_up, direction))


@given(rows=probabilities_and_directions)
def test_turning_predictions_round_turns_the_auc_round(rows):
    probability_up, direction = rows
    turned = rank_auc(1.0 - probability_up, direction)
    assert turned == pytest.approx(1.0 - rank_auc(probability_up, direction))


@pytest.mark.parametrize("n", [2, 3, 1000, 99_999])
def test_a_constant_ranks_nothing_exactly(n):
    direction = np.where(np.arange(n) % 3 == 0, 1, -1)
    constant = Ranks.of(np.full(n, 0.1))
    assert auc(constant, direction == 1) == 0.5
    assert math.isnan(spearman(constant, Ranks.of(np.arange(n) * 1.0)))
    assert math.isnan(spearman(Ranks.of(np.arange(n) * 1.0), constant))


@pytest.mark.parametrize("directions", [[1, 1], [-1, -1], []])
def test_one_direction_only_is_refused(directions):
    with pytest.raises(DataError, match=f"all {len(directions)} rows went the same way"):
        rank_auc(np.full(len(directions), 0.5), np.array(directions))


def test_one_direction_only_among_ranks_is_not_a_number():
    assert math.isnan(auc(Ranks.of(np.array([0.1, 0.2])), np.array([True, True])))


@given(rows=pairs)
def test_the_correlation_of_ranks_equals_scipy_s_and_that_of_counted_ranks(rows):
    first, second = ([row[i] for row in rows] for i in (0, 1))
    found = spearman(Ranks.of(np.array(first)), Ranks.of(np.array(second)))
    expected = reference_scores.rank_correlation(first, second)
    if expected is None:
        assert math.isnan(found)
    else:
        assert found == pytest.approx(expected)
        assert found == pytest.approx(stats.spearmanr(first, second).statistic)


@given(values=st.lists(st.integers(0, 30), min_size=1, max_size=60), n_bins=st.integers(1, 40))
def test_bins_keep_the_order_and_hold_about_equally_many_rows(values, n_bins):
    ranks = Ranks.of(np.array(values, dtype=float))
    bins = ranks.bins(n_bins)
    assert bins.min() == 0
    assert bins.max() < n_bins
    by_value = sorted(zip(values, bins.tolist(), strict=True))
    assert [b for _, b in by_value] == sorted(bins.tolist())
    if len(set(values)) <= n_bins:
        assert len(set(bins.tolist())) == len(set(values))
    else:
        most_equal = max(values.count(value) for value in values)
        assert np.bincount(bins).max() <= len(values) / n_bins + most_equal


def test_bins_of_distinct_values_are_equally_full():
    values = np.random.default_rng(0).permutation(1_000).astype(float)
    assert np.bincount(Ranks.of(values).bins(50)).tolist() == [20] * 50


def test_as_many_bins_as_values_part_all_of_them():
    assert Ranks.of(np.array([2.0, 1.0, 3.0, 2.0, 2.0])).bins(3).tolist() == [1, 0, 2, 1, 1]
